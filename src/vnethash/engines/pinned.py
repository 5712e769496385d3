# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Steering a tap that another process owns, with nobody staying to hold it.

The hash stage is attached and its maps are pinned (``pin_folder``); the
steering stage is set through a queue borrowed from the owner, whose packets
are left alone. All that ends with the device, or with detach().
"""

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from vnethash.closing import Closing
from vnethash.engines.pin_folder import (
    COUNTERS,
    LAYOUT,
    LINK,
    STATE,
    TABLE,
    PinFolder,
    Record,
    locked,
    names,
)
from vnethash.engines.stages import DEFAULT_MAX_INDIRECTION, StageMaps, Stages
from vnethash.errors import BpfError, ConfigError, DeviceError
from vnethash.kernel import link, pin_root, tc, tun_ioctl
from vnethash.kernel.borrow import borrow_queue
from vnethash.kernel.bpf import Link, Map
from vnethash.kernel.egress import CLSACT, TCX, ClsactHook, TcxHook, attach_egress
from vnethash.kernel.link_info import LinkInfo, TunInfo, link_info
from vnethash.kernel.netns_cookie import netns_cookie
from vnethash.kernel.tcx import attach_tcx
from vnethash.kernel.tun_ioctl import TunFlag
from vnethash.native import core
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig
from vnethash.stats import Stats

AUTO = "auto"
ENGINE = "ebpf"
_RECORD_HEADER = 12
"""VNET_HDR_LEN: the header that the hash record completes (native/vnethash.h)."""
_UDP_GSO = "tx-udp-segmentation"


class PinnedTap(Closing):
    """A tap of another process with the stages attached; close() leaves them so."""

    def __init__(
        self, folder: PinFolder, record: Record, maps: StageMaps, resources: ExitStack, queues: int
    ) -> None:
        self._folder = folder
        self._record = record
        self._maps = maps
        self._resources = resources
        self.queues = queues
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
                counters = resources.enter_context(Map.from_pin(folder / COUNTERS))
                with Map.from_pin(folder / STATE) as state, Map.from_pin(folder / TABLE) as table:
                    ffi, _ = core()
                    if counters.value_size != ffi.sizeof(
                        "struct vnet_counters"
                    ) or state.value_size < ffi.sizeof("struct vnet_state"):
                        raise _other_version(folder.name)
                    maps = StageMaps(state, table, counters)
                resources.callback(maps.close)
            except BpfError as error:
                error.hint = _detach_hint(folder.name)
                raise
            return cls(folder, record, maps, resources.pop_all(), counters.max_entries)

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
    def pins(self) -> Path:
        """The folder with the pins."""
        return self._folder.path

    @property
    def max_indirection(self) -> int:
        """Entries of the longest indirection table configure() takes."""
        return self._maps.max_indirection

    def device(self) -> LinkInfo:
        """The link as it is now, perhaps under another name.

        Raises DeviceError if it is gone, or the hash stage is no longer on it.
        """
        device = _device(self._record)
        if device is None:
            raise DeviceError(f"the device {self.name} is gone", hint=_detach_hint(self.name))
        if not _hooked(self._folder, self._record):
            raise DeviceError(
                f"the hash stage is no longer on {self.name}: something took it off",
                hint=f"vnethash detach {self.name}, then attach it again",
            )
        return device

    def current(self) -> tuple[RssConfig, Reporting]:
        """The configuration in force. Raises NotPermitted."""
        with locked(self._folder.root):
            return self._maps.current()

    def configure(
        self, rss: RssConfig | None = None, *, reporting: Reporting | None = None
    ) -> None:
        """Change the configuration while packets pass; None keeps what is.

        Raises ConfigError if it is for another number of queues, names one
        the tap does not have, or its table is too long; DeviceError if the
        tap is gone, or its reader's header does not fit ``record``. Nothing
        is changed then.
        """
        self.update(None if rss is None else lambda _: rss, reporting=reporting)

    def update(
        self,
        change: Callable[[RssConfig], RssConfig] | None,
        *,
        reporting: Reporting | None = None,
    ) -> None:
        """As ``configure``, with what ``change`` makes of the configuration in force."""
        from vnethash.rss.compiled import compile_config

        with locked(self._folder.root):
            device = self.device()
            rss, before = self._maps.current()
            if change is not None:
                rss = change(rss)
                self._check(rss, device)
            how = before if reporting is None else reporting
            if how is Reporting.RECORD and before is not Reporting.RECORD:
                queue = borrow_queue(device.name)
                try:
                    _check_header(queue, device)
                finally:
                    os.close(queue)
            self._maps.record_udp_gso(_takes_udp_gso(device.name))
            self._maps.publish(compile_config(rss, how))

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


def steerable(name: str) -> tuple[LinkInfo, TunInfo]:
    """A multi-queue tap of that name and what its driver says of it.

    Raises ConfigError, and DeviceError for anything else.
    """
    tun_ioctl.check_name(name)
    device = link_info(name)
    if device.tun is None:
        kind = f", it is of kind {device.kind}" if device.kind else ""
        raise DeviceError(f"{name} is no tap{kind}", hint="ip -d link show type tun lists the taps")
    if not device.tun.multi_queue:
        raise DeviceError(
            f"{name} has a single queue: there is nothing to steer",
            hint=f"make it anew with several (ip tuntap add dev {name} mode tap multi_queue "
            "vnet_hdr), and have its owner open each with IFF_MULTI_QUEUE",
        )
    if device.tun.queues == 1:
        raise DeviceError(
            f"{name} has a single queue open: there is nothing to steer",
            hint="have its owner open more queues, each with IFF_MULTI_QUEUE, then attach",
        )
    return device, device.tun


def attach(
    name: str,
    rss: RssConfig | None = None,
    reporting: Reporting = Reporting.OFF,
    *,
    max_indirection: int = DEFAULT_MAX_INDIRECTION,
    point: str = AUTO,
) -> PinnedTap:
    """Steer a multi-queue tap that another process owns, until detach() or its end.

    ``rss`` is by default RssConfig.default() for the queues there are. With
    ``reporting`` RECORD the owner must expect the hash record in front of
    each frame, which is why it is not the default. A steering program the
    owner may have set is replaced. ``point`` is TCX, CLSACT or AUTO.

    Raises ConfigError, DeviceError (no tap, a single queue, nobody holds a
    queue, attached already, another header size than ``record`` needs),
    NotPermitted, Unsupported, DependencyMissing, BpfError. The device is
    then as it was.
    """
    from vnethash.rss.compiled import compile_config

    if point not in (AUTO, TCX, CLSACT):
        raise ConfigError("attach_point", f"must be {AUTO}, {TCX} or {CLSACT}, not {point!r}")
    device, tun = steerable(name)
    with ExitStack() as resources, ExitStack() as undo:
        queue = borrow_queue(name)
        resources.callback(os.close, queue)
        config = RssConfig.default(tun.queues) if rss is None else rss
        if config.queues != tun.queues:
            raise ConfigError("queues", f"is {config.queues}, but {name} has {tun.queues}")
        if reporting is Reporting.RECORD:
            _check_header(queue, device)
        root = pin_root.ensure()
        resources.enter_context(locked(root))
        folder = PinFolder(root, name)
        _make_way(folder, device)

        longest = max(max_indirection, len(config.indirection_table))
        stages = resources.enter_context(
            Stages.load(config.queues, l3=tun.l3, max_indirection=longest)
        )
        stages.maps.record_udp_gso(_takes_udp_gso(name))
        # Not before the steering stage is there: a record tells its queue's hash.
        stages.maps.publish(compile_config(config, Reporting.OFF))

        folder.create()
        undo.callback(folder.remove)
        stages.state.pin(folder / STATE)
        stages.table.pin(folder / TABLE)
        stages.counters.pin(folder / COUNTERS)
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
            device = _device(record)
            if device is not None:
                queue = _any_queue(device)
                try:
                    tun_ioctl.set_steering(queue, None)
                finally:
                    os.close(queue)
            _take_off(folder, record)
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
        there = _device(record)
        if there is not None and record.complete and _hooked(folder, record):
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
        _take_off(folder, record)
    folder.remove()


def _device(record: Record) -> LinkInfo | None:
    """The link that was attached; None if it is gone from this network namespace."""
    if record.cookie != netns_cookie():
        return None
    try:
        device = link_info(record.ifindex)
    except DeviceError:
        return None
    return device if device.tun is not None else None


def _hooked(folder: PinFolder, record: Record) -> bool:
    """Whether the hash stage is still on the device's egress hook."""
    if record.point == CLSACT:
        return tc.program_id(record.filter) == record.program_id
    if not (folder / LINK).exists():
        return False
    with Link.from_pin(folder / LINK) as hook:
        return hook.info().ifindex == record.ifindex


