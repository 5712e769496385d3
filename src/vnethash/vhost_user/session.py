# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What one front end asks for, from connect to disconnect.

QEMU's docs/interop/vhost-user.rst. A message goes in, what it means for the
device behind happens, a reply comes out. A ring runs while all of this holds:
features were set, guest memory is known, the ring's size and addresses are
known, it was kicked off (SET_VRING_KICK, until GET_VRING_BASE) and it is
enabled. Whatever changes for a running ring is stop, change, start.

Front ends differ in the order of messages, so nothing is demanded of it. What
happens to a message that cannot be done:

- it breaks the syntax (messages.py), or asks for an answer we cannot give:
  VhostUserError, the connection has to be closed;
- it asked for an acknowledgement (REPLY_ACK): answered with failure;
- a write to the configuration space: nothing is written there, as on any
  device whose fields are read-only (virtio 1.3, 5.1.4);
- anything else: VhostUserError. Going on would leave the front end with a
  device it did not ask for.

A message that fails has changed nothing. One exception: where a ring cannot
start because its structures are not in guest memory, that is the message's
failure, what it said holds, and the ring waits until something of it changes.
"""

import os
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from vnethash.closing import Closing
from vnethash.errors import VhostUserError, VnethashError
from vnethash.kernel.fd import OwnedFd
from vnethash.vhost_user.channel import notify
from vnethash.vhost_user.memory import DirtyLog, Region
from vnethash.vhost_user.messages import (
    MAX_CONFIG,
    ConfigAccess,
    LogRegion,
    MemoryRegion,
    Message,
    ProtocolFeature,
    Request,
    RingFlag,
    VhostFeature,
    VringAddress,
    VringFd,
    VringState,
    config_change,
    reply,
)
from vnethash.vhost_user.rings import RingSetup
from vnethash.virtio.features import Feature

PROTOCOL_FEATURES = frozenset(
    {
        ProtocolFeature.MQ,
        ProtocolFeature.LOG_SHMFD,
        ProtocolFeature.RARP,
        ProtocolFeature.REPLY_ACK,
        ProtocolFeature.NET_MTU,
        ProtocolFeature.BACKEND_REQ,
        ProtocolFeature.CONFIG,
        ProtocolFeature.RESET_DEVICE,
        ProtocolFeature.CONFIGURE_MEM_SLOTS,
        ProtocolFeature.STATUS,
    }
)
"""What is offered; why the others are not is in docs/vhost-user.md."""

MAX_MEMORY_SLOTS = 128
"""Regions of guest memory, with ADD_MEM_REG: each is a descriptor held open."""

MAX_RING_SIZE = 1 << 15
"""Entries of a split virtqueue (virtio 1.3, 2.7)."""

_NEEDS: Mapping[int, ProtocolFeature] = {
    Request.SET_LOG_BASE: ProtocolFeature.LOG_SHMFD,
    Request.SEND_RARP: ProtocolFeature.RARP,
    Request.NET_SET_MTU: ProtocolFeature.NET_MTU,
    Request.SET_BACKEND_REQ_FD: ProtocolFeature.BACKEND_REQ,
    Request.GET_CONFIG: ProtocolFeature.CONFIG,
    Request.SET_CONFIG: ProtocolFeature.CONFIG,
    Request.RESET_DEVICE: ProtocolFeature.RESET_DEVICE,
    Request.GET_MAX_MEM_SLOTS: ProtocolFeature.CONFIGURE_MEM_SLOTS,
    Request.ADD_MEM_REG: ProtocolFeature.CONFIGURE_MEM_SLOTS,
    Request.REM_MEM_REG: ProtocolFeature.CONFIGURE_MEM_SLOTS,
    Request.SET_STATUS: ProtocolFeature.STATUS,
    Request.GET_STATUS: ProtocolFeature.STATUS,
}
"""Requests that only who negotiated it may send. GET_QUEUE_NUM comes before that."""

_OWN_REPLY = frozenset(
    {
        Request.GET_FEATURES,
        Request.GET_PROTOCOL_FEATURES,
        Request.GET_QUEUE_NUM,
        Request.GET_VRING_BASE,
        Request.GET_CONFIG,
        Request.GET_MAX_MEM_SLOTS,
        Request.GET_STATUS,
    }
)
"""Requests whose reply is not an acknowledgement."""

_SUCCESS, _FAILURE = 0, 1
_OFFERED = sum(1 << feature for feature in PROTOCOL_FEATURES)
_LOG_ALL = 1 << VhostFeature.LOG_ALL
_VHOST_FEATURES = _LOG_ALL | 1 << VhostFeature.PROTOCOL_FEATURES
_MAC_SIZE = 6
_EVENTS = ("anon_inode:[eventfd]", "pipe:")
_MTU = range(68, 65536)


class Device(Protocol):
    """What a session asks of the device behind it.

    A method that cannot do what is asked raises a VnethashError and has
    changed nothing; reset(), stop_ring() and giving memory back do not fail.
    No ring runs while features, memory or all of it are changed.
    """

    @property
    def queues(self) -> int:
        """Number of virtqueues: two of each pair, and one for control."""

    def features(self) -> int:
        """The virtio feature bits it offers."""

    def set_features(self, bits: int) -> None:
        """A driver begins, from the initial state, with these features."""

    def config_space(self) -> bytes:
        """The whole of it, as it is now."""

    def set_mtu(self, mtu: int) -> None:
        """The MTU the guest is told."""

    def announce(self, mac: bytes) -> None:
        """A guest with this address has arrived: tell the network."""

    def reset(self) -> None:
        """Back to the initial state, without features."""

    def set_status(self, status: int) -> None:
        """The driver's device status (virtio 1.3, 2.1); for 0, reset() came before."""

    def set_memory(self, regions: tuple[Region, ...], log: DirtyLog | None) -> None:
        """Guest memory, whole, in place of what there was. The descriptors are borrowed."""

    def start_ring(self, index: int, setup: RingSetup) -> None:
        """Serve a ring. Its descriptors stay open until it was stopped."""

    def stop_ring(self, index: int) -> int:
        """Leave a ring alone; returns the next available index to look at."""


