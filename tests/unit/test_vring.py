# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Split virtqueues, by way of the control queue: every layout, and drivers that break the rules."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.shared_memory import GUEST, USER, SharedMemory
from vnethash.errors import RingError
from vnethash.native import core
from vnethash.testing.ring import (
    DESCRIPTOR,
    NO_NOTIFY,
    Buffer,
    DescriptorFlag,
    DriverRing,
    Table,
    Used,
    bytes_needed,
    encode_table,
)
from vnethash.vhost_user.memory import DirtyLog, GuestMemory
from vnethash.vhost_user.rings import ControlQueue, FaultReason, RingFault, RingSetup

NEXT, WRITE, INDIRECT = DescriptorFlag
PAGE = 4096


class Driver:
    """A driver's ring and its memory, and the queue at the other end."""

    def __init__(
        self,
        resources: ExitStack,
        size: int = 8,
        sizes: Sequence[int] = (1 << 20,),
        *,
        event_idx: bool = False,
        index: int = 0,
        log: DirtyLog | None = None,
        **changes: object,
    ) -> None:
        self._resources = resources
        self.shared = resources.enter_context(SharedMemory(sizes))
        address = self.shared.allocate(bytes_needed(size), 16)
        memory = self.shared.view(address, bytes_needed(size))
        self.ring = DriverRing(memory, address, size, event_idx=event_idx, index=index)
        resources.callback(self.ring.release)
        resources.callback(memory.release)
        self.kick, self.call, self.error = (
            os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(3)
        )
        for fd in (self.kick, self.call, self.error):
            resources.callback(os.close, fd)
        self.setup = replace(
            RingSetup(
                size=size,
                base=index,
                descriptors=self.shared.user(self.ring.descriptors),
                available=self.shared.user(self.ring.available),
                used=self.shared.user(self.ring.used_ring),
                kick=self.kick,
                call=self.call,
                error=self.error,
                event_idx=event_idx,
                indirect=True,
            ),
            **changes,  # type: ignore[arg-type]
        )
        with GuestMemory(self.shared.regions, log) as guest:
            self.queue = resources.enter_context(ControlQueue(guest, self.setup))

    def called(self) -> bool:
        """Whether a call came since this was asked last."""
        return _signalled(self.call)

    def broken(self) -> bool:
        """Whether the device said by the error eventfd that the ring is broken."""
        return _signalled(self.error)

    def table(self, entries: int) -> Table:
        address = self.shared.allocate(16 * entries, 16)
        view = self.shared.view(address, 16 * entries)
        self._resources.callback(view.release)
        return Table(view, address)

    def refuses(self, reason: str) -> None:
        """The queue ends for this reason, and stays so."""
        for _ in range(2):
            with pytest.raises(RingError, match=reason) as caught:
                self.queue.receive()
        assert caught.value.queue == "control"
        assert self.broken()


def _signalled(fd: int) -> bool:
    if not select.select([fd], [], [], 0)[0]:
        return False
    os.eventfd_read(fd)
    return True


