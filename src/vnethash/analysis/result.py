# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What an analysis found. All of it is sums of integers, so that parts add up to the whole
in any order, to the last digit; ratios are made of them when they are asked for."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vnethash.analysis.flows import Flows, hash_flows
from vnethash.errors import CaptureError, ConfigError
from vnethash.rss.config import RssConfig
from vnethash.rss.keys import MICROSOFT_KEY, SYMMETRIC_KEY
from vnethash.rss.native import Hasher
from vnethash.virtio.hash_types import ReportType

Counts = NDArray[np.uint64]

PUBLIC_KEYS = (MICROSOFT_KEY, SYMMETRIC_KEY)


class Reason(IntEnum):
    """Why packets have no hash (enum vh_reason, native/census.h)."""

    NOT_IP = 0
    """Another protocol, by its EtherType."""
    BROKEN_IP = 1
    """An IP header that is cut short, or malformed."""
    TYPE_OFF = 2
    """IP, but its hash type is not enabled."""
    LINK_TYPE = 3
    """A link type of which no IP packets can be read."""


class Load(NamedTuple):
    """Packets, bytes (of the packets as they were on the wire) and flows; shapes (n,)."""

    packets: Counts
    bytes: Counts
    flows: Counts


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Packets and bytes of each entry of the indirection table over time.

    A window begins at a multiple of ``length_ns`` since the Unix epoch. Only
    windows with packets are there, in order. The last column, behind those of the
    entries, is of packets without a hash.
    """

    length_ns: int
    shortest_ns: int
    """How long they were before they became too many."""
    starts_ns: NDArray[np.int64]
    """Shape (n,)."""
    packets: Counts
    """Shape (n, entries + 1)."""
    bytes: Counts
    untimed_packets: Counts
    """Shape (entries + 1,): packets without a timestamp, or with one that cannot be."""
    untimed_bytes: Counts

    def by_queue(self, rss: RssConfig) -> tuple[Counts, Counts]:
        """Packets and bytes of each queue over time, shapes (n, queues)."""
        return _by_queue(self.packets, rss), _by_queue(self.bytes, rss)

    def untimed_by_queue(self, rss: RssConfig) -> tuple[Counts, Counts]:
        """Packets and bytes of each queue that have no time, shapes (queues,)."""
        return _by_queue(self.untimed_packets, rss), _by_queue(self.untimed_bytes, rss)


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was read, and how far."""

    path: str
    packets: int
    bytes_read: int
    """Of the file as it lies there, compressed or not."""
    error: str | None = None
    """What ended it before its end, or None."""
    offset: int | None = None
    """Where it broke, in bytes (of the capture, decompressed), if that is known."""
    hint: str | None = None
    """What to do about the error, if that is known."""
    kind: str | None = None
    """The class of the error, if it is not CaptureError."""

    @classmethod
    def of_failure(cls, path: str, error: CaptureError) -> "Source":
        """One of which nothing could be read."""
        return cls(path, 0, 0, error.reason, error.offset, error.hint)

    @property
    def name(self) -> str:
        """The path to be shown and stored: what is not UTF-8 in it as ``\\xff``."""
        return os.fsencode(self.path).decode(errors="backslashreplace")


