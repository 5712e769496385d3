# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Attacks of a guest: rings and tables that change under the device, and frames that cannot be."""

import os
import random
import select
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.kernel.hostile.siege import Siege, repeating
from vnethash.errors import VhostUserError
from vnethash.rss.config import RssConfig
from vnethash.testing.driver import FakeDriver
from vnethash.testing.front_end import Virtqueue
from vnethash.testing.memory import PAGE, SharedMemory
from vnethash.testing.ring import DESCRIPTOR, Buffer, DescriptorFlag, DriverRing
from vnethash.vhost_user.messages import (
    MemoryRegion,
    Payload,
    Request,
    RingFlag,
    VhostFeature,
    VringAddress,
    VringFd,
    VringState,
)
from vnethash.virtio.control import RssConfigSet
from vnethash.virtio.features import Feature

_CANARY = 1 << 16
_BAIT = (1 << 20) + _CANARY
_MAIN = 96 << 20
_HUGE = 5 << 30
_TABLES = 48 << 10
_RINGS = 5 * PAGE  # two pairs of 64 descriptors, and for control
_MAIN_REGION = 3
_NEXT, _WRITE = DescriptorFlag.NEXT, DescriptorFlag.WRITE
_SCRIBBLES = 1.0
_SHARDS = 120
_TURN = 0.02
_OPTIONAL = (
    Feature.EVENT_IDX,
    Feature.INDIRECT_DESC,
    Feature.MRG_RXBUF,
    Feature.HASH_REPORT,
    Feature.RSS,
)


