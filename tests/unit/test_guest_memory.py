# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Guest memory: what is mapped, and what is refused before it could be touched."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.shared_memory import GUEST, USER, SharedMemory
from vnethash.errors import GuestMemoryError
from vnethash.vhost_user.memory import DirtyLog, GuestMemory, Region

PAGE = 4096
MOST = (1 << 64) - 1


@pytest.fixture(name="fd")
def _fd() -> Iterator[int]:
    fd = os.memfd_create("guest")
    os.ftruncate(fd, 16 * PAGE)
    yield fd
    os.close(fd)


def region(fd: int, **changes: int) -> Region:
    return replace(Region(GUEST, 16 * PAGE, USER, 0, fd), **changes)


def mapped() -> int:
    """How many pages of a guest's memory this process has mapped."""
    pages = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "/memfd:guest" in line:
            first, _, end = line.split()[0].partition("-")
            pages += (int(end, 16) - int(first, 16)) // PAGE
    return pages


def test_mapped_until_closed(fd: int) -> None:
    with GuestMemory([region(fd)]) as memory:
        assert mapped() == 16
        memory.close()
        assert mapped() == 0
    assert mapped() == 0


def test_many_regions(fd: int) -> None:
    regions = [
        Region(GUEST + 2 * PAGE * i, PAGE, USER + 2 * PAGE * i, PAGE * (i % 16), fd)
        for i in range(509)
    ]
    with GuestMemory(regions[::-1]):
        assert mapped() == 509
    with pytest.raises(GuestMemoryError, match="must have 1 to 509 regions"):
        GuestMemory([*regions, Region(0, PAGE, 0, 0, fd)])
    with pytest.raises(GuestMemoryError, match="must have 1 to 509 regions"):
        GuestMemory([])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": 0}, "is empty"),
        ({"guest_address": MOST - 16 * PAGE + 1}, "does not fit 64 bits"),
        ({"user_address": MOST - PAGE}, "does not fit 64 bits"),
        ({"mmap_offset": MOST - PAGE}, "does not fit 64 bits"),
        ({"mmap_offset": MOST, "size": 1}, "does not fit 64 bits"),
        ({"size": MOST}, "does not fit 64 bits"),
        ({"size": 1 << 63}, "does not fit 64 bits"),
        ({"size": 16 * PAGE + 1}, "ends behind the end of its file, which has 65536 bytes"),
        ({"mmap_offset": 1}, "ends behind the end of its file"),
        ({"mmap_offset": 17 * PAGE, "size": 1}, "ends behind the end of its file"),
        ({"fd": -1}, "cannot be mapped: Bad file descriptor"),
    ],
)
def test_refuses_a_region(fd: int, changes: dict[str, int], reason: str) -> None:
    good = region(fd, guest_address=0, size=PAGE, user_address=0)
    bad = replace(region(fd), **changes)
    with pytest.raises(GuestMemoryError, match=reason) as caught:
        GuestMemory([good, bad])
    assert caught.value.region == 1
    assert mapped() == 0


@pytest.mark.parametrize("other", [0, 1, 8 * PAGE, 16 * PAGE - 1])
@pytest.mark.parametrize("space", ["guest_address", "user_address"])
def test_refuses_overlaps(fd: int, space: str, other: int) -> None:
    apart = {"guest_address": GUEST + (1 << 30), "user_address": USER + (1 << 30)}
    first = region(fd)
    second = region(fd, **{**apart, space: getattr(first, space) + other})
    for order in ([first, second], [second, first]):
        with pytest.raises(GuestMemoryError, match="region 1 overlaps another"):
            GuestMemory(order)
    assert mapped() == 0


def test_a_part_of_the_file_off_the_page(fd: int) -> None:
    """A region may begin inside a page; what is before it in the page is not the guest's."""
    with GuestMemory([region(fd, mmap_offset=PAGE + 48, size=PAGE)]):
        assert mapped() == 2


def test_what_is_no_file_of_memory() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(GuestMemoryError, match="region 0"):
            GuestMemory([region(reader, size=PAGE)])
    finally:
        os.close(reader)
        os.close(writer)


def test_a_file_not_to_be_written(fd: int) -> None:
    readonly = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    try:
        with pytest.raises(GuestMemoryError, match="cannot be mapped: Permission denied"):
            GuestMemory([region(readonly)])
    finally:
        os.close(readonly)


def test_log_must_cover_the_memory() -> None:
    with SharedMemory((PAGE,)) as shared:
        needed = (GUEST + PAGE) // PAGE // 8 + 1
        log = os.memfd_create("log")
        try:
            os.ftruncate(log, needed)
            with GuestMemory(shared.regions, DirtyLog(log, 0, needed)):
                pass
            for refused in (
                DirtyLog(log, 0, needed - 1),
                DirtyLog(log, 1, needed),
                DirtyLog(log, MOST, needed),
                DirtyLog(log, 0, MOST),
            ):
                with pytest.raises(GuestMemoryError, match=f"dirty log must have {needed} bytes"):
                    GuestMemory(shared.regions, refused)
        finally:
            os.close(log)
