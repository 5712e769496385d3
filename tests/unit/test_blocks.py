# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Blocks of a capture add up to the whole, whatever is in it, in whatever order they come."""

import dataclasses
import gzip
import io
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.captures import (
    assert_same,
    pcap_header,
    pcap_records,
    pcapng_block,
    pcapng_interface,
    pcapng_packets,
    pcapng_section,
    random_frames,
)
from vnethash.analysis.blocks import Joint, count_block, split
from vnethash.analysis.census import Census, merge
from vnethash.analysis.files import File
from vnethash.analysis.local import analyze
from vnethash.analysis.result import Analysis
from vnethash.capture.boundary import guess_boundary
from vnethash.capture.reader import Capture, open_capture
from vnethash.errors import CaptureError
from vnethash.rss.config import RssConfig

RSS = RssConfig.default(4)
WINDOW = 1_000_000
FRAMES = random_frames(400, 1)

PCAP = pcap_header() + pcap_records(FRAMES)
PCAPNG = pcapng_section() + pcapng_interface() + pcapng_interface() + pcapng_packets(FRAMES)
CAPTURES = {
    "pcap": PCAP,
    "pcap-big": pcap_header(">") + pcap_records(FRAMES, order=">"),
    "pcapng": PCAPNG,
    "pcapng-big": pcapng_section(">") + pcapng_interface(">") + pcapng_packets(FRAMES, order=">"),
    "interface-later": PCAPNG
    + pcapng_interface(tsresol=9)
    + pcapng_packets(FRAMES[:200], number=1)
    + pcapng_packets(FRAMES[200:], number=2),
    "sections": PCAPNG
    + pcapng_section(">")
    + pcapng_interface(">", tsresol=9)
    + pcapng_packets(FRAMES, order=">")
    + PCAPNG,
    "huge-block": PCAPNG + pcapng_block(0xBAD, bytes(90_000)) + pcapng_packets(FRAMES),
    "capture-in-frames": pcap_header()
    + pcap_records(
        [bytes(12) + b"\x88\xb5" + PCAP[place : place + 9000] for place in range(0, 90_000, 9000)]
    )
    + pcap_records(FRAMES),
    "long-frames": pcap_header() + pcap_records(random_frames(20, 2, longest=60_000)),
    "empty-frames": pcap_header() + pcap_records([b"" if n % 3 else FRAMES[n] for n in range(400)]),
}


