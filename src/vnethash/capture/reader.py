# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Read pcap and pcapng files as a stream, a record at a time.

Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. Nothing is held
but the frame at hand, lengths are checked before anything is read, and a
damaged file gives every frame before the damage, then a `CaptureError` with
the offset of the record that broke.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, Protocol

from vnethash.capture.format import (
    COMPRESSED,
    EPB,
    IDB,
    LINKTYPE_ETHERNET,
    MAX_FRAME,
    OPT_END,
    OPT_IF_TSOFFSET,
    OPT_IF_TSRESOL,
    PB,
    PCAP_MAGIC,
    PCAPNG_MAGIC,
    SPB,
    CaptureState,
    Frame,
    Interface,
    link_type_name,
)
from vnethash.closing import Closing
from vnethash.errors import CaptureError, os_reason

# An interface has a handful of short options; longer is damage.
_MAX_OPTIONS: Final = 262144
_SKIP: Final = 65536


class Readable(Protocol):
    """What a capture is read from: a binary file, a pipe, a BytesIO."""

    def read(self, size: int, /) -> bytes: ...


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

    def __init__(self, file: Readable, path: str, offset: int = 0) -> None:
        self._file = file
        self.path = path
        self.offset = offset

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""
        try:
            data = self._file.read(size)
            # A pipe or an unbuffered file may return less than is still to come.
            while len(data) < size and (more := self._file.read(size - len(data))):
                data += more
        except OSError as e:
            raise CaptureError(self.path, f"read failed: {os_reason(e)}", offset=self.offset) from e
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

    def __init__(self, source: _Source, state: CaptureState) -> None:
        self._source = source
        self.state = state
        self.order = state.order
        self.interfaces: Sequence[Interface] = state.interfaces
        (self._interface,) = state.interfaces
        self._record = struct.Struct(state.order + "IIII")

    @classmethod
    def open(cls, source: _Source, magic: bytes) -> "_Pcap":
        order, tsresol = PCAP_MAGIC[magic]
        header = source.take(20, "file header", 0)
        major, minor, _zone, _sigfigs, snaplen, network = struct.unpack(order + "HHIIII", header)
        if major != 2:
            raise source.damage(f"pcap version {major}.{minor} is not known, only 2.4", 4)
        # The upper half of the field says how long the frame check sequence is.
        interface = Interface(network & 0xFFFF, snaplen, tsresol)
        return cls(source, CaptureState(False, order, (interface,)))

    def record(self, index: int) -> Frame | None:
        source = self._source
        start = source.offset
        header = source.read(16)
        if not header:
            raise EOFError
        if len(header) < 16:
            raise source.damage(
                f"truncated record header: file ends {16 - len(header)} bytes too early", start
            )
        seconds, ticks, captured, original = self._record.unpack(header)
        source.check_length(captured, original, self._interface.snaplen, start)
        data = source.take(captured, "frame", start)
        timestamp = seconds * 1_000_000_000 + self._interface.nanoseconds(ticks)
        return Frame(index, data, original, timestamp, self._interface.link_type)


