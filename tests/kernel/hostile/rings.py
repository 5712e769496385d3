# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Attacks of a guest: rings and tables that change under the device, and frames that cannot be."""

import random
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.kernel.hostile.siege import Siege, repeating
from vnethash.errors import VhostUserError
from vnethash.rss.config import RssConfig
from vnethash.testing.driver import FakeDriver
from vnethash.testing.front_end import Virtqueue
from vnethash.testing.memory import SharedMemory
from vnethash.testing.ring import DESCRIPTOR, Buffer, DescriptorFlag, DriverRing
from vnethash.vhost_user.messages import Request, VringState
from vnethash.virtio.control import RssConfigSet
from vnethash.virtio.features import Feature

_CANARY = 1 << 18
_MAIN = 96 << 20
_TABLES = 1 << 16
_NEXT, _WRITE, _INDIRECT = DescriptorFlag.NEXT, DescriptorFlag.WRITE, DescriptorFlag.INDIRECT
_TURNS = 25
_TURN = 0.01
_OPTIONAL = (
    Feature.EVENT_IDX,
    Feature.INDIRECT_DESC,
    Feature.MRG_RXBUF,
    Feature.HASH_REPORT,
    Feature.RSS,
)


class Guest:
    """A driver whose rings anybody may write, in memory between two canaries.

    The canaries are guest memory as well, of which no descriptor ever says
    that it may be written.
    """

    def __init__(self, driver: FakeDriver, rand: random.Random) -> None:
        self.driver = driver
        self.front_end = driver.front_end
        self.queues = driver.queues
        self._rand = rand
        _, main, _ = driver.memory.regions
        self._start = main.region.guest_address
        self._end = self._start + main.region.size
        self._tables = driver.memory.allocate(_TABLES)
        for queue in self.queues:
            self.lend_all(queue)

    def lend_all(self, queue: Virtqueue) -> None:
        """A ring as it should be: full of single descriptors the device can use."""
        sends = queue.index % 2 or queue is self.queues[-1]
        for slot in range(queue.ring.size):
            address = self._start + self._rand.randrange((_MAIN - 4096) // 2048) * 2048
            queue.ring.write_descriptor(slot, address, 2048, 0 if sends else _WRITE)
            queue.ring.make_available(slot)
        queue.ring.publish()
        self.kick(queue)

    def kick(self, queue: Virtqueue) -> None:
        with suppress(BlockingIOError):
            queue.kick()

    def scribble(self) -> None:
        """Change something of some ring."""
        rand, queue = self._rand, self._rand.choice(self.queues)
        ring, size = queue.ring, queue.ring.size
        match rand.randrange(12):
            case 0 | 1 | 2:
                ring.write_descriptor(rand.randrange(size), *self._descriptor(size))
            case 3 | 4:
                self._write(self._tables + 16 * rand.randrange(_TABLES // 16))
            case 5 | 6:
                ring.make_available(rand.randrange(size))
                ring.publish()
            case 7:
                ring.make_available(rand.choice((rand.randrange(size), size, 0xFFFF)))
                ring.publish()
            case 8:
                self.lend_all(queue)
            case 9:  # flags, index and entries of the used ring, and the event index behind
                with self.driver.memory.view(ring.used_ring, 6 + 8 * size) as used:
                    at = rand.choice((0, 2, rand.randrange(len(used) - 2), len(used) - 2))
                    used[at : at + 2] = rand.randbytes(2)
            case 10:  # flags of the available ring, the event index behind
                with self.driver.memory.view(ring.available, 6 + 2 * size) as available:
                    at = rand.choice((0, len(available) - 2))
                    available[at : at + 2] = rand.randbytes(2)
            case 11 if rand.random() < 0.1:
                ring.set_available_index(rand.randrange(1 << 16))
        self.kick(queue)

    def _write(self, address: int) -> None:
        with self.driver.memory.view(address, 16) as view:
            view[:] = DESCRIPTOR.pack(*self._descriptor(_TABLES // 16))

    def _descriptor(self, size: int) -> tuple[int, int, int, int]:
        rand = self._rand
        address = rand.choice(
            (
                *[rand.randrange(self._start, self._end)] * 8,
                self._end - rand.randrange(1, 4096),
                self._end,
                self._start - 1,
                0,
                (1 << 64) - rand.randrange(1, 4096),
            )
        )
        length = rand.choice((0, 1, 12, 1514, 2048, 2048, 65562, 1 << 20, 0xFFFFFFFF))
        flags = rand.choice((0, _NEXT, _WRITE, _WRITE, _WRITE | _NEXT, 0xFFFF))
        if rand.random() < 0.3:
            flags = rand.choice((_INDIRECT, _INDIRECT | _WRITE, _INDIRECT | _NEXT))
            address = self._tables + rand.randrange(_TABLES // 2)
            length = rand.choice((0, 15, 16, 48, 1024, 1 << 14, 1 << 15, 1 << 16))
        following = rand.choice((*[rand.randrange(size)] * 6, size, 0xFFFF))
        return address, length, int(flags), following

    def revive(self, queue: Virtqueue) -> None:
        """Have the device begin with the chain that is added next."""
        with suppress(VhostUserError):
            self.front_end.stop(queue.index)
            self.lend_all(queue)
            base = _available(self.driver, queue.ring) - 1
            self.front_end.start(queue, self.driver.memory, base=base & 0xFFFF)


def _available(driver: FakeDriver, ring: DriverRing) -> int:
    """The available index as the device sees it."""
    with driver.memory.view(ring.available + 2, 2) as index:
        return int.from_bytes(index, "little")


@contextmanager
def guest(siege: Siege, rand: random.Random) -> Iterator[Guest]:
    """With some features left out. AssertionError if a canary is written."""
    offered = set()
    with siege.connect() as front_end:
        offered = {feature for feature in Feature if front_end.features() >> feature & 1}
    left_out = {feature for feature in _OPTIONAL if rand.random() < 0.3}
    with SharedMemory((_CANARY, _MAIN, _CANARY)) as memory:
        canaries = []
        for region in (memory.regions[0], memory.regions[2]):
            view = region.view(region.region.guest_address, _CANARY)
            view[:] = content = rand.randbytes(_CANARY)
            canaries.append((view, content))
        memory.allocate(_CANARY, region=memory.regions[0])
        features = offered - left_out
        with siege.driver(memory=memory, features=features, pairs=2, ring_size=64) as driver:
            yield Guest(driver, rand)
        for view, content in canaries:
            assert bytes(view) == content, "written to memory the guest did not lend"
            view.release()


def scribbled_rings(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """All of all rings and tables changes while the device works on them."""
    hostile = left.enter_context(guest(siege, rand))
    with repeating(hostile.scribble):
        for _ in range(_TURNS):
            time.sleep(_TURN)
            hostile.revive(rand.choice(hostile.queues))
            siege.prompt(hostile.front_end)


def restarted_rings(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Rings stop, start, are disabled and enabled in any order, under traffic both ways."""
    hostile = left.enter_context(guest(siege, rand))
    driver, front_end = hostile.driver, hostile.front_end

    def fill() -> None:
        hostile.lend_all(hostile.queues[rand.randrange(4)])
        time.sleep(0.0005)

    with repeating(fill):
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


def commands_of_garbage(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Control chains of all forms: answered with an error, or the queue is left alone."""
    hostile = left.enter_context(guest(siege, rand))
    control = hostile.queues[-1]
    for _ in range(40):
        for _ in range(rand.randrange(40)):
            hostile.scribble()
        hostile.kick(control)
        hostile.revive(control)
        siege.prompt(hostile.front_end)
