# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Tap and Queue: a multi-queue tap whose packets come with their hash."""

import asyncio
import errno
import os
import select
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import numpy as np

from vnethash.balancer import Balancer
from vnethash.closing import Closing
from vnethash.engines.base import (
    Attachment,
    CountsBuckets,
    ProgramSource,
    Reader,
    RunsProgram,
    Setup,
)
from vnethash.engines.select import best, engine_named, named
from vnethash.engines.stages import DEFAULT_MAX_INDIRECTION
from vnethash.errors import ConfigError, DeviceError, TableOwned
from vnethash.kernel.link import set_up
from vnethash.kernel.tun import QUEUES_MAX, Offload, TunDevice
from vnethash.native import core
from vnethash.packet import PACKET_DTYPE, Batch, Packet
from vnethash.reporting import Reporting
from vnethash.rss.balance import DEFAULT_TOLERANCE
from vnethash.rss.config import RssConfig
from vnethash.rss.observed import Observation
from vnethash.stats import Measure, Stats
from vnethash.virtio.header import Header

if TYPE_CHECKING:
    from vnethash.rss.observed import Counts

_ARENA = 1 << 20
"""Bytes of memory a queue reads into; a batch ends when it is full."""

_GLANCE = 0.5
"""Seconds a waiting reader takes at most to see that its queue was closed."""


