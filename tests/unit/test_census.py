# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The census says what the reference says, and parts add up to the whole."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests import frames as make
from tests import reference_census
from tests.differential.dice import Dice
from tests.differential.generate import frame as any_frame
from tests.differential.generate import l3_frame
from tests.effort import examples
from vnethash.analysis import FLOW_DTYPE, Analysis, Census, Reason, merge
from vnethash.analysis.flows import endpoints, flow_text, hash_flows
from vnethash.capture import Frame
from vnethash.capture.walk import FRAME_DTYPE
from vnethash.errors import ConfigError
from vnethash.native import core
from vnethash.rss.config import RssConfig
from vnethash.rss.native import Hasher
from vnethash.virtio.hash_types import HashType, ReportType, TunnelType

SECOND = 1_000_000_000
NO_TIME = core().lib.VH_NO_TIME


def laid_out(frames: Sequence[Frame]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The frames one behind the other in memory, and where they lie."""
    rows = np.zeros(len(frames), FRAME_DTYPE)
    at = 0
    for row, frame in zip(rows, frames, strict=True):
        time = frame.timestamp_ns
        if time is None or abs(time) > core().lib.VH_TIME_MAX:
            time = NO_TIME
        row["offset"], row["length"] = at, len(frame.data)
        row["time_ns"] = time
        row["original"], row["link_type"] = frame.original_length, frame.link_type
        at += len(frame.data)
    return np.frombuffer(b"".join(frame.data for frame in frames), np.uint8), rows


def census(frames: Sequence[Frame], rss: RssConfig, **options: int) -> Analysis:
    counting = Census(rss, **options)
    counting.add_frames(*laid_out(frames))
    assert counting.packets == len(frames)
    return counting.result()


def frame(data: bytes, time: int | None = 0, link_type: int = 1, extra: int = 0) -> Frame:
    return Frame(0, data, len(data) + extra, time, link_type)


def sll(data: bytes) -> bytes:
    """An Ethernet frame as Linux's "any" device has it, version 1."""
    return b"\0\0\0\1\0\6" + data[6:12] + b"\0\0" + data[12:]


def sll2(data: bytes) -> bytes:
    return data[12:14] + b"\0\0\0\0\0\1\0\1\0\6" + data[6:12] + b"\0\0" + data[14:]


LINKS: dict[int, Callable[[bytes], bytes]] = {
    1: bytes,
    101: lambda data: data[14:],
    113: sll,
    276: sll2,
}


def drawn(seed: int, count: int) -> list[Frame]:
    """Frames of all kinds and link types, each flow several times."""
    dice = Dice(seed)
    rng = random.Random(seed)
    frames = []
    for _ in range(count):
        link_type = rng.choice([1, 1, 1, 101, 12, 14, 228, 229, 0, 108, 113, 276, 147])
        if link_type in (101, 12, 14, 228, 229):
            data = l3_frame(dice)
        elif link_type in (0, 108):
            data = b"\2\0\0\0" + l3_frame(dice)
        else:
            data = {113: sll, 276: sll2}.get(link_type, bytes)(any_frame(dice))
        if rng.random() < 0.2:
            data = data[: rng.randrange(len(data) + 1)]
        for _ in range(rng.choice([1, 1, 2, 5])):
            time = rng.choice(
                [None, rng.randrange(20 * SECOND), rng.randrange(-(1 << 63), 1 << 63)]
            )
            frames.append(frame(data, time, link_type, rng.choice([0, 0, 100])))
    rng.shuffle(frames)
    return frames


CONFIGS = [
    RssConfig.default(4),
    RssConfig.symmetric(3).replace(unclassified_queue=2),
    RssConfig.default(5).replace(
        hash_types=HashType.TCPv4 | HashType.IPv6 | HashType.UDP_EX, indirection_table=(4, 3)
    ),
    RssConfig.default(8).replace(hash_types=HashType.ALL & ~HashType.IP_EX & ~HashType.TCP_EX),
    RssConfig.default(8).replace(tunnels=TunnelType.ALL, indirection_table=tuple(range(8)) * 128),
    RssConfig.default(2).replace(hash_types=HashType.NONE),
]


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_what_the_reference_counts(number: int) -> None:
    frames = drawn(number, 1500)
    analysis = census(frames, CONFIGS[number])
    reference_census.compare(analysis, reference_census.count(frames, CONFIGS[number]))


@settings(max_examples=examples(50))
@given(st.lists(st.tuples(make.frames(), st.sampled_from(sorted(LINKS))), max_size=8))
def test_hostile_frames_are_counted_as_by_the_reference(
    drawn: list[tuple[bytes, int]],
) -> None:
    frames = [frame(LINKS[link](data), n, link) for n, (data, link) in enumerate(drawn)]
    rss = RssConfig.default(4)
    reference_census.compare(census(frames, rss), reference_census.count(frames, rss))


TIMES = st.one_of(
    st.integers(0, 3 * SECOND),
    st.integers(0, 10**6).map(lambda n: n * 5_000_000),
    st.integers(-(1 << 62), 1 << 62),
)


@settings(max_examples=examples(40))
@given(st.lists(TIMES, max_size=300), st.sampled_from([1, 5, 1000, 10**6, SECOND]))
@example([-(1 << 62)], 5)  # in a window that begins a nanosecond before the earliest time
@example([-(1 << 62), 1 << 62], SECOND)
@example([number * SECOND for number in range(16)], SECOND)
@example([number * SECOND for number in range(17)], SECOND)
def test_windows_become_longer_until_they_fit(times: list[int], window_ns: int) -> None:
    data = make.ethernet(0x0800, make.ipv4(make.udp()))
    rss = RssConfig.default(4).replace(indirection_table=(0, 1, 2, 3) * 8192)  # 16 windows
    frames = [frame(data, time) for time in times]
    found = reference_census.count(frames, rss)
    reference_census.compare(census(frames, rss, window_ns=window_ns), found)
    halves = [census(part, rss, window_ns=window_ns) for part in (frames[::2], frames[1::2])]
    reference_census.compare(merge(halves), found)
    reference_census.compare(merge(reversed(halves)), found)


def test_a_frame_is_not_shorter_than_what_was_captured() -> None:
    data = make.ethernet(0x0800, make.ipv4(make.udp()))
    frames = [Frame(0, data, original, 0, 1) for original in (0, len(data), 1500)]
    analysis = census(frames, RssConfig.default(4))
    assert (analysis.bytes, analysis.captured_short) == (2 * len(data) + 1500, 1)
    assert analysis.flows["bytes"].tolist() == [analysis.bytes]


def test_times_that_are_absurd_in_memory_are_none() -> None:
    data = make.ethernet(0x0800, make.ipv4(make.udp()))
    memory, rows = laid_out([frame(data, 0)] * 4)
    rows["time_ns"] = [NO_TIME, (1 << 63) - 1, (1 << 62) + 1, 1 << 62]
    counting = Census(RssConfig.default(4))
    counting.add_frames(memory, rows)
    windows = counting.result().windows
    assert windows is not None
    assert (windows.untimed_packets.sum(), windows.packets.sum()) == (3, 1)


@pytest.mark.parametrize(
    ("length_ns", "start_ns"),
    [(3, 0), (1 << 62, 0), ((1 << 62) - 1, 0), (0, 0), (-5, 0), (1000, (1 << 62) + 1)],
)
def test_windows_that_cannot_be_are_refused_and_nothing_is_changed(
    length_ns: int, start_ns: int
) -> None:
    data = make.ethernet(0x0800, make.ipv4(make.udp()))
    part = census([frame(data)] * 9, RssConfig.default(4), window_ns=1000)
    assert part.windows is not None
    starts = np.array([start_ns], np.int64)
    windows = replace(part.windows, length_ns=length_ns, starts_ns=starts)
    counting = Census(part.rss, window_ns=1000)
    with pytest.raises(ConfigError, match="windows: cannot be"):
        counting.absorb(replace(part, windows=windows))
    same(counting.result(), Census(part.rss, window_ns=1000).result())


def same(one: Analysis, other: Analysis) -> None:
    """To the last digit."""
    assert one.flows.tobytes() == other.flows.tobytes()
    assert one.windows is not None
    assert other.windows is not None
    for name in ("length_ns", "shortest_ns"):
        assert getattr(one.windows, name) == getattr(other.windows, name)
    for name in ("starts_ns", "packets", "bytes", "untimed_packets", "untimed_bytes"):
        assert np.array_equal(getattr(one.windows, name), getattr(other.windows, name))
    assert np.array_equal(one.unhashed, other.unhashed)
    assert one.ether_types == other.ether_types
    assert (one.packets, one.bytes) == (other.packets, other.bytes)
    assert one.captured_short == other.captured_short


def test_parts_add_up_in_any_order_and_grouping() -> None:
    rss = CONFIGS[1]
    frames = drawn(77, 2000)
    whole = census(frames, rss)
    rng = random.Random(1)
    for _ in range(5):
        cuts = sorted(rng.sample(range(len(frames)), 6))
        parts = [census(frames[a:b], rss) for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
        rng.shuffle(parts)
        same(merge(parts), whole)
        same(merge([merge(parts[:3]), merge([parts[3]]), merge(parts[4:])]), whole)


def test_a_million_flows_are_all_found_again() -> None:
    flows = np.zeros(1_000_000, FLOW_DTYPE)
    flows["addresses"][:, :4] = np.arange(1_000_000, dtype=">u4").view(np.uint8).reshape(-1, 4)
    flows["kind"], flows["packets"], flows["bytes"] = ReportType.IPv4, 1, 64
    counting = Census(RssConfig.default(8))
    for _ in range(2):
        counting.add_flows(flows)
    analysis = counting.result()
    assert len(analysis.flows) == 1_000_000
    assert (analysis.flows["packets"] == 2).all()
    assert analysis.by_queue.flows.sum() == 1_000_000
    assert np.unique(analysis.flows["addresses"][:, :4], axis=0).shape == (1_000_000, 4)
    hashed = hash_flows(analysis.flows, Hasher(analysis.rss))
    assert np.array_equal(hashed, analysis.flows)


def test_flows_of_tables_are_as_their_packets() -> None:
    rss = CONFIGS[3]
    frames = [f for f in drawn(5, 800) if f.timestamp_ns is None or abs(f.timestamp_ns) < 1 << 62]
    whole = census(frames, rss)
    counting = Census(rss)
    rows = whole.flows.copy()
    rows["hash_value"] = rows["report"] = 77  # made anew
    rows["reserved"] = 1
    counting.add_flows(rows)
    again = counting.result()
    assert np.array_equal(again.flows, whole.flows)
    assert again.windows is not None
    assert again.windows.untimed_packets.sum() == whole.flows["packets"].sum()
    timed = Census(rss, window_ns=1000)
    timed.add_flows(rows[:2], np.array([5000, 1 << 62 | 1]))
    windows = timed.result().windows
    assert windows is not None
    assert windows.starts_ns.tolist() == [5000]
    assert windows.packets.sum() == rows["packets"][0]
    assert windows.untimed_packets.sum() == rows["packets"][1]


def test_addresses_and_ports_that_a_kind_has_not_are_not_told_apart() -> None:
    flows = np.zeros(2, FLOW_DTYPE)
    flows["kind"], flows["packets"] = ReportType.IPv4, 1
    flows["ports"][0], flows["addresses"][0, 8:] = 9, 9
    counting = Census(RssConfig.default(4))
    counting.add_flows(flows)
    (flow,) = counting.result().flows
    assert flow["packets"] == 2
    assert endpoints(flow) == ("0.0.0.0", "0.0.0.0", 0, 0)
    assert flow_text(flow) == "0.0.0.0 > 0.0.0.0"


@pytest.mark.parametrize("kind", [0, 10, 255])
def test_flows_of_no_kind_are_refused_and_nothing_is_counted(kind: int) -> None:
    flows = np.zeros(3, FLOW_DTYPE)
    flows["kind"] = [1, 1, kind]
    counting = Census(RssConfig.default(4))
    with pytest.raises(ConfigError, match="no report type"):
        counting.add_flows(flows)
    assert not len(counting.result().flows)


@pytest.mark.parametrize(("offset", "length"), [(0, 21), (21, 0), (1 << 63, 1), (20, 1 << 31)])
def test_frames_outside_the_memory_are_refused_and_nothing_is_counted(
    offset: int, length: int
) -> None:
    rows = np.zeros(2, FRAME_DTYPE)
    rows["offset"][1], rows["length"][1] = offset, length
    counting = Census(RssConfig.default(4))
    with pytest.raises(ConfigError, match="does not lie in the 20 bytes"):
        counting.add_frames(np.zeros(20, np.uint8), rows)
    assert counting.packets == 0
    rows["offset"][1], rows["length"][1] = 20, 0
    counting.add_frames(np.zeros(20, np.uint8), rows)
    assert counting.packets == 2


def test_other_shapes_types_and_lengths_are_refused() -> None:
    counting = Census(RssConfig.default(4))
    with pytest.raises(ConfigError, match="frames"):
        counting.add_frames(np.zeros(20, np.uint8), np.zeros(2, np.uint64))
    with pytest.raises(ConfigError, match="flows"):
        counting.add_flows(np.zeros((2, 2), FLOW_DTYPE))
    with pytest.raises(ConfigError, match="times_ns"):
        counting.add_flows(np.zeros(2, FLOW_DTYPE), np.zeros(3, np.int64))
    for window_ns in (0, -1, 86_400_000_000_001):
        with pytest.raises(ConfigError, match="window"):
            Census(RssConfig.default(4), window_ns=window_ns)


def test_only_alike_analyses_are_added_up() -> None:
    one = census(drawn(1, 20), RssConfig.default(4))
    with pytest.raises(ConfigError, match="none to add up"):
        merge([])
    with pytest.raises(ConfigError, match="differ"):
        merge([one, census([], RssConfig.default(5))])
    with pytest.raises(ConfigError, match="length at first"):
        merge([one, census([], RssConfig.default(4), window_ns=SECOND)])
    with pytest.raises(ConfigError, match="another key"):
        merge([one.under(RssConfig.symmetric(4))])


def test_under_another_configuration_is_as_analysed_by_it() -> None:
    frames = drawn(9, 600)
    for before, after in (
        (RssConfig.default(4), RssConfig.symmetric(7)),
        (RssConfig.default(4), RssConfig.default(4).replace(indirection_table=(3, 2, 1, 0) * 32)),
        (RssConfig.default(4), RssConfig.default(4).replace(indirection_table=(3, 2))),
    ):
        moved, anew = census(frames, before).under(after), census(frames, after)
        assert np.array_equal(moved.flows, anew.flows)
        for load in ("by_queue", "by_bucket", "by_report"):
            for one, other in zip(getattr(moved, load), getattr(anew, load), strict=True):
                assert np.array_equal(one, other)
        if moved.windows is not None:
            same(moved, anew)
    with pytest.raises(ConfigError, match="hash_types"):
        census(frames, RssConfig.default(4)).under(CONFIGS[2])


def test_loads_agree_with_each_other() -> None:
    analysis = census(drawn(11, 1000), CONFIGS[2])
    windows = analysis.windows
    assert windows is not None
    packets, octets = windows.by_queue(analysis.rss)
    untimed = np.zeros(analysis.rss.queues, np.uint64)
    table = [*analysis.rss.indirection_table, analysis.rss.unclassified_queue]
    np.add.at(untimed, table, windows.untimed_packets)
    assert np.array_equal(packets.sum(0) + untimed, analysis.by_queue.packets)
    for name, total in (("packets", analysis.packets), ("bytes", analysis.bytes)):
        assert getattr(analysis.by_queue, name).sum() == total
        assert getattr(analysis.by_report, name).sum() == total
    assert analysis.by_queue.flows.sum() == len(analysis.flows)
    assert octets.shape == packets.shape
    assert analysis.unhashed[Reason.TYPE_OFF, 0] > 0


def test_layouts_are_those_of_c() -> None:
    ffi = core().ffi
    for dtype, name in ((FLOW_DTYPE, "struct vh_flow"), (FRAME_DTYPE, "struct vh_frame")):
        assert dtype.itemsize == ffi.sizeof(name)
        assert dtype.fields is not None
        for field, (_, offset, *_) in dtype.fields.items():
            assert offset == ffi.offsetof(name, field)
    assert len(Reason) == core().lib.VH_REASONS
