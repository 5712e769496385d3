# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Attacks with the descriptors that notify: kick, call and error of the rings, the back channel."""

import os
import random
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.kernel.hostile.descriptors import FULL, KINDS, fill, owned
from tests.kernel.hostile.siege import Siege, repeating
from vnethash.errors import VhostUserClosed, VhostUserError
from vnethash.testing.driver import FakeDriver
from vnethash.vhost_user.messages import (
    Message,
    MessageFlag,
    Payload,
    Request,
    VringFd,
    VringState,
)

NOTIFIERS = (Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR)


def give(driver: FakeDriver, request: Request, index: int, fd: int) -> bool:
    """Whether a notifier was taken."""
    try:
        driver.front_end.tell(request, VringFd(index, True), [fd])
    except VhostUserClosed:
        raise
    except VhostUserError:
        return False
    return True


def indices(driver: FakeDriver) -> list[int]:
    """Of all rings of a driver."""
    return [queue.index for queue in driver.queues]


def odd_notifiers(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Descriptors of every kind for every ring and purpose; the server sleeps with them."""
    for kind in rand.sample(list(KINDS), len(KINDS)):
        request = rand.choice(NOTIFIERS)
        with ExitStack() as own, suppress(VhostUserClosed):
            driver = own.enter_context(siege.driver(pairs=1))
            for index in indices(driver):
                give(driver, request, index, KINDS[kind](own))
            with suppress(VhostUserError):
                fd = KINDS[kind](own)
                driver.front_end.tell(Request.SET_BACKEND_REQ_FD, None, [fd])
            _disturb(driver)
            with siege.flood.paused():
                siege.idles(kind)


def _disturb(driver: FakeDriver) -> None:
    """Have the device notify, and look for what was notified."""
    for queue in driver.queues:
        queue.kick()
    with suppress(TimeoutError):
        driver.timeout = 0.01
        driver.queue_pairs(1)
    driver.front_end.features()


def full_notifiers(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """A call descriptor that would block: it is the front end's too, which fills it later."""
    driver = left.enter_context(siege.driver(pairs=1))
    for index in indices(driver):
        for make in rand.sample((_eventfd, _pipe), 2):
            fd = make(left)
            give(driver, rand.choice(NOTIFIERS[1:]), index, fd)
            os.set_blocking(fd, False)
            fill(fd)
            os.set_blocking(fd, True)
            give(driver, Request.SET_VRING_CALL, index, fd)
            os.set_blocking(fd, True)
            _disturb(driver)
            time.sleep(0.01)
    for queue in driver.queues:
        queue.ring.make_available(queue.ring.size)
        queue.publish()
    time.sleep(0.01)


def _eventfd(left: ExitStack) -> int:
    return owned(left, os.eventfd(0, os.EFD_CLOEXEC))


def _pipe(left: ExitStack) -> int:
    ends = os.pipe2(os.O_CLOEXEC)
    owned(left, ends[0])
    return owned(left, ends[1])


def toggled_notifiers(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """The same, between the device's look and its write or read."""
    driver = left.enter_context(siege.driver(pairs=1))
    call, kick = _eventfd(left), _eventfd(left)

    def toggle() -> None:
        for fd in (call, kick):
            os.set_blocking(fd, False)
        with suppress(BlockingIOError):
            os.eventfd_write(kick, 1)
        with suppress(BlockingIOError):
            os.eventfd_write(call, FULL)
        os.set_blocking(call, True)
        os.set_blocking(kick, False)
        with suppress(BlockingIOError):
            os.eventfd_read(kick)
        os.set_blocking(kick, True)
        os.set_blocking(call, False)
        with suppress(BlockingIOError):
            os.eventfd_read(call)

    for index in indices(driver):
        give(driver, Request.SET_VRING_CALL, index, call)
        give(driver, Request.SET_VRING_KICK, index, kick)
    with repeating(toggle):
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            with suppress(TimeoutError):
                driver.timeout = 0.001
                driver.queue_pairs(1)
            siege.prompt(driver.front_end)
    for fd in (call, kick):
        os.set_blocking(fd, False)


def lingering_sockets(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """TCP sockets whose last close() waits until the peer has read, which it never does."""
    fds: list[tuple[Request, Payload]] = [(request, VringFd(0, True)) for request in NOTIFIERS]
    surplus = (Request.SET_VRING_NUM, VringState(0, 256))
    for request, payload in (*fds, (Request.SET_BACKEND_REQ_FD, None), surplus):
        with siege.driver(pairs=1) as driver, suppress(VhostUserError):
            with _lingering(left) as fd:
                driver.front_end.send(Message(request, payload, [fd], MessageFlag.NEED_REPLY))
            driver.front_end.receive()
            siege.prompt(driver.front_end)
        siege.answers()


@contextmanager
def _lingering(left: ExitStack) -> Iterator[int]:
    """One that has to be somebody else's, too, when the block ends."""
    listening = left.enter_context(socket.create_server(("127.0.0.1", 0)))
    with socket.create_connection(listening.getsockname()) as ours:
        left.enter_context(listening.accept()[0])
        ours.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                ours.send(bytes(1 << 16))
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 30))
        yield ours.fileno()