@dataclass(slots=True, eq=False)
class _Ring:
    index: int
    size: int = 0
    address: VringAddress | None = None
    base: int = 0
    kick: OwnedFd | None = None
    call: OwnedFd | None = None
    error: OwnedFd | None = None
    kicked: bool = False
    enabled: bool | None = None
    """None: nobody said, which means yes without protocol features, no with them."""
    running: bool = False
    refused: bool = False
    """The device could not start it; not tried again until something changes."""


class _Refused(VnethashError):
    """Why a message cannot be done; becomes a VhostUserError that names it."""


class _Given(Closing):
    """The descriptors of one message: closed behind it, unless somebody keeps them."""

    def __init__(self, fds: Sequence[int]) -> None:
        self.fds = [OwnedFd(fd) for fd in fds]

    def keep(self) -> None:
        self.fds = []

    def keep_event(self, wanted: bool = True) -> OwnedFd | None:
        """The only one there is, if one is ``wanted``: something to wait for, or to write to."""
        if not wanted:
            return None
        (fd,) = self.fds
        # Linux's virtio_uml has sockets. Of all else, who waits for it may never be woken, or
        # always; the event loop refuses some.
        if not _is_event(fd.fd):
            raise _Refused("the descriptor is no eventfd, pipe or Unix socket")
        self.keep()
        return fd

    def close(self) -> None:
        for fd in self.fds:
            fd.close()


