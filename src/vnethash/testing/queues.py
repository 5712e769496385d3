# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What a virtio-net driver does with its virtqueues (virtio 1.3, 5.1.6)."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vnethash.errors import HeaderError
from vnethash.testing.front_end import Virtqueue
from vnethash.testing.memory import SharedMemory
from vnethash.testing.ring import DESCRIPTOR, Buffer, Table
from vnethash.virtio.header import HASH_SIZE, Header

MAX_FRAME = 65550
"""Bytes of the longest frame, with segmentation offloaded: 65562 with the 12-byte header."""

MAX_PIECES = 64
"""Descriptors of one frame to send."""

_FRAMES_UNDER_WAY = 64
_CONTROL_DATA = (1 << 18) + 4096
_NO_ACK = 0xFF


@dataclass(frozen=True, slots=True)
class Received:
    """A frame, the header in front of it, and how many chains of buffers it took."""

    header: Header
    frame: bytes
    buffers: int


@dataclass(frozen=True, slots=True)
class _Chain:
    """Guest memory of one chain; ``table`` is the address of its indirect table."""

    buffers: tuple[Buffer, ...]
    table: int | None

    def read(self, memory: SharedMemory, length: int) -> bytes:
        """The first ``length`` bytes, over all buffers."""
        parts = []
        for buffer in self.buffers:
            size = min(length, buffer.length)
            parts.append(bytes(memory.view(buffer.address, size)))
            length -= size
        if length:
            raise HeaderError(f"the device says it wrote {length} bytes more than there is room")
        return b"".join(parts)


def _add(queue: Virtqueue, memory: SharedMemory, chain: _Chain) -> int:
    if chain.table is None:
        return queue.ring.add(chain.buffers)
    with memory.view(chain.table, DESCRIPTOR.size * len(chain.buffers)) as view:
        return queue.ring.add(chain.buffers, Table(view, chain.table))


def _cut(address: int, length: int, pieces: Sequence[int]) -> list[Buffer]:
    """Buffers of these lengths, as far as ``length`` goes, and one for what is left."""
    buffers = []
    for piece in (*pieces, length):
        size = min(piece, length)
        if size:
            buffers.append(Buffer(address, size))
        address += size
        length -= size
    return buffers


