# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Messages of the vhost-user protocol and their syntax. No I/O, and no state.

QEMU's docs/interop/vhost-user.rst, "Message Specification". All numbers are in
the machine's byte order. What a message asks for is judged elsewhere
(session.py); here it is checked that it has the form its request demands: the
exact size, no number that wraps around, no unknown flag, and as many file
descriptors as it takes.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from types import MappingProxyType
from typing import TypeAlias

from vnethash.errors import VhostUserError

VERSION = 1
"""Of the protocol, in the two lowest bits of a message's flags."""

HEADER_SIZE = 12

MAX_PAYLOAD = 4096
"""Bytes; no message of the protocol comes near it."""

MAX_FDS = 8
"""File descriptors with one message: those of a full memory table."""

MAX_TABLE = 8
"""Regions in one SET_MEM_TABLE."""

MAX_CONFIG = 256
"""Bytes of configuration space that one message may carry."""

_U64 = 1 << 64
_FILE_END = 1 << 63
_NO_FD = 1 << 8
_VERSION_MASK = 3
_CONFIG_FLAGS = 3  # 1 is "for migration"; rust-vmm says 1 for "by the driver", 2 for that

_HEADER = struct.Struct("=III")
_NUMBER = struct.Struct("=Q")
_STATE = struct.Struct("=II")
_ADDRESS = struct.Struct("=IIQQQQ")
_TABLE = struct.Struct("=II")
_REGION = struct.Struct("=QQQQ")
_PADDING = struct.Struct("=Q")
_LOG = struct.Struct("=QQ")
_CONFIG = struct.Struct("=III")


class Request(IntEnum):
    """What a front end may ask: VHOST_USER_* ("Front-end message types")."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SEND_RARP = 19
    NET_SET_MTU = 20
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22
    SET_VRING_ENDIAN = 23
    GET_CONFIG = 24
    SET_CONFIG = 25
    CREATE_CRYPTO_SESSION = 26
    CLOSE_CRYPTO_SESSION = 27
    POSTCOPY_ADVISE = 28
    POSTCOPY_LISTEN = 29
    POSTCOPY_END = 30
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    GPU_SET_SOCKET = 33
    RESET_DEVICE = 34
    VRING_KICK = 35
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40
    GET_SHARED_OBJECT = 41
    SET_DEVICE_STATE_FD = 42
    CHECK_DEVICE_STATE = 43


class BackendRequest(IntEnum):
    """What a back end may ask on its own channel ("Back-end message types")."""

    CONFIG_CHANGE_MSG = 2


class ProtocolFeature(IntEnum):
    """Bit numbers, VHOST_USER_PROTOCOL_F_* ("Protocol features")."""

    MQ = 0
    LOG_SHMFD = 1
    RARP = 2
    REPLY_ACK = 3
    NET_MTU = 4
    BACKEND_REQ = 5
    CROSS_ENDIAN = 6
    CRYPTO_SESSION = 7
    PAGEFAULT = 8
    CONFIG = 9
    BACKEND_SEND_FD = 10
    HOST_NOTIFIER = 11
    INFLIGHT_SHMFD = 12
    RESET_DEVICE = 13
    INBAND_NOTIFICATIONS = 14
    CONFIGURE_MEM_SLOTS = 15
    STATUS = 16
    XEN_MMAP = 17
    SHARED_OBJECT = 18
    DEVICE_STATE = 19


class VhostFeature(IntEnum):
    """Bits of SET_FEATURES that are of the protocol, not of the virtio device."""

    LOG_ALL = 26
    PROTOCOL_FEATURES = 30


class MessageFlag(IntFlag):
    """Above the version ("Header")."""

    REPLY = 1 << 2
    NEED_REPLY = 1 << 3


class RingFlag(IntFlag):
    """Of SET_VRING_ADDR: VHOST_VRING_F_LOG, the used ring is logged too ("Migration")."""

    NONE = 0
    LOG = 1 << 0


# As numbers: the complement of an IntFlag has only the bits it knows.
_FLAGS = int(MessageFlag.REPLY | MessageFlag.NEED_REPLY)
_RING_FLAGS = int(RingFlag.LOG)


@dataclass(frozen=True, slots=True)
class VringState:
    """A ring and a number about it: size, index or on and off."""

    index: int
    num: int


@dataclass(frozen=True, slots=True)
class VringAddress:
    """Where a ring lies, in addresses of the front end; ``log`` is one of the guest."""

    index: int
    flags: RingFlag
    descriptors: int
    used: int
    available: int
    log: int


@dataclass(frozen=True, slots=True)
class VringFd:
    """The ring an event descriptor belongs to, and whether one came along."""

    index: int
    has_fd: bool


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """``size`` bytes of guest memory, at ``mmap_offset`` of the file that came along."""

    guest_address: int
    size: int
    user_address: int
    mmap_offset: int


@dataclass(frozen=True, slots=True)
class LogRegion:
    """The log of dirty pages: ``size`` bytes, ``offset`` bytes into the file that came along."""

    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class ConfigAccess:
    """A part of the device's configuration space. ``flags``: who writes, the driver or a VMM."""

    offset: int
    data: bytes
    flags: int = 0


