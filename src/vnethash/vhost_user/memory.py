# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Guest memory, mapped by the native core; Python never touches it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vnethash.closing import Closing
from vnethash.errors import GuestMemoryError
from vnethash.native import core


@dataclass(frozen=True, slots=True)
class Region:
    """One region of guest memory, as the front end described it; sizes in bytes.

    ``user_address`` is where the front end itself has it; ``fd`` is borrowed
    while a GuestMemory is made.
    """

    guest_address: int
    size: int
    user_address: int
    mmap_offset: int
    fd: int


@dataclass(frozen=True, slots=True)
class DirtyLog:
    """Where a bit is set for each page of 4096 bytes that is written; ``fd`` as in a Region."""

    fd: int
    offset: int
    size: int


class GuestMemory(Closing):
    """Regions of guest memory, mapped.

    Raises GuestMemoryError for regions that overlap, do not fit 64 bits or end
    behind their file, for a log that is too short, and if the system refuses.
    Queues that run keep the memory mapped: close() may come first.
    """

    def __init__(self, regions: Sequence[Region], log: DirtyLog | None = None) -> None:
        ffi, self._lib = core()
        table = ffi.new(
            "struct vh_region[]",
            [(r.guest_address, r.size, r.user_address, r.mmap_offset, r.fd) for r in regions],
        )
        lent = (
            ffi.NULL if log is None else ffi.new("struct vh_log *", (log.fd, log.offset, log.size))
        )
        refusal = ffi.new("struct vh_memory_refusal *")
        handle = self._lib.vh_memory_new(table, len(regions), lent, refusal)
        self.handle = handle if handle != ffi.NULL else None
        if self.handle is None:
            raise self._refused(refusal)

    def close(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None:
            self._lib.vh_memory_put(handle)

    def __del__(self) -> None:
        if getattr(self, "handle", None) is not None:
            self.close()

    def _refused(self, refusal: Any) -> GuestMemoryError:
        lib = self._lib
        error, region, detail = refusal.error, refusal.region, refusal.detail
        if error == lib.VH_MEMORY_COUNT:
            return GuestMemoryError(f"must have 1 to {lib.VH_REGIONS_MAX} regions")
        if error == lib.VH_MEMORY_LOG:
            return GuestMemoryError(f"the dirty log must have {detail} bytes, and its file too")
        reason = {
            lib.VH_MEMORY_EMPTY: "is empty",
            lib.VH_MEMORY_OVERFLOW: "does not fit 64 bits of address",
            lib.VH_MEMORY_OVERLAP: "overlaps another",
            lib.VH_MEMORY_FILE: f"ends behind the end of its file, which has {detail} bytes",
        }.get(error) or f"cannot be mapped: {os.strerror(detail)}"
        return GuestMemoryError(reason, region)
