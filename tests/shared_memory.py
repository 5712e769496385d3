# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Guest memory as a front end has it: regions in a memfd, and an allocator."""

import mmap
import os
from collections.abc import Sequence

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
        self._views: list[tuple[int, memoryview, mmap.mmap]] = []
        guest, offset = GUEST, 0
        for index, size in enumerate(sizes):
            os.ftruncate(self.fd, offset + size)
            user = USER + guest - GUEST + (index << 32)
            self.regions.append(Region(guest, size, user, offset, self.fd))
            mapped = mmap.mmap(self.fd, size, offset=offset)
            self._views.append((guest, memoryview(mapped), mapped))
            guest += size
            offset += (size + 0xFFFF) & ~0xFFFF
        self.end = guest
        self._next = GUEST

    def close(self) -> None:
        for _, view, mapped in self._views:
            view.release()
            mapped.close()
        self._views = []
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
        for start, view, _ in self._views:
            if start <= address and address + size <= start + len(view):
                return view[address - start : address - start + size]
        raise ValueError(f"{address:#x} is not in one region")

    def user(self, address: int) -> int:
        """The front end's address of a guest address."""
        for region in self.regions:
            if 0 <= address - region.guest_address < region.size:
                return region.user_address + address - region.guest_address
        raise ValueError(f"{address:#x} is not in guest memory")

    def read(self, address: int, size: int) -> bytes:
        return b"".join(bytes(piece) for piece in self._pieces(address, size))

    def write(self, address: int, data: bytes) -> None:
        done = 0
        for piece in self._pieces(address, len(data)):
            piece[:] = data[done : done + len(piece)]
            done += len(piece)

    def _pieces(self, address: int, size: int) -> list[memoryview]:
        pieces = []
        for start, view, _ in self._views:
            first, last = max(address, start), min(address + size, start + len(view))
            if first < last:
                pieces.append(view[first - start : last - start])
        if sum(map(len, pieces)) != size:
            raise ValueError(f"{address:#x} and {size} bytes are not in guest memory")
        return pieces
