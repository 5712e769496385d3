# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Read pcap and pcapng files as a stream; write both.

Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. Nothing is held
but the frame at hand, lengths are checked before anything is read, and a
damaged file gives every frame before the damage, then a `CaptureError` with
the offset of the record that broke.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from vnethash.closing import Closing
from vnethash.errors import CaptureError

LINKTYPE_ETHERNET: Final = 1
MAX_FRAME: Final = 262144
"""Longest frame accepted, in bytes: what libpcap and Wireshark take too."""

_LINKTYPE_NAMES: Final = {
    0: "NULL",
    1: "ETHERNET",
    9: "PPP",
    12: "RAW",
    101: "RAW",
    105: "IEEE802_11",
    108: "LOOP",
    113: "LINUX_SLL",
    127: "IEEE802_11_RADIOTAP",
    189: "USB_LINUX",
    201: "BLUETOOTH_HCI_H4_WITH_PHDR",
    220: "USB_LINUX_MMAPPED",
    228: "IPV4",
    229: "IPV6",
    276: "LINUX_SLL2",
}

# First four bytes of a pcap file: byte order, nanoseconds per tick.
_PCAP_MAGIC: Final = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
_PCAPNG_MAGIC: Final = b"\x0a\x0d\x0d\x0a"
_COMPRESSED: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd", b"\xfd\x37": "xz", b"BZ": "bzip2"}

_IDB: Final = 0x00000001
_PB: Final = 0x00000002
_SPB: Final = 0x00000003
_EPB: Final = 0x00000006
_SHB: Final = 0x0A0D0D0A

_OPT_END: Final = 0
_OPT_COMMENT: Final = 1
_OPT_IF_TSRESOL: Final = 9
_OPT_IF_TSOFFSET: Final = 14

# An interface has a handful of short options; longer is damage.
_MAX_OPTIONS: Final = 262144
_SKIP: Final = 65536


class Readable(Protocol):
    """What a capture is read from: a binary file, a pipe, a BytesIO."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured frame.

    ``index`` counts from 0. ``data`` is what was captured of the
    ``original_length`` bytes on the wire. ``timestamp_ns`` counts from the
    Unix epoch; it is None where the file has none (simple packet block).
    ``link_type`` is a LINKTYPE_ number, 1 for Ethernet.
    """

    index: int
    data: bytes
    original_length: int
    timestamp_ns: int | None
    link_type: int


def link_type_name(link_type: int) -> str:
    """Name of a LINKTYPE_ number, or ``unknown``."""
    return _LINKTYPE_NAMES.get(link_type, "unknown")


def require_ethernet(frame: Frame, path: str = "capture") -> None:
    """Raise `CaptureError` unless the frame starts with an Ethernet header."""
    if frame.link_type != LINKTYPE_ETHERNET:
        raise CaptureError(
            path,
            f"frame {frame.index} has link type {frame.link_type} "
            f"({link_type_name(frame.link_type)}), not Ethernet",
            hint="capture on an Ethernet interface, or convert the file to link type 1",
        )


class _Source:
    """A byte stream that knows its offset and reports damage with it."""

    def __init__(self, file: Readable, path: str) -> None:
        self._file = file
        self.path = path
        self.offset = 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""
        try:
            data = self._file.read(size)
            # A pipe or an unbuffered file may return less than is still to come.
            while len(data) < size and (more := self._file.read(size - len(data))):
                data += more
        except OSError as e:
            raise CaptureError(self.path, f"read failed: {_reason(e)}", offset=self.offset) from e
        self.offset += len(data)
        return data

    def damage(self, reason: str, offset: int) -> CaptureError:
        return CaptureError(self.path, reason, offset=offset)

    def take(self, size: int, what: str, start: int) -> bytes:
        """Exactly `size` bytes of `what`, which began at offset `start`."""
        data = self.read(size)
        if len(data) < size:
            raise self.damage(
                f"truncated {what}: file ends {size - len(data)} bytes too early", start
            )
        return data

    def skip(self, size: int, what: str, start: int) -> None:
        while size:
            size -= len(self.take(min(size, _SKIP), what, start))

    def check_length(self, captured: int, original: int, snaplen: int, start: int) -> None:
        if captured > MAX_FRAME:
            raise self.damage(f"captured length {captured} is over {MAX_FRAME}", start)
        # Writers that put too small a snapshot length exist; a length that
        # contradicts the frame's own original length as well is damage.
        if snaplen and captured > snaplen and captured > original:
            raise self.damage(
                f"captured length {captured} is over the snapshot length {snaplen} "
                f"and the original length {original}",
                start,
            )