def _take_off(folder: PinFolder, record: Record) -> None:
    """Take the hash stage off, wherever its device is; not what others put in its place."""
    if (folder / LINK).exists():
        with Link.from_pin(folder / LINK) as hook:
            hook.detach()
    elif record.point == CLSACT and _device(record) is not None:
        with suppress(DeviceError):  # gone this moment, and the filter with it
            if tc.program_id(record.filter) in (None, record.program_id):
                tc.detach(record.filter)


def _attach_hook(program_fd: int, ifindex: int, point: str) -> TcxHook | ClsactHook:
    if point == TCX:
        return TcxHook(attach_tcx(program_fd, ifindex))
    if point == CLSACT:
        return ClsactHook(tc.attach(program_fd, ifindex))
    return attach_egress(program_fd, ifindex)


def _check_header(queue: int, device: LinkInfo) -> None:
    """Raise DeviceError unless the hash record completes the owner's header."""
    has_header = device.tun is not None and device.tun.vnet_header
    size = tun_ioctl.read_vnet_header_size(queue) if has_header else 0
    if size != _RECORD_HEADER:
        raise DeviceError(
            f"reporting record needs a virtio-net header of {_RECORD_HEADER} bytes in front of "
            f"each frame, but the owner of {device.name} reads "
            + (f"one of {size} bytes" if size else "none"),
            hint="have the owner set it (IFF_VNET_HDR, TUNSETVNETHDRSZ), "
            "or report otherwise: --reporting rehash or off",
        )


def _takes_udp_gso(name: str) -> bool:
    """Whether the device takes UDP GSO packets whole (TUN_F_USO4)."""
    return link.features(name).get(_UDP_GSO, False)


def _any_queue(device: LinkInfo) -> int:
    """A descriptor of a queue: the owner's, or a new one where the tap waits for an owner."""
    tun = device.tun
    if tun is None or tun.queues or tun.disabled_queues:
        return borrow_queue(device.name)
    flags = (TunFlag.TUN if tun.l3 else TunFlag.TAP) | TunFlag.NO_PI
    if tun.multi_queue:
        flags |= TunFlag.MULTI_QUEUE
    if tun.vnet_header:
        flags |= TunFlag.VNET_HDR
    fd = tun_ioctl.open_queue(nonblocking=True)
    try:
        tun_ioctl.set_interface(fd, device.name, flags)
    except OSError as error:
        os.close(fd)
        raise DeviceError(
            f"open a queue of {device.name}: {os.strerror(error.errno or 0).lower()}"
        ) from error
    return fd


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