class ReceiveQueue:
    """A ring full of empty chains, each with descriptors of the given lengths."""

    def __init__(
        self,
        queue: Virtqueue,
        memory: SharedMemory,
        *,
        header_size: int,
        mergeable: bool,
        indirect: bool,
        lengths: Sequence[int],
    ) -> None:
        self.queue = queue
        self._memory = memory
        self._header_size = header_size
        self._mergeable = mergeable
        self._lent: dict[int, _Chain] = {}
        self._used: deque[tuple[_Chain, int]] = deque()
        for _ in range(queue.ring.size // (1 if indirect else len(lengths))):
            self._lend(
                _Chain(
                    tuple(Buffer(memory.allocate(size), size, writable=True) for size in lengths),
                    memory.allocate(DESCRIPTOR.size * len(lengths)) if indirect else None,
                )
            )
        queue.publish()

    def receive(self, count: int, timeout: float) -> list[Received]:
        """At least ``count`` frames, fewer if ``timeout`` seconds bring no more.

        HeaderError if what the device wrote cannot be a frame.
        """
        deadline = time.monotonic() + timeout
        frames: list[Received] = []
        while used := self.queue.used(max(0, deadline - time.monotonic())):
            # Their heads are free for other chains from here on.
            self._used += ((self._lent.pop(done.head), done.length) for done in used)
            frames += self._complete()
            self.queue.publish()
            if len(frames) >= count:
                break
        return frames

    def _complete(self) -> list[Received]:
        """Frames all of whose chains are used; their chains are lent again."""
        frames = []
        while self._used:
            first, length = self._used[0]
            start = first.read(self._memory, length)
            header = Header.decode(start[: self._header_size])
            if not header.num_buffers or (header.num_buffers > 1 and not self._mergeable):
                raise HeaderError(f"num_buffers {header.num_buffers}")
            if header.num_buffers > len(self._used):
                break
            parts = [self._take() for _ in range(header.num_buffers)]
            frame = b"".join(parts)[self._header_size :]
            frames.append(Received(header, frame, header.num_buffers))
        return frames

    def _take(self) -> bytes:
        chain, length = self._used.popleft()
        data = chain.read(self._memory, length)
        self._lend(chain)
        return data

    def _lend(self, chain: _Chain) -> None:
        self._lent[_add(self.queue, self._memory, chain)] = chain


class SendQueue:
    """Frames on their way to the device."""

    def __init__(
        self, queue: Virtqueue, memory: SharedMemory, *, header_size: int, indirect: bool
    ) -> None:
        self.queue = queue
        self._memory = memory
        self._header_size = header_size
        self._indirect = indirect
        self._places = [
            (memory.allocate(HASH_SIZE + MAX_FRAME), memory.allocate(DESCRIPTOR.size * MAX_PIECES))
            for _ in range(min(_FRAMES_UNDER_WAY, queue.ring.size))
        ]
        self._under_way: dict[int, tuple[int, int]] = {}

    def send(self, frame: bytes, header: Header, pieces: Sequence[int], timeout: float) -> None:
        """One frame behind its header, cut into descriptors of these lengths and one of the rest.

        TimeoutError if the device frees no room for it in ``timeout`` seconds,
        ValueError for a frame or a number of pieces above MAX_FRAME, MAX_PIECES.
        """
        if len(frame) > MAX_FRAME or len(pieces) >= MAX_PIECES:
            raise ValueError(f"{len(frame)} bytes in {len(pieces) + 1} pieces are too many")
        needed = 1 if self._indirect else len(pieces) + 1
        deadline = time.monotonic() + timeout
        self._reclaim(0)
        while not self._places or self.queue.ring.free < needed:
            self._reclaim(_left(deadline, "no room to send"))
        # A driver leaves num_buffers 0 (5.1.6.2.1).
        coded = replace(header, num_buffers=0).encode()[: self._header_size]
        place = self._places.pop()
        address, table = place
        with self._memory.view(address, len(coded) + len(frame)) as view:
            view[:] = coded + frame
        buffers = tuple(_cut(address, len(coded) + len(frame), pieces))
        chain = _Chain(buffers, table if self._indirect else None)
        self._under_way[_add(self.queue, self._memory, chain)] = place
        self.queue.publish()

    def flush(self, timeout: float) -> None:
        """Wait until the device is done with all frames; TimeoutError if it is not."""
        deadline = time.monotonic() + timeout
        while self._under_way:
            self._reclaim(_left(deadline, f"{len(self._under_way)} frames are not sent"))

    def _reclaim(self, timeout: float) -> None:
        used = self.queue.used(timeout) if timeout else self.queue.ring.used()
        self._places += [self._under_way.pop(done.head) for done in used]


class ControlQueue:
    """Commands, one at a time."""

    def __init__(self, queue: Virtqueue, memory: SharedMemory, *, indirect: bool) -> None:
        self.queue = queue
        self._memory = memory
        self._data = memory.allocate(_CONTROL_DATA)
        self._ack = memory.allocate(1)
        self._table = memory.allocate(DESCRIPTOR.size * MAX_PIECES) if indirect else None

    def command(self, data: bytes, pieces: Sequence[int], timeout: float) -> int:
        """The acknowledgement; TimeoutError if there is none.

        ``pieces`` are lengths to cut ``data`` into, with one more for the rest.
        ValueError for more data than any command has.
        """
        if len(data) > _CONTROL_DATA:
            raise ValueError(f"a command of {len(data)} bytes is above {_CONTROL_DATA}")
        deadline = time.monotonic() + timeout
        with self._memory.view(self._data, len(data)) as view:
            view[:] = data
        with self._memory.view(self._ack, 1) as ack:
            ack[0] = _NO_ACK
        buffers = _cut(self._data, len(data), pieces)
        chain = _Chain((*buffers, Buffer(self._ack, 1, writable=True)), self._table)
        head = _add(self.queue, self._memory, chain)
        self.queue.publish()
        # An earlier one, given up, may be answered first.
        while head not in [
            used.head
            for used in self.queue.used(_left(deadline, "a control command is not answered"))
        ]:
            pass
        with self._memory.view(self._ack, 1) as ack:
            return ack[0]


def _left(deadline: float, reason: str) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(reason)
    return left