@contextmanager
def driver(size: int = 8, *args: object, **options: object) -> Iterator[Driver]:
    with ExitStack() as resources:
        yield Driver(resources, size, *args, **options)  # type: ignore[arg-type]


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The data in pieces that end at the given places; pieces may be empty."""
    places = sorted({min(place, len(data)) for place in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


layouts = st.fixed_dictionaries(
    {
        "command": st.binary(max_size=80),
        "cuts": st.lists(st.integers(0, 80), max_size=5),
        "room": st.lists(st.integers(0, 3), max_size=3),
        "how": st.sampled_from(["direct", "indirect", "mixed"]),
        "apart": st.booleans(),
    }
)


@settings(max_examples=examples(300), deadline=None)
@given(
    st.lists(layouts, min_size=1, max_size=12),
    st.booleans(),
    st.sampled_from([0, 5, 65530, 65535]),
)
def test_every_layout(commands: list[dict[str, object]], event_idx: bool, index: int) -> None:
    """What the driver sent arrives, and the answer goes where it said, however it lies.

    Regions are so small that buffers and tables lie across their seams.
    """
    sizes = [PAGE] + [64] * 500
    with driver(16, sizes, event_idx=event_idx, index=index) as side:
        for number, layout in enumerate(commands):
            _one_command(side, layout, number)
        assert side.queue.receive() is None
        assert side.queue.base == (index + len(commands)) & 0xFFFF


def _one_command(side: Driver, layout: dict[str, object], number: int) -> None:
    shared, ring = side.shared, side.ring
    if number == 0:
        shared.allocate(PAGE - (shared.allocate(0) - GUEST) - 40)  # just before the first seam
    command: bytes = layout["command"]  # type: ignore[assignment]
    buffers = []
    for piece in cut(command, layout["cuts"]):  # type: ignore[arg-type]
        buffers.append(Buffer(shared.allocate(len(piece)), len(piece)))
        shared.write(buffers[-1].address, piece)
        if layout["apart"]:
            shared.allocate(3)
    room = [Buffer(shared.allocate(n), n, True) for n in layout["room"]]  # type: ignore[attr-defined]
    chain = buffers + room
    if not chain:
        chain = [Buffer(shared.allocate(1), 1, True)]
        room = chain
    if layout["how"] == "direct":
        head = ring.add(chain)
    else:
        direct = len(chain) // 2 if layout["how"] == "mixed" else 0
        table = encode_table(chain[direct:])
        address = shared.allocate(len(table), 16)
        shared.write(address, table)
        head = ring.add_table(address, len(table), chain[:direct])
    ring.publish()
    kick = ring.should_kick()
    assert kick or number  # the first time nobody has said that he hears by himself
    assert side.queue.receive() == command
    answer = bytes([7, 8, 9, number])
    writable = sum(buffer.length for buffer in room)
    wanted = number % 2 == 0
    ring.want_calls(wanted)
    side.queue.answer(answer)
    assert list(ring.used()) == [Used(head, min(writable, len(answer)))]
    written = b"".join(shared.read(buffer.address, buffer.length) for buffer in room)
    assert written == answer[:writable].ljust(writable, b"\0")
    called = side.called()
    assert called or not wanted
    if number > 0:
        assert called == wanted


def add_command(side: Driver, command: bytes = b"\x01\x00\x01", room: int = 1) -> int:
    """A command as drivers usually send it; returns the chain's head."""
    address = side.shared.allocate(len(command) + room)
    side.shared.write(address, command)
    buffers = [Buffer(address, len(command)), Buffer(address + len(command), room, True)]
    head = side.ring.add(buffers)
    side.ring.publish()
    return head


def chain_of(*descriptors: tuple[int, int, int, int]) -> Callable[[Driver], None]:
    """A driver that puts these descriptors at the start of the table, addresses from GUEST."""

    def write(side: Driver) -> None:
        for index, (address, length, flags, following) in enumerate(descriptors):
            side.ring.write_descriptor(index, GUEST + address, length, flags, following)
        side.ring.make_available(0)
        side.ring.publish()

    return write


def indirect(
    *descriptors: tuple[int, int, int, int], length: int | None = None
) -> Callable[[Driver], None]:
    """The same with an indirect table of these descriptors."""

    def write(side: Driver) -> None:
        table = side.table(max(1, len(descriptors)))
        for index, (address, size, flags, following) in enumerate(descriptors):
            DESCRIPTOR.pack_into(table.memory, 16 * index, GUEST + address, size, flags, following)
        size = 16 * len(descriptors) if length is None else length
        side.ring.write_descriptor(0, table.address, size, INDIRECT)
        side.ring.make_available(0)
        side.ring.publish()

    return write


def head_of(index: int) -> Callable[[Driver], None]:
    def write(side: Driver) -> None:
        side.ring.make_available(index)
        side.ring.publish()

    return write


SIZE = 1 << 20


def table_across_the_end(side: Driver) -> None:
    side.shared.write(GUEST + SIZE - 16, DESCRIPTOR.pack(GUEST, 4, NEXT, 1))
    chain_of((SIZE - 16, 32, INDIRECT, 0))(side)