class Session(Closing):
    """One connected front end and the device it drives.

    ``refused`` is why the last message was answered with failure, else None.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._rings = [_Ring(index) for index in range(device.queues)]
        self._memory: list[tuple[MemoryRegion, OwnedFd]] = []
        self._log: tuple[LogRegion, OwnedFd] | None = None
        self._features: int | None = None
        self._fresh = False  # no ring ran since they were set
        self._protocol_features: frozenset[ProtocolFeature] = frozenset()
        self._status = 0
        self._backend_channel: OwnedFd | None = None
        self.refused: VhostUserError | None = None

    def notify_config_change(self) -> bool:
        """Tell the front end that the configuration space has changed; whether that was possible.

        It never waits, so it is done at once: the only I/O here.
        """
        channel = self._backend_channel
        if channel is None or ProtocolFeature.CONFIG not in self._protocol_features:
            return False
        return notify(channel.fd, config_change())

    def receive(self, message: Message) -> bytes | None:
        """Do what ``message`` asks; returns the bytes to reply, or None.

        Its descriptors belong to the session from here on. VhostUserError if
        the connection has to be closed.
        """
        self.refused = None
        with _Given(message.fds) as given:
            try:
                answer = self._perform(message, given)
            except VnethashError as error:
                refused = VhostUserError(message.name, str(error), hint=error.hint)
                if not self._acknowledges(message):
                    raise refused from error
                self.refused = refused
                return reply(message, _FAILURE)
        if answer is None and self._acknowledges(message):
            return reply(message, _SUCCESS)
        return answer

    def close(self) -> None:
        """Stop all rings, give the memory back, close all descriptors."""
        for ring in self._rings:
            self._halt(ring)
        if self._memory:
            self._device.set_memory((), None)
        _close(fd for _, fd in self._memory)
        _close(fd for ring in self._rings for fd in (ring.kick, ring.call, ring.error))
        _close([self._log[1] if self._log else None, self._backend_channel])
        self._memory, self._log, self._backend_channel = [], None, None
        self._rings = []

    def _acknowledges(self, message: Message) -> bool:
        """Whether it waits for an acknowledgement, by what is negotiated once it was done."""
        return (
            message.need_reply
            and ProtocolFeature.REPLY_ACK in self._protocol_features
            and message.request not in _OWN_REPLY
        )

    def _perform(self, message: Message, given: _Given) -> bytes | None:
        needed = _NEEDS.get(message.request)
        if needed is not None and needed not in self._protocol_features:
            raise _Refused(f"{needed.name} was not negotiated")
        try:
            return self._dispatch(message, given)
        finally:
            self._start_rings()

    def _dispatch(self, message: Message, given: _Given) -> bytes | None:
        match message.request, message.payload:
            case Request.GET_FEATURES, None:
                return reply(message, self._device.features() | _VHOST_FEATURES)
            case Request.SET_FEATURES, int(bits):
                self._set_features(bits)
            case Request.GET_PROTOCOL_FEATURES, None:
                return reply(message, _OFFERED)
            case Request.SET_PROTOCOL_FEATURES, int(bits):
                self._set_protocol_features(bits)
            case Request.GET_QUEUE_NUM, None:
                return reply(message, self._queues())
            case Request.SET_OWNER, None:
                pass
            case Request.RESET_OWNER, None:
                self._reset_rings()
            case Request.RESET_DEVICE, None:
                self._reset()
            case Request.SET_STATUS, int(status):
                self._set_status(status)
            case Request.GET_STATUS, None:
                return reply(message, self._status)
            case Request.SET_MEM_TABLE, tuple(regions):
                self._map(list(zip(regions, given.fds, strict=True)), self._log)
                given.keep()
            case Request.GET_MAX_MEM_SLOTS, None:
                return reply(message, MAX_MEMORY_SLOTS)
            case Request.ADD_MEM_REG, MemoryRegion() as region:
                self._add_region(region, given)
            case Request.REM_MEM_REG, MemoryRegion() as region:
                self._remove_region(region)
            case Request.SET_LOG_BASE, LogRegion() as region:
                self._map(self._memory, (region, given.fds[0]))
                given.keep()
                return reply(message, _SUCCESS)
            case Request.SET_LOG_FD, None:
                pass  # it would be told of every dirty page; nobody listens
            case Request.SET_VRING_NUM, VringState(index, size):
                self._set_size(index, size)
            case Request.SET_VRING_ADDR, VringAddress() as address:
                self._changing(address.index).address = address
            case Request.SET_VRING_BASE, VringState(index, base):
                self._set_base(index, base)
            case Request.GET_VRING_BASE, VringState(index, _):
                return reply(message, VringState(index, self._withdraw(index)))
            case Request.SET_VRING_ENABLE, VringState(index, on):
                self._set_enabled(index, on)
            case Request.SET_VRING_KICK, VringFd(index, has_fd):
                ring = self._changing(index)
                ring.kick = _replaced(ring.kick, given.keep_event(has_fd))
                ring.kicked = True
            case Request.SET_VRING_CALL, VringFd(index, has_fd):
                ring = self._changing(index)
                ring.call = _replaced(ring.call, given.keep_event(has_fd))
            case Request.SET_VRING_ERR, VringFd(index, has_fd):
                ring = self._changing(index)
                ring.error = _replaced(ring.error, given.keep_event(has_fd))
            case Request.SET_BACKEND_REQ_FD, None:
                self._backend_channel = _replaced(self._backend_channel, given.keep_event())
            case Request.GET_CONFIG, ConfigAccess() as access:
                return reply(message, self._config(access))
            case Request.SET_CONFIG, ConfigAccess(offset, data):
                reason = f"{len(data)} bytes at {offset}: no field can be written"
                if self._acknowledges(message):
                    raise _Refused(reason)
                self.refused = VhostUserError(message.name, reason)
            case Request.NET_SET_MTU, int(mtu):
                if mtu not in _MTU:
                    raise _Refused(f"{mtu} is no MTU")
                self._device.set_mtu(mtu)
            case Request.SEND_RARP, int(number):
                self._device.announce(number.to_bytes(8, sys.byteorder)[:_MAC_SIZE])
            case _:
                raise _Refused("not supported")
        return None

    # Features and status

    def _set_features(self, bits: int) -> None:
        if unknown := bits & ~(self._device.features() | _VHOST_FEATURES):
            raise _Refused(f"bits {unknown:#x} were not offered")
        # QEMU repeats them for each pair, before or while the first one runs, and toggles
        # the log's bit when it migrates. Once rings ran and all stopped, a driver begins
        # anew: Linux's virtio_uml says no more of a reset.
        before, self._features = self._features, bits
        changed = None if before is None else bits ^ before
        if changed == 0 and (self._fresh or any(ring.running for ring in self._rings)):
            return
        try:
            if self._log and (changed is None or changed & _LOG_ALL):
                self._map(self._memory, self._log)
            if changed != _LOG_ALL:
                self._halt_all()
                self._device.set_features(bits & ~_VHOST_FEATURES)
                self._fresh = True
        except VnethashError:
            self._features = before
            if self._log:
                self._map(self._memory, self._log)
            raise

    def _set_protocol_features(self, bits: int) -> None:
        if unknown := bits & ~_OFFERED:
            raise _Refused(f"bits {unknown:#x} were not offered")
        self._protocol_features = frozenset(f for f in PROTOCOL_FEATURES if bits >> f & 1)

    def _set_status(self, status: int) -> None:
        if status > 0xFF:
            raise _Refused(f"{status:#x} is no device status")
        if not status:
            self._reset()
        self._device.set_status(status)
        self._status = status

    def _queues(self) -> int:
        """Virtqueues, or pairs of them.

        The specification does not say which. QEMU's network front end and
        DPDK compare it with pairs; those who count virtqueues (crosvm,
        cloud-hypervisor, QEMU's generic device) also want the configuration
        space, which the former leave.
        """
        counts_all = ProtocolFeature.CONFIG in self._protocol_features
        return self._device.queues if counts_all else self._device.queues // 2

    def _config(self, access: ConfigAccess) -> ConfigAccess | None:
        """What was asked for; None, which stands for an error, if that cannot be.

        Front ends ask for a structure of theirs, which may be longer than ours.
        """
        end = access.offset + len(access.data)
        if not access.data or end > MAX_CONFIG:
            return None
        space = self._device.config_space().ljust(end, b"\0")
        return ConfigAccess(access.offset, space[access.offset : end], access.flags)

    def _has(self, bit: int) -> bool:
        return bool((self._features or 0) >> bit & 1)

    # Guest memory and the log of its dirty pages

    def _map(
        self, memory: list[tuple[MemoryRegion, OwnedFd]], log: tuple[LogRegion, OwnedFd] | None
    ) -> None:
        """Make these the guest's memory and log; what they replace is closed."""
        self._halt_all()
        self._device.set_memory(
            tuple(
                Region(r.guest_address, r.size, r.user_address, r.mmap_offset, fd.fd)
                for r, fd in memory
            ),
            DirtyLog(log[1].fd, log[0].offset, log[0].size)
            if log and self._has(VhostFeature.LOG_ALL)
            else None,
        )
        kept = [fd for _, fd in memory]
        _close(fd for _, fd in self._memory if fd not in kept)
        if self._log and self._log is not log:
            self._log[1].close()
        self._memory, self._log = memory, log

    # QEMU (seen with 7.2) says both once for each queue pair: what is there already, or
    # is gone already, is as it should be.

    def _add_region(self, region: MemoryRegion, given: _Given) -> None:
        (file,) = given.fds
        if any(known == region and _same_file(fd, file) for known, fd in self._memory):
            return
        if len(self._memory) == MAX_MEMORY_SLOTS:
            raise _Refused(f"more than {MAX_MEMORY_SLOTS} regions")
        self._map([*self._memory, (region, file)], self._log)
        given.keep()

    def _remove_region(self, region: MemoryRegion) -> None:
        left = [(known, fd) for known, fd in self._memory if not _same_place(known, region)]
        if len(left) < len(self._memory):
            self._map(left, self._log)

    # Rings

    def _changing(self, index: int) -> _Ring:
        """A ring of the device, stopped; it starts again behind the message."""
        ring = self._ring(index)
        self._halt(ring)
        return ring

    def _ring(self, index: int) -> _Ring:
        try:
            return self._rings[index]
        except IndexError:
            raise _Refused(f"ring {index} is none of {len(self._rings)}") from None

    def _set_size(self, index: int, size: int) -> None:
        if not 0 < size <= MAX_RING_SIZE or size & (size - 1):
            raise _Refused(f"{size} is no size of a ring")
        self._changing(index).size = size

    def _set_base(self, index: int, base: int) -> None:
        if base > 0xFFFF:
            raise _Refused(f"{base} is no index of a ring")
        self._changing(index).base = base

    def _set_enabled(self, index: int, on: int) -> None:
        if on > 1:
            raise _Refused(f"{on} is neither on nor off")
        ring = self._ring(index)
        if ring.enabled is not bool(on):
            self._halt(ring)
            ring.enabled = bool(on)

    def _withdraw(self, index: int) -> int:
        """Stop a ring until it is kicked off again; returns its base."""
        ring = self._changing(index)
        ring.kick = _replaced(ring.kick, None)
        ring.kicked = False
        return ring.base

    def _reset_rings(self) -> None:
        """As they were at the beginning, except for what a front end need not send again."""
        for index, ring in enumerate(self._rings):
            self._withdraw(index)
            ring.enabled = None

    def _reset(self) -> None:
        self._reset_rings()
        self._device.reset()
        self._features = None
        self._status = 0

    def _halt_all(self) -> None:
        for ring in self._rings:
            self._halt(ring)

    def _halt(self, ring: _Ring) -> None:
        ring.refused = False
        if ring.running:
            ring.running = False
            ring.base = self._device.stop_ring(ring.index)

    def _start_rings(self) -> None:
        """Start those that may run; the first error once all were tried."""
        failed: VnethashError | None = None
        for ring in self._rings:
            if ring.running or ring.refused or (setup := self._setup(ring)) is None:
                continue
            try:
                self._device.start_ring(ring.index, setup)
            except VnethashError as error:
                ring.refused = True
                failed = failed or error
            else:
                ring.running = True
                self._fresh = False
        if failed:
            raise failed

    def _setup(self, ring: _Ring) -> RingSetup | None:
        """What the device needs to run a ring; None while it may not."""
        enabled = ring.enabled
        if enabled is None:
            enabled = not self._has(VhostFeature.PROTOCOL_FEATURES)
        at = ring.address
        known = self._features is not None and self._memory and ring.size and at
        if not (known and at and enabled and ring.kicked):
            return None
        logged = RingFlag.LOG in at.flags and self._has(VhostFeature.LOG_ALL)
        return RingSetup(
            size=ring.size,
            descriptors=at.descriptors,
            available=at.available,
            used=at.used,
            base=ring.base,
            kick=_number(ring.kick),
            call=_number(ring.call),
            error=_number(ring.error),
            event_idx=self._has(Feature.EVENT_IDX),
            indirect=self._has(Feature.INDIRECT_DESC),
            log_address=at.log if logged and self._log else None,
        )


def _number(fd: OwnedFd | None) -> int:
    return fd.fd if fd else -1


def _replaced(old: OwnedFd | None, new: OwnedFd | None) -> OwnedFd | None:
    _close([old])
    return new


def _close(fds: Iterable[OwnedFd | None]) -> None:
    for fd in fds:
        if fd is not None:
            fd.close()


def _is_event(fd: int) -> bool:
    kind = os.readlink(f"/proc/self/fd/{fd}")
    if not kind.startswith("socket:"):
        return kind.startswith(_EVENTS)
    given = socket.socket(fileno=fd)
    try:
        return given.family == socket.AF_UNIX
    finally:
        given.detach()


def _same_file(a: OwnedFd, b: OwnedFd) -> bool:
    return os.path.sameopenfile(a.fd, b.fd)


def _same_place(a: MemoryRegion, b: MemoryRegion) -> bool:
    """The offset into the file does not count (REM_MEM_REG)."""
    return (a.guest_address, a.size, a.user_address) == (b.guest_address, b.size, b.user_address)
