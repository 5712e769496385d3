# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Multi-queue tap and tun devices (Documentation/networking/tuntap.rst)."""

import errno
import os
import warnings
from collections.abc import Sequence
from typing import Self

from vnethash.closing import Closing
from vnethash.errors import ConfigError, DeviceError, NotPermitted, VnethashError
from vnethash.kernel import tun_ioctl
from vnethash.kernel.borrow import borrow_queue
from vnethash.kernel.link_info import link_info
from vnethash.kernel.tun_ioctl import (
    QUEUES_MAX,
    Offload,
    TunFlag,
    read_features,
    read_interface,
    read_vnet_header_size,
)
from vnethash.virtio.hash_types import HashType

__all__ = [
    "QUEUES_MAX",
    "Offload",
    "TunDevice",
    "TunFlag",
    "borrow_queue",
    "read_features",
    "read_interface",
    "read_vnet_header_size",
]


class TunDevice(Closing):
    """A tap (or, with ``l3``, a tun) of this process: one descriptor per queue.

    The device goes with its last descriptor unless it is persistent. Frames
    carry a virtio-net header and no packet information (IFF_NO_PI).
    """

    def __init__(self, fds: tuple[int, ...], name: str, ifindex: int, flags: TunFlag) -> None:
        self._fds = fds
        self._attached = [True] * len(fds)
        self.name = name
        self.ifindex = ifindex
        self.flags = flags

    @classmethod
    def create(
        cls,
        name: str | None,
        queues: int,
        *,
        l3: bool = False,
        persist: bool = False,
        vnet_header_size: int = 12,
        offloads: Offload = Offload.NONE,
        nonblocking: bool = True,
    ) -> Self:
        """Make the device and open ``queues`` (1 to 256) of it.

        ``name`` may hold one ``%d``, the first free number; None is "tap%d"
        or "tun%d". A persistent multi-queue device of that name that nobody
        holds is opened instead, which its owner may do without CAP_NET_ADMIN.

        Raises ConfigError for a bad argument, DeviceError if the name is in
        use, NotPermitted without CAP_NET_ADMIN, Unsupported or
        DependencyMissing without a tun driver. After an error nothing is
        left open.
        """
        name = ("tun%d" if l3 else "tap%d") if name is None else name
        tun_ioctl.check_name(name)
        tun_ioctl.check_offloads(offloads)
        if not 1 <= queues <= QUEUES_MAX:
            raise ConfigError("queues", f"a tap has 1 to {QUEUES_MAX} queues, not {queues}")
        flags = (
            (TunFlag.TUN if l3 else TunFlag.TAP)
            | TunFlag.MULTI_QUEUE
            | TunFlag.NO_PI
            | TunFlag.VNET_HDR
        )
        fds: list[int] = []
        try:
            fds.append(tun_ioctl.open_queue(nonblocking=nonblocking))
            existed = _claim(fds[0], name, flags)
            name, _ = read_interface(fds[0])
            for _ in range(1, queues):
                fds.append(tun_ioctl.open_queue(nonblocking=nonblocking))
                _join(fds[-1], name, flags)
            info = link_info(name)
            if existed and info.tun and info.tun.queues != queues:
                raise _in_use(name)
            tun_ioctl.set_vnet_header_size(fds[0], vnet_header_size)
            tun_ioctl.set_offloads(fds[0], offloads)
            if persist:
                tun_ioctl.set_persist(fds[0], True)
            return cls(tuple(fds), name, info.ifindex, read_interface(fds[0])[1])
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise

    def __repr__(self) -> str:
        return f"<TunDevice {self.name} queues {len(self._fds)}>"

    @property
    def fds(self) -> tuple[int, ...]:
        """One descriptor per queue, in the order of the queues until one is detached."""
        return self._fds

    @property
    def closed(self) -> bool:
        return not self._fds

    @property
    def vnet_header_size(self) -> int:
        """Bytes of the header in front of each frame."""
        return read_vnet_header_size(self._any())

    def _any(self) -> int:
        """The descriptor of a queue in use: a detached one cannot reach the device."""
        for fd, attached in zip(self._fds, self._attached, strict=True):
            if attached:
                return fd
        raise DeviceError(f"{self.name}: " + ("all queues are detached" if self._fds else "closed"))

    def set_vnet_header_size(self, size: int) -> None:
        """Set the bytes of the header in front of each frame."""
        tun_ioctl.set_vnet_header_size(self._any(), size)

    def set_offloads(self, offloads: Offload) -> None:
        """Say what the reader takes whole. Raises ConfigError, Unsupported."""
        tun_ioctl.set_offloads(self._any(), offloads)

    def set_steering(self, program_fd: int | None) -> None:
        """Let a socket filter choose the queue of each packet; None: the kernel again."""
        tun_ioctl.set_steering(self._any(), program_fd)

    def set_steering_hash(self, program_fd: int | None) -> None:
        """As set_steering(), with hashes from the program too: on a kernel of the lab only."""
        tun_ioctl.set_steering_hash(self._any(), program_fd)

    def takes_steering_hash(self) -> bool:
        """Whether this kernel knows set_steering_hash()."""
        return tun_ioctl.takes_steering_hash(self._any())

    def set_rss(
        self,
        hash_types: HashType,
        table: Sequence[int],
        unclassified_queue: int,
        key: bytes,
        *,
        report: bool,
    ) -> None:
        """Have the driver steer by RSS, and report hashes: on a kernel of the lab only."""
        tun_ioctl.set_rss(self._any(), hash_types, table, unclassified_queue, key, report=report)

    def clear_rss(self) -> None:
        """The kernel chooses queues again."""
        tun_ioctl.clear_rss(self._any())

    def set_filter(self, program_fd: int | None) -> None:
        """Let a socket filter cut or drop packets before they are queued; None: no filter."""
        tun_ioctl.set_filter(self._any(), program_fd)

    def set_persist(self, persist: bool) -> None:
        """Whether the device outlives its last queue."""
        tun_ioctl.set_persist(self._any(), persist)
        self.flags = read_interface(self._any())[1]

    def set_carrier(self, carrier: bool) -> None:
        """Whether the link has a carrier. Raises Unsupported before Linux 5.0."""
        tun_ioctl.set_carrier(self._any(), carrier)

    def use_queues(self, count: int) -> None:
        """Have the first ``count`` (at least 1) queues in use, in the order of ``fds``.

        What is still in a queue that goes out of use is lost.
        """
        if not 1 <= count <= len(self._fds):
            raise ConfigError("count", f"there are {len(self._fds)} queues, {count} cannot be used")
        for index in reversed(range(count, len(self._fds))):
            if self._attached[index]:
                self.detach_queue(index)
        for index in range(count):
            if not self._attached[index]:
                self.attach_queue(index)

    def detach_queue(self, index: int) -> None:
        """Take the queue of ``fds[index]`` out of use; packets go to the others.

        The kernel moves its last queue into the gap, so queue numbers no
        longer follow the order of ``fds``.
        """
        tun_ioctl.attach_queue(self._queue(index), False)
        self._attached[index] = False

    def attach_queue(self, index: int) -> None:
        """Put the queue of ``fds[index]`` back in use, as the last one."""
        tun_ioctl.attach_queue(self._queue(index), True)
        self._attached[index] = True

    def _queue(self, index: int) -> int:
        if not self._fds:
            raise DeviceError(f"{self.name}: closed")
        if not 0 <= index < len(self._fds):
            raise ConfigError("index", f"there are {len(self._fds)} queues, no number {index}")
        return self._fds[index]

    def close(self) -> None:
        """Close all queues, and with them the device unless it is persistent."""
        fds, self._fds = self._fds, ()
        self._attached = []
        for fd in fds:
            os.close(fd)

    def __del__(self) -> None:
        if self._fds:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)
            self.close()


