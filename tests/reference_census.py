# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The census once more, slow and obvious: frame by frame, with the Python dissector and hash."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vnethash.analysis import Analysis, Reason
from vnethash.capture import Frame
from vnethash.rss.config import RssConfig
from vnethash.rss.dissect import Headers, dissect
from vnethash.rss.reference import classify
from vnethash.virtio.hash_types import HashType, ReportType

_TAGS = (0x8100, 0x88A8)
_TIME_MAX = 1 << 62

Count = list[int]
"""Packets and bytes."""


@dataclass
class Reference:
    """What an `Analysis` has to say."""

    flows: dict[tuple[Any, ...], Count] = field(default_factory=dict)
    unhashed: dict[Reason, Count] = field(default_factory=dict)
    ether_types: Counter[int] = field(default_factory=Counter)
    captured_short: int = 0
    times: list[tuple[int | None, int, int]] = field(default_factory=list)
    """Time, column, bytes of each packet."""


def count(frames: Iterable[Frame], rss: RssConfig) -> Reference:
    """All of it, but not yet in windows."""
    found = Reference()
    for frame in frames:
        size = max(frame.original_length, len(frame.data))
        found.captured_short += frame.original_length > len(frame.data)
        column = len(rss.indirection_table)
        opened = _open(frame)
        if opened is None:
            _add(found.unhashed, Reason.LINK_TYPE, size)
        else:
            data, l3 = opened
            headers = dissect(data, l3=l3, tunnels=rss.tunnels)
            if headers.version == 0:
                ether_type = None if l3 else _ether_type(data)
                if ether_type in (None, 0x0800, 0x86DD):
                    _add(found.unhashed, Reason.BROKEN_IP, size)
                else:
                    assert ether_type is not None
                    _add(found.unhashed, Reason.NOT_IP, size)
                    found.ether_types[ether_type] += 1
            else:
                verdict = classify(data, rss, l3=l3)
                if verdict.index is None:
                    _add(found.unhashed, Reason.TYPE_OFF, size)
                else:
                    column = verdict.index
                key = _identity(headers, rss)
                _add(found.flows, (*key, verdict.hash_report, verdict.hash_value), size)
        time = frame.timestamp_ns
        found.times.append((time if time is None or abs(time) <= _TIME_MAX else None, column, size))
    return found


def windows(found: Reference, length_ns: int, columns: int) -> tuple[int, dict[int | None, Any]]:
    """How long windows become, and packets and bytes by column of each, None for those untimed."""
    most = max(16, min(1024, (1 << 19) // columns))
    steps = 0
    while len({time // length_ns for time, _, _ in found.times if time is not None}) > most:
        length_ns *= 5 if steps % 2 else 2
        steps += 1
    rows: dict[int | None, Any] = {None: {}}
    for time, column, size in found.times:
        start = None if time is None else time // length_ns * length_ns
        _add(rows.setdefault(start, {}), column, size)
    return length_ns, rows


def compare(analysis: Analysis, found: Reference) -> None:
    """Fails with what differs."""
    rows = {}
    for flow in analysis.flows:
        size = 32 if flow["kind"] >= ReportType.IPv6 else 8
        assert not flow["addresses"][size:].any()
        key = (flow["kind"], flow["addresses"][:size].tobytes(), flow["ports"].tobytes())
        rows[(*key, flow["report"], flow["hash_value"])] = [flow["packets"], flow["bytes"]]
    assert rows == found.flows
    assert len(rows) == len(analysis.flows)
    unhashed = [found.unhashed.get(reason, [0, 0]) for reason in Reason]
    assert analysis.unhashed.tolist() == unhashed
    assert analysis.ether_types == dict(found.ether_types)
    assert analysis.captured_short == found.captured_short
    assert analysis.packets == len(found.times)
    assert analysis.bytes == sum(size for _, _, size in found.times)
    got = analysis.windows
    assert got is not None
    length_ns, expected = windows(found, got.shortest_ns, got.packets.shape[1])
    assert got.length_ns == length_ns
    starts = [*got.starts_ns.tolist(), None]
    assert starts[:-1] == sorted(start for start in expected if start is not None)
    for start, packets, octets in zip(
        starts, [*got.packets, got.untimed_packets], [*got.bytes, got.untimed_bytes], strict=True
    ):
        row = {
            column: [packets[column], octets[column]] for column in packets.nonzero()[0].tolist()
        }
        assert row == expected[start]


def _add(counts: dict[Any, Count], key: Any, size: int) -> None:
    one = counts.setdefault(key, [0, 0])
    one[0] += 1
    one[1] += size


def _open(frame: Frame) -> tuple[bytes, bool] | None:
    """The frame as Ethernet, or as IP (true); None if its link type has neither."""
    data = frame.data
    match frame.link_type:
        case 1:
            return data, False
        case 12 | 14 | 101 | 228 | 229:
            return data, True
        case 0 | 108:
            return data[4:], True
        case 113:
            return data[2:], False
        case 276 if len(data) >= 20:
            return bytes(12) + data[:2] + data[20:], False
        case 276:
            return b"", True
    return None


def _ether_type(data: bytes) -> int | None:
    """Of an Ethernet frame; None if it is cut short, 0 if there is none."""
    offset = 12
    for _ in range(2):
        if int.from_bytes(data[offset : offset + 2]) in _TAGS:
            offset += 4
    if len(data) < offset + 2:
        return None
    ether_type = int.from_bytes(data[offset : offset + 2])
    if ether_type >= 0x600:
        return ether_type
    if data[offset + 2 : offset + 8] == bytes.fromhex("aaaa03000000") and len(data) >= offset + 10:
        ether_type = int.from_bytes(data[offset + 8 : offset + 10])
        return ether_type if ether_type >= 0x600 else 0
    return 0


def _identity(headers: Headers, rss: RssConfig) -> tuple[int, bytes, bytes]:
    """Kind, addresses and ports, by which flows are told apart."""
    l4 = {None: 0, "TCP": 1, "UDP": 2}[headers.l4.name if headers.l4 else None]
    first = {4: ReportType.IPv4, 6: ReportType.IPv6}[headers.version]
    if headers.has_extension:
        first = ReportType.IPv6_EX
    source, destination = headers.source, headers.destination
    if headers.has_extension and _is_extended(l4, rss.hash_types):
        source = headers.home_address or source
        destination = headers.routing_address or destination
    return first + l4, source + destination, headers.ports if l4 else bytes(4)


def _is_extended(l4: int, enabled: HashType) -> bool:
    """Whether an _EX type applies: their addresses are those of the headers then."""
    return bool(enabled & (HashType.IP_EX, HashType.TCP_EX, HashType.UDP_EX)[l4]) or bool(
        enabled & HashType.IP_EX
    )
