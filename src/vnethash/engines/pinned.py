# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Steering a tap that another process owns, with nobody staying to hold it.

The hash stage is attached and its maps are pinned (``pin_folder``); the
steering stage is set through a queue borrowed from the owner, whose packets
are left alone. All that ends with the device, or with detach().
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from vnethash.closing import Closing
from vnethash.engines.base import ProgramSource
from vnethash.engines.foreign import (
    any_queue,
    check_header,
    device_of,
    is_hooked,
    steerable,
    take_off,
    takes_udp_gso,
)
from vnethash.engines.pin_folder import (
    BUCKETS,
    COUNTERS,
    COUNTS,
    LAYOUT,
    LINK,
    RECORD,
    STATE,
    TABLE,
    PinFolder,
    Record,
    locked,
    names,
)
from vnethash.engines.program import check_reporting
from vnethash.engines.select import EBPF, PROGRAM
from vnethash.engines.stages import DEFAULT_MAX_INDIRECTION, SharedMaps, StageMaps, Stages
from vnethash.errors import BpfError, ConfigError, DeviceError, TableOwned
from vnethash.kernel import pin_root, tc, tun_ioctl
from vnethash.kernel.borrow import borrow_queue
from vnethash.kernel.bpf import Link, Map
from vnethash.kernel.egress import CLSACT, TCX, ClsactHook, TcxHook, attach_egress
from vnethash.kernel.link_info import LinkInfo
from vnethash.kernel.netns_cookie import netns_cookie
from vnethash.kernel.tcx import attach_tcx
from vnethash.native import STAGES_OBJECT, core
from vnethash.programs import open_program
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig
from vnethash.rss.observed import Observation
from vnethash.stats import Stats

AUTO = "auto"
_MAPS = (STATE, TABLE, COUNTERS, COUNTS, BUCKETS)
"""Pins, in the order of SharedMaps."""