@dataclass(frozen=True, eq=False)
class Analysis:
    """What one configuration makes of traffic."""

    rss: RssConfig
    flows: Flows
    """Every flow once, the heaviest first."""
    windows: Windows | None
    """None after `under` a configuration that puts packets elsewhere."""
    unhashed: Counts
    """Packets and bytes without a hash, by `Reason`, shape (4, 2)."""
    ether_types: Mapping[int, int]
    """Packets that are not IP, by EtherType; 0 stands for none."""
    captured_short: int
    """Packets of which less was captured than was on the wire."""
    sources: tuple[Source, ...]
    anonymous: bool = False
    """Addresses are not those of the traffic, and of ``hash_value`` only the bits that
    are the index into the table are left (`vnethash.analysis.anonymize`)."""

    def under(self, rss: RssConfig) -> "Analysis":
        """The same traffic under another key, table, or other queues.

        Raises ConfigError for other hash types or tunnels: what a flow is depends on
        them; and for another key or length of the table if the flows are anonymous.
        """
        for name in ("hash_types", "tunnels"):
            if getattr(rss, name) != getattr(self.rss, name):
                raise ConfigError(
                    name, "differ from those of the analysis", hint="analyse the traffic anew"
                )
        entries = len(rss.indirection_table)
        if rss.key == self.rss.key and entries == len(self.rss.indirection_table):
            return dataclasses.replace(self, rss=rss)
        if self.anonymous:
            raise ConfigError(
                "key",
                "cannot be changed where the addresses that it hashes are anonymised",
                hint="change the configuration first, and anonymise then",
            )
        flows = hash_flows(self.flows, Hasher(rss))
        return dataclasses.replace(self, rss=rss, flows=flows, windows=None)

    def rss_json(self) -> dict[str, Any]:
        """The configuration as JSON types. Without the key (None) if the analysis is
        anonymous, unless it is one that everybody knows: a key that is secret keeps
        others from choosing the queue of their packets."""
        values = self.rss.to_json()
        if self.anonymous and self.rss.key not in PUBLIC_KEYS:
            values["key"] = None
        return values

    @property
    def failed(self) -> tuple[Source, ...]:
        """The files that were not read to their end."""
        return tuple(source for source in self.sources if source.error is not None)

    @cached_property
    def packets(self) -> int:
        return int(self.by_report.packets.sum())

    @cached_property
    def bytes(self) -> int:
        return int(self.by_report.bytes.sum())

    @cached_property
    def flow_buckets(self) -> NDArray[np.uint32]:
        """The entry of the indirection table of each flow, shape (n,); 0 without a hash."""
        mask = np.uint32(len(self.rss.indirection_table) - 1)
        return self.flows["hash_value"] & mask

    @cached_property
    def flow_queues(self) -> NDArray[np.uint16]:
        """The queue of each flow, shape (n,)."""
        queues = np.array(self.rss.indirection_table, np.uint16)[self.flow_buckets]
        queues[self.flows["report"] == 0] = self.rss.unclassified_queue
        return queues

    @cached_property
    def by_bucket(self) -> Load:
        """Load of each entry of the indirection table."""
        hashed = self.flows["report"] > 0
        return _sums(self.flows[hashed], self.flow_buckets[hashed], len(self.rss.indirection_table))

    @cached_property
    def by_queue(self) -> Load:
        """Load of each queue, packets without a hash in the unclassified one."""
        buckets = self.by_bucket
        table = np.array(self.rss.indirection_table, np.intp)
        load = Load(*(_by_index(amounts, table, self.rss.queues) for amounts in buckets))
        unclassified = self.rss.unclassified_queue
        load.packets[unclassified] += self.unhashed[:, 0].sum()
        load.bytes[unclassified] += self.unhashed[:, 1].sum()
        load.flows[unclassified] += np.count_nonzero(self.flows["report"] == 0)
        return load

    @cached_property
    def by_report(self) -> Load:
        """Load of each report type, shape (10,)."""
        load = _sums(self.flows, self.flows["report"], len(ReportType))
        # Not all of them belong to a flow.
        load.packets[ReportType.NONE], load.bytes[ReportType.NONE] = self.unhashed.sum(0)
        return load


def _by_queue(amounts: Counts, rss: RssConfig) -> Counts:
    """Shape (..., entries + 1) to (..., queues)."""
    table = np.array([*rss.indirection_table, rss.unclassified_queue], np.intp)
    sums = np.zeros((*amounts.shape[:-1], rss.queues), np.uint64)
    np.add.at(sums.T, table, amounts.T)
    return sums


def _sums(flows: Flows, index: NDArray[Any], size: int) -> Load:
    return Load(
        _by_index(flows["packets"], index, size),
        _by_index(flows["bytes"], index, size),
        _by_index(np.ones(len(flows), np.uint64), index, size),
    )


def _by_index(amounts: Counts, index: NDArray[Any], size: int) -> Counts:
    sums = np.zeros(size, np.uint64)
    np.add.at(sums, index, amounts)
    return sums
