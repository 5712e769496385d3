# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Capture files: what we read is what others wrote, and damage is an error."""

import io
import os
import struct
from bisect import bisect_right
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vnethash.capture import (
    MAX_FRAME,
    Capture,
    Frame,
    open_capture,
    require_ethernet,
    write_pcap,
)
from vnethash.errors import CaptureError

FRAMES = [b"\x02" * 6 + b"\x04" * 6 + b"\x08\x00" + bytes([n]) * n for n in (0, 1, 2, 3, 46)]


def pcap(
    frames: list[bytes], *, order: str = "<", magic: int = 0xA1B2C3D4, link_type: int = 1
) -> tuple[bytes, list[int]]:
    """A pcap file and the offset at which each record ends."""
    out = struct.pack(order + "IHHIIII", magic, 2, 4, 0, 0, 65535, link_type)
    ends = []
    for n, frame in enumerate(frames):
        out += struct.pack(order + "IIII", 100 + n, 7 + n, len(frame), len(frame) + n) + frame
        ends.append(len(out))
    return out, ends


def block(kind: int, body: bytes, *, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = len(body) + 12
    return struct.pack(order + "II", kind, length) + body + struct.pack(order + "I", length)


def section(*, order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order=order)


def interface(
    link_type: int = 1, *, order: str = "<", snaplen: int = 0, options: bytes = b""
) -> bytes:
    return block(1, struct.pack(order + "HHI", link_type, 0, snaplen) + options, order=order)


def option(code: int, value: bytes, *, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def enhanced(
    data: bytes, *, order: str = "<", number: int = 0, ticks: int = 0, options: bytes = b""
) -> bytes:
    head = struct.pack(
        order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data)
    )
    return block(6, head + data + bytes(-len(data) % 4) + options, order=order)


def pcapng(frames: list[bytes]) -> tuple[bytes, list[int]]:
    out = section() + interface(options=option(9, b"\x09") + option(0, b""))
    ends = []
    for n, frame in enumerate(frames):
        out += enhanced(frame, ticks=n, options=option(1, b"a comment") + option(0, b""))
        ends.append(len(out))
    return out, ends


def read(data: bytes) -> list[Frame]:
    return list(open_capture(io.BytesIO(data)))


def drain(capture: Capture) -> tuple[list[Frame], CaptureError | None]:
    """Its frames, and the error that ended them."""
    frames = []
    try:
        for frame in capture:
            frames.append(frame)
    except CaptureError as e:
        return frames, e
    return frames, None


def read_damaged(capture: Capture) -> tuple[list[Frame], CaptureError]:
    frames, error = drain(capture)
    assert error is not None
    return frames, error


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "tick"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_pcap_byte_orders_and_resolutions(order: str, magic: int, tick: int) -> None:
    data, _ = pcap(FRAMES, order=order, magic=magic)
    assert read(data) == [
        Frame(n, frame, len(frame) + n, (100 + n) * 10**9 + (7 + n) * tick, 1)
        for n, frame in enumerate(FRAMES)
    ]


def test_pcap_link_type_without_the_frame_check_sequence_bits() -> None:
    data, _ = pcap(FRAMES[:1], link_type=0x24000001)
    assert open_capture(io.BytesIO(data)).link_type == 1
    require_ethernet(read(data)[0])


def test_records_longer_than_a_wrong_snapshot_length_are_read() -> None:
    header = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 60, 1)
    frame = bytes(100)
    assert read(header + struct.pack("<IIII", 0, 0, 100, 100) + frame)[0].data == frame


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_blocks(order: str) -> None:
    obsolete = struct.pack(order + "HHIIII", 1, 3, 0, 5, 2, 9) + b"pb\0\0"
    data = (
        section(order=order)
        + block(0x0BAD, bytes(100_000), order=order)
        + interface(1, order=order, snaplen=4)
        + interface(101, order=order, options=option(9, b"\x00", order=order))
        + enhanced(b"one", order=order, ticks=1 << 33)
        + block(5, bytes(12), order=order)
        + block(3, struct.pack(order + "I", 60) + b"four", order=order)
        + block(2, obsolete, order=order)
        + enhanced(b"", order=order, number=1, ticks=2)
    )
    assert read(data) == [
        Frame(0, b"one", 3, (1 << 33) * 1000, 1),
        Frame(1, b"four", 60, None, 1),
        Frame(2, b"pb", 9, 5 * 10**9, 101),
        Frame(3, b"", 0, 2 * 10**9, 101),
    ]


