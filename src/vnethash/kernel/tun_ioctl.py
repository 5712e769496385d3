# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The ioctls of a tun queue's descriptor (include/uapi/linux/if_tun.h, drivers/net/tun.c).

All settings but attach_queue() belong to the device, whichever of its queues
is asked.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from enum import IntEnum, IntFlag
from typing import NoReturn

from vnethash.errors import (
    ConfigError,
    DependencyMissing,
    DeviceError,
    NotPermitted,
    Unsupported,
    VnethashError,
)
from vnethash.virtio.hash_types import HashType

PATH = "/dev/net/tun"
NAME_MAX = 15  # IFNAMSIZ less the final zero
QUEUES_MAX = 256  # MAX_TAP_QUEUES
# tun.c takes nothing shorter than struct virtio_net_hdr.
_VNET_HEADER_MIN = 10


class TunFlag(IntFlag):
    """IFF_* of TUNSETIFF."""

    TUN = 0x0001
    TAP = 0x0002
    MULTI_QUEUE = 0x0100
    ATTACH_QUEUE = 0x0200
    DETACH_QUEUE = 0x0400
    PERSIST = 0x0800
    NO_PI = 0x1000
    VNET_HDR = 0x4000
    EXCL = 0x8000


class Offload(IntFlag):
    """TUN_F_*: what the reader of the tap takes whole.

    The kernel wants CSUM with any other, and USO4 together with USO6.
    """

    NONE = 0x00
    CSUM = 0x01
    TSO4 = 0x02
    TSO6 = 0x04
    TSO_ECN = 0x08
    UFO = 0x10
    USO4 = 0x20
    USO6 = 0x40
    ALL = 0x7F


class _Request(IntEnum):
    """_IOR and _IOW of 'T'. The kernel has them the wrong way round for some."""

    SETIFF = 0x400454CA
    SETPERSIST = 0x400454CB
    GETFEATURES = 0x800454CF
    SETOFFLOAD = 0x400454D0
    GETIFF = 0x800454D2
    GETVNETHDRSZ = 0x800454D7
    SETVNETHDRSZ = 0x400454D8
    SETQUEUE = 0x400454D9
    SETSTEERINGEBPF = 0x800454E0
    SETFILTEREBPF = 0x800454E1
    SETCARRIER = 0x400454E2
    GETDEVNETNS = 0x54E3
    # kernels of the lab: lab/patches/tun-rss, tun-cb
    GETHASHTYPES = 0x800454E4
    SETRSS = 0x400854E5
    SETRSSREPORT = 0x400854E6
    SETAUTOMQREPORT = 0x402C54E7
    SETSTEERINGHASHEBPF = 0x800454E8


_IFREQ = struct.Struct("16sH22x")
_INT = struct.Struct("i")
_RSS = struct.Struct("IHH")  # struct tun_rss
_HASH = struct.Struct("I40s")  # struct tun_hash
_NO_DESCRIPTOR = -2  # -1 removes a program


def open_queue(*, nonblocking: bool) -> int:
    """A descriptor of /dev/net/tun, of no device yet.

    Raises Unsupported if the kernel has no tun driver, DependencyMissing if
    only the device node is missing, NotPermitted if it may not be opened.
    """
    try:
        return os.open(PATH, os.O_RDWR | os.O_CLOEXEC | (os.O_NONBLOCK if nonblocking else 0))
    except FileNotFoundError as error:
        raise DependencyMissing(
            f"{PATH} is missing",
            hint="load the driver (modprobe tun); in a container pass the device in "
            "(--device /dev/net/tun)",
        ) from error
    except PermissionError as error:
        raise NotPermitted(
            f"open {PATH}",
            f"write access to {PATH}",
            hint="run as root or as a member of the device's group; in a container allow the "
            "device (--device /dev/net/tun)",
        ) from error
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENXIO):
            raise Unsupported(
                "tun device", f"{PATH} has no driver behind it", hint="modprobe tun"
            ) from error
        raise DeviceError(f"open {PATH}: {error.strerror}") from error


def check_name(name: str) -> None:
    """Raise ConfigError unless ``name`` can name a link (net/core/dev.c, dev_valid_name())."""
    if not name:
        raise ConfigError("name", "must not be empty")
    if len(os.fsencode(name)) > NAME_MAX:
        raise ConfigError("name", f"{name!r} is longer than {NAME_MAX} bytes")
    if name in (".", "..") or any(c in "/:\0" or c.isspace() for c in name):
        raise ConfigError("name", f"{name!r} has a character no link name may have")
    if "%" in name and (name.count("%") != 1 or "%d" not in name):
        raise ConfigError("name", f"{name!r} is no pattern: one %d stands for a number")


