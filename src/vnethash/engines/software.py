# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Engine ``software``: no BPF; whoever reads a queue hashes and steers.

What a VMM without BPF rights does. The kernel spreads packets over the tap's
queues as it likes; a reader takes them from all of them, keeps its own and
leaves the others' where their readers find them.
"""

import os
import select
from contextlib import ExitStack
from typing import Any

from vnethash.engines.base import Setup
from vnethash.engines.readers import HEADER, History
from vnethash.native import core
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig
from vnethash.stats import QueueStats, Stats


class SoftwareReader:
    """Reads one queue by way of all (vh_resteer_receive)."""

    def __init__(self, resteer: Any, queue: int, fds: tuple[int, ...]) -> None:
        self._lib = core().lib
        self._resteer = resteer
        self._queue = queue
        # Readable when the tap has packets for anybody, or another left one for us.
        self._epoll = select.epoll()
        self._epoll.register(self._lib.vh_resteer_event_fd(resteer, queue), select.EPOLLIN)
        for fd in fds:
            self._epoll.register(fd, select.EPOLLIN)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def receive(self, arena: Any, size: int, packets: Any, most: int) -> int:
        count: int = self._lib.vh_resteer_receive(
            self._resteer, self._queue, arena, size, packets, most
        )
        return count

    def close(self) -> None:
        self._epoll.close()


class SoftwareAttachment:
    """Steering in user space for one tap."""

    point = "reader"
    header = HEADER

    def __init__(self, setup: Setup, history: History, resteer: Any, resources: ExitStack) -> None:
        self._setup = setup
        self._history = history
        self._resteer = resteer
        self._resources = resources

    def configure(self, rss: RssConfig, reporting: Reporting) -> None:
        self._history.push(rss, reporting)

    def stats(self) -> Stats:
        ffi, lib = core()
        queues = []
        for queue in range(self._setup.rss.queues):
            counters = ffi.new("struct vnet_counters *")
            dropped = ffi.new("uint64_t *")
            lib.vh_resteer_counters(self._resteer, queue, counters, dropped)
            queues.append(QueueStats.from_counters([counters], dropped[0]))
        return Stats(tuple(queues))

    def reader(self, queue: int) -> SoftwareReader:
        return SoftwareReader(self._resteer, queue, self._setup.device.fds)

    def close(self) -> None:
        self._resources.close()


class SoftwareEngine:
    """Needs no more than the tap."""

    name = "software"

    def attach(self, setup: Setup) -> SoftwareAttachment:
        """Raises OSError when the process has no descriptors left."""
        ffi, lib = core()
        with ExitStack() as resources:
            history = History()
            resources.callback(history.close)
            history.push(setup.rss, setup.reporting)
            resteer = lib.vh_resteer_new(
                list(setup.device.fds), setup.rss.queues, setup.l3, history.handle
            )
            if resteer == ffi.NULL:
                raise OSError(ffi.errno, f"steer in user space: {os.strerror(ffi.errno)}")
            resources.callback(lib.vh_resteer_free, resteer)
            return SoftwareAttachment(setup, history, resteer, resources.pop_all())