@pytest.mark.parametrize(
    ("options", "nanoseconds"),
    [
        (b"", 3_000_000),
        (option(9, b"\x03"), 3000 * 1_000_000),
        (option(9, b"\x09"), 3000),
        (option(9, b"\x0c"), 3),
        (option(9, b"\x8a"), 3000 * 10**9 // 1024),
        (option(14, struct.pack("<q", -1)), 3_000_000 - 10**9),
        (option(2, b"eth0") + option(9, b"\x09") + option(0, b"") + option(9, b"\x06"), 3000),
    ],
)
def test_pcapng_time_resolution(options: bytes, nanoseconds: int) -> None:
    data = section() + interface(options=options) + enhanced(b"x", ticks=3000)
    assert read(data)[0].timestamp_ns == nanoseconds


def test_pcapng_sections_of_both_byte_orders_in_one_file() -> None:
    data = b"".join(
        section(order=order) + interface(link, order=order) + enhanced(b"x", order=order)
        for order, link in [(">", 1), ("<", 113), (">", 228)]
    )
    capture = open_capture(io.BytesIO(data))
    assert capture.link_type == 1
    assert [(f.index, f.link_type) for f in capture] == [(0, 1), (1, 113), (2, 228)]


def test_a_new_section_forgets_the_interfaces() -> None:
    data = section() + interface() + enhanced(b"x") + section() + enhanced(b"y")
    frames, error = read_damaged(open_capture(io.BytesIO(data)))
    assert len(frames) == 1
    assert error.reason == "frame of interface 0, which is not described"


def test_pcapng_without_interfaces_is_empty() -> None:
    capture = open_capture(io.BytesIO(section()))
    assert capture.link_type is None
    assert list(capture) == []


PCAPNG_HEAD = [28, 28 + 32]  # a section alone, and one with an interface


@pytest.mark.parametrize(
    ("file", "heads"), [(pcap(FRAMES), [24]), (pcapng(FRAMES), PCAPNG_HEAD)], ids=["pcap", "pcapng"]
)
def test_every_truncation(file: tuple[bytes, list[int]], heads: list[int]) -> None:
    data, ends = file
    whole = read(data)
    for cut in range(len(data) + 1):
        frames: list[Frame] = []
        error: CaptureError | None = None
        try:
            capture = open_capture(io.BytesIO(data[:cut]))
        except CaptureError as e:
            error = e
        else:
            frames, error = drain(capture)
        assert frames == whole[: bisect_right(ends, cut)]
        if cut in heads or cut in ends:
            assert error is None
        elif cut < 4:
            assert error is not None
            assert "not a capture" in error.reason
        else:
            assert error is not None
            assert "too early" in error.reason
            assert error.offset == max(end for end in [0, *heads, *ends] if end <= cut)


def test_truncation_names_the_record_that_broke() -> None:
    data, ends = pcap(FRAMES)
    _, error = read_damaged(open_capture(io.BytesIO(data[:-5])))
    assert error.offset == ends[-2]
    assert error.reason == "truncated frame: file ends 5 bytes too early"


class Unallocating(io.BytesIO):
    """Refuses a read that an honest file would never need."""

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 <= size <= MAX_FRAME
        return super().read(size)


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 60), "captured length 4294967295 is over 262144"),
        (struct.pack("<IIII", 0, 0, MAX_FRAME + 1, MAX_FRAME + 1), "is over 262144"),
        (struct.pack("<IIII", 0, 0, 70000, 60), "over the snapshot length 65535"),
    ],
)
def test_absurd_pcap_lengths(tail: bytes, reason: str) -> None:
    data, _ = pcap(FRAMES)
    frames, error = read_damaged(open_capture(Unallocating(data + tail + bytes(99))))
    assert len(frames) == len(FRAMES)
    assert error.offset == len(data)
    assert reason in error.reason


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (struct.pack("<III", 6, 8, 8), "block length 8 is impossible"),
        (struct.pack("<III", 6, 33, 33), "block length 33 is impossible"),
        (block(6, bytes(16)), "packet block of 16 bytes is impossible"),
        (block(3, b""), "packet block of 0 bytes is impossible"),
        (block(1, bytes(4)), "interface block of 4 bytes is impossible"),
        (struct.pack("<II", 1, 0xFFFFFFFC), "interface block of 4294967280 bytes is impossible"),
        (interface(options=struct.pack("<HH", 9, 50)), "interface option 9 overruns its block"),
        (block(6, struct.pack("<IIIII", 0, 0, 0, 5, 5) + b"four"), "captured length 5 overruns"),
        (block(6, struct.pack("<IIIII", 0, 0, 0, 1 << 30, 1 << 30)), "over 262144"),
        (block(3, struct.pack("<I", 5) + b"four"), "captured length 5 overruns"),
        (enhanced(b"x", number=9), "frame of interface 9, which is not described"),
        (block(9, b"")[:-4] + struct.pack("<I", 16), "block length is 12 before and 16 after"),
        (struct.pack("<II", 9, 0xFFFFFFFC), "truncated block"),
        (struct.pack("<III", 0x0A0D0D0A, 28, 7), "section header with byte-order magic 07000000"),
        (
            block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 2, 0, -1)),
            "pcapng version 2.0 is not known",
        ),
        (
            struct.pack("<III", 0x0A0D0D0A, 24, 0x1A2B3C4D),
            "section header length 24 is impossible",
        ),
    ],
)
def test_absurd_pcapng_blocks(tail: bytes, reason: str) -> None:
    data, _ = pcapng(FRAMES)
    frames, error = read_damaged(open_capture(Unallocating(data + tail)))
    assert len(frames) == len(FRAMES)
    assert error.offset == len(data)
    assert reason in error.reason


