# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The walker finds the frames that the reader finds, and breaks off where it does."""

import io
import itertools
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.unit import test_capture as make
from vnethash.capture import Frame, open_capture, write_pcap
from vnethash.capture.format import Interface
from vnethash.capture.reader import Readable
from vnethash.capture.walk import BLOCK, Walker, _native_interface
from vnethash.errors import CaptureError
from vnethash.native import core

Found = tuple[list[tuple[bytes, int | None, int, int]], tuple[str, int | None] | None]
"""Data, time, original length, link type of each frame; what ended them and where."""


def by_reader(data: bytes) -> Found:
    found: Found = [], None
    try:
        for frame in open_capture(io.BytesIO(data)):
            found[0].append((frame.data, _time(frame), frame.original_length, frame.link_type))
    except CaptureError as error:
        return found[0], (error.reason, error.offset)
    return found


def _time(frame: Frame) -> int | None:
    time = frame.timestamp_ns
    return time if time is not None and abs(time) <= core().lib.VH_TIME_MAX else None


def by_walker(file: Readable, block: int = BLOCK, **resumed: object) -> Found:
    found: Found = [], None
    try:
        for piece in Walker(file, "capture", block=block, **resumed):  # type: ignore[arg-type]
            for row in piece.frames:
                start, time = int(row["offset"]), int(row["time_ns"])
                data = piece.memory[start : start + int(row["length"])].tobytes()
                assert len(data) == row["length"]
                stamp = None if time == core().lib.VH_NO_TIME else time
                found[0].append((data, stamp, int(row["original"]), int(row["link_type"])))
    except CaptureError as error:
        return found[0], (error.reason, error.offset)
    return found


ORDERS = st.sampled_from(["<", ">"])
TICKS = st.integers(0, (1 << 64) - 1) | st.integers(0, 1 << 50)


@st.composite
def pcaps(draw: st.DrawFn) -> bytes:
    order = draw(ORDERS)
    magic = draw(st.sampled_from([0xA1B2C3D4, 0xA1B23C4D]))
    snaplen = draw(st.sampled_from([0, 20, 65535]))
    out = struct.pack(order + "IHHIIII", magic, 2, 4, 0, 0, snaplen, draw(st.integers(0, 300)))
    for data in draw(st.lists(st.binary(max_size=60), max_size=8)):
        words = st.integers(0, (1 << 32) - 1)
        original = draw(st.one_of(st.just(len(data)), words))
        out += struct.pack(order + "IIII", draw(words), draw(words), len(data), original) + data
    return out


@st.composite
def pcapngs(draw: st.DrawFn) -> bytes:
    out = b""
    for _ in range(draw(st.integers(1, 2))):
        order = draw(ORDERS)
        out += make.section(order=order)
        interfaces = draw(st.integers(1, 3))
        for _ in range(interfaces):
            options = b""
            if draw(st.booleans()):
                resolution = bytes([draw(st.integers(0, 255))])
                offset = draw(st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-10, 10))
                options = make.option(9, resolution, order=order)
                options += make.option(14, struct.pack(order + "q", offset), order=order)
            link_type, snaplen = draw(st.sampled_from([1, 101, 276])), draw(st.integers(0, 80))
            out += make.interface(link_type, order=order, snaplen=snaplen, options=options)
        for _ in range(draw(st.integers(0, 8))):
            data, ticks = draw(st.binary(max_size=40)), draw(TICKS)
            number = draw(st.integers(0, interfaces))  # the last is not described
            options = draw(st.sampled_from([b"", make.option(1, b"comment", order=order)]))
            obsolete = struct.pack(
                order + "HHIIII", number, 0, ticks >> 32, ticks & 0xFFFFFFFF, len(data), 99
            )
            kinds = [
                make.enhanced(data, order=order, number=number, ticks=ticks, options=options),
                make.enhanced(data, order=order, number=0, ticks=ticks),
                make.block(2, obsolete + data, order=order),
                make.block(3, struct.pack(order + "I", len(data)) + data, order=order),
                make.block(0x0BAD, data, order=order),
                make.block(5, bytes(12), order=order),
                make.interface(draw(st.sampled_from([1, 101])), order=order),
            ]
            kind = draw(st.sampled_from(kinds))
            interfaces += kind is kinds[-1]
            out += kind
    return out


CAPTURES = pcaps() | pcapngs()


@settings(max_examples=examples(300))
@given(CAPTURES, st.integers(64, 400))
def test_what_the_reader_finds(data: bytes, block: int) -> None:
    assert by_walker(io.BytesIO(data), block) == by_reader(data)


