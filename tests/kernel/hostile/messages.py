# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Attacks with messages: cut, never read, mutated, or none at all."""

import os
import random
import resource
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.kernel.hostile.descriptors import KINDS
from tests.kernel.hostile.siege import Siege
from tests.kernel.served import QUEUES
from vnethash.errors import VhostUserClosed, VhostUserError
from vnethash.rss.config import RssConfig
from vnethash.testing.driver import FakeDriver
from vnethash.testing.front_end import FrontEnd
from vnethash.vhost_user.messages import (
    MAX_PAYLOAD,
    ConfigAccess,
    Message,
    MessageFlag,
    Request,
    VringState,
)

_HEADER = struct.Struct("=III")
_SCM_MAX = 253
"""Descriptors the kernel lets one message have (unix(7))."""


class Slow(FrontEnd):
    """Every byte by itself; the descriptors with the first of each message."""

    def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        for at in range(len(data)):
            super().send_bytes(data[at : at + 1], () if at else fds)


def trickling_bytes(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """A whole session byte by byte, which is no fault."""
    with Slow.connect(siege.path) as front_end, FakeDriver(front_end, pairs=1) as driver:
        driver.queue_pairs(1)


class Hasty(FrontEnd):
    """Hangs up instead of its last message, or within it."""

    messages = 1 << 30
    """How many it has left."""
    bites = False

    def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        self.messages -= 1
        if self.messages > 0:
            super().send_bytes(data, fds)
            return
        if self.bites:
            super().send_bytes(data[: len(data) // 2], fds)
        self.close()
        raise VhostUserClosed("here")


def hanging_up(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """After every message of a session, and within it."""
    done, number = False, 0
    while not done:
        number += 1
        for bites in (False, True):
            with Hasty.connect(siege.path) as hasty, suppress(VhostUserError, OSError):
                hasty.messages, hasty.bites = number, bites
                with FakeDriver(hasty, pairs=1) as driver:
                    driver.queue_pairs(1)
                done = hasty.messages > 0


def out_of_band(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Urgent data, which Unix sockets have since Linux 5.15, in front of and among messages."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(siege.path))
        question = Message(Request.GET_FEATURES).encode()
        for _ in range(10):
            for part in rand.sample((question, question[:5], question[5:], b"x"), 2):
                with suppress(OSError):
                    caller.send(part, rand.choice((0, socket.MSG_OOB)))
        time.sleep(0.01)
        with siege.flood.paused():
            siege.idles()
        with suppress(OSError):
            caller.shutdown(rand.choice((socket.SHUT_RD, socket.SHUT_WR)))
            caller.send(question, socket.MSG_OOB)
        time.sleep(0.01)
        with siege.flood.paused():
            siege.idles()


def few_descriptors(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """The process may not open as many as a session needs."""
    pid = siege.process.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    left.callback(resource.prlimit, pid, resource.RLIMIT_NOFILE, usual)
    highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    for more in range(2, 34):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + more, usual[1]))
        with suppress(VhostUserError), siege.connect() as front_end:
            driver = left.enter_context(FakeDriver(front_end, pairs=2))
            driver.rss_config(RssConfig.symmetric(2))
            front_end.open_backend_channel()
            front_end.set_mtu(1400 + more)
            front_end.start_logging(driver.memory)


def half_a_message(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """And then silence, with descriptors on the way."""
    front_end = left.enter_context(siege.connect())
    data = Message(Request.SET_VRING_NUM, VringState(0, 256)).encode()
    fds = [KINDS[rand.choice(list(KINDS))](left) for _ in range(8)]
    front_end.send_bytes(data[: rand.randrange(1, len(data))], fds)
    time.sleep(0.05)


def storms(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Connections by the hundred: at once, one by one, with a word or without."""
    for _ in range(3):
        with ExitStack() as own:
            for _ in range(60):
                calling = own.enter_context(socket.socket(socket.AF_UNIX))
                calling.setblocking(False)
                with suppress(BlockingIOError):  # the server's queue of callers is full
                    calling.connect(str(siege.path))
                    calling.send(rand.choice((b"", b"x", rand.randbytes(12), bytes(100))))
    for _ in range(100):
        with siege.connect() as front_end:
            if rand.random() < 0.5:
                front_end.send(Message(Request.GET_FEATURES))
    siege.answers()


def unread_replies(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Questions without end, and nobody takes the answers."""
    driver = left.enter_context(siege.driver(pairs=1))
    question = Message(Request.GET_CONFIG, ConfigAccess(0, bytes(256))).encode()
    with suppress(VhostUserClosed):
        for _ in range(20000):
            driver.front_end.send_bytes(question)
        raise AssertionError("5 MB of answers wait, and the server goes on")


def surplus_descriptors(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """As many as the kernel lets pass, with messages that have room for none or for one."""
    for count in (1, 2, 8, 9, 64, _SCM_MAX):
        for request in rand.sample(list(Request), 8):
            with ExitStack() as own, suppress(VhostUserClosed):
                front_end = own.enter_context(siege.connect())
                fd = KINDS[rand.choice(list(KINDS))](own)
                payload = bytes(rand.choice((0, 8, 40)))
                data = _HEADER.pack(request, 1 | MessageFlag.NEED_REPLY, len(payload)) + payload
                cut = rand.randrange(1, len(data))
                front_end.send_bytes(data[:cut], [fd] * count)
                front_end.send_bytes(data[cut:], [fd] * count)


def no_messages(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Random bytes; lengths that are none; replies; another protocol."""
    for _ in range(60):
        with siege.connect() as front_end, suppress(VhostUserClosed):
            size = rand.choice((0, 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 1 << 31, (1 << 32) - 1))
            header = _HEADER.pack(rand.randrange(50), rand.choice((1, 5, 9, 0, 2, 0xFFFF)), size)
            front_end.send_bytes(
                rand.choice((rand.randbytes(64), header, b"GET / HTTP/1.0\r\n\r\n"))
            )
            front_end.send_bytes(rand.randbytes(rand.choice((1, 100, 5000))))


# Sequences drawn by hypothesis


@dataclass(frozen=True)
class Step:
    """Bytes to send, with descriptors of these kinds at the first."""

    data: bytes
    kinds: tuple[str, ...]


_NUMBERS = (0, 1, 2, 3, 4, 8, 9, 10, 255, 256, 4095, 4096, 32768, 65535, 65536, 1 << 20)
_WORDS = st.sampled_from((*_NUMBERS, *(-number for number in _NUMBERS))) | st.integers(
    0, (1 << 64) - 1
)
_SIZES = {
    Request.SET_MEM_TABLE: (8, 40, 72, 8 + 8 * 32),
    Request.SET_VRING_ADDR: (40,),
    Request.SET_LOG_BASE: (16,),
    Request.ADD_MEM_REG: (40,),
    Request.REM_MEM_REG: (40,),
    Request.GET_CONFIG: (12, 40, 268),
    Request.SET_CONFIG: (12, 40),
}


@st.composite
def _steps(draw: st.DrawFn) -> Step:
    request = draw(st.sampled_from(list(Request)) | st.integers(0, 50))
    usual = _SIZES.get(Request(request), (8, 0)) if request in set(Request) else (0, 8)
    size = draw(st.sampled_from(usual) | st.integers(0, 80))
    words = draw(st.lists(_WORDS | _pairs(), min_size=size // 8 + 1, max_size=size // 8 + 1))
    payload = b"".join(struct.pack("=Q", word & ((1 << 64) - 1)) for word in words)[:size]
    if request in (Request.GET_CONFIG, Request.SET_CONFIG) and size >= 12 and draw(st.booleans()):
        payload = struct.pack("=III", payload[0], size - 12, 0) + payload[12:]
    flags = draw(st.sampled_from((1, 9, 9, 9)) | st.integers(0, 31))
    told = draw(st.sampled_from((0, 0, 0, 0, 1, -1, MAX_PAYLOAD))) + size
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), max_size=2)) if draw(st.booleans()) else []
    return Step(_HEADER.pack(request, flags, max(told, 0)) + payload, tuple(kinds))


def _pairs() -> st.SearchStrategy[int]:
    """Two numbers in one word: a ring, and a number for it."""
    rings = st.integers(0, 2 * QUEUES + 1)
    numbers = st.sampled_from((0, 1, 2, 64, 256, 3))
    return st.builds(lambda ring, number: ring | number << 32, rings, numbers)


def sequences() -> st.SearchStrategy[tuple[str, list[Step]]]:
    """How far a session has come, and what is sent then."""
    beginnings = st.sampled_from(("connected", "negotiated", "running"))
    return st.tuples(beginnings, st.lists(_steps(), min_size=1, max_size=12))


def play(siege: Siege, beginning: str, steps: Sequence[Step]) -> None:
    """Send a sequence. The server answers afterwards, or has closed."""
    with ExitStack() as own:
        front_end = own.enter_context(siege.connect())
        if beginning == "negotiated":
            front_end.negotiate(front_end.features())
        elif beginning == "running":
            own.enter_context(FakeDriver(front_end, pairs=1))
        with suppress(VhostUserClosed):
            for step in steps:
                front_end.send_bytes(step.data, [KINDS[kind](own) for kind in step.kinds])
        front_end.close()
    siege.answers()