class Guest:
    """A driver whose rings anybody may write.

    Behind its rings and behind its indirect tables lies ``bait``: descriptors
    that lead into memory nobody may write. ``wildness``: how often what is
    written is what no driver writes; the rest is well-formed, but changes at
    the wrong time.
    """

    def __init__(
        self, driver: FakeDriver, bait: bytes, rand: random.Random, left: ExitStack
    ) -> None:
        self.driver = driver
        self.front_end = driver.front_end
        self.queues = driver.queues
        self.wildness = 0.0
        self._rand = rand
        main = driver.memory.regions[_MAIN_REGION].region
        self._start, self._end = main.guest_address, main.guest_address + main.size
        self._indirect = Feature.INDIRECT_DESC in driver.features
        self._tables = driver.memory.allocate(_TABLES + len(bait))
        self._write(self._tables + _TABLES, bait)
        self._buffers = self._tables + _TABLES + len(bait)
        self._next: dict[int, int] = {}
        self._errors: dict[int, Virtqueue] = {}
        for queue in self.queues:
            error = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            left.callback(os.close, error)
            self._errors[error] = queue
            given = VringFd(queue.index, True)
            self.front_end.tell(Request.SET_VRING_ERR, given, [error])
            self.revive(queue)

    def revive(self, queue: Virtqueue) -> None:
        """Have the device begin anew, with an empty ring, at any index."""
        index = self._rand.randrange(1 << 16)
        ring = queue.ring
        with suppress(VhostUserError):
            self.front_end.stop(queue.index)
            for at in (ring.available + 2, ring.used_ring + 2):
                self._store(at, index)
            self._next[queue.index] = index
            self.front_end.start(queue, self.driver.memory, base=index)

    def revive_broken(self, timeout: float) -> int:
        """Revive those the device has left alone; returns how many. Waits for the first."""
        broken = select.select(self._errors, [], [], timeout)[0]
        for error in broken:
            os.eventfd_read(error)
            self.wildness = self._rand.choice((0, 0.001, 0.01, 0.1))
            self.revive(self._errors[error])
        return len(broken)

    def lend(self, queue: Virtqueue) -> None:
        """As many chains as the ring has room for, by what it says is used."""
        ring = queue.ring
        available = self._next[queue.index]
        lent = (available - ring.used_index) & 0xFFFF
        for _ in range(max(0, ring.size - lent)):
            at = ring.available + 4 + 2 * (available % ring.size)
            self._store(at, self._number(ring.size))
            available = (available + 1) & 0xFFFF
        self._next[queue.index] = available
        self._store(ring.available + 2, available)
        with suppress(BlockingIOError):
            queue.kick()

    def scribble(self) -> None:
        """Change something of some ring."""
        rand = self._rand
        queue = rand.choice(self.queues)
        ring, size = queue.ring, queue.ring.size
        if rand.random() < 0.2:
            self.lend(queue)
        elif rand.random() < self.wildness:
            places = (
                ring.available + 2,  # its index, its flags
                ring.available,
                ring.available + 4 + 2 * rand.randrange(size + 1),  # heads, the event index behind
                ring.used_ring + rand.choice((0, 2, 4 + 2 * rand.randrange(4 * size + 1))),
            )
            self._store(rand.choice(places), rand.randrange(1 << 16))
        elif rand.random() < 0.3:
            slot = rand.randrange(_TABLES // 16)
            sent = slot >= _TABLES // 32
            self._write(self._tables + 16 * slot, self._descriptor(sent, 16, nested=True))
        else:
            sent = queue.index % 2 == 1 or (queue is self.queues[-1] and rand.random() < 0.7)
            slot = rand.randrange(size)
            self._write(ring.descriptors + 16 * slot, self._descriptor(sent, size))

    def _number(self, size: int) -> int:
        """Of a descriptor; one behind all of them if it is wild."""
        rand = self._rand
        return rand.choice((size, 0xFFFF)) if self._wild() else rand.randrange(size)

    def _wild(self) -> bool:
        return self._rand.random() < self.wildness

    def _descriptor(self, sent: bool, size: int, *, nested: bool = False) -> bytes:
        rand = self._rand
        length = rand.choice((12, 60, 1514, 2048, 2048, 65562))
        address = rand.choice(
            (
                rand.randrange(self._buffers, self._end - (1 << 17)),
                self._end - length,
                rand.choice(self.queues).ring.descriptors,
            )
        )
        if address < self._start:  # of rings, which have little room
            length = min(length, 2048)
        flags = int(DescriptorFlag(0) if sent else DescriptorFlag.WRITE)
        if rand.random() < 0.3:
            flags |= DescriptorFlag.NEXT
        elif rand.random() < 0.3 and ((self._indirect and not nested) or self._wild()):
            flags = int(DescriptorFlag.INDIRECT)
            length = 16 * rand.choice((16, 16, 256, 1024))
            address = self._tables + 16 * rand.randrange((_TABLES // 2 - length) // 16 + 1)
            address += _TABLES // 2 * sent
        if self._wild():
            length = rand.choice((0, 1, 15, 1 << 20, 0xFFFFFFFF))
        if self._wild():
            flags = rand.choice((*range(8), 0xFFFF))
        if self._wild():
            address = rand.choice(
                (
                    self._end - rand.randrange(1, 2048),
                    self._end - 1,
                    self._end,
                    self._start - 1,
                    0,
                    (1 << 64) - rand.randrange(1, 4096),
                )
            )
        return DESCRIPTOR.pack(address, length, flags, self._number(size))

    def _store(self, address: int, number: int) -> None:
        self._write(address, number.to_bytes(2, "little"))

    def _write(self, address: int, data: bytes) -> None:
        with self.driver.memory.view(address, len(data)) as view:
            view[:] = data


def _available(driver: FakeDriver, ring: DriverRing) -> int:
    """The available index as the device sees it."""
    with driver.memory.view(ring.available + 2, 2) as index:
        return int.from_bytes(index, "little")


@contextmanager
def guest(siege: Siege, rand: random.Random) -> Iterator[Guest]:
    """One with some features left out. AssertionError if what it did not lend is written.

    The server maps the regions in turn, one below the other: what is written
    behind one goes into the one before it.
    """
    with siege.connect() as front_end:
        offered = {feature for feature in Feature if front_end.features() >> feature & 1}
    features = {f for f in offered if f not in _OPTIONAL or rand.random() < 0.7}
    with SharedMemory((_BAIT, _RINGS, _CANARY, _MAIN, _CANARY)) as memory:
        canaries = [region for region in memory.regions if region.region.size in (_BAIT, _CANARY)]
        target = memory.regions[2].region.guest_address
        bait = DESCRIPTOR.pack(target, 4096, _WRITE, 0) * (_BAIT // DESCRIPTOR.size)
        for region in canaries:
            with region.view(region.region.guest_address, region.region.size) as view:
                view[:] = bait[: len(view)]
            memory.allocate(region.region.size, region=region)
        options = {"memory": memory, "features": features, "pairs": 2, "ring_size": 64}
        with siege.driver(**options) as driver, ExitStack() as left:
            if rand.random() < 0.3:
                driver.front_end.start_logging(memory, driver.queues)
            yield Guest(driver, bait, rand, left)
        for region in canaries:
            with region.view(region.region.guest_address, region.region.size) as view:
                assert bytes(view) == bait[: len(view)], "written to what was not lent"


def scribbled_rings(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """All of all rings and tables changes while the device works on them."""
    hostile = left.enter_context(guest(siege, rand))
    end, broken = time.monotonic() + _SCRIBBLES, 0
    with repeating(hostile.scribble):
        while time.monotonic() < end:
            broken += hostile.revive_broken(_TURN)
            siege.prompt(hostile.front_end)
    assert broken, "nothing of all that broke a rule"


def restarted_rings(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Rings stop, start, are disabled and enabled in any order, under traffic both ways."""
    hostile = left.enter_context(guest(siege, rand))
    driver, front_end = hostile.driver, hostile.front_end
    with repeating(hostile.scribble):
        for _ in range(120):
            queue = rand.choice(hostile.queues)
            with suppress(VhostUserError):
                match rand.randrange(5):
                    case 0:
                        front_end.stop(queue.index)
                    case 1:
                        front_end.enable(queue.index, rand.random() < 0.5)
                    case 2:
                        front_end.set_address(queue, driver.memory)
                    case 3:
                        size = rand.choice((queue.ring.size, 1, 2))
                        front_end.tell(Request.SET_VRING_NUM, VringState(queue.index, size))
                    case 4:
                        hostile.revive(queue)
        siege.prompt(front_end)


def entangled_rings(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Several rings in the same memory, or one in the buffers of another."""
    hostile = left.enter_context(guest(siege, rand))
    driver, front_end = hostile.driver, hostile.front_end
    rings = [queue.ring for queue in hostile.queues]
    with repeating(hostile.scribble):
        for _ in range(60):
            ring = rand.choice(rings)
            address = VringAddress(
                index=rand.choice(hostile.queues).index,
                flags=RingFlag.NONE,
                descriptors=driver.memory.user_address(rand.choice(rings).descriptors),
                used=driver.memory.user_address(rand.choice((ring.used_ring, ring.descriptors))),
                available=driver.memory.user_address(rand.choice(rings).available),
                log=0,
            )
            with suppress(VhostUserError):
                front_end.tell(Request.SET_VRING_ADDR, address)
            time.sleep(0.002)
        siege.prompt(front_end)


def begun_anew(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Features change, and the device is reset, while rings run."""
    hostile = left.enter_context(guest(siege, rand))
    front_end, bits = hostile.front_end, hostile.front_end.negotiated
    changes: list[tuple[Request, Payload]] = [
        (Request.RESET_DEVICE, None),
        (Request.RESET_OWNER, None),
        (Request.SET_OWNER, None),
        (Request.SET_STATUS, 0),
        (Request.SET_STATUS, 15),
        (Request.NET_SET_MTU, 1400),
        *((Request.SET_FEATURES, bits ^ 1 << feature) for feature in _OPTIONAL),
        (Request.SET_FEATURES, bits & ~(1 << VhostFeature.PROTOCOL_FEATURES)),
        (Request.SET_FEATURES, bits ^ 1 << VhostFeature.LOG_ALL),
        (Request.SET_FEATURES, bits),
        (Request.SET_FEATURES, 0),
    ]
    with repeating(hostile.scribble):
        for _ in range(50):
            with suppress(VhostUserError):
                front_end.tell(*rand.choice(changes))
            hostile.revive(rand.choice(hostile.queues))
        siege.prompt(front_end)


def huge_buffers(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Of 4 GiB less one, as a descriptor can say, all of it there; to receive and to send."""
    memory = left.enter_context(SharedMemory((_HUGE,)))
    buffer = memory.allocate(0xFFFFFFFF)
    driver = left.enter_context(siege.driver(memory=memory, pairs=1, ring_size=16))
    for queue, flags in zip(driver.queues, (_WRITE, 0), strict=False):
        driver.front_end.stop(queue.index)
        ring = queue.ring
        done = (ring.used_index + ring.size // 4) & 0xFFFF
        for slot in range(ring.size):
            following = 0 if slot % 4 == 3 else _NEXT
            ring.write_descriptor(slot, buffer, 0xFFFFFFFF, flags | following, slot + 1)
        for head in range(0, ring.size, 4):
            ring.make_available(head)
        base = _available(driver, ring)
        ring.publish()
        driver.front_end.start(queue, memory, base=base)
        queue.kick()
        siege.wait(lambda: ring.used_index == done, f"queue {queue.index} stands still")  # noqa: B023


def endless_chains(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Descriptors that lead round and round, of no bytes or of one, in rings and in tables."""
    driver = left.enter_context(siege.driver(pairs=1, ring_size=64))
    buffer, table = driver.memory.allocate(4096), driver.memory.allocate(16 * 64)
    for queue in driver.queues:
        flags = _NEXT | (0 if queue.index % 2 else _WRITE)
        for length in (0, 1):
            for indirect in (False, True):
                driver.front_end.stop(queue.index)
                base = _available(driver, queue.ring)
                with driver.memory.view(table, 16 * 64) as view:
                    for slot in range(64):
                        link = (buffer, length, flags, (slot + 1) % 64)
                        DESCRIPTOR.pack_into(view, 16 * slot, *link)
                        queue.ring.write_descriptor(slot, *link)
                if indirect:
                    queue.ring.write_descriptor(0, table, 16 * 64, DescriptorFlag.INDIRECT)
                queue.ring.make_available(0)
                queue.ring.publish()
                driver.front_end.start(queue, driver.memory, base=base)
                queue.kick()
                time.sleep(0.002)
                siege.prompt(driver.front_end)


def shattered_buffers(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Chains of as many descriptors as there may be, each across more than a hundred regions."""
    driver = left.enter_context(siege.driver(pairs=1, ring_size=64))
    start = driver.memory.end + (1 << 30)
    for number in range(_SHARDS):
        shard = MemoryRegion(start + number * PAGE, PAGE, start + 2 * number * PAGE, 0)
        driver.front_end.tell(Request.ADD_MEM_REG, shard, [driver.memory.regions[0].fd])
    most = 1 << 10
    table = driver.memory.allocate(16 * most)
    for queue in driver.queues:
        flags = _NEXT | (0 if queue.index % 2 else _WRITE)
        for count in (8, 9, most):
            with driver.memory.view(table, 16 * most) as view:
                for slot in range(most):
                    last = slot == count - 1
                    length = _SHARDS * PAGE - rand.randrange(2)
                    DESCRIPTOR.pack_into(
                        view, 16 * slot, start, length, flags & ~_NEXT if last else flags, slot + 1
                    )
            driver.front_end.stop(queue.index)
            base = _available(driver, queue.ring)
            queue.ring.write_descriptor(0, table, 16 * most, DescriptorFlag.INDIRECT)
            queue.ring.make_available(0)
            queue.ring.publish()
            driver.front_end.start(queue, driver.memory, base=base)
            queue.kick()
            time.sleep(0.005)
            siege.prompt(driver.front_end)


def garbage_to_send(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Headers of any content, frames of any length in any pieces: all come back as used."""
    driver = left.enter_context(siege.driver(pairs=2))
    driver.rss_config(RssConfig.symmetric(2))
    arena = driver.memory.allocate(1 << 17)
    with driver.memory.view(arena, 1 << 17) as view:
        view[:] = content = rand.randbytes(1 << 17)
        for _ in range(150):
            queue = driver.queues[rand.choice((1, 3))]
            header = _any_header(rand)
            view[: len(header)] = header
            length = rand.choice((0, 1, 11, 12, 19, 20, 21, 33, 34, 60, 1514, 9000, 65562, 100000))
            queue.ring.add(_pieces(arena, length, rand))
            queue.publish()
            assert queue.used(1), f"a frame of {length} bytes does not come back"
            assert bytes(view[len(header) :]) == content[len(header) :], "written to what is sent"
    siege.prompt(driver.front_end)


def _any_header(rand: random.Random) -> bytes:
    lengths = (0, 1, 14, 34, 54, 1448, 0x7FFF, 0xFFFF, rand.randrange(1 << 16))
    flags, kind = rand.choice((0, 1, 2, 3, 0xFF)), rand.choice((0, 1, 3, 4, 5, 0x80, 0x81, 0xFF))
    return struct.pack("<BB5H8x", flags, kind, *(rand.choice(lengths) for _ in range(5)))


def _pieces(address: int, length: int, rand: random.Random) -> list[Buffer]:
    """Buffers of that length together, some of them empty."""
    cuts = sorted(rand.randint(0, length) for _ in range(rand.choice((0, 1, 5, 60))))
    ends = [*cuts, length]
    starts = [0, *cuts]
    return [Buffer(address + at, end - at) for at, end in zip(starts, ends, strict=True)]


def flooded_control_queue(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Commands without end, large, expensive or none at all: there is time for others."""
    driver = left.enter_context(siege.driver(pairs=4))
    queue, ring = driver.queues[-1], driver.queues[-1].ring
    commands = [_rss(RssConfig.random(4)), _rss(RssConfig.symmetric(4)), bytes([0, 0, 1])]
    commands += [bytes([4, 0, rand.choice((1, 2, 4)), 0]), bytes([1, 0]) + bytes(1 << 18)]
    commands += [rand.randbytes(rand.randrange(64)) for _ in range(4)]
    # Of 40000 addresses, then none.
    commands.append(bytes([1, 0]) + (40000).to_bytes(4, "little") + bytes(240000 + 4))
    places = []
    for command in commands:
        address = driver.memory.allocate(len(command) + 16)
        with driver.memory.view(address, len(command)) as view:
            view[:] = command
        places.append((address, len(command)))
    ack = driver.memory.allocate(16)

    def command_more() -> None:
        for slot in range(0, ring.size, 2):
            address, length = rand.choice(places)
            ring.write_descriptor(slot, address, length, _NEXT, slot + 1)
            ring.write_descriptor(slot + 1, ack, 1, _WRITE)
        while ring.used_index != _available(driver, ring) and time.monotonic() < end:
            time.sleep(0.0005)
        for slot in range(0, ring.size, 2):
            ring.make_available(slot)
        ring.publish()
        with suppress(BlockingIOError):
            queue.kick()

    end = time.monotonic() + 1
    received = 0
    with repeating(command_more):
        while time.monotonic() < end:
            siege.prompt(driver.front_end)
            received += len(driver.receive_any(1, timeout=0.005))
    assert received, "no packet came"


def _rss(rss: RssConfig) -> bytes:
    return RssConfigSet(
        hash_types=rss.hash_types,
        indirection_table=rss.indirection_table,
        unclassified_queue=rss.unclassified_queue,
        max_tx_vq=4,
        hash_key=rss.key,
    ).encode()
