# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The host's side of a served device: its tap, steered as the guest's driver asks."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from os import read
from select import POLLIN, poll
from time import monotonic, sleep
from typing import Self

from vnethash.closing import Closing
from vnethash.engines.base import ProgramSource, Setup
from vnethash.engines.ebpf import StagesAttachment
from vnethash.engines.readers import History
from vnethash.engines.select import (
    AUTO,
    EBPF,
    PROGRAM,
    SOFTWARE,
    engine_named,
    named,
    without_stages,
)
from vnethash.engines.stages import DEFAULT_MAX_INDIRECTION
from vnethash.errors import ConfigError, DeviceError, TableOwned, Unsupported, VnethashError
from vnethash.kernel.link import set_mtu, set_up
from vnethash.kernel.tun import Offload, TunDevice
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig
from vnethash.rss.observed import Observation
from vnethash.rss.table import even_table
from vnethash.virtio.features import Feature

_DRAIN = 0.05
_LOOK_EVERY = 0.0005
"""Seconds."""

_LARGEST_PACKET = 1 << 17
_QUEUE_LENGTH = 1000  # tx_queue_len of a tap: what its ring holds at most

_USO = Offload.USO4 | Offload.USO6
_OFFLOADS = {
    Feature.GUEST_CSUM: Offload.CSUM,
    Feature.GUEST_TSO4: Offload.TSO4,
    Feature.GUEST_TSO6: Offload.TSO6,
    Feature.GUEST_ECN: Offload.TSO_ECN,
    Feature.GUEST_USO4: Offload.USO4,
    Feature.GUEST_USO6: Offload.USO6,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a driver asked for, in the terms of a tap.

    rss        how to hash and, unless ``automatic``, to steer
    automatic  the kernel steers: a flow comes to the queue it was last sent from
    reports    packets carry their hash
    offloads   what the driver takes whole
    """

    rss: RssConfig
    automatic: bool
    reports: bool
    offloads: Offload

    @classmethod
    def at_reset(cls, queue_pairs: int) -> Self:
        """As a device begins, and begins again."""
        return cls(RssConfig.default(queue_pairs), True, False, Offload.NONE)


class HostTap(Closing):
    """A multi-queue tap and what steers it.

    Without BPF (engine "software") the kernel spreads packets its own way,
    and whoever reads them hashes them: then there is no RSS.
    """

    def __init__(
        self,
        device: TunDevice,
        engine: str,
        reporting: Reporting,
        attachment: StagesAttachment | None,
        history: History,
        resources: ExitStack,
        *,
        adaptive: bool = False,
    ) -> None:
        self._device = device
        self._attachment = attachment
        self._reporting = reporting
        self._resources = resources
        self._wanted: Wanted | None = None
        self._carrier = False
        self._kept = False
        self._adaptive = adaptive
        self._in_use = 1
        self._adapted: RssConfig | None = None
        self.history = history
        self.engine = engine
        self.offloads = _offloads_of(device)

    @classmethod
    def open(
        cls,
        name: str,
        queue_pairs: int,
        *,
        engine: str = AUTO,
        reporting: Reporting = Reporting.RECORD,
        program: ProgramSource | None = None,
        mtu: int | None = None,
        max_indirection: int = DEFAULT_MAX_INDIRECTION,
        adaptive: bool = False,
    ) -> Self:
        """Create the tap ``name`` or join a persistent one, and bring it up.

        ``adaptive``: while the driver asks neither for RSS nor for hashes, flows
        are spread by a table of the host's, for a balancer to adapt.
        It has no carrier until a guest receives from it. Raises ConfigError,
        NotPermitted, DeviceError, DependencyMissing, Unsupported,
        ProgramRefused, BpfError; a failed open leaves nothing behind.
        """
        chosen = _engine(engine, program is not None)
        if adaptive and chosen == SOFTWARE:
            raise ConfigError("adaptive", f"engine {SOFTWARE} does not count by bucket")
        if chosen == SOFTWARE and reporting is Reporting.RECORD:
            reporting = Reporting.REHASH
        with ExitStack() as resources:
            device = resources.enter_context(TunDevice.create(name, queue_pairs))
            _set_carrier(device, False)
            resources.callback(_restore, device)
            if mtu is not None:
                set_mtu(device.name, mtu)
            attachment: StagesAttachment | None = None
            if chosen == SOFTWARE:
                history = History()
                resources.callback(history.close)
            else:
                attachment = _attach(
                    device, chosen, reporting, program, max_indirection, adaptive=adaptive
                )
                resources.callback(attachment.close)
                history = attachment.history
            tap = cls(
                device, chosen, reporting, attachment, history, ExitStack(), adaptive=adaptive
            )
            tap.apply(Wanted.at_reset(queue_pairs))
            tap.use_queues(0)
            set_up(device.name)
            tap._resources = resources.pop_all()
            return tap

    @property
    def name(self) -> str:
        return self._device.name

    @property
    def queue_pairs(self) -> int:
        return len(self._device.fds)

    @property
    def attach_point(self) -> str:
        """Where the engine works: "tcx", "clsact" or "reader"."""
        return self._attachment.point if self._attachment else "reader"

    @property
    def steers(self) -> bool:
        """Whether RSS can be had."""
        return self._attachment is not None

    @property
    def takes_records(self) -> bool:
        """Whether packets may come with a hash record."""
        return self._attachment is not None and self._reporting is Reporting.RECORD

    @property
    def rehashes(self) -> bool:
        """Whether what comes without a hash is to be hashed by whoever reads it."""
        return self.engine != PROGRAM

    def apply(self, wanted: Wanted) -> None:
        """Steer, hash and segment as ``wanted`` from now on.

        From one RSS configuration to another every packet is treated by the
        one or the other. Raises ConfigError, DeviceError, Unsupported; then
        all is as it was.
        """
        before = self._wanted
        if wanted == before:
            return
        try:
            self._apply(wanted)
        except VnethashError:
            with suppress(VnethashError):
                if before:
                    self._apply(before)
            raise
        self._wanted = wanted

    def _apply(self, wanted: Wanted) -> None:
        reporting = self._reporting if wanted.reports else Reporting.OFF
        if self._attachment is None:
            if not wanted.automatic:
                raise Unsupported("RSS", "there is no BPF to steer with")
            self._device.set_offloads(wanted.offloads)
            self.history.push(wanted.rss, reporting, automatic=True)
            return
        self._attachment.set_offloads(wanted.offloads)
        adapted, self._adapted = self._adapted, None
        if self._adaptive and wanted.automatic and not wanted.reports:
            if adapted is None or adapted.queues != self._in_use:
                adapted = RssConfig.default(self._in_use)
            self._adapted = adapted
            self._attachment.configure(self._adapted, Reporting.OFF)
        elif wanted.automatic:
            self._attachment.configure_automatic(wanted.rss, reporting)
        else:
            self._attachment.configure(wanted.rss, reporting)

    @property
    def adapts(self) -> bool:
        """Whether the table is the host's now, and may be adapted."""
        return self._adapted is not None

    def observe(self) -> Observation:
        """What was counted by bucket and by queue, for a balancer.

        Raises TableOwned while the table is not the host's.
        """
        rss, attachment = self._table()
        return Observation.of(rss, attachment.buckets(), attachment.stats())

    def rebalance(self, seen: RssConfig, table: Sequence[int]) -> bool:
        """Put another table in force, if that which was seen still is. Raises as observe()."""
        rss, attachment = self._table()
        if rss != seen:
            return False
        rss = rss.replace(indirection_table=table)
        attachment.configure(rss, Reporting.OFF)
        self._adapted = rss
        return True

    def _table(self) -> tuple[RssConfig, StagesAttachment]:
        if self._adapted is None or self._attachment is None:
            whose = "its guest" if self._adaptive else "the kernel, or its guest"
            raise TableOwned(f"{self.name} is steered as {whose} wants, so nothing is adapted")
        return self._adapted, self._attachment

    def keep_to(self, count: int) -> None:
        """Steer to the first ``count`` queues only, and wait until the others were read.

        Whoever reads them has to go on meanwhile. use_queues() comes next, and
        ends it. Without BPF nothing happens: what is in a queue that goes out of
        use is lost.
        """
        wanted = self._wanted
        if self._attachment is None or wanted is None:
            return
        rss = wanted.rss.replace(indirection_table=even_table(count), unclassified_queue=0)
        self._kept = True
        self._adapted = None
        self._attachment.configure(rss, self._reporting if wanted.reports else Reporting.OFF)
        leaving = poll()
        for fd in self._device.fds[count:]:
            leaving.register(fd, POLLIN)
        quiet, deadline = 0, monotonic() + _DRAIN
        while quiet < 2 and monotonic() < deadline:  # twice: one may still be on its way
            sleep(_LOOK_EVERY)
            quiet = 0 if leaving.poll(0) else quiet + 1

    def use_queues(self, count: int) -> None:
        """Have packets on the first ``count`` queues only; on none, the carrier is off.

        Nobody may be reading a queue that goes out of use. One that comes
        into use has nothing old in it.
        """
        if count == 0:
            _set_carrier(self._device, False)
        self._device.use_queues(max(count, 1))
        before, self._in_use = self._in_use, max(count, 1)
        if self._wanted and (self._kept or (self.adapts and before != self._in_use)):
            self._kept = False
            self._apply(self._wanted)
        if count == 0:
            self._drain()
        elif not self._carrier:
            self._drain()
            _set_carrier(self._device, True)
        self._carrier = count > 0

    def _drain(self) -> None:
        """Forget what the first queue holds: it stays in use when no guest is there."""
        with suppress(BlockingIOError):
            for _ in range(_QUEUE_LENGTH):
                read(self._device.fds[0], _LARGEST_PACKET)

    def fd(self, queue: int) -> int:
        """The descriptor of a queue."""
        return self._device.fds[queue]

    def set_mtu(self, mtu: int) -> None:
        """Set the MTU of the link, in bytes. Raises DeviceError, NotPermitted."""
        set_mtu(self.name, mtu)

    def close(self) -> None:
        """Take the engine off; a tap that is not persistent goes away."""
        self._resources.close()


def offloads(features: frozenset[Feature]) -> Offload:
    """What a driver that has these features takes whole."""
    taken = Offload.NONE
    for feature, offload in _OFFLOADS.items():
        if feature in features:
            taken |= offload
    # tun takes these two together only.
    return taken if Offload.USO4 in taken and Offload.USO6 in taken else taken & ~_USO


def _engine(requested: str, program: bool) -> str:
    """The engine asked for, or the best that can serve. Raises ConfigError."""
    choice = named(requested, program=program)
    if choice is None:
        return SOFTWARE if without_stages() else EBPF
    if choice.name not in (EBPF, PROGRAM, SOFTWARE):
        raise ConfigError("engine", f"{choice.name} serves no guest", hint=f"use {EBPF}")
    return choice.name


def _attach(
    device: TunDevice,
    engine: str,
    reporting: Reporting,
    program: ProgramSource | None,
    max_indirection: int,
    *,
    adaptive: bool,
) -> StagesAttachment:
    rss = RssConfig.default(len(device.fds))
    longest = max(max_indirection, len(rss.indirection_table))
    setup = Setup(device, rss, reporting, Offload.NONE, False, longest, program, adaptive)
    attachment = engine_named(engine).attach(setup)
    if not isinstance(attachment, StagesAttachment):
        raise TypeError(f"engine {engine} has no stages")
    return attachment


def _offloads_of(device: TunDevice) -> Offload:
    """What the tun driver can be asked for."""
    known = Offload.CSUM | Offload.TSO4 | Offload.TSO6 | Offload.TSO_ECN
    try:
        device.set_offloads(known | _USO)
    except Unsupported:
        return known
    device.set_offloads(Offload.NONE)
    return known | _USO


def _set_carrier(device: TunDevice, carrier: bool) -> None:
    with suppress(Unsupported):  # before Linux 5.0 it has one all the time
        device.set_carrier(carrier)


def _restore(device: TunDevice) -> None:
    with suppress(DeviceError):
        device.use_queues(len(device.fds))
        _set_carrier(device, True)
        device.set_offloads(Offload.NONE)