@pytest.mark.parametrize(
    ("data", "reason", "hint"),
    [
        (b"", "not a capture: the file is empty", None),
        (b"\n", "not a capture: it starts with 0a", "pcap and pcapng files are read"),
        (b"GIF89a", "not a capture: it starts with 47 49 46 38", "pcap and pcapng files are read"),
        (b"\x1f\x8b\x08\0", "it starts with 1f 8b 08 00", "gzip: decompress it first"),
        (pcap([])[0][:4] + b"\3" + pcap([])[0][5:], "pcap version 3.4 is not known", None),
        (pcap([])[0][:20], "truncated file header: file ends 4 bytes too early", None),
    ],
)
def test_no_capture_at_all(data: bytes, reason: str, hint: str | None) -> None:
    with pytest.raises(CaptureError) as caught:
        open_capture(io.BytesIO(data))
    assert reason in caught.value.reason
    assert (hint is None) == (caught.value.hint is None)
    assert hint is None or hint in str(caught.value.hint)


def test_paths_that_do_not_open(tmp_path: Path) -> None:
    for path, reason in [
        (tmp_path / "missing", "cannot open: no such file or directory"),
        (tmp_path, "cannot open: is a directory"),
        (Path("nul\0"), "cannot open: embedded null byte"),
    ]:
        with pytest.raises(CaptureError) as caught:
            open_capture(path)
        assert caught.value.reason == reason
        assert caught.value.path == str(path)
    with pytest.raises(CaptureError, match="cannot write: no such file or directory"):
        write_pcap(tmp_path / "missing" / "file", [])


def test_a_failing_disk_is_a_capture_error() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 24:
                raise OSError(5, "Input/output error")
            return super().read(size)

    _, error = read_damaged(open_capture(Failing(pcap(FRAMES)[0])))
    assert error.reason == "read failed: input/output error"
    assert error.offset == 24


def test_a_path_is_closed_and_a_file_object_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(FRAMES)[0])
    before = len(os.listdir("/proc/self/fd"))
    with open_capture(path) as capture:
        assert capture.size == path.stat().st_size
        assert len(list(capture)) == len(FRAMES)
        assert capture.offset == capture.size
    path.write_bytes(b"nothing")
    with pytest.raises(CaptureError):
        open_capture(path)
    assert len(os.listdir("/proc/self/fd")) == before
    with io.BytesIO(pcap(FRAMES)[0]) as file:
        with open_capture(file) as capture:
            assert next(capture).data == FRAMES[0]
        assert not file.closed


def test_a_pipe_that_gives_one_byte_at_a_time() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 1))

    data, _ = pcapng(FRAMES)
    assert list(open_capture(Slow(data))) == read(data)


@pytest.mark.parametrize(("link_type", "name"), [(113, "LINUX_SLL"), (4242, "unknown")])
def test_require_ethernet(link_type: int, name: str) -> None:
    frame = read(pcap(FRAMES, link_type=link_type)[0])[2]
    with pytest.raises(CaptureError) as caught:
        require_ethernet(frame, "a.pcap")
    assert str(caught.value) == f"a.pcap: frame 2 has link type {link_type} ({name}), not Ethernet"


frames_strategy = st.lists(
    st.builds(
        lambda data, extra, time: Frame(0, data, len(data) + extra, time, 1),
        st.binary(max_size=100),
        st.integers(0, 1000),
        st.integers(0, 2**32 * 10**9 - 1),
    ),
    max_size=8,
)