class _Pcapng:
    """draft-ietf-opsawg-pcapng

    Every block is: type, total length, body, total length again; a section
    header block sets the byte order and forgets the interfaces before it.
    """

    def __init__(self, source: _Source, state: CaptureState) -> None:
        self._source = source
        self.order = state.order
        self.interfaces = list(state.interfaces)
        self._index = 0

    @classmethod
    def open(cls, source: _Source) -> "_Pcapng":
        reader = cls(source, CaptureState(True, "<", ()))
        reader._section(0, source.take(4, "section header", 0))
        # Read on to the first interface: it says what the frames are. A frame
        # before it would be damage, so nothing is lost by looking here.
        with suppress(EOFError):
            while not reader.interfaces:
                reader.record(0)
        return reader

    @property
    def state(self) -> CaptureState:
        return CaptureState(True, self.order, tuple(self.interfaces))

    def record(self, index: int) -> Frame | None:
        self._index = index
        return self._block(*self._header())

    def _header(self) -> tuple[int, int, int]:
        """Start, type and total length of the next block; EOFError at the end."""
        source = self._source
        while True:
            start = source.offset
            raw = source.read(8)
            if not raw:
                raise EOFError
            if len(raw) < 8:
                raise source.damage(
                    f"truncated block header: file ends {8 - len(raw)} bytes too early", start
                )
            if raw[:4] == PCAPNG_MAGIC:
                # Its length is in the byte order that its body announces.
                self._section(start, raw[4:])
                continue
            kind, length = struct.unpack(self.order + "II", raw)
            if length < 12 or length % 4:
                raise source.damage(f"block length {length} is impossible", start)
            return start, kind, length

    def _section(self, start: int, raw_length: bytes) -> None:
        source = self._source
        magic = source.take(4, "section header", start)
        if magic == b"\x4d\x3c\x2b\x1a":
            self.order = "<"
        elif magic == b"\x1a\x2b\x3c\x4d":
            self.order = ">"
        else:
            raise source.damage(f"section header with byte-order magic {magic.hex()}", start)
        (length,) = struct.unpack(self.order + "I", raw_length)
        if length < 28 or length % 4:
            raise source.damage(f"section header length {length} is impossible", start)
        major, minor, _ = struct.unpack(
            self.order + "HHq", source.take(12, "section header", start)
        )
        if major != 1:
            raise source.damage(f"pcapng version {major}.{minor} is not known, only 1.0", start)
        source.skip(length - 28, "section header", start)
        self._trailer(start, length)
        self.interfaces = []

    def _trailer(self, start: int, length: int) -> None:
        raw = self._source.take(4, "block", start)
        (again,) = struct.unpack(self.order + "I", raw)
        if again != length:
            raise self._source.damage(f"block length is {length} before and {again} after", start)

    def _block(self, start: int, kind: int, length: int) -> Frame | None:
        body = length - 12
        frame = None
        if kind == IDB:
            self._interface(start, body)
        elif kind in (EPB, PB):
            frame = self._packet(start, body, obsolete=kind == PB)
        elif kind == SPB:
            frame = self._simple(start, body)
        else:
            self._source.skip(body, "block", start)
        self._trailer(start, length)
        return frame

    def _interface(self, start: int, body: int) -> None:
        source = self._source
        if body < 8 or body - 8 > _MAX_OPTIONS:
            raise source.damage(f"interface block of {body} bytes is impossible", start)
        raw = source.take(body, "interface block", start)
        link_type, _, snaplen = struct.unpack_from(self.order + "HHI", raw)
        tsresol, tsoffset = 6, 0
        at = 8
        while at + 4 <= body:
            code, size = struct.unpack_from(self.order + "HH", raw, at)
            at += 4
            if code == OPT_END:
                break
            if at + size > body:
                raise source.damage(f"interface option {code} overruns its block", start)
            if code == OPT_IF_TSRESOL and size >= 1:
                tsresol = raw[at]
            elif code == OPT_IF_TSOFFSET and size >= 8:
                (tsoffset,) = struct.unpack_from(self.order + "q", raw, at)
            at += size + -size % 4
        self.interfaces.append(Interface(link_type, snaplen, tsresol, tsoffset))

    def _packet(self, start: int, body: int, *, obsolete: bool) -> Frame:
        """Enhanced packet block, or the packet block it replaced."""
        source = self._source
        if body < 20:
            raise source.damage(f"packet block of {body} bytes is impossible", start)
        raw = source.take(20, "packet block", start)
        # The old block has a 16-bit interface and a drop count in its place.
        number = struct.unpack_from(self.order + ("H" if obsolete else "I"), raw)[0]
        high, low, captured, original = struct.unpack_from(self.order + "IIII", raw, 4)
        interface = self._interface_of(number, start)
        source.check_length(captured, original, interface.snaplen, start)
        # Which is a multiple of 4, as the length of the block is: the padding is in it.
        if captured > body - 20:
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
        (original,) = struct.unpack(self.order + "I", source.take(4, "packet block", start))
        interface = self._interface_of(0, start)
        captured = min(original, interface.snaplen) if interface.snaplen else original
        source.check_length(captured, original, interface.snaplen, start)
        if captured > body - 4:
            raise source.damage(f"captured length {captured} overruns its block", start)
        data = source.take(captured, "packet block", start)
        source.skip(body - 4 - captured, "packet block", start)
        return Frame(self._index, data, original, None, interface.link_type)

    def _interface_of(self, number: int, start: int) -> Interface:
        if number >= len(self.interfaces):
            raise self._source.damage(f"frame of interface {number}, which is not described", start)
        return self.interfaces[number]