Payload: TypeAlias = (
    int
    | bytes
    | VringState
    | VringAddress
    | VringFd
    | MemoryRegion
    | tuple[MemoryRegion, ...]
    | LogRegion
    | ConfigAccess
    | None
)
"""None: empty. int: one u64. bytes: of a request that is not known here."""


@dataclass(frozen=True, slots=True)
class MessageHeader:
    """The first HEADER_SIZE bytes. ``size``: bytes of the payload behind."""

    request: int
    flags: MessageFlag
    size: int

    @classmethod
    def decode(cls, data: bytes) -> "MessageHeader":
        """VhostUserError if the version, a flag or the size is none the protocol has."""
        request, flags, size = _HEADER.unpack(data)
        name = request_name(request)
        if flags & _VERSION_MASK != VERSION:
            raise VhostUserError(name, f"version {flags & _VERSION_MASK} is not {VERSION}")
        flags &= ~_VERSION_MASK
        if flags & ~_FLAGS:
            raise VhostUserError(name, f"flags {flags:#x} are not known")
        if size > MAX_PAYLOAD:
            raise VhostUserError(name, f"a payload of {size} bytes is above {MAX_PAYLOAD}")
        return cls(request, MessageFlag(flags), size)


@dataclass(frozen=True, slots=True)
class Message:
    """One message, either way. ``fds`` go along with it; see the sender for who owns them."""

    request: int
    payload: Payload = None
    fds: Sequence[int] = ()
    flags: MessageFlag = field(default=MessageFlag(0))

    @property
    def name(self) -> str:
        return request_name(self.request)

    @property
    def need_reply(self) -> bool:
        return MessageFlag.NEED_REPLY in self.flags

    def encode(self) -> bytes:
        """The bytes; the descriptors go beside them. ValueError if a number does not fit."""
        try:
            payload = _encode(self.payload)
            return _HEADER.pack(self.request, self.flags | VERSION, len(payload)) + payload
        except struct.error as error:
            raise ValueError(f"vhost-user {self.name}: {error}") from None

    @classmethod
    def decode(cls, header: MessageHeader, payload: bytes, fds: Sequence[int] = ()) -> "Message":
        """A front end's message. VhostUserError if it has not the form of its request."""
        name = request_name(header.request)
        if header.flags & MessageFlag.REPLY:
            raise VhostUserError(name, "a reply to nothing that was asked")
        parsed = _parse(name, _REQUESTS.get(header.request, _opaque), payload)
        _check_fds(name, header.request, parsed, len(fds))
        return cls(header.request, parsed, tuple(fds), header.flags)

    @classmethod
    def decode_reply(cls, header: MessageHeader, payload: bytes) -> "Message":
        """A back end's reply. VhostUserError if it is none, or has not the form of one."""
        name = request_name(header.request)
        if header.flags != MessageFlag.REPLY:
            raise VhostUserError(name, f"flags {header.flags:#x} are not those of a reply")
        parse = _REPLIES.get(header.request, _number)
        return cls(header.request, _parse(name, parse, payload), flags=header.flags)


