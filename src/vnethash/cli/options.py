# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Options that several commands share, and the RSS configuration they make."""

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vnethash.errors import ConfigError

if TYPE_CHECKING:
    from vnethash.rss.config import RssConfig

DEFAULT_QUEUES = 4

_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(us|ms|s|m)?", re.ASCII)
_SECONDS = {"us": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON, one object a line; errors too, on stderr.")
]
QueuesOption = Annotated[
    int | None,
    typer.Option(
        "--queues",
        "-q",
        metavar="N",
        help=f"Number of queues (default {DEFAULT_QUEUES}, or as many as the table names).",
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        "-k",
        metavar="HEX",
        help="Toeplitz key of 40 bytes, with or without colons "
        "(default: the key of Microsoft's verification suite).",
    ),
]
TypesOption = Annotated[
    str | None,
    typer.Option(
        "--types",
        "-t",
        metavar="LIST",
        help="Hash types, with commas: IPv4 TCPv4 UDPv4 IPv6 TCPv6 UDPv6 IP_EX TCP_EX "
        "UDP_EX, or all, or none (default all).",
    ),
]
IndirectionOption = Annotated[
    str | None,
    typer.Option(
        "--indirection",
        "-i",
        metavar="LIST",
        help="Indirection table, queue numbers with commas; its length is a power of two "
        "(default: 128 entries, the queues in turn).",
    ),
]
UnclassifiedOption = Annotated[
    int | None,
    typer.Option(
        "--unclassified",
        "-u",
        metavar="N",
        help="Queue of packets without a hash (default 0).",
    ),
]
TunnelsOption = Annotated[
    str | None,
    typer.Option(
        "--tunnels",
        "-T",
        metavar="LIST",
        help="Tunnels whose packets are hashed by their inner headers, with commas: GRE_2784 "
        "GRE_2890 GRE_7676 GRE_UDP VXLAN VXLAN_GPE GENEVE IPIP NVGRE, or all, or none "
        "(default none).",
    ),
]
ProgramOption = Annotated[
    Path | None,
    typer.Option(
        "--program",
        "-p",
        metavar="FILE",
        help="Object of a hash program (see `vnethash build`) that decides about hash and queue.",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="RSS configuration as JSON (see `vnethash show --json`); "
        "other options change single values of it.",
    ),
]


def parse_indirection(text: str) -> tuple[int, ...]:
    """Queue numbers from ``0,1,2,3``. Raises `ConfigError`."""
    entries = []
    for item in map(str.strip, text.split(",")):
        # Not int() alone: it takes signs, underscores and digits of any script.
        if not (item.isascii() and item.isdigit() and len(item) < 10):
            raise ConfigError(
                "indirection_table",
                f"{item!r} is not a queue number",
                hint="write queue numbers with commas, for example 0,1,2,3",
            )
        entries.append(int(item))
    return tuple(entries)


def parse_duration(text: str, option: str = "interval", shortest: str = "10ms") -> float:
    """Seconds of ``1``, ``0.5s``, ``200ms``, ``50us`` or ``2m``. Raises ConfigError."""
    seconds = _seconds(text)
    if seconds is None or not (_seconds(shortest) or 0) <= seconds <= 86400:
        raise ConfigError(
            option,
            f"must be from {shortest} to a day, not {text!r}",
            hint="write seconds, or a number with us, ms, s or m, for example 500ms",
        )
    return seconds


def _seconds(text: str) -> float | None:
    match = _DURATION.fullmatch(text.strip())
    return float(match[1]) * _SECONDS[match[2]] if match else None


def read_text(option: str, file: Path) -> str:
    """The text of a file, ``-`` for standard input. ConfigError names the option."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, ValueError) as e:
        reason = e.strerror.lower() if isinstance(e, OSError) and e.strerror else str(e)
        raise ConfigError(option, f"cannot read {file}: {reason}") from e


def read_config(file: Path) -> "RssConfig":
    """An RSS configuration from JSON, bare or as `vnethash show --json` prints it.

    Raises `ConfigError`.
    """
    from vnethash.rss.config import RssConfig

    text = read_text("config", file)
    try:
        values = json.loads(text)
    except ValueError:
        return RssConfig.from_json(text)  # which says what is wrong with it
    if isinstance(values, dict) and isinstance(values.get("rss"), dict):
        return RssConfig.from_json(values["rss"])
    return RssConfig.from_json(text)


def changes_from_options(
    key: str | None,
    types: str | None,
    indirection: str | None,
    unclassified: int | None,
    tunnels: str | None = None,
) -> dict[str, Any]:
    """The fields of an RSS configuration that these options give. Raises `ConfigError`."""
    from vnethash.rss.keys import parse_key
    from vnethash.virtio.hash_types import parse_hash_types, parse_tunnel_types

    changes: dict[str, Any] = {}
    if key is not None:
        changes["key"] = parse_key(key)
    if types is not None:
        changes["hash_types"] = parse_hash_types(types)
    if indirection is not None:
        changes["indirection_table"] = parse_indirection(indirection)
    if unclassified is not None:
        changes["unclassified_queue"] = unclassified
    if tunnels is not None:
        changes["tunnels"] = parse_tunnel_types(tunnels)
    return changes


def config_from_options(
    queues: int | None = None,
    key: str | None = None,
    types: str | None = None,
    indirection: str | None = None,
    unclassified: int | None = None,
    file: Path | None = None,
    tunnels: str | None = None,
) -> "RssConfig":
    """The RSS configuration that the options of a command line ask for.

    It starts from `file`, or from the default for `queues`, and each option
    given replaces one value. Raises `ConfigError`.
    """
    from vnethash.rss.config import RssConfig

    changes = changes_from_options(key, types, indirection, unclassified, tunnels)
    if file is not None:
        base = read_config(file)
        if queues is not None:
            changes["queues"] = queues
    else:
        if queues is None:
            table = changes.get("indirection_table", ())
            queues = max(table) + 1 if table else DEFAULT_QUEUES
        base = RssConfig.default(queues)
    return base.replace(**changes)