class Capture(Closing):
    """A capture file, open for one pass over its `Frame` objects.

    ``link_type`` is that of the file, or of its first interface (None if a
    pcapng file has no interface, and so no frame). Frames of other
    interfaces may differ: each carries its own. Iteration raises
    `CaptureError` where the file is damaged, after every frame before it.
    """

    def __init__(
        self,
        file: Readable,
        path: str,
        *,
        owned: bool = False,
        size: int | None = None,
        state: CaptureState | None = None,
        offset: int = 0,
    ) -> None:
        self._file = file
        self._owned = owned
        self._source = _Source(file, path, offset)
        self._index = 0
        self.path = path
        self.size = size
        """Bytes in the file; None if it is a pipe or not known."""
        self._reader = self._open() if state is None else self._resume(state)
        interfaces = self.state.interfaces
        self.link_type: int | None = interfaces[0].link_type if interfaces else None

    def _resume(self, state: CaptureState) -> _Pcap | _Pcapng:
        return (_Pcapng if state.is_pcapng else _Pcap)(self._source, state)

    def _open(self) -> _Pcap | _Pcapng:
        magic = self._source.read(4)
        if magic in PCAP_MAGIC:
            return _Pcap.open(self._source, magic)
        if magic == PCAPNG_MAGIC:
            return _Pcapng.open(self._source)
        if not magic:
            raise CaptureError(self.path, "not a capture: the file is empty")
        packer = COMPRESSED.get(magic[:2])
        raise CaptureError(
            self.path,
            f"not a capture: it starts with {magic.hex(' ')}",
            offset=0,
            hint=f"this looks like {packer}: decompress it first"
            if packer
            else "pcap and pcapng files are read",
        )

    @property
    def state(self) -> CaptureState:
        """What to read on with from `offset`, in another Capture."""
        return self._reader.state

    @property
    def is_pcapng(self) -> bool:
        """As in `state`."""
        return isinstance(self._reader, _Pcapng)

    @property
    def order(self) -> str:
        """Byte order of what comes next, as in `state`."""
        return self._reader.order

    @property
    def interfaces(self) -> Sequence[Interface]:
        """As in `state`, but not copied: more may come behind them; those of another
        section are in another sequence."""
        return self._reader.interfaces

    @property
    def offset(self) -> int:
        """Bytes read so far."""
        return self._source.offset

    def record(self) -> Frame | None:
        """The next record: a frame, or None for any other. Raises EOFError behind the last."""
        frame = self._reader.record(self._index)
        self._index += frame is not None
        return frame

    def passed(self, size: int, frames: int) -> None:
        """Somebody else has read the next ``size`` bytes, records with so many frames."""
        self._source.offset += size
        self._index += frames

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        try:
            while (frame := self.record()) is None:
                pass
        except EOFError:
            raise StopIteration from None
        return frame

    def close(self) -> None:
        """Close the file, if `open_capture` opened it. Harmless twice."""
        if self._owned:
            self._file.close()  # type: ignore[attr-defined]


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
        raise CaptureError(path, f"cannot open: {os_reason(e)}") from e
    except ValueError as e:
        raise CaptureError(path, f"cannot open: {e}") from e
    try:
        size = os.fstat(file.fileno()).st_size or None
        return Capture(file, path, owned=True, size=size)
    except BaseException:
        file.close()
        raise
