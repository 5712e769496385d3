# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash plan --find-port``: ports that take a flow to a queue."""

import re
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING

from vnethash.cli.hash import parse_endpoint
from vnethash.cli.output import console, emit_json
from vnethash.errors import ConfigError

if TYPE_CHECKING:
    from vnethash.rss.config import RssConfig

DEFAULT_COUNT = 10

_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


class PortProto(StrEnum):
    """What ``--proto`` takes: what has ports."""

    TCP = "tcp"
    UDP = "udp"


def parse_range(text: str) -> range:
    """Ports of ``40000-50000``, or of ``443`` alone. Raises ConfigError."""
    match = _RANGE.fullmatch(text.strip())
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not low <= high <= 0xFFFF:
        raise ConfigError(
            "range",
            f"must be ports from 0 to 65535, the lower one first, not {text!r}",
            hint="for example 40000-50000",
        )
    return range(low, high + 1)


def find_port(
    rss: "RssConfig",
    ends: tuple[str, str],
    proto: PortProto,
    queue: int,
    *,
    span: range | None,
    count: int,
    as_json: bool,
) -> None:
    """Print the first ``count`` ports of the end that is given without one."""
    from vnethash.rss.dissect import Protocol
    from vnethash.rss.ports import EPHEMERAL, find_ports

    source, destination = map(parse_endpoint, ("source", "destination"), ends)
    ports = find_ports(
        rss,
        source.address,
        destination.address,
        Protocol[proto.name],
        queue,
        source_port=source.port,
        destination_port=destination.port,
        within=EPHEMERAL if span is None else span,
    )
    shown = list(islice(ports, count))
    if as_json:
        emit_json(
            {
                "queue": queue,
                "sought": ports.sought,
                "from": ports.span.start,
                "to": ports.span.stop - 1,
                "found": len(ports),
                "ports": [landing._asdict() for landing in shown],
            }
        )
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(f"{ports.sought} port", justify="right")
    table.add_column("hash")
    table.add_column("index", justify="right")
    for landing in shown:
        has_hash = landing.bucket is not None
        hash_value = f"{landing.hash_value:#010x}" if has_hash else "-"
        table.add_row(str(landing.port), hash_value, str(landing.bucket) if has_hash else "-")
    console().print(table)
    console().print(
        f"{len(ports)} of the {len(ports.span)} {ports.sought} ports from {ports.span.start} "
        f"to {ports.span.stop - 1} lead to queue {queue}"
    )
