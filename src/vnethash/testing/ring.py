# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The driver's side of a split virtqueue in shared memory (virtio 1.3, 2.7)."""

import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntFlag

if sys.byteorder != "little":
    raise ImportError("virtio 1.x is little-endian, this machine is not")

DESCRIPTOR = struct.Struct("<QIHH")
"""struct virtq_desc: address, length, flags, next."""

NO_NOTIFY = 1
"""VIRTQ_USED_F_NO_NOTIFY: the device wants no kicks."""

NO_INTERRUPT = 1
"""VIRTQ_AVAIL_F_NO_INTERRUPT: the driver wants no calls."""


class DescriptorFlag(IntFlag):
    """VIRTQ_DESC_F_*."""

    NEXT = 1
    WRITE = 2
    INDIRECT = 4


@dataclass(frozen=True, slots=True)
class Buffer:
    """Guest memory lent to the device: to read, or to write."""

    address: int
    length: int
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Used:
    """A chain that came back: its head, and how many bytes the device wrote."""

    head: int
    length: int


@dataclass(frozen=True, slots=True)
class Table:
    """Memory for an indirect table: the bytes, and their address in the guest."""

    memory: memoryview
    address: int


def bytes_needed(size: int) -> int:
    """Bytes of a ring of ``size`` descriptors, its three parts behind each other."""
    return _used_offset(size) + 6 + 8 * size


def _used_offset(size: int) -> int:
    return (16 * size + 6 + 2 * size + 3) & ~3