def _claim(fd: int, name: str, flags: TunFlag) -> bool:
    """Make ``fd`` the first queue of ``name``; whether the device was there before."""
    try:
        tun_ioctl.set_interface(fd, name, flags | TunFlag.EXCL)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise _refused(name, error) from error
    else:
        return False
    info = link_info(name)
    if info.tun is None:
        raise DeviceError(f"{name} is in use by a link that is no tap")
    if not info.tun.multi_queue:
        raise DeviceError(
            f"{name} exists and has a single queue",
            hint=f"make it with several: ip tuntap add dev {name} mode tap multi_queue",
        )
    if info.tun.l3 != (TunFlag.TUN in flags):
        raise DeviceError(f"{name} exists and is a {'tun' if info.tun.l3 else 'tap'}")
    if info.tun.queues or info.tun.disabled_queues:
        raise _in_use(name)
    _join(fd, name, flags)
    return True


def _join(fd: int, name: str, flags: TunFlag) -> None:
    """Make ``fd`` a further queue of ``name``."""
    try:
        tun_ioctl.set_interface(fd, name, flags)
    except OSError as error:
        raise _refused(name, error) from error


def _in_use(name: str) -> DeviceError:
    return DeviceError(
        f"{name} is in use by another process",
        hint="choose another name, or attach to it (vnethash attach)",
    )


def _refused(name: str, error: OSError) -> VnethashError:
    """The typed error for a failed TUNSETIFF."""
    if error.errno == errno.EPERM:
        return NotPermitted(f"open tap {name}", "CAP_NET_ADMIN")
    if error.errno == errno.E2BIG:
        return DeviceError(f"{name}: the device takes no more queues")
    if error.errno == errno.EBUSY:
        return _in_use(name)
    if error.errno == errno.EINVAL:
        return DeviceError(f"{name}: the kernel refuses the name or the kind of device")
    return DeviceError(f"open tap {name}: {os.strerror(error.errno or 0).lower()}")