class PinnedTap(Closing):
    """A tap of another process with the stages attached; close() leaves them so."""

    def __init__(
        self, folder: PinFolder, record: Record, shared: SharedMaps, resources: ExitStack
    ) -> None:
        self._folder = folder
        self._record = record
        self._shared = shared
        self._maps = StageMaps(shared)
        resources.callback(self._maps.close)
        self._resources = resources
        self.queues = shared.counters.max_entries
        """Queues there were when it was attached, and the configuration is for."""

    @classmethod
    def open(cls, name: str) -> Self:
        """The tap attached under this name. It may be gone meanwhile: see device().

        Raises DeviceError if nothing is attached, ConfigError, NotPermitted, BpfError.
        """
        folder = _folder(name)
        with locked(folder.root):
            return cls._open(folder)

    @classmethod
    def _open(cls, folder: PinFolder) -> Self:
        if not folder.exists():
            raise _not_attached(folder.name)
        record = folder.read_record()
        if record is None or not record.complete:
            raise DeviceError(
                f"attaching {folder.name} was not completed", hint=_detach_hint(folder.name)
            )
        if record.layout != LAYOUT:
            raise _other_version(folder.name)
        with ExitStack() as resources:
            try:
                shared = SharedMaps(
                    *(resources.enter_context(Map.from_pin(folder / pin)) for pin in _MAPS)
                )
                ffi, _ = core()
                if shared.counters.value_size != ffi.sizeof(
                    "struct vnet_counters"
                ) or shared.state.value_size != ffi.sizeof("struct vnet_state"):
                    raise _other_version(folder.name)
                return cls(folder, record, shared, resources.pop_all())
            except BpfError as error:
                error.hint = _detach_hint(folder.name)
                raise

    def __repr__(self) -> str:
        return f"<PinnedTap {self.name}>"

    @property
    def name(self) -> str:
        """The name it was attached under."""
        return self._folder.name

    @property
    def ifindex(self) -> int:
        return self._record.ifindex

    @property
    def attach_point(self) -> str:
        """TCX or CLSACT (kernel/egress.py)."""
        return self._record.point

    @property
    def engine(self) -> str:
        """EBPF or PROGRAM (select.py)."""
        return PROGRAM if self.program else EBPF

    @property
    def program(self) -> str:
        """Name of the hash program; empty for vnethash's own."""
        return self._record.program

    @property
    def pins(self) -> Path:
        """The folder with the pins."""
        return self._folder.path

    @property
    def max_indirection(self) -> int:
        """Entries of the longest indirection table configure() takes."""
        return self._maps.max_indirection

    @property
    def counts_buckets(self) -> bool:
        """Whether it was attached with ``adaptive``."""
        return self._shared.adaptive

    @property
    def adaptive(self) -> bool:
        """Whether its indirection table is left to a balancer, as of the last device()."""
        return self._record.adaptive

    def device(self) -> LinkInfo:
        """The link as it is now, perhaps under another name.

        Raises DeviceError if it is gone, or the hash stage is no longer on it.
        """
        self._record = self._read_record()
        device = device_of(self._record)
        if device is None:
            raise DeviceError(f"the device {self.name} is gone", hint=_detach_hint(self.name))
        if not is_hooked(self._folder, self._record):
            raise DeviceError(
                f"the hash stage is no longer on {self.name}: something took it off",
                hint=f"vnethash detach {self.name}, then attach it again",
            )
        return device

    def _read_record(self) -> Record:
        """The record as it is now. DeviceError if what was opened is attached no more."""
        record = self._folder.read_record() if self._folder.exists() else None
        if record is not None:
            with suppress(BpfError), Map.from_pin(self._folder / STATE) as state:
                if state.id == self._shared.state.id:
                    return record
        raise DeviceError(
            f"{self.name} was detached meanwhile",
            hint=f"vnethash show lists what is attached; vnethash attach {self.name}",
        )

    def current(self) -> tuple[RssConfig, Reporting]:
        """The configuration in force. Raises NotPermitted."""
        with locked(self._folder.root):
            return self._maps.current()

    def configure(
        self, rss: RssConfig | None = None, *, reporting: Reporting | None = None
    ) -> None:
        """Change the configuration while packets pass; None keeps what is.

        With ``rss`` the table is the owner's, and no longer a balancer's.

        Raises ConfigError if it is for another number of queues, names one
        the tap does not have, or its table is too long; DeviceError if the
        tap is gone, or its reader's header does not fit ``record``. Nothing
        is changed then.
        """
        if rss is None:
            self.update(None, reporting=reporting)
        else:
            self.update(lambda _: rss, reporting=reporting, adaptive=False)

    def update(
        self,
        change: Callable[[RssConfig], RssConfig] | None,
        *,
        reporting: Reporting | None = None,
        adaptive: bool | None = None,
    ) -> None:
        """As ``configure``, with what ``change`` makes of the configuration in force.

        ``adaptive`` says whose the indirection table is from now on: a
        balancer's, or (False) its owner's, whom it also is where ``change``
        makes another table without saying.
        """
        from vnethash.rss.compiled import compile_config

        with locked(self._folder.root):
            device = self.device()
            rss, before = self._maps.current()
            table = rss.indirection_table
            if change is not None:
                rss = change(rss)
                self._check(rss, device)
            if adaptive and not self.counts_buckets:
                raise ConfigError("adaptive", self._counts_nothing(), hint=self._adaptive_hint())
            if adaptive is None and rss.indirection_table != table:
                adaptive = False
            how = before if reporting is None else reporting
            if self.program:
                check_reporting(how)
            if how is Reporting.RECORD and before is not Reporting.RECORD:
                queue = borrow_queue(device.name)
                try:
                    check_header(queue, device)
                finally:
                    os.close(queue)
            self._maps.record_udp_gso(takes_udp_gso(device.name))
            if adaptive is not None and adaptive != self.adaptive:
                self._write(replace(self._record, adaptive=adaptive))
            self._maps.publish(compile_config(rss, how))

    def observe(self) -> Observation:
        """What was counted by bucket and by queue, for a balancer.

        Raises TableOwned if the table is not to be adapted, DeviceError if the
        tap is gone, ConfigError if it was not attached for this.
        """
        with locked(self._folder.root):
            self._adaptable()
            rss, _ = self._maps.current()
            return Observation.of(rss, self._maps.buckets(), self._maps.stats())

    def rebalance(self, seen: RssConfig, table: Sequence[int]) -> bool:
        """Put another table in force, if the configuration is still the one that was seen.

        Raises as observe() does; nothing is changed then.
        """
        from vnethash.rss.compiled import compile_config

        with locked(self._folder.root):
            device = self._adaptable()
            rss, reporting = self._maps.current()
            if rss != seen:
                return False
            rss = rss.replace(indirection_table=table)
            self._check(rss, device)
            self._maps.publish(compile_config(rss, reporting))
            return True

    def _adaptable(self) -> LinkInfo:
        device = self.device()
        if not self.counts_buckets:
            raise ConfigError("adaptive", self._counts_nothing(), hint=self._adaptive_hint())
        if not self.adaptive:
            raise TableOwned(
                f"the indirection table of {self.name} was set by its owner, so it is not adapted",
                hint=f"vnethash configure {self.name} --adaptive leaves it to be adapted again",
            )
        return device

    def _counts_nothing(self) -> str:
        return f"{self.name} was attached without it: nothing is counted by bucket"

    def _adaptive_hint(self) -> str:
        return f"vnethash detach {self.name}, then vnethash attach {self.name} --adaptive"

    def _write(self, record: Record) -> None:
        with Map.from_pin(self._folder / RECORD) as kept:
            kept.update(0, record.pack())
        self._record = record

    def replace_program(self, program: ProgramSource | None) -> None:
        """Put another hash program in the place of the present one while packets pass.

        None stands for vnethash's own. Each packet is judged by the one or
        by the other; there is none without. Configuration and counters stay,
        those of the program's own start anew. Raises ProgramRefused,
        VerifierError, ConfigError, DeviceError, NotPermitted, BpfError; the
        present program then stays.
        """
        with locked(self._folder.root), ExitStack() as resources:
            device = self.device()
            if program is not None:
                check_reporting(self._maps.current()[1])
            is_l3 = device.tun is not None and device.tun.l3
            opened = open_program(STAGES_OBJECT if program is None else program)
            stages = resources.enter_context(Stages.load_successor(opened, self._shared, l3=is_l3))
            name = "" if program is None else opened.name
            kept = resources.enter_context(Map.from_pin(self._folder / RECORD))
            number = stages.hash_stage.id
            # Known for ours before and after, should this be cut short.
            record = replace(self._record, next_program_id=number)
            kept.update(0, record.pack())
            if record.point == CLSACT:
                tc.replace(record.filter, stages.hash_stage.fd)
            else:
                with Link.from_pin(self._folder / LINK) as hook:
                    hook.update(stages.hash_stage.fd)
            record = replace(record, program_id=number, next_program_id=0, program=name)
            kept.update(0, record.pack())
            self._record = record
            self._folder.pin_program_maps(stages.own_maps())
            stages.maps.clear_counts()

    def _check(self, rss: RssConfig, device: LinkInfo) -> None:
        if rss.queues != self.queues:
            raise ConfigError(
                "queues", f"is {rss.queues}, but {self.name} was attached with {self.queues}"
            )
        there = device.tun.queues if device.tun else 0
        has = f"but {self.name} has only {there} queues now"
        for index, queue in enumerate(rss.indirection_table):
            if queue >= there:
                raise ConfigError("indirection_table", f"entry {index} is queue {queue}, {has}")
        if rss.unclassified_queue >= there:
            raise ConfigError("unclassified_queue", f"is queue {rss.unclassified_queue}, {has}")
        self._maps.check(rss)

    def stats(self) -> Stats:
        """Packets and bytes by queue and report type since it was attached."""
        return self._maps.stats()

    def detach(self) -> None:
        """Take the stages off and remove the pins; see ``detach``. Closes this object."""
        detach(self.name)
        self.close()

    def close(self) -> None:
        """Let go of the maps. The stages stay at work."""
        self._resources.close()


