# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Attacks with the descriptors of notifications: kick, call and error of the rings."""

import os
import random
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from tests.kernel.hostile.descriptors import EVENTS, KINDS
from tests.kernel.hostile.siege import Siege
from vnethash.errors import VhostUserClosed, VhostUserError
from vnethash.testing.driver import FakeDriver
from vnethash.testing.front_end import FrontEnd
from vnethash.vhost_user.messages import Request, VringFd

NOTIFIERS = (Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR)


def odd_notifiers(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """Descriptors of every kind for every notification of every ring, and then traffic."""
    kinds = rand.sample(list(KINDS), len(KINDS))
    for kind in kinds:
        with ExitStack() as own, suppress(VhostUserClosed):
            driver = own.enter_context(siege.driver(pairs=1, timeout=1))
            for request in NOTIFIERS:
                for index in (0, 1, driver.control_index or 0):
                    _give(driver.front_end, request, index, KINDS[kind](own))
            _use(driver)
            siege.sleeps_with(kind)


def _give(front_end: FrontEnd, request: Request, index: int, fd: int) -> None:
    with suppress(VhostUserError):  # refused: as well
        front_end.tell(request, VringFd(index, True), [fd])


def _use(driver: FakeDriver) -> None:
    for queue in driver.queues:
        queue.ring.publish()
        with suppress(BlockingIOError):
            queue.kick()
    time.sleep(0.005)
    driver.front_end.features()
