# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Who moves packets in the benchmark of a guest's data path, and the driver that watches.

A mover works in threads of its own: a bare loop of read() or write() on a tap
queue, or queue pairs of the backend. The calling thread is the guest: it lends
buffers, kicks, and looks until all have come. On a packet's way there is C only
(bench/vhost.c).
"""

import errno
import os
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

from vnethash.bench.library import bench_library
from vnethash.closing import Closing
from vnethash.errors import DeviceError
from vnethash.testing.memory import SharedMemory
from vnethash.testing.ring import Buffer, DriverRing, bytes_needed
from vnethash.vhost_user.host_tap import HostTap
from vnethash.vhost_user.memory import GuestMemory, Region
from vnethash.vhost_user.pairs import PairCounters, PathSetup, QueuePair
from vnethash.vhost_user.rings import RingSetup
from vnethash.virtio.header import HASH_SIZE

RING_SIZE = 256
"""Descriptors of a ring, as VMMs have it by default."""

_MEMORY = 64 << 20
LARGEST = 68 << 10
_TASKS = Path("/proc/self/task")


@dataclass(frozen=True, slots=True)
class Burst:
    """What was moved. ``nanoseconds`` are of a packet, from when the lead of them had come."""

    packets: int
    bytes: int
    hashed: int
    nanoseconds: float

    @classmethod
    def of(cls, burst: Any) -> "Burst":
        """From a struct burst."""
        timed = burst.packets - burst.first
        return cls(burst.packets, burst.bytes, burst.hashed, burst.nanoseconds / timed)


class Mover(Closing):
    """Threads that move packets from start() to stop(), when they are asked to."""

    def __init__(self, name: str, lead: int) -> None:
        """The time of a burst begins when ``lead`` packets of it have come."""
        self.name = name
        self._lead = lead
        self._tasks: set[str] = set()

    def start(self) -> None:
        """Start the threads, on those CPUs that the caller may use now."""
        before = set(os.listdir(_TASKS))
        self._start()
        self._tasks = set(os.listdir(_TASKS)) - before

    def stop(self) -> None:
        """Stop the threads."""
        self._tasks = set()
        self._stop()

    def cpu(self) -> int:
        """Nanoseconds of CPU that the threads have used."""
        # The clock of a thread, as pthread_getcpuclockid(3) makes it of its number.
        return sum(time.clock_gettime_ns(~int(task) << 3 | 6) for task in self._tasks)

    def switches(self) -> int:
        """How often a thread had to leave its CPU to others."""
        return sum(_switches(_TASKS / task / "status") for task in self._tasks)

    @abstractmethod
    def receive(self, packets: int) -> Burst:
        """Move what lies in the tap. Raises DeviceError."""

    @abstractmethod
    def transmit(self, packets: int) -> Burst:
        """Move packets to the tap. Raises DeviceError."""

    @abstractmethod
    def ping(self, wire: int, frame: bytes, count: int) -> list[int]:
        """Send a frame to the tap by the packet socket ``wire`` and get it back, ``count`` times.

        Nanoseconds of each. Everybody sleeps in between. Once after each
        start(). Raises DeviceError.
        """

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def _stop(self) -> None: ...

    def _check(self, result: int) -> None:
        if result == -errno.ETIMEDOUT:
            raise DeviceError(f"{self.name}: not all packets came")
        if result < 0:
            raise DeviceError(f"{self.name}: {os.strerror(-result).lower()}")


def _switches(status: Path) -> int:
    lines = (line.partition(":") for line in status.read_text().splitlines())
    return next(int(value) for key, _, value in lines if key == "nonvoluntary_ctxt_switches")


class BareLoop(Mover):
    """Reads or writes the queue of a tap and does nothing else."""

    def __init__(
        self,
        name: str,
        tap: int,
        messages: Sequence[bytes],
        *,
        lead: int = 1,
        batch: int = 1,
        places: int = 1,
        room: int = LARGEST,
    ) -> None:
        """``messages`` of one length are written in turn; packets are told by the ``batch``.

        What is read goes to ``places`` in turn, of ``room`` bytes each.
        """
        super().__init__(name, lead)
        self._ffi, self._lib = bench_library()
        self._messages = self._ffi.from_buffer("uint8_t[]", b"".join(messages))
        self._memory = self._ffi.from_buffer("uint8_t[]", bytearray(places * room))
        self._bare = self._ffi.new(
            "struct bare *",
            {
                "memory": self._memory,
                "places": places,
                "room": room,
                "tap": tap,
                "kick": os.eventfd(0, os.EFD_CLOEXEC),
                "call": os.eventfd(0, os.EFD_CLOEXEC),
                "batch": batch,
                "messages": self._messages,
                "message_count": len(messages),
                "length": len(messages[0]),
            },
        )
        self._thread: Thread | None = None

    def _start(self) -> None:
        self._thread = Thread(target=self._lib.bare_loop, args=[self._bare], name="vnethash-bare")
        self._thread.start()

    def _stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread:
            self._bare.order = self._lib.BARE_STOP
            os.eventfd_write(self._bare.kick, 1)
            thread.join()

    def receive(self, packets: int) -> Burst:
        return self._burst(self._lib.BARE_READ, packets)

    def transmit(self, packets: int) -> Burst:
        return self._burst(self._lib.BARE_WRITE, packets)

    def _burst(self, order: int, packets: int) -> Burst:
        burst = self._ffi.new("struct burst *")
        self._check(self._lib.bare_burst(self._bare, order, packets, self._lead, burst))
        return Burst.of(burst)

    def ping(self, wire: int, frame: bytes, count: int) -> list[int]:
        bare, null = self._bare, self._ffi.NULL
        bare.order, bare.count = self._lib.BARE_ECHO, count
        os.eventfd_write(bare.kick, 1)
        times = self._ffi.new("uint64_t[]", count)
        fds = (bare.call, bare.kick)
        self._check(self._lib.ping(wire, frame, len(frame), *fds, null, null, count, times))
        return list(times)

    def close(self) -> None:
        self.stop()
        for fd in (self._bare.kick, self._bare.call):
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Chains:
    """What the chains of a ring are made of: bytes of each descriptor."""

    lengths: tuple[int, ...]
    contents: tuple[bytes, ...] = ()
    """Packets to transmit, chain after chain; without any the chains are lent to receive."""


class Ring(Closing):
    """A virtqueue, laid out by the fake driver, driven in C."""

    def __init__(self, memory: SharedMemory, chains: Chains, header: int) -> None:
        """``header``: bytes in front of a received frame."""
        self._memory = memory
        self._address = memory.allocate(bytes_needed(RING_SIZE))
        self._view = memory.view(self._address, bytes_needed(RING_SIZE))
        self._receives = not chains.contents
        self._chain, self._header = len(chains.lengths), header if self._receives else 0
        ring = self._begun()
        for chain in range(RING_SIZE // self._chain):
            ring.add(list(self._buffers(chains, chain)))
        self._table = bytes(ring.table)
        self._kick, self.call = (os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(2))

    def setup(self) -> RingSetup:
        """How the backend gets it, and as it has to be then: as nobody had used it."""
        ring, address = self._begun(), self._memory.user_address
        return RingSetup(
            size=RING_SIZE,
            descriptors=address(ring.descriptors),
            available=address(ring.available),
            used=address(ring.used_ring),
            kick=self._kick,
            call=self.call if self._receives else -1,
            event_idx=True,
        )

    def driver(self) -> tuple[dict[str, Any], object]:
        """Fields of a struct driver_ring that begins, and what keeps their memory alive."""
        ffi, _ = bench_library()
        whole = self._memory.regions[0].region
        memory = ffi.from_buffer("uint8_t[]", self._memory.view(whole.guest_address, whole.size))
        table = ffi.from_buffer(self._table)
        ring = self._begun()
        fields = {
            "table": memory + (ring.descriptors - whole.guest_address),
            "available": memory + (ring.available - whole.guest_address),
            "used": memory + (ring.used_ring - whole.guest_address),
            "chains": table,
            "memory": memory,
            "start": whole.guest_address,
            "size": RING_SIZE,
            "chain": self._chain,
            "header": self._header,
            "kick": self._kick,
        }
        return fields, (memory, table)

    def _begun(self) -> DriverRing:
        return DriverRing(self._view, self._address, RING_SIZE, event_idx=True)

    def _buffers(self, chains: Chains, chain: int) -> Iterator[Buffer]:
        content = chains.contents[chain % len(chains.contents)] if chains.contents else b""
        for room in chains.lengths:
            length = min(room, len(content)) if content else room
            address = self._memory.allocate(length)
            with self._memory.view(address, length) as view:
                view[:] = content[:length] or bytes(length)
            content = content[length:]
            yield Buffer(address, length, writable=self._receives)

    def close(self) -> None:
        os.close(self._kick)
        os.close(self.call)


class Guest(Mover):
    """Queue pairs of the backend on the queues of a tap, and the driver of their rings."""

    def __init__(
        self,
        name: str,
        tap: HostTap,
        *,
        header: int,
        mergeable: bool,
        receive: Chains,
        transmit: Chains,
        lead: int = 1,
        merged: int = 1,
    ) -> None:
        """``header`` has 12 bytes, or 20 with hash; a received packet takes ``merged`` chains."""
        super().__init__(name, lead)
        ffi, self._lib = bench_library()
        self._tap, self._header, self._mergeable, self._merged = tap, header, mergeable, merged
        with ExitStack() as resources:
            shared = resources.enter_context(SharedMemory((_MEMORY,)))
            self._receive, self._transmit = (
                [
                    resources.enter_context(Ring(shared, chains, header))
                    for _ in range(tap.queue_pairs)
                ]
                for chains in (receive, transmit)
            )
            regions = [
                Region(
                    guest_address=region.region.guest_address,
                    size=region.region.size,
                    user_address=region.region.user_address,
                    mmap_offset=region.region.mmap_offset,
                    fd=region.fd,
                )
                for region in shared.regions
            ]
            self._memory = resources.enter_context(GuestMemory(regions))
            self._pairs = [
                resources.enter_context(QueuePair(index, tap.history))
                for index in range(tap.queue_pairs)
            ]
            self._resources = resources.pop_all()
        self._drivers = [self._driven(rings) for rings in (self._receive, self._transmit)]
        self._burst = ffi.new("struct burst *")

    def _driven(self, rings: Sequence[Ring]) -> tuple[Any, object]:
        """A struct driver_ring[], and what it needs."""
        fields, kept = zip(*(ring.driver() for ring in rings), strict=True)
        return bench_library().ffi.new("struct driver_ring[]", list(fields)), kept

    def _start(self) -> None:
        reports = self._header == HASH_SIZE
        for index, pair in enumerate(self._pairs):
            setups = self._receive[index].setup(), self._transmit[index].setup()
            for rings, _ in self._drivers:
                rings[index].next = rings[index].seen = 0
            path = PathSetup(
                receive_fd=self._tap.fd(index),
                transmit_fd=self._tap.fd(index),
                guest_header=self._header,
                mergeable=self._mergeable,
                records=reports and self._tap.takes_records,
                rehash=reports and self._tap.rehashes,
            )
            pair.start(self._memory, *setups, path)

    def _stop(self) -> None:
        for pair in self._pairs:
            pair.stop()

    def counters(self) -> list[PairCounters]:
        """Of each pair, since it was made."""
        return [pair.counters() for pair in self._pairs]

    def receive(self, packets: int) -> Burst:
        return self._moved(self._drivers[0], packets * self._merged)

    def transmit(self, packets: int) -> Burst:
        before = self._taken()
        burst = self._moved(self._drivers[1], packets)
        return replace(burst, packets=self._taken() - before)

    def _taken(self) -> int:
        """Packets that the tap took."""
        return sum(counters.transmit.packets for counters in self.counters())

    def _moved(self, driver: tuple[Any, object], chains: int) -> Burst:
        rings, _ = driver
        each = chains // len(rings)
        self._check(self._lib.driver_burst(rings, len(rings), each, self._lead, self._burst))
        return Burst.of(self._burst)

    def ping(self, wire: int, frame: bytes, count: int) -> list[int]:
        times = bench_library().ffi.new("uint64_t[]", count)
        (receive, _), (transmit, _) = self._drivers
        call = self._receive[0].call
        self._check(
            self._lib.ping(wire, frame, len(frame), call, -1, receive, transmit, count, times)
        )
        return list(times)

    def _check(self, result: int) -> None:
        for pair in self._pairs:
            if fault := pair.fault():
                raise fault.error()
        super()._check(result)

    def close(self) -> None:
        self._resources.close()