def set_interface(fd: int, name: str, flags: TunFlag) -> None:
    """TUNSETIFF: make the descriptor a queue of ``name``. Raises OSError as it comes."""
    fcntl.ioctl(fd, _Request.SETIFF, _IFREQ.pack(os.fsencode(name), flags))


def read_interface(fd: int) -> tuple[str, TunFlag]:
    """Name and flags of the queue's device; DeviceError if it has none."""
    try:
        answer = fcntl.ioctl(fd, _Request.GETIFF, bytes(_IFREQ.size))
    except OSError as error:
        _fail("read the name of a tap", error)
    name, flags = _IFREQ.unpack(answer)
    return os.fsdecode(name.rstrip(b"\0")), TunFlag(flags)


def read_features(fd: int | None = None) -> TunFlag:
    """The IFF_* flags the driver knows (TUNGETFEATURES)."""
    if fd is None:
        fd = open_queue(nonblocking=True)
        try:
            return read_features(fd)
        finally:
            os.close(fd)
    answer = fcntl.ioctl(fd, _Request.GETFEATURES, bytes(_INT.size))
    return TunFlag(_INT.unpack(answer)[0])


def read_vnet_header_size(fd: int) -> int:
    """Bytes of the header in front of each frame."""
    return _get_int(fd, _Request.GETVNETHDRSZ, "read the header size of a tap")


def set_vnet_header_size(fd: int, size: int) -> None:
    """Set the bytes of the header in front of each frame: 10, 12 or more."""
    if size < _VNET_HEADER_MIN:
        raise ConfigError("vnet_header_size", f"must be at least {_VNET_HEADER_MIN}, not {size}")
    _set_int(fd, _Request.SETVNETHDRSZ, size, f"set the header size of a tap to {size}")


def check_offloads(offloads: Offload) -> None:
    """Raise ConfigError for a combination the kernel has no meaning for."""
    if offloads and Offload.CSUM not in offloads:
        raise ConfigError("offloads", "CSUM must be among them")
    if (Offload.USO4 in offloads) != (Offload.USO6 in offloads):
        raise ConfigError("offloads", "USO4 and USO6 go together")
    if Offload.TSO_ECN in offloads and not offloads & (Offload.TSO4 | Offload.TSO6):
        raise ConfigError("offloads", "TSO_ECN needs TSO4 or TSO6")


def set_offloads(fd: int, offloads: Offload) -> None:
    """Say what the reader takes whole. Raises ConfigError, and Unsupported for USO before 6.2."""
    check_offloads(offloads)
    try:
        fcntl.ioctl(fd, _Request.SETOFFLOAD, int(offloads))
    except OSError as error:
        if error.errno == errno.EINVAL and offloads & (Offload.USO4 | Offload.USO6):
            raise Unsupported(
                "UDP segmentation offload of a tap",
                "the tun driver does not know USO4 and USO6",
                needs="Linux 6.2",
            ) from error
        _fail("set the offloads of a tap", error)


def set_steering(fd: int, program_fd: int | None) -> None:
    """Set the socket filter that chooses the queue of each packet; None removes it.

    Any holder of a queue may; the program stays until the device goes.
    """
    _set_program(fd, _Request.SETSTEERINGEBPF, program_fd, "steering")


def set_steering_hash(fd: int, program_fd: int | None) -> None:
    """As set_steering(), but the program also leaves hash value and report type in its cb[0:2].

    A kernel of the lab (lab/patches/tun-cb) knows this; others refuse.
    """
    _set_program(fd, _Request.SETSTEERINGHASHEBPF, program_fd, "steering")


def takes_steering_hash(fd: int) -> bool:
    """Whether set_steering_hash() is there: asked with no program, which changes nothing."""
    try:
        fcntl.ioctl(fd, _Request.SETSTEERINGHASHEBPF, _INT.pack(_NO_DESCRIPTOR))
    except OSError as error:
        if error.errno == errno.EBADF:
            return True
        if error.errno in (errno.EINVAL, errno.ENOTTY):
            return False
        _fail("ask a tap for hashes of its steering program", error)
    return False


def read_hash_types(fd: int | None = None) -> HashType:
    """What the driver itself can hash, on a kernel of the lab (lab/patches/tun-rss).

    Raises Unsupported on others.
    """
    if fd is None:
        fd = open_queue(nonblocking=True)
        try:
            return read_hash_types(fd)
        finally:
            os.close(fd)
    try:
        return HashType(_INT.unpack(fcntl.ioctl(fd, _Request.GETHASHTYPES, bytes(_INT.size)))[0])
    except OSError as error:
        # A queue without a device knows no ioctl at all.
        if error.errno in (errno.EINVAL, errno.EBADFD, errno.ENOTTY):
            reason = "the tun driver has no TUNGETHASHTYPES"
            raise Unsupported("RSS of the tun driver", reason) from error
        _fail("read the hash types of the tun driver", error)


