# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A front end that means no good, against the backend with its native data path.

Sessions of the fake driver are recorded, changed and sent again, with whatever
the guest's memory holds. The server has to serve a healthy driver afterwards,
and to have let go of everything.
"""

import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.effort import examples
from tests.unit.descriptors import none_leaked
from tests.unit.mutation import mutated
from tests.unit.socket_tap import FEATURES, Served, serving
from vnethash.errors import VhostUserError
from vnethash.rss.config import RssConfig
from vnethash.testing.driver import FakeDriver
from vnethash.testing.front_end import FrontEnd
from vnethash.testing.memory import PAGE
from vnethash.vhost_user.messages import HEADER_SIZE, Message, Request, VringFd, VringState
from vnethash.virtio.features import Feature
from vnethash.virtio.header import Header

Sent = list[tuple[bytes, list[int]]]
"""Messages and the descriptors that went with them."""

FRAME = bytes.fromhex("020000000002 020000000001 0800") + bytes(range(60))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with none_leaked(), serving(tmp_path) as served:
        yield served
        healthy(served)


def healthy(served: Served) -> None:
    """A driver comes, and all works."""
    drain(served)
    with FrontEnd.connect(served.path) as front_end, FakeDriver(front_end, pairs=2) as driver:
        driver.rss_config(RssConfig.default(2))
        for pair in range(2):
            served.tap.host[pair].send(Header().encode_v1() + FRAME)
            assert driver.receive(pair)[-1].frame == FRAME
            driver.send(pair, FRAME)
            while served.tap.host[pair].recv(1 << 17)[12:] != FRAME:
                pass  # what somebody before has sent


def drain(served: Served) -> None:
    """What nobody took out of the tap, or was sent into it by a hostile driver."""
    for host in served.tap.host:
        host.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                host.recv(1 << 17)
        host.settimeout(5)


class Recorder(FrontEnd):
    """Keeps all it sends, with duplicates of the descriptors."""

    def __init__(self, sock: socket.socket, *, timeout: float = 5.0) -> None:
        super().__init__(sock, timeout=timeout)
        self.sent: Sent = []

    def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        self.sent.append((data, [os.dup(fd) for fd in fds]))
        super().send_bytes(data, fds)


@contextmanager
def recorded(served: Served, features: frozenset[Feature]) -> Iterator[Sent]:
    """A session with traffic, memory that comes and goes, and a migration."""
    with hung_up(served), Recorder.connect(served.path) as front_end:
        with FakeDriver(front_end, features=features, pairs=2, ring_size=16) as driver:
            front_end.set_status(15)
            front_end.open_backend_channel()
            region = driver.memory.add(16 * PAGE)
            front_end.add_region(region)
            if Feature.CTRL_VQ in features:
                driver.queue_pairs(2)
            driver.send(0, FRAME)
            front_end.config(20)
            front_end.start_logging(driver.memory, driver.queues)
            front_end.remove_region(region)
            front_end.enable(0, False)
            front_end.enable(0)
            driver.flush()
        front_end.set_status(0)
    try:
        yield front_end.sent
    finally:
        for _, fds in front_end.sent:
            for fd in fds:
                os.close(fd)


def with_request(sent: Sent, request: Request) -> Iterator[tuple[bytes, list[int]]]:
    return (message for message in sent if message[0][:4] == struct.pack("=I", request))


RING_PAGES = 6
"""Of the beginning of guest memory: five rings, each on a page of its own."""


class GuestMemory:
    """What the rings of a recorded session were like, and with changes."""

    def __init__(self, sent: Sent) -> None:
        wire, fds = next(with_request(sent, Request.ADD_MEM_REG))
        (self._offset,) = struct.unpack_from("=Q", wire, HEADER_SIZE + 32)
        self._fd = os.dup(fds[0])
        self._before = os.pread(self._fd, RING_PAGES * PAGE, self._offset)

    def scribble(self, randomness: random.Random) -> None:
        """Another value in some places: what the device comes to first most often."""
        rings = bytearray(self._before)
        for _ in range(randomness.randrange(1, 12)):
            page = PAGE * randomness.randrange(RING_PAGES)
            descriptors = randomness.choice([2, 16])
            at = page + randomness.choice(
                [
                    16 * randomness.randrange(descriptors) + randomness.choice([0, 4, 8, 12, 14]),
                    16 * 16 + 2 * randomness.randrange(descriptors + 4),
                    randomness.randrange(PAGE - 2),
                ]
            )
            value = randomness.choice(
                [randomness.randrange(20), randomness.randrange(1 << 16), 0xFFFF]
            )
            struct.pack_into("<H", rings, at, value)
        os.pwrite(self._fd, rings, self._offset)

    def close(self) -> None:
        os.close(self._fd)


@contextmanager
def hung_up(served: Served) -> Iterator[None]:
    """The server is done with the front end that comes and goes in this block."""

    def count() -> int:
        return sum(name == "disconnected" for name, _ in served.events)

    before, deadline = count(), time.monotonic() + 10
    yield
    while count() == before:
        assert time.monotonic() < deadline, "the server does not let go"
        time.sleep(0.001)


def stir(served: Served, sent: Sent) -> None:
    """Kick, and have a packet come to each queue."""
    for queue in served.tap.host:
        queue.setblocking(False)
        with suppress(BlockingIOError):
            queue.send(Header().encode_v1() + FRAME)
    for _, kicks in with_request(sent, Request.SET_VRING_KICK):
        for kick in kicks:
            with suppress(OSError):
                os.eventfd_write(kick, 1)


def replay(served: Served, sent: Sent, randomness: random.Random, *, cut_off: bool = False) -> None:
    """Send it all, kick, have packets come, hang up; nobody reads the answers."""
    with hung_up(served), FrontEnd.connect(served.path) as front_end, suppress(VhostUserError):
        for wire, fds in sent:
            front_end.send_bytes(wire, fds)
            if randomness.random() < 0.1:
                stir(served, sent)
            if cut_off and randomness.random() < 0.02:
                for _, files in with_request(sent, Request.ADD_MEM_REG):
                    os.ftruncate(files[0], randomness.randrange(64 * PAGE))
        # What only threads and descriptors know of has a moment too.
        time.sleep(0.001)


def faults(served: Served) -> int:
    return sum(name == "fault" for name, _ in served.events)


def broken(served: Served, sent: Sent) -> bool:
    """Send it all, have the threads look at the rings; whether they found a fault."""
    before = faults(served)
    with hung_up(served), FrontEnd.connect(served.path) as front_end:
        for wire, fds in sent:
            front_end.send_bytes(wire, fds)
        stir(served, sent)
        # Rings may be sound: then nothing happens.
        deadline = time.monotonic() + 0.05
        while faults(served) == before and time.monotonic() < deadline:
            time.sleep(0.001)
    return faults(served) != before


FORMS = {
    "all": FEATURES,
    "plain": FEATURES - {Feature.INDIRECT_DESC, Feature.EVENT_IDX, Feature.MRG_RXBUF},
    "least": frozenset({Feature.VERSION_1}),
}


@pytest.mark.parametrize("form", FORMS)
def test_changed_messages(served: Served, form: str) -> None:
    with recorded(served, FORMS[form]) as sent:
        files = [fd for _, fds in sent for fd in fds]
        for seed in range(examples(150)):
            randomness = random.Random(f"{form} {seed}")
            changed = mutated(sent, randomness, lambda r: r.sample(files, r.randrange(4)))
            replay(served, changed, randomness)


@pytest.mark.parametrize("form", FORMS)
def test_changed_memory(served: Served, form: str) -> None:
    """Rings with nonsense in them, while they run and packets come."""
    with recorded(served, FORMS[form]) as sent, closing(GuestMemory(sent)) as memory:
        stops = next(with_request(sent, Request.GET_VRING_BASE))
        found = 0
        for seed in range(examples(150)):
            memory.scribble(random.Random(f"{form} {seed}"))
            found += broken(served, sent[: sent.index(stops)])
    # A quarter of them where the threads have time enough.
    assert found >= examples(150) // 30


def test_memory_that_is_cut_off(served: Served) -> None:
    for seed in range(examples(20)):
        with recorded(served, FEATURES) as sent:
            replay(served, sent, random.Random(seed), cut_off=True)


def test_hanging_up_at_any_message(served: Served) -> None:
    with recorded(served, FEATURES) as sent:
        for length in range(len(sent)):
            replay(served, sent[:length], random.Random(length))


def test_answers_nobody_reads(served: Served) -> None:
    """The server gives up on a front end that only asks."""
    with FrontEnd.connect(served.path) as front_end:
        questions = Message(Request.GET_FEATURES).encode() * (1 << 20)
        with pytest.raises(VhostUserError):
            front_end.send_bytes(questions)
    deadline = time.monotonic() + 5
    while not any("are not read" in str(values) for _, values in served.events):
        assert time.monotonic() < deadline, served.events
        time.sleep(0.01)


def test_descriptors_that_never_come(served: Served) -> None:
    for count in (0, 1, 8, 9, 200):
        with FrontEnd.connect(served.path) as front_end, suppress(VhostUserError):
            reader, writer = os.pipe()
            try:
                front_end.send_bytes(Message(99).encode(), [reader] * count)
            finally:
                os.close(reader)
                os.close(writer)


@pytest.mark.parametrize("index", range(5))
def test_a_kick_whose_other_end_is_gone(served: Served, index: int) -> None:
    """It stays readable for ever; nobody may spin on it."""
    near, far = socket.socketpair()
    with FrontEnd.connect(served.path) as front_end, FakeDriver(front_end, pairs=2):
        with near, far:
            front_end.tell(Request.SET_VRING_KICK, VringFd(index, True), [near.fileno()])
        front_end.features()
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.1
        assert isinstance(front_end.ask(Request.GET_VRING_BASE, VringState(index, 0)), VringState)


@pytest.mark.parametrize("index", range(5))
def test_a_kick_that_never_ends(served: Served, index: int) -> None:
    """Messages are dealt with all the same."""
    stop = threading.Event()
    with FrontEnd.connect(served.path) as front_end, FakeDriver(front_end, pairs=2) as driver:
        kick = driver.queues[index].kick_fd

        def kicks() -> None:
            while not stop.is_set():
                with suppress(BlockingIOError):
                    os.eventfd_write(kick, 1)

        kicker = threading.Thread(target=kicks)
        kicker.start()
        try:
            for _ in range(20):
                front_end.features()
        finally:
            stop.set()
            kicker.join()