HOSTILE = {
    "head behind the table": (head_of(8), "begins at descriptor 8, behind"),
    "last head": (head_of(0xFFFF), "begins at descriptor 65535"),
    "index jumps": (lambda side: side.ring.set_available_index(9), "available index 9"),
    "index goes back": (lambda side: side.ring.set_available_index(0xFFFF), "index 65535"),
    "next behind the table": (chain_of((0, 4, NEXT, 8)), "goes on at 8, behind"),
    "loop to itself": (chain_of((0, 4, NEXT, 0)), "too long or a loop"),
    "loop of two": (chain_of((0, 0, NEXT, 1), (0, 0, NEXT, 0)), "too long or a loop"),
    "loop of writable": (chain_of((0, 4, NEXT | WRITE, 0)), "too long or a loop"),
    "before memory": (chain_of((-1, 4, 0, 0)), "0xffffffff is outside"),
    "behind memory": (chain_of((SIZE, 1, 0, 0)), "outside guest memory"),
    "across the end": (chain_of((SIZE - 4, 5, 0, 0)), "0x100100000 is outside"),
    "largest length": (chain_of((0, 0xFFFFFFFF, 0, 0)), "outside guest memory"),
    "end of addresses": (chain_of((-GUEST - 1 + (1 << 64), 8, 0, 0)), "outside guest memory"),
    "readable behind writable": (chain_of((0, 4, WRITE | NEXT, 1), (0, 4, 0, 0)), "direction"),
    "table of no bytes": (indirect(length=0), "indirect table"),
    "table of odd size": (indirect((0, 4, 0, 0), length=17), "indirect table"),
    "table too short": (indirect((0, 4, 0, 0), length=15), "indirect table"),
    "table outside": (chain_of((SIZE, 16, INDIRECT, 0)), "outside guest memory"),
    "table across the end": (table_across_the_end, "0x100100000 is outside"),
    "table and next": (chain_of((64, 16, INDIRECT | NEXT, 1), (0, 4, 0, 0)), "indirect table"),
    "table in a table": (indirect((0, 16, INDIRECT, 0)), "indirect table"),
    "next behind its table": (indirect((0, 4, NEXT, 1)), "goes on at 1, behind"),
    "loop in a table": (indirect((0, 4, NEXT, 1), (0, 4, NEXT, 0)), "too long or a loop"),
    "loop of nothing in a table": (indirect((0, 0, NEXT, 0)), "too long or a loop"),
    "buffer outside, from a table": (indirect((SIZE, 4, 0, 0)), "outside guest memory"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("event_idx", [False, True])
def test_a_driver_that_breaks_the_rules(name: str, event_idx: bool) -> None:
    break_it, reason = HOSTILE[name]
    with driver(event_idx=event_idx) as side:
        break_it(side)
        side.refuses(reason)
        with pytest.raises(RingError, match=reason):
            side.queue.answer(b"\0")
        assert side.queue.base == 0


def test_reasons_are_the_cores() -> None:
    """The numbers of native/vhost.h."""
    _, lib = core()
    for reason in FaultReason:
        assert getattr(lib, f"VH_FAULT_{reason.name}") == reason
        assert str(RingFault("control", reason, 22))
    queues = ("receive", "transmit", "control")
    assert [getattr(lib, f"VH_QUEUE_{name.upper()}") for name in queues] == [0, 1, 2]


def test_indirect_only_if_negotiated() -> None:
    with driver(indirect=False) as side:
        indirect((0, 4, 0, 0))(side)
        side.refuses("indirect table")


def test_chains_as_long_as_can_be() -> None:
    """1024 descriptors in a table are taken, more are not; a chain may fill the ring."""
    for count in (1024, 1025):
        with driver(2) as side:
            data = os.urandom(count)
            address = side.shared.allocate(count)
            side.shared.write(address, data)
            table = side.table(count)
            side.ring.add([Buffer(address + i, 1) for i in range(count)], table)
            side.ring.publish()
            if count > 1024:
                side.refuses("too long or a loop")
            else:
                assert side.queue.receive() == data
    with driver(8) as side:
        address = side.shared.allocate(8)
        side.shared.write(address, b"whole it")
        side.ring.add([Buffer(address + i, 1) for i in range(8)])
        side.ring.publish()
        assert side.queue.receive() == b"whole it"


def test_the_device_ignores_the_direction_of_a_table() -> None:
    """virtio 1.3, 2.7.5.3.2"""
    with driver() as side:
        table = side.table(1)
        DESCRIPTOR.pack_into(table.memory, 0, GUEST, 4, 0, 0)
        side.ring.write_descriptor(0, table.address, 16, INDIRECT | WRITE)
        side.ring.make_available(0)
        side.ring.publish()
        assert side.queue.receive() == side.shared.read(GUEST, 4)


def test_a_long_command_is_cut() -> None:
    with driver() as side:
        length = (1 << 18) + 100
        address = side.shared.allocate(length)
        data = os.urandom(length)
        side.shared.write(address, data)
        side.ring.add([Buffer(address, length), Buffer(GUEST, 0, True)])
        side.ring.publish()
        assert side.queue.receive() == data[: 1 << 18]


def test_one_command_after_the_other() -> None:
    with driver() as side:
        with pytest.raises(RingError, match="no command"):
            side.queue.answer(b"\0")
        add_command(side)
        assert side.queue.receive() is not None
        with pytest.raises(RingError, match="answer the last command first"):
            side.queue.receive()
        assert side.queue.base == 0
        side.queue.answer(b"\0")
        assert side.queue.base == 1
        with pytest.raises(RingError, match="no command"):
            side.queue.answer(b"\0")
        assert side.queue.receive() is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": 0}, "0 is no size"),
        ({"size": 12}, "12 is no size"),
        ({"size": 65536}, "65536 is no size"),
        ({"descriptors": 8}, "is not aligned"),
        ({"available": 1}, "is not aligned"),
        ({"used": 2}, "is not aligned"),
        ({"descriptors": SIZE - 16}, "is not within one region"),
        ({"available": SIZE - 20}, "is not within one region"),
        ({"used": SIZE - 68}, "is not within one region"),
        ({"used": SIZE}, "is not within one region"),
        ({"descriptors": -16}, "is not within one region"),
        ({"call": 1 << 20}, "the system refused: bad file descriptor"),
    ],
)
def test_a_ring_that_cannot_be(changes: dict[str, Any], reason: str) -> None:
    user = {name: USER + value for name, value in changes.items() if name not in ("size", "call")}
    with ExitStack() as resources:
        side = Driver(resources)
        with GuestMemory(side.shared.regions) as guest:
            setup = replace(side.setup, **{**changes, **user})
            with pytest.raises(RingError, match=reason):
                ControlQueue(guest, setup)