@given(frames_strategy)
def test_written_frames_are_read_back(tmp_path_factory: pytest.TempPathFactory, frames) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.getbasetemp() / "round.pcap"
    assert write_pcap(path, frames) == len(frames)
    with open_capture(path) as capture:
        assert [(f.data, f.original_length, f.timestamp_ns) for f in capture] == [
            (f.data, f.original_length, f.timestamp_ns) for f in frames
        ]


def test_plain_bytes_are_stamped_in_order(tmp_path: Path) -> None:
    write_pcap(tmp_path / "a.pcap", FRAMES, link_type=228)
    with open_capture(tmp_path / "a.pcap") as capture:
        assert list(capture) == [Frame(n, f, len(f), n * 1000, 228) for n, f in enumerate(FRAMES)]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (bytes(MAX_FRAME + 1), "frame 0 of 262145 bytes is over 262144"),
        (Frame(0, b"", 0, 2**32 * 10**9, 1), "frame 0 does not fit in a pcap record"),
        (Frame(0, b"", 0, -1, 1), "frame 0 does not fit in a pcap record"),
        (Frame(0, b"", 2**32, 0, 1), "frame 0 does not fit in a pcap record"),
        (Frame(0, b"", 0, 0, 113), "frame 0 has link type 113, the file 1"),
    ],
)
def test_frames_that_pcap_cannot_hold(tmp_path: Path, frame: Frame | bytes, reason: str) -> None:
    with pytest.raises(CaptureError) as caught:
        write_pcap(tmp_path / "a.pcap", [frame])
    assert caught.value.reason == reason


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([pcap(FRAMES)[0], pcapng(FRAMES)[0], pcapng(FRAMES)[0] * 2]),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 40),
)
@example(pcap([])[0], [(0, 0xD4)], 0)
def test_mutations_give_frames_or_a_capture_error(
    data: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(data[: len(data) - cut])
    for at, value in changes:
        damaged[at % len(damaged)] = value
    try:
        capture = open_capture(Unallocating(bytes(damaged)))
    except CaptureError as e:
        error: CaptureError | None = e
    else:
        frames, error = drain(capture)
        assert all(len(frame.data) <= MAX_FRAME for frame in frames)
    assert error is None or error.offset is None or 0 <= error.offset <= len(damaged)


@settings(max_examples=200)
@given(st.binary(max_size=200), st.sampled_from([b"", pcap([])[0], section() + interface()]))
def test_noise_gives_frames_or_a_capture_error(noise: bytes, head: bytes) -> None:
    try:
        for frame in open_capture(Unallocating(head + noise)):
            assert isinstance(frame, Frame)
    except CaptureError:
        pass


SCAPY_KINDS = ["little", "big", "nano", "pcapng"]


@pytest.fixture
def scapy_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Dot1Q, Ether
    from scapy.utils import PcapNgWriter, PcapWriter

    # Every address is given: scapy asks the network for those that are not.
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    ipv4 = IP(src="192.0.2.1", dst="192.0.2.2")
    packets = [
        ether / ipv4 / TCP() / b"x",
        ether / IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP() / b"yy",
        ether / Dot1Q(vlan=7) / ipv4 / (b"z" * 1300),
        ether / (b"\0" * 46),
    ]
    for n, packet in enumerate(packets):
        packet.time = 1_600_000_000 + n * 0.25
    path = tmp_path / "scapy"
    kind = request.param
    if kind == "pcapng":
        writer = PcapNgWriter(str(path))
    else:
        writer = PcapWriter(
            str(path), endianness=">" if kind == "big" else "<", nano=kind == "nano"
        )
    with writer:
        for packet in packets:
            writer.write(packet)
    return path


@pytest.mark.parametrize("scapy_file", SCAPY_KINDS, indirect=True)
def test_reads_what_scapy_reads(scapy_file: Path) -> None:
    from scapy.utils import PcapReader

    with PcapReader(str(scapy_file)) as reader:
        theirs = [(bytes(p), int(p.time * 10**9), p.wirelen) for p in reader]
    assert len(theirs) == 4
    with open_capture(scapy_file) as capture:
        assert capture.link_type == 1
        assert [(f.data, f.timestamp_ns, f.original_length) for f in capture] == theirs


def test_scapy_reads_what_we_write(tmp_path: Path) -> None:
    from scapy.utils import RawPcapReader

    write_pcap(tmp_path / "ours", FRAMES)
    with RawPcapReader(str(tmp_path / "ours")) as reader:
        assert reader.linktype == 1
        assert [(data, meta.usec) for data, meta in reader] == [
            (frame, n * 1000) for n, frame in enumerate(FRAMES)
        ]
