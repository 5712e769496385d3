# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What an engine counted: packets and bytes by queue and report type."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from vnethash.virtio.hash_types import ReportType

UNMARKED_REASONS = ("too_large", "no_room", "udp_gso", "vlan")
"""enum vnet_unmarked (native/vnethash.h): why a frame passed without its record."""

INVALID_KINDS = ("queue", "report")
"""enum vnet_invalid (native/vnethash.h): what a hash program said that cannot be."""


class Measure(StrEnum):
    """What load may be counted in."""

    PACKETS = "packets"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packets, and the bytes of their frames."""

    packets: int = 0
    bytes: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.packets + other.packets, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class QueueStats:
    """What one queue was sent. ``dropped`` counts what its reader left unread too long,
    where the engine can tell (``software``; the kernel counts a tap's drops itself)."""

    by_report: Mapping[ReportType, Traffic]
    unmarked: Mapping[str, int] = field(default_factory=dict)
    invalid: Mapping[str, int] = field(default_factory=dict)
    dropped: int = 0

    @property
    def total(self) -> Traffic:
        return sum(self.by_report.values(), Traffic())

    @classmethod
    def from_counters(cls, counters: Iterable[Any], dropped: int = 0) -> "QueueStats":
        """Sum of ``struct vnet_counters`` (cffi), one for each CPU."""
        packets = dict.fromkeys(ReportType, 0)
        octets = dict.fromkeys(ReportType, 0)
        unmarked = dict.fromkeys(UNMARKED_REASONS, 0)
        invalid = dict.fromkeys(INVALID_KINDS, 0)
        for counter in counters:
            for report in ReportType:
                packets[report] += counter.by_report[report].packets
                octets[report] += counter.by_report[report].bytes
            for code, reason in enumerate(UNMARKED_REASONS):
                unmarked[reason] += counter.unmarked[code]
            for code, kind in enumerate(INVALID_KINDS):
                invalid[kind] += counter.invalid[code]
        by_report = {report: Traffic(packets[report], octets[report]) for report in ReportType}
        return cls(by_report, unmarked, invalid, dropped)


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters of a tap since its engine was attached, one entry a queue.

    ``counts`` are the counters of a hash program's own (``vnet_count``).
    """

    queues: tuple[QueueStats, ...]
    counts: tuple[int, ...] = ()

    @property
    def total(self) -> Traffic:
        return sum((queue.total for queue in self.queues), Traffic())

    @property
    def by_report(self) -> dict[ReportType, Traffic]:
        return {
            report: sum((queue.by_report[report] for queue in self.queues), Traffic())
            for report in ReportType
        }

    @property
    def unmarked(self) -> dict[str, int]:
        """Frames that passed without the record they should have had, by reason."""
        return {
            reason: sum(queue.unmarked.get(reason, 0) for queue in self.queues)
            for reason in UNMARKED_REASONS
        }

    @property
    def invalid(self) -> dict[str, int]:
        """Answers of a hash program that had to be put right: a queue or report type
        that there is not."""
        return {
            kind: sum(queue.invalid.get(kind, 0) for queue in self.queues) for kind in INVALID_KINDS
        }

    def to_json(self) -> dict[str, Any]:
        """JSON types only; report types by name."""

        def traffic(value: Traffic) -> dict[str, int]:
            return {"packets": value.packets, "bytes": value.bytes}

        return {
            "total": traffic(self.total),
            "by_report": {report.name: traffic(value) for report, value in self.by_report.items()},
            "unmarked": self.unmarked,
            "invalid": self.invalid,
            "program_counts": list(self.counts),
            "queues": [
                {
                    "queue": index,
                    **traffic(queue.total),
                    "by_report": {
                        report.name: traffic(value)
                        for report, value in queue.by_report.items()
                        if value.packets
                    },
                    "dropped": queue.dropped,
                }
                for index, queue in enumerate(self.queues)
            ],
        }
