# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Guest memory that a fake front end shares with a back end."""

import mmap
import os
from collections.abc import Sequence
from contextlib import suppress

from vnethash.closing import Closing
from vnethash.vhost_user.messages import MemoryRegion

PAGE = mmap.PAGESIZE

_GUEST_START = 0x4000_0000
_USER_START = 0x7F00_0000_0000
_GAP = 0x20_0000


class SharedRegion(Closing):
    """One region: a file in memory, ``region.mmap_offset`` bytes of it before the region."""

    def __init__(self, region: MemoryRegion) -> None:
        self.region = region
        self.fd = os.memfd_create("vnethash-guest", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, region.mmap_offset + region.size)
        self._map = mmap.mmap(self.fd, region.size, offset=region.mmap_offset)
        self._view = memoryview(self._map)
        self._used = 0

    def __contains__(self, address: int) -> bool:
        return 0 <= address - self.region.guest_address < self.region.size

    def view(self, address: int, size: int) -> memoryview:
        """``size`` bytes at a guest address; ValueError if they are not all in here."""
        start = address - self.region.guest_address
        if start < 0 or start + size > self.region.size:
            raise ValueError(f"{size} bytes at {address:#x} are not in one region")
        return self._view[start : start + size]

    def allocate(self, size: int, align: int) -> int | None:
        """The guest address of ``size`` bytes nobody else has; None if there are not as many."""
        start = -(-self._used // align) * align
        if start + size > self.region.size:
            return None
        self._used = start + size
        return self.region.guest_address + start

    def close(self) -> None:
        """Let go of the memory. A view that somebody still has keeps it mapped."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._view.release()
            with suppress(BufferError):
                self._map.close()


class SharedMemory(Closing):
    """Regions of the given sizes in bytes, whole pages, with gaps between them.

    Guest address, user address and offset into the file of a byte all differ,
    so that none can be taken for another. Memory is handed out and never taken
    back; what is not touched costs nothing.
    """

    def __init__(self, sizes: Sequence[int] = (64 << 20,)) -> None:
        self.regions: list[SharedRegion] = []
        self._guest, self._user = _GUEST_START, _USER_START
        for size in sizes:
            self.add(size)

    def add(self, size: int) -> SharedRegion:
        """Another region; the back end has to be told of it (FrontEnd.add_region)."""
        region = SharedRegion(
            MemoryRegion(
                guest_address=self._guest,
                size=size,
                user_address=self._user,
                mmap_offset=(len(self.regions) + 1) * PAGE,
            )
        )
        self._guest += size + _GAP
        self._user += size + 2 * _GAP
        self.regions.append(region)
        return region

    def remove(self, region: SharedRegion) -> None:
        """Close a region, which the back end has to have given back."""
        self.regions.remove(region)
        region.close()

    def allocate(self, size: int, align: int = 16, region: SharedRegion | None = None) -> int:
        """The guest address of ``size`` zero bytes, in ``region`` or the first that has room.

        MemoryError if there is no room.
        """
        for candidate in [region] if region else self.regions:
            address = candidate.allocate(size, align)
            if address is not None:
                return address
        raise MemoryError(f"no {size} bytes left in the memory of the fake guest")

    def view(self, address: int, size: int) -> memoryview:
        """``size`` bytes at a guest address, shared with the back end.

        ValueError if they are not all in one region. Release it, or drop it,
        before the memory is closed.
        """
        return self._at(address).view(address, size)

    def user_address(self, address: int) -> int:
        """The front end's own address of a guest address, as SET_VRING_ADDR wants it."""
        region = self._at(address).region
        return address - region.guest_address + region.user_address

    @property
    def end(self) -> int:
        """The first guest address behind all regions."""
        return max(r.region.guest_address + r.region.size for r in self.regions)

    def close(self) -> None:
        for region in self.regions:
            region.close()
        self.regions = []

    def _at(self, address: int) -> SharedRegion:
        for region in self.regions:
            if address in region:
                return region
        raise ValueError(f"{address:#x} is not in the memory of the fake guest")