@settings(max_examples=examples(500))
@given(
    CAPTURES,
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=4),
    st.integers(0, 40),
    st.integers(64, 400),
)
def test_damage_is_found_where_the_reader_finds_it(
    data: bytes, changes: list[tuple[int, int]], cut: int, block: int
) -> None:
    damaged = bytearray(data[: len(data) - cut])
    for at, value in changes:
        if damaged:
            damaged[at % len(damaged)] = value
    try:
        expected = by_reader(bytes(damaged))
        found = by_walker(io.BytesIO(damaged), block)
    except CaptureError:
        pytest.fail("an error before the first record is raised by both in the same way")
    assert found == expected


class Dripping:
    """A pipe that gives a few bytes at a time, by read() alone."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self._rng = random.Random(3)

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._rng.randint(1, 7)))


@pytest.mark.parametrize("make_file", [make.pcap, make.pcapng])
def test_a_pipe_that_drips(make_file: object) -> None:
    data, _ = make_file(make.FRAMES * 20)  # type: ignore[operator]
    assert by_walker(Dripping(data)) == by_reader(data)


def test_records_larger_than_the_memory_are_read_too() -> None:
    options = make.option(1, bytes(60_000)) * 3
    data = make.section() + make.interface() + make.enhanced(b"one", ticks=5)
    data += make.enhanced(b"two", ticks=6, options=options) + make.block(0x0BAD, bytes(100_000))
    data += make.enhanced(b"three", ticks=7)
    found = by_walker(io.BytesIO(data), 1000)
    assert found == by_reader(data)
    assert [frame[0] for frame in found[0]] == [b"one", b"two", b"three"]


@pytest.mark.parametrize("order", ["<", ">"])
def test_each_interface_is_taken_over_once(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captures that were merged have them by the thousand, each before its first packet."""
    taken: list[Interface] = []

    def take(interface: Interface) -> dict[str, int]:
        taken.append(interface)
        return _native_interface(interface)

    monkeypatch.setattr("vnethash.capture.walk._native_interface", take)
    data = make.section(order=order)
    for number in range(500):
        data += make.interface(number, order=order)
        data += make.enhanced(b"x", number=number, order=order)
    for number in range(500):  # 1 is 256 in the other byte order, which is there as well
        obsolete = struct.pack(order + "HHIIII", number, 0, 0, 0, 4, 4) + b"abcd"
        data += make.block(2, obsolete, order=order)
    found = by_walker(io.BytesIO(data * 2))
    assert found == by_reader(data * 2)
    assert [frame[-1] for frame in found[0]] == [*range(500)] * 4
    assert len(taken) == 1000


def test_times_of_every_resolution() -> None:
    data = make.section()
    for resolution in range(256):
        options = make.option(9, bytes([resolution]))
        data += make.interface(1, options=options)
        data += make.enhanced(b"x", number=resolution, ticks=0xFEDCBA9876543210)
    assert by_walker(io.BytesIO(data)) == by_reader(data)


def test_many_frames_are_found_in_many_blocks(tmp_path: Path) -> None:
    frames = [bytes([n % 256]) * (n % 90) for n in range(50_000)]
    write_pcap(tmp_path / "many.pcap", frames)
    with (tmp_path / "many.pcap").open("rb", buffering=0) as file:
        walker = Walker(file, "many", block=100_000)
        lengths = np.concatenate([block.frames["length"].copy() for block in walker])
        assert walker.offset == (tmp_path / "many.pcap").stat().st_size
    assert lengths.tolist() == [len(frame) for frame in frames]


@settings(max_examples=examples(100))
@given(CAPTURES)
def test_reading_on_between_any_two_records(data: bytes) -> None:
    whole = by_reader(data)
    reader = open_capture(io.BytesIO(data))
    for passed in itertools.count():
        found = by_walker(
            io.BytesIO(data[reader.offset :]), state=reader.state, offset=reader.offset
        )
        assert found == (whole[0][passed:], whole[1])
        try:
            next(reader)
        except (StopIteration, CaptureError):
            break


def test_a_read_error_names_the_file() -> None:
    class Broken(io.RawIOBase):
        def __init__(self) -> None:
            self._head = make.pcap(make.FRAMES)[0]

        def readinto(self, room: object, /) -> int:
            if not self._head:
                raise OSError(5, "Input/output error")
            count = min(len(room), len(self._head))  # type: ignore[arg-type]
            room[:count], self._head = self._head[:count], self._head[count:]  # type: ignore[index]
            return count

        def readable(self) -> bool:
            return True

    with pytest.raises(CaptureError, match="disk: read failed: input/output error"):
        list(Walker(Broken(), "disk"))
