# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The control queue in an event loop."""

import os
import select
import selectors
import time
from collections.abc import Callable
from contextlib import ExitStack

from vnethash.closing import Closing
from vnethash.errors import RingError, VnethashError
from vnethash.vhost_user.memory import GuestMemory
from vnethash.vhost_user.rings import ControlQueue, RingSetup
from vnethash.virtio.control import ACK_ERR, ACK_OK

_TURN = 0.01
"""Seconds of commands before others of the event loop have their turn."""


class ControlService(Closing):
    """Has ``obey`` judge each command, and answers whether it was obeyed.

    A queue that breaks a rule is left alone, and ``on_fault`` told why.
    """

    def __init__(
        self,
        index: int,
        memory: GuestMemory,
        setup: RingSetup,
        selector: selectors.BaseSelector,
        obey: Callable[[bytes], bool],
        on_fault: Callable[[str], object],
    ) -> None:
        """Raises RingError, and VnethashError if kicks cannot be waited for."""
        if setup.kick < 0:
            raise VnethashError("the control queue has no kick descriptor: it is not polled")
        self.index = index
        self._obey = obey
        self._on_fault = on_fault
        with ExitStack() as resources:
            self._queue = resources.enter_context(ControlQueue(memory, setup))
            self._hearing = ExitStack()
            resources.callback(self._hearing.close)
            try:
                self._hear(setup.kick, selector)
            except OSError as error:
                reason = os.strerror(error.errno or 0).lower()
                raise VnethashError(f"kicks of the control queue: {reason}") from error
            self._resources = resources.pop_all()

    def _hear(self, kick: int, selector: selectors.BaseSelector) -> None:
        # Edges, so that nobody has to read what the front end also has its hands on.
        self._kicks = self._hearing.enter_context(select.epoll())
        self._kicks.register(kick, select.EPOLLIN | select.EPOLLET)
        # Readable at once: for what was sent before the kick was watched.
        self._more = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._hearing.callback(os.close, self._more)
        for source, heard in ((self._kicks, self._on_kick), (self._more, self._on_more)):
            selector.register(source, selectors.EVENT_READ, heard)
            self._hearing.callback(selector.unregister, source)

    @property
    def base(self) -> int:
        """The next available index to look at."""
        return self._queue.base

    def close(self) -> None:
        """Leave the queue alone."""
        self._resources.close()

    def _on_kick(self) -> None:
        self._kicks.poll(0)
        self._serve()

    def _on_more(self) -> None:
        os.eventfd_read(self._more)
        self._serve()

    def _serve(self) -> None:
        end = time.monotonic() + _TURN
        try:
            while (command := self._queue.receive()) is not None:
                self._queue.answer(bytes([ACK_OK if self._obey(command) else ACK_ERR]))
                if time.monotonic() > end:
                    os.eventfd_write(self._more, 1)
                    break
        except RingError as error:
            self._hearing.close()
            self._on_fault(error.message)