def test_parts_of_a_ring_may_end_with_the_region() -> None:
    for part, length in (("descriptors", 128), ("available", 22), ("used", 70)):
        with driver(8, **{part: USER + SIZE - length - length % 4}):
            pass


@pytest.mark.parametrize("event_idx", [False, True])
def test_kicks_are_wanted_when_there_is_nothing(event_idx: bool) -> None:
    with driver(event_idx=event_idx) as side:
        assert side.queue.receive() is None
        for _ in range(3):
            add_command(side)
            assert side.ring.should_kick()
            assert side.queue.receive() is not None
            side.queue.answer(b"\0")
            assert side.queue.receive() is None
        assert not side.ring.flags & NO_NOTIFY


def test_a_call_that_cannot_be_made_is_no_fault() -> None:
    """user-mode-linux gives a socket, which may be full or closed."""
    ours, theirs = socket.socketpair()
    with ours, theirs, driver(call=ours.fileno()) as side:
        ours.setblocking(True)
        for _ in range(2):
            add_command(side)
            assert side.queue.receive() is not None
            side.queue.answer(b"\0")
            assert theirs.recv(100) == (1).to_bytes(8, "little")
            list(side.ring.used())
        ours.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                ours.send(bytes(4096))
        ours.setblocking(True)  # and yet nobody waits
        for closed in (False, True):
            if closed:
                theirs.close()
            add_command(side)
            assert side.queue.receive() is not None
            side.queue.answer(b"\0")
            assert len(list(side.ring.used())) == 1