def attach(
    name: str,
    rss: RssConfig | None = None,
    reporting: Reporting = Reporting.OFF,
    *,
    max_indirection: int = DEFAULT_MAX_INDIRECTION,
    point: str = AUTO,
    program: ProgramSource | None = None,
    adaptive: bool = False,
) -> PinnedTap:
    """Steer a multi-queue tap that another process owns, until detach() or its end.

    ``rss`` is by default RssConfig.default() for the queues there are. With
    ``reporting`` RECORD the owner must expect the hash record in front of
    each frame, which is why it is not the default. A steering program the
    owner may have set is replaced. ``point`` is TCX, CLSACT or AUTO.
    ``program`` is the object of a hash program (docs/programs.md).
    ``adaptive``: the table of ``rss`` is where a balancer starts from, for
    which packets are counted by bucket.

    Raises ConfigError, DeviceError (no tap, a single queue, nobody holds a
    queue, attached already, another header size than ``record`` needs),
    NotPermitted, Unsupported, DependencyMissing, ProgramRefused, BpfError.
    The device is then as it was.
    """
    from vnethash.rss.compiled import compile_config

    if point not in (AUTO, TCX, CLSACT):
        raise ConfigError("attach_point", f"must be {AUTO}, {TCX} or {CLSACT}, not {point!r}")
    if program is not None:
        check_reporting(reporting)
    device, tun = steerable(name)
    with ExitStack() as resources, ExitStack() as undo:
        queue = borrow_queue(name)
        resources.callback(os.close, queue)
        config = RssConfig.default(tun.queues) if rss is None else rss
        if config.queues != tun.queues:
            raise ConfigError("queues", f"is {config.queues}, but {name} has {tun.queues}")
        if reporting is Reporting.RECORD:
            check_header(queue, device)
        root = pin_root.ensure()
        resources.enter_context(locked(root))
        folder = PinFolder(root, name)
        _make_way(folder, device)

        longest = max(max_indirection, len(config.indirection_table))
        opened = None if program is None else open_program(program)
        stages = resources.enter_context(
            Stages.load(
                config.queues,
                l3=tun.l3,
                max_indirection=longest,
                program=opened,
                adaptive=adaptive,
            )
        )
        stages.maps.record_udp_gso(takes_udp_gso(name))
        # Not before the steering stage is there: a record tells its queue's hash.
        stages.maps.publish(compile_config(config, Reporting.OFF))

        folder.create()
        undo.callback(folder.remove)
        for pin, shared in zip(_MAPS, stages.shared, strict=True):
            shared.pin(folder / pin)
        folder.pin_program_maps(stages.own_maps())
        # Before there is anything to undo, so that detach() could even if this were cut short.
        record = Record(
            layout=LAYOUT,
            complete=False,
            ifindex=device.ifindex,
            point=CLSACT,
            priority=tc.LAST_PRIORITY,
            handle=tc.HANDLE,
            made_clsact=not tc.has_clsact(device.ifindex),
            program_id=stages.hash_stage.id,
            cookie=netns_cookie(),
            program="" if opened is None else opened.name,
            adaptive=adaptive,
        )
        kept = resources.enter_context(folder.write_record(record))
        hook = _attach_hook(stages.hash_stage.fd, device.ifindex, point)
        undo.callback(hook.close)
        if isinstance(hook, TcxHook):
            resources.callback(hook.link.close)
            hook.link.pin(folder / LINK)
        # Last: the program it replaces, if any, could not be put back.
        tun_ioctl.set_steering(queue, stages.steering_stage.fd)
        undo.callback(tun_ioctl.set_steering, queue, None)
        stages.maps.publish(compile_config(config, reporting))
        kept.update(0, replace(record, point=hook.point, complete=True).pack())
        tap = PinnedTap._open(folder)
        undo.pop_all()
        return tap


