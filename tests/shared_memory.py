# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Guest memory as a front end has it: regions in a memfd, and an allocator."""

import mmap
import os
from collections.abc import Iterator, Sequence

from vnethash.closing import Closing
from vnethash.vhost_user.memory import Region

GUEST = 0x1_0000_0000
"""Where the guest has its first region."""

USER = 0x7000_0000_0000
"""Where the front end says it has the first region."""


class SharedMemory(Closing):
    """Regions of guest memory behind each other in the guest, in one file.

    In the file and in the front end there are gaps between them.
    """

    def __init__(self, sizes: Sequence[int] = (1 << 20,)) -> None:
        self.fd = os.memfd_create("guest", os.MFD_CLOEXEC)
        self.regions: list[Region] = []
        guest, offset = GUEST, 0
        for index, size in enumerate(sizes):
            user = USER + guest - GUEST + (index << 32)
            self.regions.append(Region(guest, size, user, offset, self.fd))
            guest += size
            offset += (size + 0x1FFFF) & ~0xFFFF
        os.ftruncate(self.fd, offset)
        self._mapped = mmap.mmap(self.fd, offset)
        self._view = memoryview(self._mapped)
        self.end = guest
        self._next = GUEST

    def close(self) -> None:
        self._view.release()
        self._mapped.close()
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def allocate(self, size: int, alignment: int = 1) -> int:
        """The guest address of bytes nobody else has."""
        address = -(-self._next // alignment) * alignment
        if address + size > self.end:
            raise MemoryError(f"{size} bytes of guest memory")
        self._next = address + size
        return address

    def view(self, address: int, size: int) -> memoryview:
        """Bytes that lie in one region."""
        for region in self.regions:
            offset = address - region.guest_address
            if offset >= 0 and offset + size <= region.size:
                start = region.mmap_offset + offset
                return self._view[start : start + size]
        raise ValueError(f"{address:#x} is not in one region")

    def user(self, address: int) -> int:
        """The front end's address of a guest address."""
        for region in self.regions:
            if 0 <= address - region.guest_address < region.size:
                return region.user_address + address - region.guest_address
        raise ValueError(f"{address:#x} is not in guest memory")

    def read(self, address: int, size: int) -> bytes:
        return b"".join(self._view[start:end] for start, end in self._pieces(address, size))

    def write(self, address: int, data: bytes) -> None:
        done = 0
        for start, end in self._pieces(address, len(data)):
            self._view[start:end] = data[done : done + end - start]
            done += end - start

    def _pieces(self, address: int, size: int) -> Iterator[tuple[int, int]]:
        """Where in the file the bytes lie, from and to."""
        for region in self.regions:
            first = max(address, region.guest_address)
            last = min(address + size, region.guest_address + region.size)
            if first < last:
                start = region.mmap_offset - region.guest_address
                yield start + first, start + last