class _Pcap:
    """draft-ietf-opsawg-pcap"""

    def __init__(self, source: _Source, magic: bytes) -> None:
        order, self._tick_ns = _PCAP_MAGIC[magic]
        self._source = source
        header = source.take(20, "file header", 0)
        major, minor, _zone, _sigfigs, self._snaplen, network = struct.unpack(
            order + "HHIIII", header
        )
        if major != 2:
            raise source.damage(f"pcap version {major}.{minor} is not known, only 2.4", 4)
        # The upper half of the field says how long the frame check sequence is.
        self.link_type: int = network & 0xFFFF
        self._record = struct.Struct(order + "IIII")

    def frames(self) -> Iterator[Frame]:
        source = self._source
        index = 0
        while True:
            start = source.offset
            header = source.read(16)
            if not header:
                return
            if len(header) < 16:
                raise source.damage(
                    f"truncated record header: file ends {16 - len(header)} bytes too early", start
                )
            seconds, ticks, captured, original = self._record.unpack(header)
            source.check_length(captured, original, self._snaplen, start)
            data = source.take(captured, "frame", start)
            timestamp = seconds * 1_000_000_000 + ticks * self._tick_ns
            yield Frame(index, data, original, timestamp, self.link_type)
            index += 1


@dataclass(frozen=True, slots=True)
class _Interface:
    link_type: int
    snaplen: int
    tsresol: int
    tsoffset: int

    def nanoseconds(self, ticks: int) -> int:
        exponent = self.tsresol & 0x7F
        if self.tsresol & 0x80:
            nanoseconds = ticks * 1_000_000_000 >> exponent
        else:
            nanoseconds = ticks * 1_000_000_000 // 10**exponent
        return nanoseconds + self.tsoffset * 1_000_000_000


class _Pcapng:
    """draft-ietf-opsawg-pcapng

    Every block is: type, total length, body, total length again; a section
    header block sets the byte order and forgets the interfaces before it.
    """

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._order = "<"
        self._interfaces: list[_Interface] = []
        self._index = 0
        self._section(0, source.take(4, "section header", 0))
        # Read on to the first interface: it says what the frames are. A frame
        # before it would be damage, so nothing is lost by looking here.
        while not self._interfaces and (block := self._header()) is not None:
            self._block(*block)
        self.link_type = self._interfaces[0].link_type if self._interfaces else None

    def frames(self) -> Iterator[Frame]:
        while (block := self._header()) is not None:
            frame = self._block(*block)
            if frame is not None:
                yield frame

    def _header(self) -> tuple[int, int, int] | None:
        """Start, type and total length of the next block; None at the end."""
        source = self._source
        while True:
            start = source.offset
            raw = source.read(8)
            if not raw:
                return None
            if len(raw) < 8:
                raise source.damage(
                    f"truncated block header: file ends {8 - len(raw)} bytes too early", start
                )
            if raw[:4] == _PCAPNG_MAGIC:
                # Its length is in the byte order that its body announces.
                self._section(start, raw[4:])
                continue
            kind, length = struct.unpack(self._order + "II", raw)
            if length < 12 or length % 4:
                raise source.damage(f"block length {length} is impossible", start)
            return start, kind, length

    def _section(self, start: int, raw_length: bytes) -> None:
        source = self._source
        magic = source.take(4, "section header", start)
        if magic == b"\x4d\x3c\x2b\x1a":
            self._order = "<"
        elif magic == b"\x1a\x2b\x3c\x4d":
            self._order = ">"
        else:
            raise source.damage(f"section header with byte-order magic {magic.hex()}", start)
        (length,) = struct.unpack(self._order + "I", raw_length)
        if length < 28 or length % 4:
            raise source.damage(f"section header length {length} is impossible", start)
        major, minor, _ = struct.unpack(
            self._order + "HHq", source.take(12, "section header", start)
        )
        if major != 1:
            raise source.damage(f"pcapng version {major}.{minor} is not known, only 1.0", start)
        source.skip(length - 28, "section header", start)
        self._trailer(start, length)
        self._interfaces = []

    def _trailer(self, start: int, length: int) -> None:
        raw = self._source.take(4, "block", start)
        (again,) = struct.unpack(self._order + "I", raw)
        if again != length:
            raise self._source.damage(f"block length is {length} before and {again} after", start)

    def _block(self, start: int, kind: int, length: int) -> Frame | None:
        body = length - 12
        frame = None
        if kind == _IDB:
            self._interface(start, body)
        elif kind in (_EPB, _PB):
            frame = self._packet(start, body, obsolete=kind == _PB)
        elif kind == _SPB:
            frame = self._simple(start, body)
        else:
            self._source.skip(body, "block", start)
        self._trailer(start, length)
        if frame is not None:
            self._index += 1
        return frame

    def _interface(self, start: int, body: int) -> None:
        source = self._source
        if body < 8 or body - 8 > _MAX_OPTIONS:
            raise source.damage(f"interface block of {body} bytes is impossible", start)
        raw = source.take(body, "interface block", start)
        link_type, _, snaplen = struct.unpack_from(self._order + "HHI", raw)
        tsresol, tsoffset = 6, 0
        at = 8
        while at + 4 <= body:
            code, size = struct.unpack_from(self._order + "HH", raw, at)
            at += 4
            if code == _OPT_END:
                break
            if at + size > body:
                raise source.damage(f"interface option {code} overruns its block", start)
            if code == _OPT_IF_TSRESOL and size >= 1:
                tsresol = raw[at]
            elif code == _OPT_IF_TSOFFSET and size >= 8:
                (tsoffset,) = struct.unpack_from(self._order + "q", raw, at)
            at += size + -size % 4
        self._interfaces.append(_Interface(link_type, snaplen, tsresol, tsoffset))

    def _packet(self, start: int, body: int, *, obsolete: bool) -> Frame:
        """Enhanced packet block, or the packet block it replaced."""
        source = self._source
        if body < 20:
            raise source.damage(f"packet block of {body} bytes is impossible", start)
        raw = source.take(20, "packet block", start)
        # The old block has a 16-bit interface and a drop count in its place.
        number = struct.unpack_from(self._order + ("H" if obsolete else "I"), raw)[0]
        high, low, captured, original = struct.unpack_from(self._order + "IIII", raw, 4)
        interface = self._interface_of(number, start)
        source.check_length(captured, original, interface.snaplen, start)
        padded = captured + -captured % 4
        if padded > body - 20:
            raise source.damage(f"captured length {captured} overruns its block", start)
        data = source.take(captured, "packet block", start)
        source.skip(body - 20 - captured, "packet block", start)
        timestamp = interface.nanoseconds(high << 32 | low)
        return Frame(self._index, data, original, timestamp, interface.link_type)

    def _simple(self, start: int, body: int) -> Frame:
        """Simple packet block: no timestamp, always the first interface."""
        source = self._source
        if body < 4:
            raise source.damage(f"packet block of {body} bytes is impossible", start)
        (original,) = struct.unpack(self._order + "I", source.take(4, "packet block", start))
        interface = self._interface_of(0, start)
        captured = min(original, interface.snaplen) if interface.snaplen else original
        source.check_length(captured, original, interface.snaplen, start)
        if captured > body - 4:
            raise source.damage(f"captured length {captured} overruns its block", start)
        data = source.take(captured, "packet block", start)
        source.skip(body - 4 - captured, "packet block", start)
        return Frame(self._index, data, original, None, interface.link_type)

    def _interface_of(self, number: int, start: int) -> _Interface:
        if number >= len(self._interfaces):
            raise self._source.damage(f"frame of interface {number}, which is not described", start)
        return self._interfaces[number]