def by_blocks(path: Path, block_bytes: int, order: random.Random) -> tuple[Analysis, int]:
    """The analysis of a file in blocks that come in some order, and how many were counted."""
    size = path.stat().st_size
    blocks = split(File(str(path), size), block_bytes)
    assert len(blocks) == -(-size // block_bytes)
    joint = Joint(blocks, size)
    parts, counted = [Census(RSS, window_ns=WINDOW).result()], 0
    todo, found = dict(enumerate(blocks)), {}
    while not joint.is_done:
        number = order.choice(list(todo))
        seam, found[number] = count_block(todo.pop(number), RSS, WINDOW)
        counted += 1
        joint.put(number, seam)
        while step := joint.step():
            if isinstance(step, dict):
                todo |= step
            else:
                place, counts = step
                todo.pop(place, None)
                if counts:
                    parts.append(found[place])
    return dataclasses.replace(merge(parts), sources=(joint.source(),)), counted


@pytest.mark.parametrize("name", CAPTURES)
@pytest.mark.parametrize("block_bytes", [3000, 20_000, 70_000])
def test_sum_of_blocks(name: str, block_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(CAPTURES[name])
    if len(CAPTURES[name]) < 2 * block_bytes:
        block_bytes = len(CAPTURES[name]) // 2
    whole = analyze([path], RSS)
    for seed in range(3):
        parts, _ = by_blocks(path, block_bytes, random.Random(seed))
        assert_same(parts, whole)


@pytest.mark.parametrize("name", ["pcap", "pcap-big", "pcapng", "pcapng-big"])
def test_blocks_of_a_usual_file_are_counted_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(CAPTURES[name])
    _, counted = by_blocks(path, 10_000, random.Random(1))
    assert counted == -(-len(CAPTURES[name]) // 10_000)


def test_an_interface_that_comes_later_costs_one_more_count(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(CAPTURES["interface-later"])
    _, counted = by_blocks(path, 10_000, random.Random(1))
    assert counted <= 2 * -(-len(CAPTURES["interface-later"]) // 10_000)


def test_interfaces_that_come_all_the_time_cost_three_more_counts_at_most(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    parts = [pcapng_interface() + pcapng_packets(FRAMES[n : n + 20]) for n in range(0, 400, 20)]
    content = pcapng_section() + b"".join(parts)
    path.write_bytes(content)
    whole = analyze([path], RSS)
    found, counted = by_blocks(path, 3000, random.Random(1))
    assert_same(found, whole)
    assert counted <= 4 * -(-len(content) // 3000)


@given(
    st.sampled_from(sorted(CAPTURES)),
    st.floats(0, 1),
    st.binary(max_size=40),
    st.booleans(),
    st.integers(2500, 30_000),
    st.randoms(use_true_random=False),
)
def test_sum_of_blocks_of_a_damaged_file(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    where: float,
    noise: bytes,
    ends: bool,
    block_bytes: int,
    order: random.Random,
) -> None:
    content = CAPTURES[name]
    place = 100 + int(where * (len(content) - 100))
    content = content[:place] + noise + (b"" if ends else content[place + len(noise) :])
    path = tmp_path_factory.getbasetemp() / "damaged.pcap"
    path.write_bytes(content)
    block_bytes = min(block_bytes, len(content) // 2)
    whole = analyze([path], RSS)
    if not split(File(str(path), len(content)), block_bytes):
        return
    parts, _ = by_blocks(path, block_bytes, order)
    assert_same(parts, whole, read=False)


def test_what_is_not_split(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(PCAP)
    size = len(PCAP)
    assert len(split(File(str(path), size), size // 2)) in (2, 3)
    assert split(File(str(path), size), size // 2 + 1) == ()
    assert split(File(str(path), None), 1000) == ()
    path.write_bytes(gzip.compress(PCAP))
    assert split(File(str(path), size), 1000) == ()
    path.write_bytes(b"src,dst\n" * 1000)
    assert split(File(str(path), size), 1000) == ()
    path.write_bytes(PCAPNG[:8] + bytes(9000))
    assert split(File(str(path), size), 1000) == ()
    assert split(File(str(tmp_path / "none"), size), 1000) == ()
    assert split(File(str(tmp_path), size), 1000) == ()


def test_a_lost_block_ends_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(PCAP)
    blocks = split(File(str(path), len(PCAP)), 10_000)
    joint = Joint(blocks, len(PCAP))
    seam, _ = count_block(blocks[0], RSS, WINDOW)
    joint.lose(1, "it died")
    assert joint.step() is None
    joint.put(0, seam)
    steps = list(iter(joint.step, None))
    assert steps == [(0, True), *((number, False) for number in range(1, len(blocks)))]
    source = joint.source()
    assert (source.packets, source.error) == (seam.packets, "it died")
    assert source.offset == source.bytes_read == (seam.ended.offset if seam.ended else None)


def test_a_file_that_goes_away_between(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(PCAP)
    block = split(File(str(path), len(PCAP)), 10_000)[0]
    path.unlink()
    seam, analysis = count_block(block, RSS, WINDOW)
    assert seam.error is not None
    assert "cannot open" in seam.error
    assert analysis.packets == 0


@pytest.mark.parametrize("name", ["pcap", "pcap-big", "pcapng", "pcapng-big"])
def test_guesses_are_mostly_right(name: str) -> None:
    content = CAPTURES[name][:40_000]
    with open_capture_of(content) as capture:
        starts = []
        while True:
            starts.append(capture.offset)
            try:
                capture.record()
            except (CaptureError, EOFError):
                break
        state = capture.state
    wrong = 0
    offsets = range(200, 20_000, 7)
    for offset in offsets:
        found = guess_boundary(content[offset:], state, offset)
        assert found is not None
        wrong += offset + found != min(start for start in starts if start >= offset)
    # Zeros in a frame may look like a record in front of one. That is seen at the seam.
    assert wrong < len(offsets) / 50


@pytest.mark.parametrize("name", ["pcap", "pcapng"])
def test_nothing_to_guess(name: str) -> None:
    with open_capture_of(CAPTURES[name]) as capture:
        capture.record()
        state = capture.state
    for memory in (b"", b"\0", bytes(3), bytes(100_000), random.Random(1).randbytes(100_000)):
        assert guess_boundary(memory, state, 1) is None


def open_capture_of(content: bytes) -> Capture:
    return open_capture(io.BytesIO(content))