class Queue:
    """One queue of a tap: receive steered packets, send frames.

    One thread may use a queue at a time; different queues are independent.
    A queue ends with its tap: then every call raises DeviceError, also one
    that waits in another thread.
    """

    def __init__(self, index: int, fd: int, reader: Reader, header: int) -> None:
        self.index = index
        self._fd = fd
        self._header = header
        self._open_reader: Reader | None = reader
        self._lock = threading.Lock()  # nobody closes what the core is reading
        self._arena = np.empty(_ARENA, np.uint8)
        self._packets = np.empty(0, PACKET_DTYPE)

    def __repr__(self) -> str:
        return f"<Queue {self.index}>"

    def fileno(self) -> int:
        """Readable when packets may have come: for selectors and event loops."""
        return self._reader().fileno()

    def _reader(self) -> Reader:
        if self._open_reader is None:
            raise DeviceError(f"queue {self.index} is closed")
        return self._open_reader

    def close(self) -> None:
        """Stop reading; the tap does this when it is closed."""
        with self._lock:
            reader, self._open_reader = self._open_reader, None
            if reader is not None:
                reader.close()

    def receive(self, timeout: float | None = None) -> Packet:
        """The next packet, waiting for at most ``timeout`` seconds.

        Raises TimeoutError, and DeviceError when the tap is gone.
        """
        batch = self.receive_batch(1, timeout)
        if not len(batch):
            raise TimeoutError(f"no packet on queue {self.index} within {timeout} s")
        return batch.packet(0)

    def receive_batch(self, most: int = 64, timeout: float | None = None) -> Batch:
        """All packets there are, up to ``most``; empty after ``timeout`` seconds without any.

        Waits only for the first one. The core reads without the
        interpreter's lock. The batch is valid until the next receive.
        Raises DeviceError when the tap is gone.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            batch = self._drain(most)
            if len(batch):
                return batch
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return batch
            poll = select.poll()
            poll.register(self.fileno(), select.POLLIN)
            # Closing a descriptor wakes nobody who waits for it: look now and then.
            poll.poll(1000 * (_GLANCE if left is None else min(left, _GLANCE)))

    def _drain(self, most: int) -> Batch:
        ffi, _ = core()
        if len(self._packets) < most:
            self._packets = np.empty(most, PACKET_DTYPE)
        with self._lock:
            count = self._reader().receive(
                ffi.from_buffer("uint8_t[]", self._arena),
                _ARENA,
                ffi.from_buffer("struct vh_packet[]", self._packets),
                most,
            )
        if count < 0:
            raise DeviceError(
                f"read queue {self.index}: {os.strerror(-count)}",
                hint="the tap was deleted" if -count == errno.EBADFD else None,
            )
        return Batch(self._packets[:count], self._arena)

    async def receive_async(self) -> Packet:
        """The next packet, in an event loop. Raises DeviceError when the tap is gone."""
        while True:
            batch = self._drain(1)
            if len(batch):
                return batch.packet(0)
            await self._readable()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self.fileno())

    async def __aiter__(self) -> AsyncIterator[Packet]:
        while True:
            yield await self.receive_async()

    def send(self, frame: bytes, header: Header | None = None) -> None:
        """Send a frame into the kernel, with offloads as ``header`` says.

        Raises DeviceError if the tap does not take it, BlockingIOError if it
        has no room now.
        """
        self._reader()
        try:
            os.writev(self._fd, [(header or Header()).encode()[: self._header], frame])
        except BlockingIOError:
            raise
        except OSError as error:
            raise DeviceError(
                f"send {len(frame)} bytes on queue {self.index}: {error.strerror}"
            ) from error


class Tap(Closing):
    """A multi-queue tap with RSS; ``with Tap.open(...) as tap`` closes it."""

    def __init__(
        self,
        device: TunDevice,
        attachment: Attachment,
        queues: tuple[Queue, ...],
        rss: RssConfig,
        reporting: Reporting,
        engine: str,
        adaptive: bool,
        resources: ExitStack,
    ) -> None:
        self._changing = threading.Lock()
        self._device = device
        self._attachment = attachment
        self._resources = resources
        self.queues = queues
        self.rss = rss
        self.reporting = reporting
        self.engine = engine
        self.adaptive = adaptive
        """Whether the indirection table is left to a balancer."""

    @classmethod
    def open(
        cls,
        name: str | None = None,
        *,
        queues: int | None = None,
        rss: RssConfig | None = None,
        reporting: Reporting | str = Reporting.RECORD,
        engine: str = "auto",
        program: ProgramSource | None = None,
        offloads: Offload = Offload.NONE,
        l3: bool = False,
        up: bool = True,
        max_indirection: int = DEFAULT_MAX_INDIRECTION,
        adaptive: bool = False,
    ) -> Self:
        """Create the tap ``name`` (or join a persistent one) and steer it.

        ``queues`` and ``rss`` default to each other, and to 4 queues.
        ``offloads`` is what the reader takes: without any, packets come
        segmented and checksummed. ``l3`` makes a device without Ethernet
        headers (IFF_TUN). ``program`` is the object of a hash program, which
        then decides instead of vnethash's own (docs/programs.md).
        ``max_indirection`` is the longest indirection table that
        ``configure`` will take. ``adaptive``: the table is where ``balancer``
        starts from, for which packets are counted by bucket. The engine is
        attached before the link goes up, so that there is no packet it has
        not seen.

        Raises ConfigError, NotPermitted, DeviceError, DependencyMissing,
        Unsupported, ProgramRefused, BpfError; a failed open leaves nothing
        behind.
        """
        config = _config(queues, rss)
        how = _reporting(reporting)
        chosen = named(engine, program=program is not None)
        with ExitStack() as resources:
            device = resources.enter_context(
                TunDevice.create(name, config.queues, l3=l3, offloads=offloads)
            )
            chosen = chosen or best(config.hash_types, device, config.tunnels)
            longest = max(max_indirection, len(config.indirection_table))
            attachment = engine_named(chosen.name).attach(
                Setup(device, config, how, offloads, l3, longest, program, adaptive)
            )
            resources.callback(attachment.close)
            if adaptive and not isinstance(attachment, CountsBuckets):
                raise ConfigError(
                    "adaptive",
                    f"engine {chosen.name} does not count by bucket",
                    hint="use engine ebpf",
                )
            opened = []
            for index, fd in enumerate(device.fds):
                opened.append(Queue(index, fd, attachment.reader(index), attachment.header))
                resources.callback(opened[-1].close)
            if up:
                set_up(device.name)
            found = tuple(opened)
            name = chosen.name
            return cls(device, attachment, found, config, how, name, adaptive, resources.pop_all())

    @property
    def name(self) -> str:
        return self._device.name

    @property
    def ifindex(self) -> int:
        return self._device.ifindex

    @property
    def attach_point(self) -> str:
        """Where the engine works: "tcx", "clsact" or "reader"; in the lab "steering", "driver"."""
        return self._attachment.point

    def configure(
        self, rss: RssConfig | None = None, *, reporting: Reporting | str | None = None
    ) -> None:
        """Change the configuration while packets pass.

        Each packet is steered and hashed by the old or by the new one, never
        by both. With another indirection table this is the caller's, and no
        longer a balancer's. Raises ConfigError if it is for another number of
        queues, or its table is longer than the tap was opened for; nothing is
        changed then.
        """
        with self._changing:
            before = self.rss
            self._configure(before if rss is None else rss, reporting)
            if self.rss.indirection_table != before.indirection_table:
                self.adaptive = False

    def _configure(self, config: RssConfig, reporting: Reporting | str | None) -> None:
        if config.queues != self.rss.queues:
            raise ConfigError(
                "queues", f"is {config.queues}, but {self.name} has {self.rss.queues}"
            )
        how = self.reporting if reporting is None else _reporting(reporting)
        self._attachment.configure(config, how)
        self.rss, self.reporting = config, how

    def replace_program(self, program: ProgramSource) -> None:
        """Put another hash program in the place of the present one while packets pass.

        Each packet is judged by the one or by the other; there is none
        without. Raises ConfigError if the tap was opened without a program;
        ProgramRefused, VerifierError, BpfError: then the present one stays.
        """
        if not isinstance(self._attachment, RunsProgram):
            raise ConfigError(
                "program",
                f"cannot be replaced: {self.name} is steered by engine {self.engine}",
                hint="open the tap with a program",
            )
        self._attachment.replace_program(program)

    def balancer(
        self, *, tolerance: float = DEFAULT_TOLERANCE, by: Measure | str = Measure.PACKETS
    ) -> Balancer:
        """What keeps the queues evenly loaded (Balancer). Raises ConfigError, TableOwned."""
        return Balancer(self, tolerance=tolerance, by=by)

    def observe(self) -> Observation:
        """What was counted by bucket and by queue, for a balancer.

        Raises TableOwned if the table is not to be adapted, ConfigError if
        the tap was not opened for this.
        """
        with self._changing:
            buckets = self._buckets()
            return Observation.of(self.rss, buckets, self._attachment.stats())

    def rebalance(self, seen: RssConfig, table: Sequence[int]) -> bool:
        """Put another table in force, if the configuration is still the one that was seen.

        Raises as observe() does, and ConfigError for a table that cannot be.
        """
        with self._changing:
            self._buckets()
            if self.rss != seen:
                return False
            self._configure(seen.replace(indirection_table=table), None)
            return True

    def _buckets(self) -> "Counts":
        attachment = self._attachment
        counts = attachment.buckets() if isinstance(attachment, CountsBuckets) else None
        if counts is None or not len(counts):
            raise ConfigError(
                "adaptive",
                f"{self.name} was opened without it: nothing is counted by bucket",
                hint="open the tap with adaptive=True",
            )
        if not self.adaptive:
            raise TableOwned(
                f"the indirection table of {self.name} was set by configure(), so it is not adapted"
            )
        return counts

    def stats(self) -> Stats:
        """Packets and bytes by queue and report type since the tap was opened."""
        return self._attachment.stats()

    def close(self) -> None:
        """Detach the engine and close the queues; a tap that is not persistent goes away."""
        self._resources.close()

    def __iter__(self) -> Iterator[Queue]:
        return iter(self.queues)


def _config(queues: int | None, rss: RssConfig | None) -> RssConfig:
    config = rss or RssConfig.default(4 if queues is None else queues)
    if queues is not None and queues != config.queues:
        raise ConfigError("queues", f"is {queues}, but rss is for {config.queues}")
    if config.queues > QUEUES_MAX:
        raise ConfigError("queues", f"is {config.queues}, a tap has at most {QUEUES_MAX}")
    return config


def _reporting(value: Reporting | str) -> Reporting:
    try:
        return Reporting(value)
    except ValueError:
        raise ConfigError(
            "reporting", f"must be one of {', '.join(Reporting)}, not {value!r}"
        ) from None
