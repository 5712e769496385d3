# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash hash``: which hash, type and queue a flow gets, and why."""

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from vnethash.cli.options import (
    IndirectionOption,
    JsonOption,
    KeyOption,
    QueuesOption,
    TypesOption,
    UnclassifiedOption,
    config_from_options,
)
from vnethash.cli.output import console, emit_json
from vnethash.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from vnethash.rss.config import RssConfig
    from vnethash.rss.reference import Explanation


class Proto(StrEnum):
    """What ``--proto`` takes."""

    TCP = "tcp"
    UDP = "udp"
    NONE = "none"


class Endpoint(NamedTuple):
    """An address as text, and its port if one was written."""

    address: str
    port: int | None


_ENDPOINT = re.compile(
    r"""
    \[(?P<bracketed>[^\]]*)\] (?: : (?P<bracketed_port>.*) )?  # [v6], [v6]:port
    | (?P<v4>[^:\[]*)         (?: : (?P<v4_port>.*) )?         # v4, v4:port
    """,
    re.VERBOSE | re.DOTALL,
)


def parse_endpoint(name: str, text: str) -> Endpoint:
    """``1.2.3.4``, ``1.2.3.4:80``, ``2001:db8::1``, ``[2001:db8::1]:80``.

    IPv6 without brackets is all address. ConfigError on ``name`` for a bad
    port; whether the address is one is not looked at.
    """
    if not text.startswith("[") and text.count(":") > 1:
        return Endpoint(text, None)
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        raise ConfigError(
            name,
            f"{text!r} is not an endpoint",
            hint="write addr:port, or [addr]:port for IPv6",
        )
    address, port = match["bracketed"], match["bracketed_port"]
    if address is None:
        address, port = match["v4"], match["v4_port"]
    return Endpoint(address, None if port is None else _port(name, port))


def _port(name: str, text: str) -> int:
    # Not int() alone: it takes signs, underscores and digits of any script.
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= 0xFFFF):
        raise ConfigError(f"{name} port", f"must be from 0 to 65535, not {text!r}")
    return int(text)


def hash_command(
    source: Annotated[
        str, typer.Argument(metavar="SRC[:PORT]", help="Source; IPv6 with a port: [addr]:port.")
    ],
    destination: Annotated[
        str, typer.Argument(metavar="DST[:PORT]", help="Destination, written the same way.")
    ],
    proto: Annotated[
        Proto | None,
        typer.Option(
            help="Header behind IP. With none, ports are not looked at. "
            "Default: tcp if there are ports, else none.",
            case_sensitive=False,
        ),
    ] = None,
    queues: QueuesOption = None,
    key: KeyOption = None,
    types: TypesOption = None,
    indirection: IndirectionOption = None,
    unclassified: UnclassifiedOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the bytes hashed and the rule that chose them.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Tell hash, type, table index and queue of a flow."""
    from vnethash.rss.dissect import Protocol
    from vnethash.rss.reference import explain_tuple

    config = config_from_options(queues, key, types, indirection, unclassified)
    src = parse_endpoint("source", source)
    dst = parse_endpoint("destination", destination)
    if proto is None:
        has_ports = src.port is not None or dst.port is not None
        proto = Proto.TCP if has_ports else Proto.NONE
    protocol = None if proto is Proto.NONE else Protocol[proto.name]
    explanation = explain_tuple(config, src.address, dst.address, protocol, src.port, dst.port)

    if json:
        result: dict[str, object] = {**explanation.classified.to_json()}
        if explain:
            result["explanation"] = explanation.to_json()
        emit_json(result)
        return
    console().print(summary(explanation))
    if explain:
        print_explanation(explanation, config)


def summary(explanation: "Explanation") -> "Table":
    """Hash, type, index and queue, to be printed."""
    classified = explanation.classified
    index = classified.index
    grid = _grid()
    grid.add_row("hash", "-" if index is None else f"{classified.hash_value:#010x}")
    grid.add_row("type", classified.hash_report.name)
    grid.add_row("index", "-" if index is None else str(index))
    grid.add_row("queue", str(classified.queue) + (" (unclassified)" if index is None else ""))
    return grid


def print_explanation(explanation: "Explanation", config: "RssConfig") -> None:
    """The rule that chose the hash type, and the bytes hashed."""
    from rich.table import Table

    grid = _grid()
    for passed in explanation.passed_over:
        grid.add_row("passed over", f"{passed.rule.hash_type.name}: {passed.why}")
    rule, index = explanation.rule, explanation.classified.index
    if rule is None or index is None:
        grid.add_row("no hash", explanation.reason)
        console().print()
        console().print(grid)
        return
    grid.add_row("chosen", f"{explanation.reason} (virtio 1.3, {rule.section})")
    entries = len(config.indirection_table)
    value, queue = explanation.classified.hash_value, explanation.classified.queue
    grid.add_row("index", f"{value:#010x} & {entries - 1:#x} = {index}, of {entries} entries")
    grid.add_row("queue", f"entry {index} of the table is queue {queue}")
    grid.add_row("key", config.key.hex())

    hashed = Table("offset", "field", "bytes hashed", box=None, pad_edge=False, show_edge=False)
    offset = 0
    for field in explanation.fields:
        hashed.add_row(str(offset), field.name, field.data.hex(" "))
        offset += len(field.data)
    console().print()
    console().print(grid)
    console().print()
    console().print(hashed)


def _grid() -> "Table":
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    return grid