def set_rss(
    fd: int,
    hash_types: HashType,
    table: Sequence[int],
    unclassified_queue: int,
    key: bytes,
    *,
    report: bool,
) -> None:
    """Have the driver steer by RSS, and report hashes too where the header has room for them."""
    argument = bytearray(_RSS.pack(hash_types, len(table) - 1, unclassified_queue))
    argument += struct.pack(f"{len(table)}H", *table) + key
    request = _Request.SETRSSREPORT if report else _Request.SETRSS
    try:
        fcntl.ioctl(fd, request, argument)
    except OSError as error:
        _fail("set RSS of a tap", error)


def clear_rss(fd: int) -> None:
    """Have the driver spread packets as a fresh device does, and report nothing."""
    try:
        fcntl.ioctl(fd, _Request.SETAUTOMQREPORT, _HASH.pack(0, b""))
    except OSError as error:
        _fail("end RSS of a tap", error)


def set_filter(fd: int, program_fd: int | None) -> None:
    """Set the socket filter that says how many bytes of a packet stay, 0 drops; None removes it."""
    _set_program(fd, _Request.SETFILTEREBPF, program_fd, "filter")


def set_persist(fd: int, persist: bool) -> None:
    """Whether the device outlives its last queue."""
    try:
        fcntl.ioctl(fd, _Request.SETPERSIST, int(persist))
    except OSError as error:
        _fail("make a tap persistent", error)


def set_carrier(fd: int, carrier: bool) -> None:
    """Whether the link has a carrier: without one the kernel sends nothing into the tap.

    Raises Unsupported before Linux 5.0.
    """
    _set_int(fd, _Request.SETCARRIER, carrier, "set the carrier of a tap")


def attach_queue(fd: int, attached: bool) -> None:
    """Take this queue out of use, or put it back in use."""
    flag = TunFlag.ATTACH_QUEUE if attached else TunFlag.DETACH_QUEUE
    action = f"{'attach' if attached else 'detach'} a queue"
    try:
        fcntl.ioctl(fd, _Request.SETQUEUE, _IFREQ.pack(b"", flag))
    except OSError as error:
        if error.errno == errno.EINVAL:
            state = "attached" if attached else "detached"
            raise DeviceError(f"{action}: it is {state} already, or the tap has one queue") from (
                error
            )
        _fail(action, error)


def open_namespace(fd: int) -> int:
    """A descriptor of the network namespace the device is in (TUNGETDEVNETNS, Linux 5.7).

    Needs CAP_NET_ADMIN in that namespace. The caller closes it.
    """
    try:
        return fcntl.ioctl(fd, _Request.GETDEVNETNS)
    except OSError as error:
        _fail("read the network namespace of a tap", error)


def _get_int(fd: int, request: _Request, action: str) -> int:
    try:
        value: int = _INT.unpack(fcntl.ioctl(fd, request, bytes(_INT.size)))[0]
    except OSError as error:
        _fail(action, error)
    return value


def _set_int(fd: int, request: _Request, value: int, action: str) -> None:
    try:
        fcntl.ioctl(fd, request, _INT.pack(value))
    except OSError as error:
        _fail(action, error)


def _set_program(fd: int, request: _Request, program_fd: int | None, kind: str) -> None:
    action = f"set the {kind} program of a tap"
    try:
        fcntl.ioctl(fd, request, _INT.pack(-1 if program_fd is None else program_fd))
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise DeviceError(
                f"{action}: the kernel refuses it", hint="it must be a BPF socket filter program"
            ) from error
        _fail(action, error)


def _fail(action: str, error: OSError) -> NoReturn:
    """Raise the typed error for a failed ioctl."""
    if error.errno == errno.EPERM:
        raise NotPermitted(action, "CAP_NET_ADMIN") from error
    if error.errno == errno.EBADFD:
        raise DeviceError(f"{action}: no device is behind this queue, or it is gone") from error
    if error.errno == errno.ENOTTY:
        raise Unsupported(action, "the tun driver does not know this ioctl") from error
    if error.errno == errno.EBADF:
        raise VnethashError(f"{action}: the descriptor is closed") from error
    raise DeviceError(f"{action}: {os.strerror(error.errno or 0).lower()}") from error
