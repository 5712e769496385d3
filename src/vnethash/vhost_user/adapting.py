# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Balancing the tap of a served device, as long as its guest has not said how to steer."""

import time
from collections.abc import Callable

from vnethash.balancer import Balancer
from vnethash.vhost_user.host_tap import HostTap
from vnethash.vhost_user.journal import Journal

INTERVAL = 1.0
"""Seconds between two looks."""


class Adapting:
    """Looks when it is time to, from the thread that does what the guest asks for."""

    def __init__(
        self,
        tap: HostTap,
        journal: Journal,
        *,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tap = tap
        self._journal = journal
        self._clock = clock
        self._due = clock()
        self._balancer: Balancer | None = None
        self.interval = interval

    def tick(self) -> None:
        """Look, if it is time. Raises DeviceError, BpfError."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + self.interval
        if not self._tap.adapts:
            self._balancer = None
        elif self._balancer is None:
            self._balancer = Balancer(self._tap)
        else:
            step = self._balancer.step()
            if step.applied:
                self._journal("balanced", step.to_json())