def reply(to: Message, payload: Payload) -> bytes:
    """The bytes of the reply to a message."""
    return Message(to.request, payload, flags=MessageFlag.REPLY).encode()


def config_change() -> bytes:
    """CONFIG_CHANGE_MSG of the back end, for the channel that SET_BACKEND_REQ_FD gave.

    No reply is asked for: the channel may be a pipe, as Linux's virtio_uml has it.
    """
    return _HEADER.pack(BackendRequest.CONFIG_CHANGE_MSG, VERSION, 0)


def request_name(request: int) -> str:
    """As the specification names it, without the prefix; a number if it does not."""
    try:
        return Request(request).name
    except ValueError:
        return f"request {request}"


class _SyntaxFault(Exception):
    """What a parser says; becomes a VhostUserError that names the request."""


_Parser: TypeAlias = Callable[[bytes], Payload]


def _parse(name: str, parse: _Parser, payload: bytes) -> Payload:
    try:
        return parse(payload)
    except _SyntaxFault as fault:
        raise VhostUserError(name, str(fault)) from None
    except struct.error as error:
        raise VhostUserError(name, f"payload of {len(payload)} bytes: {error}") from None


def _opaque(payload: bytes) -> bytes:
    return payload


def _nothing(payload: bytes) -> None:
    if payload:
        raise _SyntaxFault(f"a payload of {len(payload)} bytes where none belongs")


def _number(payload: bytes) -> int:
    (value,) = _NUMBER.unpack(payload)
    return int(value)


def _state(payload: bytes) -> VringState:
    return VringState(*_STATE.unpack(payload))


def _address(payload: bytes) -> VringAddress:
    index, flags, *addresses = _ADDRESS.unpack(payload)
    if flags & ~_RING_FLAGS:
        raise _SyntaxFault(f"ring flags {flags:#x} are not known")
    return VringAddress(index, RingFlag(flags), *addresses)


def _ring_fd(payload: bytes) -> VringFd:
    value = _number(payload)
    if value & ~(_NO_FD | 0xFF):
        raise _SyntaxFault(f"{value:#x} is no ring index with its flag")
    return VringFd(value & 0xFF, not value & _NO_FD)


def _table(payload: bytes) -> tuple[MemoryRegion, ...]:
    # Linux's virtio_uml always sends the places of two regions, also for one:
    # room behind the regions is allowed, in whole regions.
    count, _padding = _TABLE.unpack_from(payload)
    places, rest = divmod(len(payload) - _TABLE.size, _REGION.size)
    if rest or not count <= places <= MAX_TABLE:
        raise _SyntaxFault(f"{count} regions in a payload of {len(payload)} bytes")
    offsets = (_TABLE.size + i * _REGION.size for i in range(count))
    return tuple(_checked(MemoryRegion(*_REGION.unpack_from(payload, at))) for at in offsets)


def _region(payload: bytes) -> MemoryRegion:
    _PADDING.unpack(payload[: _PADDING.size])
    return _checked(MemoryRegion(*_REGION.unpack(payload[_PADDING.size :])))


def _checked(region: MemoryRegion) -> MemoryRegion:
    if not region.size:
        raise _SyntaxFault("a region of no bytes")
    for what, start, end in (
        ("guest address", region.guest_address, _U64),
        ("user address", region.user_address, _U64),
        ("mmap offset", region.mmap_offset, _FILE_END),
    ):
        if start + region.size > end:
            raise _SyntaxFault(f"{what} {start:#x} and size {region.size:#x} overflow")
    return region


def _log(payload: bytes) -> LogRegion:
    log = LogRegion(*_LOG.unpack(payload))
    if not log.size or log.offset + log.size > _FILE_END:
        raise _SyntaxFault(f"log offset {log.offset:#x} and size {log.size:#x}")
    return log