class Capture(Closing):
    """A capture file, open for one pass over its `Frame` objects.

    ``link_type`` is that of the file, or of its first interface (None if a
    pcapng file has no interface, and so no frame). Frames of other
    interfaces may differ: each carries its own. Iteration raises
    `CaptureError` where the file is damaged, after every frame before it.
    """

    def __init__(self, file: Readable, path: str, *, owned: bool, size: int | None) -> None:
        self._file = file
        self._owned = owned
        self._source = _Source(file, path)
        self.path = path
        self.size = size
        """Bytes in the file; None if it is a pipe or not known."""
        reader = self._open()
        self.link_type: int | None = reader.link_type
        self._frames = reader.frames()

    def _open(self) -> _Pcap | _Pcapng:
        magic = self._source.read(4)
        if magic in _PCAP_MAGIC:
            return _Pcap(self._source, magic)
        if magic == _PCAPNG_MAGIC:
            return _Pcapng(self._source)
        if not magic:
            raise CaptureError(self.path, "not a capture: the file is empty")
        packer = _COMPRESSED.get(magic[:2])
        raise CaptureError(
            self.path,
            f"not a capture: it starts with {magic.hex(' ')}",
            offset=0,
            hint=f"this looks like {packer}: decompress it first"
            if packer
            else "pcap and pcapng files are read",
        )

    @property
    def offset(self) -> int:
        """Bytes read so far."""
        return self._source.offset

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def __next__(self) -> Frame:
        return next(self._frames)

    def close(self) -> None:
        """Close the file, if `open_capture` opened it. Harmless twice."""
        if self._owned:
            self._file.close()  # type: ignore[attr-defined]


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def open_capture(source: str | os.PathLike[str] | Readable) -> Capture:
    """Open a pcap or pcapng file by path, or read one from a binary file.

    A file object stays open and is read from where it stands. Raises
    `CaptureError` if it cannot be opened or is no capture.
    """
    if not isinstance(source, str | os.PathLike):
        return Capture(source, str(getattr(source, "name", "capture")), owned=False, size=None)
    path = os.fspath(source)
    try:
        file = open(path, "rb")  # noqa: SIM115 - the Capture closes it
    except OSError as e:
        raise CaptureError(path, f"cannot open: {_reason(e)}") from e
    except ValueError as e:
        raise CaptureError(path, f"cannot open: {e}") from e
    try:
        size = os.fstat(file.fileno()).st_size or None
        return Capture(file, path, owned=True, size=size)
    except BaseException:
        file.close()
        raise


def write_pcap(
    path: str | os.PathLike[str],
    frames: Iterable[Frame | bytes],
    *,
    link_type: int = LINKTYPE_ETHERNET,
) -> int:
    """Write a little-endian pcap file with nanoseconds; returns how many frames.

    A `Frame` keeps its timestamp and original length; plain bytes are
    stamped one microsecond apart from 0. Raises `CaptureError` if the file
    cannot be written or a frame does not fit the format.
    """
    name = os.fspath(path)
    count = 0
    try:
        with open(path, "wb") as file:
            file.write(struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, MAX_FRAME, link_type))
            for frame in frames:
                if isinstance(frame, Frame):
                    data, original = frame.data, frame.original_length
                    timestamp = frame.timestamp_ns or 0
                    if frame.link_type != link_type:
                        raise CaptureError(
                            name,
                            f"frame {count} has link type {frame.link_type}, the file {link_type}",
                        )
                else:
                    data, original, timestamp = frame, len(frame), count * 1000
                if len(data) > MAX_FRAME:
                    raise CaptureError(
                        name, f"frame {count} of {len(data)} bytes is over {MAX_FRAME}"
                    )
                seconds, nanoseconds = divmod(timestamp, 1_000_000_000)
                if not (0 <= seconds < 1 << 32 and 0 <= original < 1 << 32):
                    raise CaptureError(name, f"frame {count} does not fit in a pcap record")
                file.write(struct.pack("<IIII", seconds, nanoseconds, len(data), original))
                file.write(data)
                count += 1
    except OSError as e:
        raise CaptureError(name, f"cannot write: {_reason(e)}") from e
    return count


def pcapng_blocks(frames: Iterable[tuple[Frame, str]]) -> Iterator[bytes]:
    """A little-endian pcapng file of frames with a comment each, block by block.

    It has an interface for each link type, with nanoseconds. Comments are what
    Wireshark shows as ``frame.comment``; an empty one is left out.
    """
    yield _pcapng_block(_SHB, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    interfaces: dict[int, int] = {}
    for frame, comment in frames:
        if frame.link_type not in interfaces:
            interfaces[frame.link_type] = len(interfaces)
            described = struct.pack("<HHI", frame.link_type, 0, MAX_FRAME)
            options = _pcapng_option(_OPT_IF_TSRESOL, b"\x09") + _pcapng_option(_OPT_END, b"")
            yield _pcapng_block(_IDB, described + options)
        timestamp = frame.timestamp_ns or 0
        fixed = struct.pack(
            "<IIIII",
            interfaces[frame.link_type],
            timestamp >> 32,
            timestamp & 0xFFFFFFFF,
            len(frame.data),
            frame.original_length,
        )
        options = b""
        if comment:
            options = _pcapng_option(_OPT_COMMENT, comment.encode()) + _pcapng_option(_OPT_END, b"")
        yield _pcapng_block(_EPB, fixed + _to_words(frame.data) + options)


def _pcapng_block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _pcapng_option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _to_words(value)


def _to_words(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