class DriverRing:
    """One virtqueue as its driver has it.

    ``memory`` are the ring's bytes, shared with the device: bytes_needed(size)
    of them, at the guest address ``address``, a multiple of 16. They need not
    be zero. Both indices begin at ``index``. ``descriptors``, ``available`` and
    ``used_ring`` are the guest addresses of the parts. Nothing here checks the
    caller: what a driver must not do, a test can do.
    """

    def __init__(
        self,
        memory: memoryview,
        address: int,
        size: int,
        *,
        event_idx: bool = False,
        index: int = 0,
    ) -> None:
        self.size = size
        self.event_idx = event_idx
        self.descriptors = address
        self.available = address + 16 * size
        self.used_ring = address + _used_offset(size)
        used = _used_offset(size)
        self.table = memory[: 16 * size]
        # Cast, because an index must be stored at once: struct.pack_into is bytewise.
        self._avail = memory[16 * size : 16 * size + 6 + 2 * size].cast("H")
        self._used = memory[used : used + 6 + 8 * size - 2].cast("H")
        self._avail_event = memory[used + 4 + 8 * size : used + 6 + 8 * size].cast("H")
        memory[: bytes_needed(size)] = bytes(bytes_needed(size))
        self._free = list(range(size - 1, -1, -1))
        self._chains: dict[int, list[int]] = {}
        self._next = self._published = self._kicked = self._seen = index
        self._avail[1] = self._used[1] = index
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        """Descriptors not in use."""
        return len(self._free)

    @property
    def outstanding(self) -> int:
        """Chains added and not yet seen used."""
        return len(self._chains)

    def add(self, buffers: Sequence[Buffer], indirect: Table | None = None) -> int:
        """Put a chain of ``buffers`` into the ring, in a table if one is given; returns its head.

        The device sees it after publish(). IndexError if the ring is full.
        """
        if indirect is None:
            return self._add(buffers, ())
        table = encode_table(buffers)
        indirect.memory[: len(table)] = table
        return self.add_table(indirect.address, len(table))

    def add_table(self, address: int, length: int, before: Sequence[Buffer] = ()) -> int:
        """Put a chain into the ring that goes on in a table of ``length`` bytes."""
        table = DESCRIPTOR.pack(address, length, DescriptorFlag.INDIRECT, 0)
        return self._add(before, (table,))

    def _add(self, buffers: Sequence[Buffer], last: Sequence[bytes]) -> int:
        needed = len(buffers) + len(last)
        if needed > len(self._free):
            raise IndexError(f"{needed} descriptors needed, {len(self._free)} free")
        slots = [self._free.pop() for _ in range(needed)]
        for slot, descriptor in zip(slots, [*_chain(buffers, slots), *last], strict=True):
            self.table[16 * slot : 16 * slot + 16] = descriptor
        self._chains[slots[0]] = slots
        self.make_available(slots[0])
        return slots[0]

    def write_descriptor(
        self, index: int, address: int, length: int, flags: int, next_: int = 0
    ) -> None:
        """Write one entry of the descriptor table, whatever it says."""
        DESCRIPTOR.pack_into(self.table, 16 * index, address, length, flags, next_)

    def make_available(self, head: int) -> None:
        """Put a head into the next entry of the available ring, without a look at it."""
        self._avail[2 + self._next % self.size] = head
        self._next = (self._next + 1) & 0xFFFF

    def publish(self) -> None:
        """Let the device see what was added."""
        self._fence()
        self.set_available_index(self._next)
        self._fence()

    def set_available_index(self, index: int) -> None:
        """Store the available index as it is."""
        self._avail[1] = index
        self._published = index

    def should_kick(self) -> bool:
        """Whether the device wants to hear of what was published since the last call."""
        old, self._kicked = self._kicked, self._published
        if old == self._published:
            return False
        if self.event_idx:
            return _crossed(self._avail_event[0], self._published, old)
        return not self._used[0] & NO_NOTIFY

    def used(self) -> Iterator[Used]:
        """Take what the device has used; its descriptors are free again."""
        while self._seen != self.used_index:
            entry = 2 + 4 * (self._seen % self.size)
            head = self._used[entry] | self._used[entry + 1] << 16
            length = self._used[entry + 2] | self._used[entry + 3] << 16
            self._seen = (self._seen + 1) & 0xFFFF
            self._free += reversed(self._chains.pop(head, []))
            yield Used(head, length)

    @property
    def used_index(self) -> int:
        """The device's index into the used ring, as it stands."""
        return self._used[1]

    @property
    def flags(self) -> int:
        """Flags of the used ring: NO_NOTIFY, or 0."""
        return self._used[0]

    def want_calls(self, want: bool) -> bool:
        """Ask for a call at the next used chain, or for none.

        Returns whether there is something used already, which brings no call any more.
        """
        if self.event_idx:
            # Behind what was seen: half a round of the indices away.
            self._avail[2 + self.size] = (self._seen if want else self._seen - 0x8000) & 0xFFFF
        else:
            self._avail[0] = 0 if want else NO_INTERRUPT
        self._fence()
        return self._seen != self.used_index

    def release(self) -> None:
        """Let go of the memory, or it could not be closed."""
        for view in (self.table, self._avail, self._used, self._avail_event):
            view.release()

    def _fence(self) -> None:
        """What was stored before is seen before what is loaded after: a lock is a barrier."""
        with self._lock:
            pass


def encode_table(buffers: Sequence[Buffer]) -> bytes:
    """An indirect table with a chain of all buffers."""
    return b"".join(_chain(buffers, range(len(buffers))))


def _chain(buffers: Sequence[Buffer], slots: Sequence[int]) -> Iterator[bytes]:
    """Descriptors that lead from slot to slot, also to one behind the buffers' own."""
    for place, buffer in enumerate(buffers):
        flags = DescriptorFlag.WRITE if buffer.writable else DescriptorFlag(0)
        following = 0
        if place + 1 < len(slots):
            flags |= DescriptorFlag.NEXT
            following = slots[place + 1]
        yield DESCRIPTOR.pack(buffer.address, buffer.length, flags, following)


def _crossed(event: int, new: int, old: int) -> bool:
    """Whether going from ``old`` to ``new`` passes ``event`` (virtio 1.3, 2.7.10)."""
    return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF
