# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Every packet against the Python reference, and the sums of it."""

from collections import Counter
from dataclasses import dataclass, field

from vnethash.demo.flow import Flow, Kind, describe
from vnethash.packet import Packet
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.virtio.hash_types import ReportType


@dataclass(frozen=True, slots=True)
class Verdict:
    """Hash, report type and queue."""

    hash_value: int
    hash_report: ReportType
    queue: int

    def to_json(self) -> dict[str, object]:
        return {
            "hash_value": self.hash_value,
            "hash_report": self.hash_report.name,
            "queue": self.queue,
        }


@dataclass(slots=True)
class Row:
    """Packets of one flow that got the same verdict, and the one they should have got."""

    flow: Flow
    got: Verdict
    expected: Verdict
    packets: int = 0
    bytes: int = 0
    kinds: set[Kind] = field(default_factory=set)

    @property
    def agrees(self) -> bool:
        return self.got == self.expected

    def to_json(self) -> dict[str, object]:
        flow = self.flow
        return {
            "vlans": list(flow.vlans),
            "protocol": flow.protocol,
            "source": flow.source or None,
            "destination": flow.destination or None,
            **self.got.to_json(),
            "packets": self.packets,
            "bytes": self.bytes,
            "agrees": self.agrees,
            "expected": self.expected.to_json(),
        }


class Ledger:
    """Checks packets against the Python reference."""

    def __init__(self, rss: RssConfig) -> None:
        self._rss = rss
        self._rows: dict[tuple[Flow, Verdict, Verdict], Row] = {}
        self.records = 0
        """Packets that brought their hash along."""
        self.largest = 0
        """Bytes of the largest frame."""
        self.queues: Counter[int] = Counter()
        """Packets by the queue they came from."""

    def check(self, packet: Packet) -> None:
        """Enter one packet."""
        flow, kinds = describe(packet)
        reference_says = reference.classify(packet.frame, self._rss)
        got = Verdict(packet.hash_value, packet.hash_report, packet.queue)
        expected = Verdict(
            reference_says.hash_value, reference_says.hash_report, reference_says.queue
        )
        row = self._rows.setdefault((flow, got, expected), Row(flow, got, expected))
        row.packets += 1
        row.bytes += len(packet.frame)
        row.kinds |= kinds
        self.records += packet.has_record
        self.largest = max(self.largest, len(packet.frame))
        self.queues[packet.queue] += 1

    @property
    def packets(self) -> int:
        return self.queues.total()

    @property
    def disagreements(self) -> int:
        """Packets that got another verdict than the reference gives."""
        return sum(row.packets for row in self._rows.values() if not row.agrees)

    @property
    def kinds(self) -> set[Kind]:
        """Kinds of traffic seen."""
        return set().union(*(row.kinds for row in self._rows.values()))

    def rows(self) -> list[Row]:
        """One row a flow, flows of a kind together."""
        return sorted(self._rows.values(), key=_order)


_PROTOCOLS = ("TCP", "UDP", "ICMP", "ICMPv6", "fragment")


def _order(row: Row) -> tuple[object, ...]:
    flow = row.flow
    known = flow.protocol in _PROTOCOLS
    position = _PROTOCOLS.index(flow.protocol) if known else len(_PROTOCOLS)
    return (
        not known and not flow.vlans,
        flow.vlans,
        position,
        flow.is_ipv6,
        flow.destination,
        flow.source,
        flow.protocol,
        row.agrees,
    )