def detach(name: str) -> None:
    """Undo attach(): stages off, pins removed, queues chosen by the kernel as before.

    What a device that is gone, or an attach that was cut short, has left
    behind is removed as well. Raises DeviceError if nothing is attached or
    no queue can be borrowed to reset the steering, ConfigError,
    NotPermitted, BpfError.
    """
    folder = _folder(name)
    with locked(folder.root):
        if not folder.exists():
            raise _not_attached(name)
        record = folder.read_record()
        if record is not None:
            device = device_of(record)
            if device is not None:
                queue = any_queue(device)
                try:
                    tun_ioctl.set_steering(queue, None)
                finally:
                    os.close(queue)
            take_off(folder, record)
        folder.remove()


def list_attached() -> list[str]:
    """Names under which taps of this network namespace are attached, gone ones too."""
    root = pin_root.find()
    if root is None:
        return []
    with locked(root):
        return names(root)


def _folder(name: str) -> PinFolder:
    """The folder for ``name``, there or not. DeviceError where there cannot be any."""
    tun_ioctl.check_name(name)
    root = pin_root.find()
    if root is None:
        raise _not_attached(name)
    return PinFolder(root, name)


def _make_way(folder: PinFolder, device: LinkInfo) -> None:
    """Remove what is left of a device or attach that is no more. DeviceError if it is."""
    if not folder.exists():
        return
    record = folder.read_record()
    if record is not None:
        there = device_of(record)
        if there is not None and record.complete and is_hooked(folder, record):
            if there.ifindex != device.ifindex:
                raise DeviceError(
                    f"the tap attached as {folder.name} is called {there.name} now",
                    hint=_detach_hint(folder.name),
                )
            raise DeviceError(
                f"{folder.name} is attached already",
                hint=f"change it with vnethash configure {folder.name}, "
                f"or vnethash detach {folder.name} first",
            )
        take_off(folder, record)
    folder.remove()


def _attach_hook(program_fd: int, ifindex: int, point: str) -> TcxHook | ClsactHook:
    if point == TCX:
        return TcxHook(attach_tcx(program_fd, ifindex))
    if point == CLSACT:
        return ClsactHook(tc.attach(program_fd, ifindex))
    return attach_egress(program_fd, ifindex)


def _not_attached(name: str) -> DeviceError:
    return DeviceError(
        f"{name} is not attached", hint=f"vnethash attach {name}; vnethash show lists what is"
    )


def _other_version(name: str) -> DeviceError:
    return DeviceError(
        f"{name} was attached by another version of vnethash",
        hint=f"vnethash detach {name}, then attach it again",
    )


def _detach_hint(name: str) -> str:
    return f"vnethash detach {name} removes what is left of it"
