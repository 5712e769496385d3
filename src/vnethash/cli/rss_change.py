# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The options of ``attach`` and ``configure``: what to change of an RSS configuration."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vnethash.cli.options import parse_indirection
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
        help="Key and indirection table as `ethtool -x` printed them; - is standard input.",
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


def change_from_options(
    key: str | None,
    types: str | None,
    indirection: str | None,
    unclassified: int | None,
    config: Path | None,
    from_ethtool: Path | None,
) -> Change | None:
    """What these options make of a configuration; None if none of them is given.

    Raises ConfigError for values that are wrong whatever the configuration.
    """
    from vnethash.rss.config import RssConfig
    from vnethash.rss.keys import parse_key
    from vnethash.virtio.hash_types import parse_hash_types

    if config is not None and from_ethtool is not None:
        raise ConfigError("config", "cannot be given together with --from-ethtool")
    changes: dict[str, object] = {}
    if key is not None:
        changes["key"] = parse_key(key)
    if types is not None:
        changes["hash_types"] = parse_hash_types(types)
    if indirection is not None:
        changes["indirection_table"] = parse_indirection(indirection)
    if unclassified is not None:
        changes["unclassified_queue"] = unclassified
    if config is not None:
        stored = _parse_config(_read("config", config))
        return lambda _: stored.replace(**changes)
    if from_ethtool is not None:
        text = _read("from_ethtool", from_ethtool)
        RssConfig.from_ethtool(text)

        def shown(base: RssConfig) -> RssConfig:
            # The text does not tell these two.
            told = RssConfig.from_ethtool(text).replace(hash_types=base.hash_types)
            if told.queues == base.queues:
                told = told.replace(unclassified_queue=base.unclassified_queue)
            return told.replace(**changes)

        return shown
    if not changes:
        return None
    return lambda base: base.replace(**changes)


def _read(name: str, file: Path) -> str:
    try:
        if str(file) == "-":
            return sys.stdin.read()
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as e:
        reason = e.strerror.lower() if isinstance(e, OSError) and e.strerror else str(e)
        raise ConfigError(name, f"cannot read {file}: {reason}") from e


def _parse_config(text: str) -> "RssConfig":
    from vnethash.rss.config import RssConfig

    try:
        values = json.loads(text)
    except ValueError:
        return RssConfig.from_json(text)  # which says what is wrong with it
    if isinstance(values, dict) and isinstance(values.get("rss"), dict):
        return RssConfig.from_json(values["rss"])
    return RssConfig.from_json(text)
