# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Frames of a capture by the block: where each of thousands lies in memory.

The native core takes packet records, the reader all others, and those that break a
rule: what is read, and what is said of damage, is the same with both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vnethash.capture.format import CaptureState, Frame, Interface
from vnethash.capture.reader import Capture, Readable
from vnethash.errors import CaptureError, os_reason
from vnethash.native import core

BLOCK: Final = 1 << 20
"""Bytes in memory at once: they are read, walked and dissected while they lie in the cache."""

FRAME_DTYPE = np.dtype(
    [
        ("offset", "<u8"),
        ("time_ns", "<i8"),
        ("length", "<u4"),
        ("original", "<u4"),
        ("link_type", "<u2"),
        ("reserved", "<u2", 3),
    ]
)
"""struct vh_frame (native/capture.h)."""

_FRAMES: Final = 16384


@dataclass(frozen=True, slots=True)
class Block:
    """Frames, and the memory they lie in; both are good until the next block is asked for."""

    memory: NDArray[np.uint8]
    frames: NDArray[np.void]
    """FRAME_DTYPE, shape (n,)."""


class Walker:
    """The frames of a capture, in order, in blocks.

    Iteration raises `CaptureError` where the capture is damaged, after every frame
    before it. ``file`` is read from where it stands: from the start of a capture, or
    with a ``state`` from a record at ``offset`` on. Records that start at ``end`` of the
    capture or behind are left to others.
    """

    def __init__(
        self,
        file: Readable,
        path: str,
        *,
        state: CaptureState | None = None,
        offset: int = 0,
        end: int | None = None,
        block: int = BLOCK,
    ) -> None:
        self._ffi, self._lib = core()
        self._end = end
        self._memory = _Memory(file, path, block, None if end is None else max(0, end - offset))
        self._frames = np.empty(_FRAMES, FRAME_DTYPE)
        self._walked = self._ffi.new("struct vh_walked *")
        self._capture = Capture(self._memory, path, state=state, offset=offset)
        self._interfaces = _Interfaces()
        self._layout = self._ffi.new("struct vh_capture *")

    @property
    def offset(self) -> int:
        """Bytes of the capture read so far: the start of the next record, between blocks."""
        return self._capture.offset

    @property
    def state(self) -> CaptureState:
        """What to read on with from `offset`, in another Walker."""
        return self._capture.state

    def __iter__(self) -> Iterator[Block]:
        memory, walked = self._memory, self._walked
        while True:
            unread = memory.unread
            self._lib.vh_capture_walk(
                self._current_layout(),
                self._ffi.from_buffer("uint8_t[]", unread),
                len(unread),
                self._ffi.from_buffer("struct vh_frame[]", self._frames),
                len(self._frames),
                walked,
            )
            memory.start += walked.used
            self._capture.passed(walked.used, walked.frames)
            if walked.frames:
                yield Block(unread, self._frames[: walked.frames])
            if walked.end == self._lib.VH_WALK_FULL:
                continue
            if walked.end == self._lib.VH_WALK_MORE and memory.fill():
                continue
            if self._end is not None and self.offset >= self._end:
                return
            try:
                frame = self._capture.record()
            except EOFError:
                return
            if frame is not None:
                yield _single(frame)

    def _current_layout(self) -> Any:
        """The state as struct vh_capture."""
        capture, layout = self._capture, self._layout
        layout.is_pcapng = capture.is_pcapng
        layout.is_swapped = capture.order == ">"
        layout.interfaces = len(capture.interfaces)
        layout.interface = self._interfaces.native(capture.interfaces)
        return layout


class _Interfaces:
    """Interfaces for the core. Only those that are new are put behind the others: captures
    that were merged have them by the thousand, with packets in between."""

    def __init__(self) -> None:
        self._ffi, _ = core()
        self._of: Sequence[Interface] = ()
        self._count = 0
        self._native = self._ffi.new("struct vh_interface[]", 1)

    def native(self, interfaces: Sequence[Interface]) -> Any:
        """All of them as struct vh_interface[], good until the next call."""
        if self._of is not interfaces:
            self._of, self._count = interfaces, 0
        if len(interfaces) > len(self._native):
            more = self._ffi.new("struct vh_interface[]", 2 * len(interfaces))
            self._ffi.memmove(more, self._native, self._ffi.sizeof(self._native))
            self._native = more
        for number in range(self._count, len(interfaces)):
            self._native[number] = _native_interface(interfaces[number])
        self._count = len(interfaces)
        return self._native


def _native_interface(interface: Interface) -> dict[str, int]:
    multiply, divide, shift = 1, 1, 0
    exponent = interface.tsresol & 0x7F
    if interface.tsresol & 0x80:
        multiply, shift = 10**9, exponent
    elif exponent <= 9:
        multiply = 10 ** (9 - exponent)
    else:
        divide = 10 ** (exponent - 9)
        if divide >= 1 << 64:  # no number of ticks makes up a nanosecond
            multiply, divide = 0, 1
    return {
        "multiply": multiply,
        "divide": divide,
        "shift": shift,
        "offset": interface.tsoffset,
        "snaplen": interface.snaplen,
        "link_type": interface.link_type,
    }


def _single(frame: Frame) -> Block:
    lib = core().lib
    time = frame.timestamp_ns
    if time is None or abs(time) > lib.VH_TIME_MAX:
        time = lib.VH_NO_TIME
    frames = np.zeros(1, FRAME_DTYPE)
    frames[0] = (0, time, len(frame.data), frame.original_length, frame.link_type, (0, 0, 0))
    return Block(np.frombuffer(frame.data, np.uint8), frames)


class _Memory:
    """The part of a file that is in memory, for the core; and for the reader, a file.

    ``most`` bytes are taken into memory, the reader may go on behind them.
    """

    def __init__(self, file: Readable, path: str, size: int, most: int | None) -> None:
        self._file = file
        self._path = path
        self._most = most
        self._bytes = np.empty(size, np.uint8)
        self.start = self._end = 0

    @property
    def unread(self) -> NDArray[np.uint8]:
        return self._bytes[self.start : self._end]

    def fill(self) -> bool:
        """Read on behind what is unread; False if there is no room or nothing more."""
        unread = self._end - self.start
        if self.start:
            self._bytes[:unread] = self.unread.copy()
        self.start, self._end = 0, unread
        room = self._bytes.data[unread:]
        if self._most is not None:
            room = room[: self._most]
        more = self._read_into(room) if room else 0
        self._end += more
        self._passed(more)
        return more > 0

    def _passed(self, size: int) -> None:
        if self._most is not None:
            self._most = max(0, self._most - size)

    def _read_into(self, room: memoryview) -> int:
        try:
            if hasattr(self._file, "readinto"):
                return int(self._file.readinto(room) or 0)
            data = self._file.read(len(room))
        except OSError as e:
            reason = f"read failed: {os_reason(e)}"
            raise CaptureError(self._path, reason) from e
        room[: len(data)] = data
        return len(data)

    def read(self, size: int, /) -> bytes:
        """As of a file: what is unread first, then what follows."""
        data = self.unread[:size].tobytes()
        self.start += len(data)
        if data:
            return data
        data = self._file.read(size)
        self._passed(len(data))
        return data