@pytest.mark.parametrize("faulty", [False, True])
def test_a_call_that_waits_for_ever_is_given_up(faulty: bool) -> None:
    """The front end shares the file: it may have it wait again, and fill it."""
    with driver() as side:
        for fd in (side.call, side.error):
            os.set_blocking(fd, True)
            os.eventfd_write(fd, 0xFFFF_FFFF_FFFF_FFFE)
        begin = time.monotonic()
        if faulty:
            side.ring.set_available_index(999)
            with pytest.raises(RingError, match="available index"):
                side.queue.receive()
        else:
            add_command(side)
            assert side.queue.receive() is not None
            side.queue.answer(b"\0")
            assert len(list(side.ring.used())) == 1
        assert time.monotonic() - begin < 2


def test_memory_that_goes_away_is_a_fault() -> None:
    """The front end truncates the file: no crash, and other memory goes on."""
    with driver() as side, driver() as other:
        add_command(side)
        os.ftruncate(side.shared.fd, 0)
        side.refuses("guest memory went away")
        add_command(other)
        assert other.queue.receive() is not None


def test_memory_that_goes_away_before_the_answer() -> None:
    with driver() as side:
        add_command(side)
        assert side.queue.receive() is not None
        os.ftruncate(side.shared.fd, 0)
        with pytest.raises(RingError, match="guest memory went away"):
            side.queue.answer(b"\0")


def test_memory_that_went_away_before_the_start() -> None:
    with ExitStack() as resources:
        side = Driver(resources)
        with GuestMemory(side.shared.regions) as guest:
            os.ftruncate(side.shared.fd, 0)
            with pytest.raises(RingError, match="guest memory went away"):
                ControlQueue(guest, side.setup)


CRASH = """
import ctypes, faulthandler, mmap, os, sys
faulthandler.enable()
from vnethash.vhost_user.memory import GuestMemory, Region
fd = os.memfd_create("guest")
os.ftruncate(fd, 4096)
with GuestMemory([Region(0, 4096, 0, 0, fd)]):
    own = mmap.mmap(fd, 4096)
    os.ftruncate(fd, 0)
    own[0]
"""


def test_what_is_not_ours_crashes_as_before() -> None:
    """SIGBUS elsewhere goes to whoever had it before: here Python's faulthandler."""
    done = subprocess.run(
        [sys.executable, "-c", CRASH], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in done.stderr


def test_dirty_log() -> None:
    """Every page that is written is marked: the answer's, the used ring's; no other."""
    with ExitStack() as resources:
        log = os.memfd_create("log")
        resources.callback(os.close, log)
        size = (GUEST + SIZE) // PAGE // 8
        os.ftruncate(log, size)
        # The used ring may be said to lie elsewhere in the guest.
        side = Driver(resources, log=DirtyLog(log, 0, size), log_address=GUEST + 100 * PAGE - 6)
        answer = Buffer(GUEST + 51 * PAGE - 1, 2, True)
        side.ring.add([Buffer(GUEST + 40 * PAGE, 3), answer, Buffer(GUEST + 60 * PAGE, 9, True)])
        side.ring.publish()
        assert side.queue.receive() == bytes(3)
        os.pwrite(log, bytes(64), GUEST // PAGE // 8)
        side.queue.answer(b"ok")
        bits = int.from_bytes(os.pread(log, 64, GUEST // PAGE // 8), "little")
        pages = [page for page in range(512) if bits >> page & 1]
        assert pages == [50, 51, 99, 100]


def test_a_log_address_outside_the_log_is_harmless() -> None:
    with ExitStack() as resources:
        log = os.memfd_create("log")
        resources.callback(os.close, log)
        size = (GUEST + SIZE) // PAGE // 8
        os.ftruncate(log, size)
        for address in (GUEST + SIZE, (1 << 64) - 2, 1 << 63):
            side = Driver(resources, log=DirtyLog(log, 0, size), log_address=address)
            add_command(side)
            assert side.queue.receive() is not None
            side.queue.answer(b"\0")
        marked = os.pread(log, size, 0)
        assert marked[GUEST // PAGE // 8] == 1  # the answers
        assert not any(marked[1 : GUEST // PAGE // 8])
