# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Attacks with guest memory: regions that cannot be, and memory that goes away under traffic."""

import mmap
import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

from tests.effort import examples
from tests.kernel.hostile.descriptors import KINDS
from tests.kernel.hostile.siege import Siege, repeating
from vnethash.errors import VhostUserClosed, VhostUserError
from vnethash.testing.driver import FakeDriver
from vnethash.testing.memory import PAGE, SharedMemory
from vnethash.vhost_user.messages import (
    LogRegion,
    MemoryRegion,
    Payload,
    Request,
    RingFlag,
    VhostFeature,
    VringAddress,
    VringState,
)

_FILE = 1 << 20
_GUEST, _USER = 0x10_0000_0000, 0x6000_0000_0000
_TOP = 1 << 64


def refused(driver: FakeDriver, request: Request, payload: Payload, fds: list[int]) -> bool:
    """Whether the server said no, and kept the connection."""
    try:
        driver.front_end.tell(request, payload, fds)
    except VhostUserClosed:
        raise
    except VhostUserError:
        return True
    return False


def impossible_regions(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Each is refused or ends the connection, and what there was before still works."""
    good = MemoryRegion(_GUEST, PAGE, _USER, 0)
    impossible = [
        replace(good, size=0),
        replace(good, size=_FILE + 1),
        replace(good, mmap_offset=_FILE),
        replace(good, mmap_offset=_FILE - PAGE + 1),
        replace(good, mmap_offset=(1 << 63) - PAGE),
        replace(good, mmap_offset=_TOP - PAGE),
        replace(good, mmap_offset=_TOP - 1),
        replace(good, size=_TOP - 1),
        replace(good, size=1 << 63, mmap_offset=1 << 63),
        replace(good, guest_address=_TOP - PAGE + 1),
        replace(good, user_address=_TOP - PAGE + 1),
        replace(good, guest_address=_TOP - 1, user_address=_TOP - 1),
    ]
    for region in rand.sample(impossible, len(impossible)):
        with ExitStack() as own, suppress(VhostUserClosed):
            driver = own.enter_context(siege.driver(pairs=1))
            fd = KINDS["memfd"](own)
            assert refused(driver, Request.ADD_MEM_REG, region, [fd]), region
        with ExitStack() as own, suppress(VhostUserClosed):
            driver = own.enter_context(siege.driver(pairs=1))
            fds = [KINDS["memfd"](own) for _ in range(2)]
            assert refused(driver, Request.SET_MEM_TABLE, (good, region), fds), region
    with siege.driver(pairs=1) as driver, ExitStack() as own:
        there = driver.memory.regions[0].region
        for shift in (1 - PAGE, -1, 0, 1, there.size - 1):
            for region in (
                replace(good, guest_address=there.guest_address + shift),
                replace(good, user_address=there.user_address + shift),
            ):
                assert refused(driver, Request.ADD_MEM_REG, region, [KINDS["memfd"](own)]), region
        for kind in KINDS:
            with suppress(VhostUserClosed):
                taken = not refused(driver, Request.ADD_MEM_REG, good, [KINDS[kind](own)])
                assert taken == (kind in ("memfd", "file")), kind
                driver.front_end.tell(Request.REM_MEM_REG, good)
        siege.prompt(driver.front_end)


def unaligned_regions(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Any offset and size within the file may be had; many come and go while packets pass."""
    driver = left.enter_context(siege.driver(pairs=1))
    fd = KINDS["memfd"](left)
    for _ in range(60):
        offset = rand.randrange(_FILE)
        region = MemoryRegion(_GUEST, rand.randint(1, _FILE - offset), _USER, offset)
        driver.front_end.tell(Request.ADD_MEM_REG, region, [fd])
        driver.receive_any(1, timeout=0)
        driver.front_end.tell(Request.REM_MEM_REG, region)


def too_many_regions(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """More than the device has slots for, thousands of messages, without waiting for answers."""
    driver = left.enter_context(siege.driver(pairs=1))
    fd = KINDS["memfd"](left)
    slots = driver.front_end.memory_slots()
    for number in range(slots + 10):
        region = MemoryRegion(_GUEST + number * PAGE, PAGE, _USER + number * PAGE, 0)
        no = refused(driver, Request.ADD_MEM_REG, region, [fd])
        assert no == (number >= slots - len(driver.memory.regions))
    for _ in range(examples(300)):
        number = rand.randrange(slots)
        region = MemoryRegion(_GUEST + number * PAGE, PAGE, _USER + number * PAGE, 0)
        driver.front_end.tell(Request.REM_MEM_REG, region)
        if rand.random() < 0.5:
            refused(driver, Request.ADD_MEM_REG, region, [fd])
    siege.prompt(driver.front_end)


def replaced_memory(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """The table changes under traffic; nothing is written to what the guest took back."""
    driver = left.enter_context(siege.driver(pairs=2))
    with SharedMemory([r.region.size for r in driver.memory.regions]) as other:
        tables = [other, driver.memory]
        for number in range(12):
            new, old = tables[number % 2], tables[1 - number % 2]
            driver.receive_any(1, timeout=0)
            regions = tuple(region.region for region in new.regions)
            fds = [region.fd for region in new.regions]
            refused(driver, Request.SET_MEM_TABLE, regions, fds)
            ring = old.view(driver.queues[0].ring.descriptors, 1 << 16)
            buffers = old.view(driver.memory.regions[0].region.guest_address, 1 << 20)
            before = bytes(ring), bytes(buffers)
            time.sleep(0.005)
            assert (bytes(ring), bytes(buffers)) == before, "written to memory that was taken back"
            ring.release()
            buffers.release()
        siege.prompt(driver.front_end)


def truncated_memory(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """The file loses its pages under traffic: all, some, for good or for a moment."""
    for _ in range(8):
        with siege.driver(pairs=4) as driver, _cut_short(driver, rand.choice((0, None)), rand):
            siege.prompt(driver.front_end)
            for index in rand.sample(range(9), 9):
                for state in (0, 1):
                    refused(driver, Request.SET_VRING_ENABLE, VringState(index, state), [])
            refused(driver, Request.SET_FEATURES, driver.front_end.negotiated, [])
            siege.prompt(driver.front_end)


@contextmanager
def _cut_short(driver: FakeDriver, size: int | None, rand: random.Random) -> Iterator[None]:
    """Without pages in this block, in which nobody here may touch the memory."""
    (region,) = driver.memory.regions
    whole = region.region.mmap_offset + region.region.size
    time.sleep(0.005)
    os.ftruncate(region.fd, rand.randrange(whole) if size is None else size)
    for queue in rand.sample(driver.queues, len(driver.queues)):
        queue.kick()
    time.sleep(0.01)
    yield
    os.ftruncate(region.fd, whole)


def punched_memory(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Pages turn to zeros under traffic."""
    driver = left.enter_context(siege.driver(pairs=2))
    (region,) = driver.memory.regions
    pages = region.region.size // PAGE

    def punch() -> None:
        first = rand.randrange(pages)
        count = min(rand.choice((1, 16, 256, 4096)), pages - first)
        mapped.madvise(mmap.MADV_REMOVE, (1 + first) * PAGE, count * PAGE)

    with mmap.mmap(region.fd, (1 + pages) * PAGE) as mapped, repeating(punch):
        for _ in range(20):
            time.sleep(0.005)
            siege.prompt(driver.front_end)


def dirty_logs(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Logs too short for the guest's memory, odd ones, and one that is cut short under traffic."""
    driver = left.enter_context(siege.driver(pairs=2))
    front_end = driver.front_end
    front_end.start_logging(driver.memory, driver.queues)
    bits = front_end.negotiated
    enough = -(-driver.memory.end // (8 * PAGE))
    for kind in KINDS:
        size, offset = rand.choice(
            ((enough, 0), (1, 0), (enough - 1, 0), (1 << 62, 0), (8, 1 << 62))
        )
        with ExitStack() as own:
            refused_log(driver, LogRegion(size, offset), KINDS[kind](own))
    log = left.enter_context(SharedMemory((enough + PAGE,))).regions[0]
    assert not refused_log(driver, LogRegion(enough, log.region.mmap_offset + 3), log.fd)
    for queue in driver.queues:
        ring = queue.ring
        wild = VringAddress(
            queue.index,
            RingFlag.LOG,
            driver.memory.user_address(ring.descriptors),
            driver.memory.user_address(ring.used_ring),
            driver.memory.user_address(ring.available),
            rand.choice((_TOP - 1, _TOP - 8, 1 << 40, driver.memory.end - 1)),
        )
        front_end.tell(Request.SET_VRING_ADDR, wild)
    time.sleep(0.01)
    os.ftruncate(log.fd, 0)
    time.sleep(0.01)
    siege.prompt(front_end)
    for logging in (0, 1, 0):
        change = bits & ~(1 << VhostFeature.LOG_ALL) | logging << VhostFeature.LOG_ALL
        refused(driver, Request.SET_FEATURES, change, [])
    siege.prompt(front_end)


def refused_log(driver: FakeDriver, log: LogRegion, fd: int) -> bool:
    """As refused(): SET_LOG_BASE has an answer of its own."""
    return refused(driver, Request.SET_LOG_BASE, log, [fd])


def wild_addresses(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Parts of rings outside, across the end, unaligned, over each other; sizes that are none."""
    driver = left.enter_context(siege.driver(pairs=2))
    region = driver.memory.regions[0].region
    start, end = region.user_address, region.user_address + region.size

    def somewhere() -> int:
        return rand.choice(
            (
                start,
                end - rand.randrange(1, 1 << 20),
                end - 16,
                end,
                start - 16,
                0,
                _TOP - 16,
                _TOP - rand.randrange(1, 1 << 20),
                rand.randrange(start, end) & ~15,
                rand.randrange(start, end),
                rand.randrange(_TOP),
            )
        )

    for _ in range(150):
        index = rand.choice([*range(10), 255, 1 << 31, (1 << 32) - 1])
        size = rand.choice((1, 2, 4, 256, 1 << 15))
        bad = rand.choice((0, 3, 1 << 16, 255, (1 << 32) - 1))
        assert refused(driver, Request.SET_VRING_NUM, VringState(index, bad), [])
        refused(driver, Request.SET_VRING_NUM, VringState(index, size), [])
        address = VringAddress(index, RingFlag.NONE, somewhere(), somewhere(), somewhere(), 0)
        refused(driver, Request.SET_VRING_ADDR, address, [])
        assert refused(driver, Request.SET_VRING_BASE, VringState(index, 1 << 16), [])
        refused(driver, Request.SET_VRING_BASE, VringState(index, rand.randrange(1 << 16)), [])
    siege.prompt(driver.front_end)
