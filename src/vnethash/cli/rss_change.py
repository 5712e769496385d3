# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The options of ``attach`` and ``configure``: what to change of an RSS configuration."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vnethash.cli.options import changes_from_options, read_config, read_text
from vnethash.errors import ConfigError
from vnethash.reporting import Reporting

if TYPE_CHECKING:
    from vnethash.rss.config import RssConfig

TapArgument = Annotated[str, typer.Argument(metavar="TAP", help="Name of the tap.")]
KeyChange = Annotated[
    str | None,
    typer.Option(
        "--key", "-k", metavar="HEX", help="Toeplitz key of 40 bytes, with or without colons."
    ),
]
TypesChange = Annotated[
    str | None,
    typer.Option(
        "--types",
        "-t",
        metavar="LIST",
        help="Hash types, with commas: IPv4 TCPv4 UDPv4 IPv6 TCPv6 UDPv6 IP_EX TCP_EX "
        "UDP_EX, or all, or none.",
    ),
]
IndirectionChange = Annotated[
    str | None,
    typer.Option(
        "--indirection",
        "-i",
        metavar="LIST",
        help="Indirection table, queue numbers with commas; its length is a power of two.",
    ),
]
UnclassifiedChange = Annotated[
    int | None,
    typer.Option("--unclassified", "-u", metavar="N", help="Queue of packets without a hash."),
]
TunnelsChange = Annotated[
    str | None,
    typer.Option(
        "--tunnels",
        "-T",
        metavar="LIST",
        help="Tunnels whose packets are hashed by their inner headers, with commas: GRE_2784 "
        "GRE_2890 GRE_7676 GRE_UDP VXLAN VXLAN_GPE GENEVE IPIP NVGRE, or all, or none.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="A whole RSS configuration as JSON, or what `vnethash show --json` printed; "
        "- is standard input. Other options change single values of it.",
    ),
]
EthtoolFile = Annotated[
    Path | None,
    typer.Option(
        "--from-ethtool",
        metavar="FILE",
        help="Key and indirection table as `ethtool -x` printed them, as text or JSON; - is "
        "standard input.",
    ),
]
ReportingChange = Annotated[
    Reporting | None,
    typer.Option(
        "--reporting",
        "-r",
        help="How the hash reaches the reader: record puts 8 bytes in front of each frame, "
        "which the reader must expect; rehash and off do not.",
        case_sensitive=False,
    ),
]

Change = Callable[["RssConfig"], "RssConfig"]


def check_no_table(indirection: str | None, config: Path | None, from_ethtool: Path | None) -> None:
    """Raise ConfigError if one of the options says what the indirection table is."""
    given = {"--indirection": indirection, "--config": config, "--from-ethtool": from_ethtool}
    for option, value in given.items():
        if value is not None:
            raise ConfigError(
                "adaptive",
                f"cannot be given together with {option}: a table that is set is not adapted",
                hint="leave one of the two out",
            )


def change_from_options(
    key: str | None,
    types: str | None,
    indirection: str | None,
    unclassified: int | None,
    tunnels: str | None,
    config: Path | None,
    from_ethtool: Path | None,
) -> Change | None:
    """What these options make of a configuration; None if none of them is given.

    Raises ConfigError for values that are wrong whatever the configuration.
    """
    from vnethash.rss.config import RssConfig

    if config is not None and from_ethtool is not None:
        raise ConfigError("config", "cannot be given together with --from-ethtool")
    changes = changes_from_options(key, types, indirection, unclassified, tunnels)
    if config is not None:
        stored = read_config(config)
        return lambda _: stored.replace(**changes)
    if from_ethtool is not None:
        text = read_text("from_ethtool", from_ethtool)
        RssConfig.from_ethtool(text)

        def shown(base: RssConfig) -> RssConfig:
            # The text does not tell these three.
            told = RssConfig.from_ethtool(text).replace(
                hash_types=base.hash_types, tunnels=base.tunnels
            )
            if told.queues == base.queues:
                told = told.replace(unclassified_queue=base.unclassified_queue)
            return told.replace(**changes)

        return shown
    if not changes:
        return None
    return lambda base: base.replace(**changes)
