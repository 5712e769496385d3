# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Counting in the native core (native/census.h)."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vnethash.analysis.flows import FLOW_DTYPE, Flows, heaviest_first
from vnethash.analysis.result import Analysis, Reason, Source, Windows
from vnethash.capture.walk import FRAME_DTYPE
from vnethash.errors import ConfigError
from vnethash.native import core
from vnethash.rss.config import RssConfig
from vnethash.rss.native import Hasher

DEFAULT_WINDOW_NS: Final = 1_000_000
WINDOW_NS_MAX: Final = 86_400_000_000_000
"""A day: windows become longer by themselves."""

_TRAFFIC_DTYPE = np.dtype([("packets", "<u8"), ("bytes", "<u8")])


class Census:
    """Counts packets and flows by one configuration.

    ``window_ns`` is how long windows of time are at first. There are up to 1024 of
    them (fewer with tables of more than 512 entries); rather than more they become
    longer, twice and five times in turn. Raises ConfigError for a length below a
    nanosecond or above a day. Not for several threads at once.
    """

    def __init__(self, rss: RssConfig, *, window_ns: int = DEFAULT_WINDOW_NS) -> None:
        if not 1 <= window_ns <= WINDOW_NS_MAX:
            raise ConfigError("window", f"must be from 1 ns to a day, not {window_ns} ns")
        self.rss = rss
        self._window_ns = window_ns
        self._ffi, self._lib = core()
        self._hasher = Hasher(rss)
        census = self._lib.vh_census_new(*self._hasher.native, window_ns)
        if census == self._ffi.NULL:
            raise MemoryError
        self._census = self._ffi.gc(census, self._lib.vh_census_free)

    @property
    def packets(self) -> int:
        """Packets of frames counted so far."""
        return int(self._counted.frames)

    @property
    def _counted(self) -> Any:
        return self._lib.vh_census_counted(self._census)

    def add_frames(self, memory: NDArray[np.uint8], frames: NDArray[np.void]) -> None:
        """Count frames, FRAME_DTYPE of shape (n,), that lie in ``memory``.

        Raises ConfigError, with nothing counted, for a frame that does not lie there.
        """
        rows = _rows("frames", frames, FRAME_DTYPE)
        error = self._lib.vh_census_frames(
            self._census,
            self._ffi.from_buffer("uint8_t[]", memory),
            len(memory),
            self._ffi.from_buffer("struct vh_frame[]", rows),
            len(rows),
        )
        _check("frames", error, f"one does not lie in the {len(memory)} bytes of memory")

    def add_flows(self, flows: Flows, times_ns: NDArray[np.int64] | None = None) -> None:
        """Count flows with their packets and bytes; report types and hashes are made anew.

        All packets of a flow go into the window of its time, int64 nanoseconds since the
        Unix epoch, shape (n,); without times, or if one is more than 146 years off, into
        none. Raises ConfigError, with nothing counted, for a kind that cannot be.
        """
        rows = _rows("flows", flows, FLOW_DTYPE)
        if times_ns is None:
            times = np.full(len(rows), self._lib.VH_NO_TIME, np.int64)
        else:
            times = np.ascontiguousarray(times_ns, np.int64)
            if times.shape != rows.shape:
                raise ConfigError("times_ns", f"has shape {times.shape}, flows {rows.shape}")
        self._add_flows(rows, self._ffi.from_buffer("int64_t[]", times))

    def _add_flows(self, rows: Flows, times: Any) -> None:
        error = self._lib.vh_census_flows(
            self._census, self._ffi.from_buffer("struct vh_flow[]", rows), times, len(rows)
        )
        _check("flows", error, "one has a kind that is no report type")

    def absorb(self, analysis: Analysis) -> None:
        """Add what was counted elsewhere by the same configuration and window length.

        The sum is the same in whatever order parts come. Raises ConfigError for others.
        """
        if analysis.rss != self.rss:
            raise ConfigError("rss", "of the analyses to add up differ")
        if analysis.anonymous:
            raise ConfigError(
                "analyses", "are anonymised", hint="add them up first, and anonymise the sum"
            )
        windows = analysis.windows
        if windows is None:
            raise ConfigError("windows", "are missing: they are not known under another key")
        if windows.shortest_ns != self._window_ns:
            raise ConfigError("windows", "of analyses to add up were not of one length at first")
        rows = zip(windows.starts_ns.tolist(), windows.packets, windows.bytes, strict=True)
        untimed = (self._lib.VH_NO_TIME, windows.untimed_packets, windows.untimed_bytes)
        for start, packets, octets in (*rows, untimed):
            traffic = np.empty(len(packets), _TRAFFIC_DTYPE)
            traffic["packets"], traffic["bytes"] = packets, octets
            error = self._lib.vh_census_window(
                self._census,
                windows.length_ns,
                start,
                self._ffi.from_buffer("struct vnet_traffic[]", traffic),
            )
            _check("windows", error, f"cannot be: {start} ns and {windows.length_ns} ns long")
        self._add_flows(_rows("flows", analysis.flows, FLOW_DTYPE), self._ffi.NULL)
        counted = self._counted
        counted.captured_short += analysis.captured_short
        for reason in Reason:
            if reason is not Reason.TYPE_OFF:  # those are flows
                packets, octets = analysis.unhashed[reason].tolist()
                counted.unhashed[reason].packets += packets
                counted.unhashed[reason].bytes += octets
        for ether_type, number in analysis.ether_types.items():
            counted.ether_types[ether_type] += number

    def result(self, sources: Sequence[Source] = (), *, ordered: bool = True) -> Analysis:
        """What has been counted so far. For what is only to be added up, flows need no order."""
        size = self._ffi.new("struct vh_census_size *")
        self._lib.vh_census_size(self._census, size)
        flows = np.empty(size.flows, FLOW_DTYPE)
        starts = np.empty(size.windows, np.int64)
        traffic = np.empty((size.windows + 1, size.columns), _TRAFFIC_DTYPE)
        self._lib.vh_census_read(
            self._census,
            self._ffi.from_buffer("struct vh_flow[]", flows),
            self._ffi.from_buffer("int64_t[]", starts),
            self._ffi.from_buffer("struct vnet_traffic[]", traffic),
        )
        packets, octets = (np.ascontiguousarray(traffic[name]) for name in ("packets", "bytes"))
        windows = Windows(
            length_ns=size.window_ns,
            shortest_ns=self._window_ns,
            starts_ns=starts,
            packets=packets[:-1],
            bytes=octets[:-1],
            untimed_packets=packets[-1],
            untimed_bytes=octets[-1],
        )
        counted = self._counted
        unhashed = [[reason.packets, reason.bytes] for reason in counted.unhashed]
        ether_types = np.frombuffer(self._ffi.buffer(counted.ether_types), np.uint64)
        return Analysis(
            rss=self.rss,
            flows=heaviest_first(flows) if ordered else flows,
            windows=windows,
            unhashed=np.array(unhashed, np.uint64),
            ether_types={int(t): int(ether_types[t]) for t in np.flatnonzero(ether_types)},
            captured_short=counted.captured_short,
            sources=tuple(sources),
        )


def merge(analyses: Iterable[Analysis]) -> Analysis:
    """The sum of analyses by one configuration; their sources in order.

    Raises ConfigError if there is none, or they were made by different ones.
    """
    census: Census | None = None
    sources: list[Source] = []
    for analysis in analyses:
        if census is None:
            windows = analysis.windows
            window_ns = windows.shortest_ns if windows else DEFAULT_WINDOW_NS
            census = Census(analysis.rss, window_ns=window_ns)
        census.absorb(analysis)
        sources += analysis.sources
    if census is None:
        raise ConfigError("analyses", "there is none to add up")
    return census.result(sources)


def _rows(name: str, rows: NDArray[np.void], dtype: np.dtype[Any]) -> NDArray[np.void]:
    if rows.dtype != dtype or rows.ndim != 1:
        raise ConfigError(name, f"must be {dtype} of shape (n,), not {rows.dtype} of {rows.shape}")
    return np.ascontiguousarray(rows)


def _check(name: str, error: int, rule: str) -> None:
    if error == -12:  # ENOMEM
        raise MemoryError
    if error:
        raise ConfigError(name, rule)