def _config(payload: bytes) -> ConfigAccess:
    offset, size, flags = _CONFIG.unpack_from(payload)
    data = payload[_CONFIG.size :]
    if size != len(data):
        raise _SyntaxFault(f"{size} bytes of configuration space in {len(payload)}")
    if flags & ~_CONFIG_FLAGS:
        raise _SyntaxFault(f"configuration flags {flags:#x} are not known")
    return ConfigAccess(offset, data, flags)


def _config_reply(payload: bytes) -> ConfigAccess | None:
    return _config(payload) if payload else None


_REQUESTS: Mapping[int, _Parser] = MappingProxyType(
    {
        Request.GET_FEATURES: _nothing,
        Request.SET_FEATURES: _number,
        Request.SET_OWNER: _nothing,
        Request.RESET_OWNER: _nothing,
        Request.SET_MEM_TABLE: _table,
        Request.SET_LOG_BASE: _log,
        Request.SET_LOG_FD: _nothing,
        Request.SET_VRING_NUM: _state,
        Request.SET_VRING_ADDR: _address,
        Request.SET_VRING_BASE: _state,
        Request.GET_VRING_BASE: _state,
        Request.SET_VRING_KICK: _ring_fd,
        Request.SET_VRING_CALL: _ring_fd,
        Request.SET_VRING_ERR: _ring_fd,
        Request.GET_PROTOCOL_FEATURES: _nothing,
        Request.SET_PROTOCOL_FEATURES: _number,
        Request.GET_QUEUE_NUM: _nothing,
        Request.SET_VRING_ENABLE: _state,
        Request.SEND_RARP: _number,
        Request.NET_SET_MTU: _number,
        Request.SET_BACKEND_REQ_FD: _nothing,
        Request.GET_CONFIG: _config,
        Request.SET_CONFIG: _config,
        Request.RESET_DEVICE: _nothing,
        Request.GET_MAX_MEM_SLOTS: _nothing,
        Request.ADD_MEM_REG: _region,
        Request.REM_MEM_REG: _region,
        Request.SET_STATUS: _number,
        Request.GET_STATUS: _nothing,
    }
)

_REPLIES: Mapping[int, _Parser] = MappingProxyType(
    {Request.GET_VRING_BASE: _state, Request.GET_CONFIG: _config_reply}
)
"""All others are one u64."""

_ONE_FD = frozenset(
    {Request.SET_LOG_BASE, Request.SET_LOG_FD, Request.SET_BACKEND_REQ_FD, Request.ADD_MEM_REG}
)


def _check_fds(name: str, request: int, payload: Payload, count: int) -> None:
    match payload:
        case bytes():
            return  # nobody knows how many
        case VringFd(has_fd=has_fd):
            needed = int(has_fd)
        case tuple():
            needed = len(payload)
        case _:
            needed = int(request in _ONE_FD)
    # QEMU 5.1 to 6.2 sent one with REM_MEM_REG, which may be taken and has to be closed.
    if count != needed and not (request == Request.REM_MEM_REG and count == 1):
        raise VhostUserError(name, f"{count} file descriptors where {needed} belong")


def _encode(payload: Payload) -> bytes:
    match payload:
        case None:
            return b""
        case int():
            return _NUMBER.pack(payload)
        case bytes():
            return payload
        case VringState(index, num):
            return _STATE.pack(index, num)
        case VringAddress(index, flags, descriptors, used, available, log):
            return _ADDRESS.pack(index, flags, descriptors, used, available, log)
        case VringFd(index, has_fd):
            return _NUMBER.pack(index if has_fd else index | _NO_FD)
        case MemoryRegion():
            return _PADDING.pack(0) + _encode_region(payload)
        case LogRegion(size, offset):
            return _LOG.pack(size, offset)
        case ConfigAccess(offset, data, flags):
            return _CONFIG.pack(offset, len(data), flags) + data
        case tuple():
            return _TABLE.pack(len(payload), 0) + b"".join(map(_encode_region, payload))


def _encode_region(region: MemoryRegion) -> bytes:
    return _REGION.pack(region.guest_address, region.size, region.user_address, region.mmap_offset)
