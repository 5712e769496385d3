# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Commands of the control virtqueue: bytes to dataclasses and back (virtio 1.3, 5.1.6.5).

A command is a class byte, a command byte and data, all little-endian. What is
checked here is its form: exact sizes, reserved bits, on and off. Whether a
device can do what it says is for ``device.NetDevice`` to judge.
"""

import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

from vnethash.errors import CommandError, ConfigError
from vnethash.virtio.features import feature_bits, feature_set, format_features
from vnethash.virtio.hash_types import (
    HashType,
    TunnelType,
    format_hash_types,
    format_tunnel_types,
)

ACK_OK = 0
"""VIRTIO_NET_OK"""

ACK_ERR = 1
"""VIRTIO_NET_ERR"""

MAC_LENGTH = 6
_SHOWN = 64
"""Addresses of a table in logs."""


class Class(IntEnum):
    """VIRTIO_NET_CTRL_*: the first byte."""

    RX = 0
    MAC = 1
    VLAN = 2
    ANNOUNCE = 3
    MQ = 4
    GUEST_OFFLOADS = 5
    NOTF_COAL = 6
    HASH_TUNNEL = 7


class RxMode(IntEnum):
    """VIRTIO_NET_CTRL_RX_*: the commands of class RX (5.1.6.5.1)."""

    PROMISC = 0
    ALLMULTI = 1
    ALLUNI = 2
    NOMULTI = 3
    NOUNI = 4
    NOBCAST = 5


class _Reader:
    """Takes data apart from the front; CommandError if it is too short or too long."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def bytes(self, size: int, what: str) -> bytes:
        end = self._offset + size
        if end > len(self._data):
            have = len(self._data) - self._offset
            raise CommandError(f"is truncated: {what} needs {size} bytes, {have} are left")
        part = self._data[self._offset : end]
        self._offset = end
        return part

    def le(self, size: int, what: str) -> int:
        return int.from_bytes(self.bytes(size, what), "little")

    def end(self) -> None:
        surplus = len(self._data) - self._offset
        if surplus:
            raise CommandError(f"has {surplus} surplus bytes")


class _Command(ABC):
    """One command. Subclasses are frozen dataclasses of what the data says."""

    __slots__ = ()

    @property
    @abstractmethod
    def key(self) -> tuple[Class, int]:
        """Class and command."""

    @classmethod
    @abstractmethod
    def read(cls, data: _Reader, code: int) -> Self:
        """From the data behind class and command; CommandError says what is wrong with it."""

    @abstractmethod
    def data(self) -> bytes:
        """The data behind class and command; ConfigError if a value does not fit its field."""

    @abstractmethod
    def fields_json(self) -> dict[str, Any]:
        """The fields, as JSON types."""

    @property
    def name(self) -> str:
        """As the specification has it, without VIRTIO_NET_CTRL_."""
        return _COMMANDS[self.key][0]

    def encode(self) -> bytes:
        """Class, command and data; ConfigError if a value does not fit its field."""
        return bytes(self.key) + self.data()

    def to_json(self) -> dict[str, Any]:
        """For logs: ``command``, its name, and the fields. JSON types only."""
        return {"command": self.name, **self.fields_json()}


@dataclass(frozen=True, slots=True)
class RxModeSet(_Command):
    """A receive mode, on or off (5.1.6.5.1)."""

    mode: RxMode
    on: bool

    @property
    def key(self) -> tuple[Class, int]:
        return Class.RX, self.mode

    @classmethod
    def read(cls, data: _Reader, code: int) -> Self:
        on = data.le(1, "on")
        if on > 1:
            raise CommandError(f"is {on}, not 0 (off) or 1 (on)")
        return cls(RxMode(code), bool(on))

    def data(self) -> bytes:
        return _le(self.on, 1, "on")

    def fields_json(self) -> dict[str, Any]:
        return {"on": self.on}


@dataclass(frozen=True, slots=True)
class MacTableSet(_Command):
    """The addresses beside the device's own whose frames it receives (5.1.6.5.2)."""

    key = (Class.MAC, 0)
    unicast: tuple[bytes, ...]
    multicast: tuple[bytes, ...]

    @classmethod
    def read(cls, data: _Reader, code: int) -> Self:
        return cls(_read_macs(data, "unicast"), _read_macs(data, "multicast"))

    def data(self) -> bytes:
        return _mac_table(self.unicast) + _mac_table(self.multicast)

    def fields_json(self) -> dict[str, Any]:
        """A driver names as many as it likes: ``unicast_more`` counts those left out."""
        told: dict[str, Any] = {}
        for name, macs in (("unicast", self.unicast), ("multicast", self.multicast)):
            told[name] = [format_mac(mac) for mac in macs[:_SHOWN]]
            if len(macs) > _SHOWN:
                told[f"{name}_more"] = len(macs) - _SHOWN
        return told


@dataclass(frozen=True, slots=True)
class MacAddrSet(_Command):
    """The device's own address (5.1.6.5.2)."""

    key = (Class.MAC, 1)
    mac: bytes

    @classmethod
    def read(cls, data: _Reader, code: int) -> Self:
        return cls(data.bytes(MAC_LENGTH, "the address"))

    def data(self) -> bytes:
        return _mac(self.mac)

    def fields_json(self) -> dict[str, Any]:
        return {"mac": format_mac(self.mac)}


@dataclass(frozen=True, slots=True)
class _Vlan(_Command):
    vlan: int

    @classmethod
    def read(cls, data: _Reader, code: int) -> Self:
        return cls(data.le(2, "the VLAN id"))

    def data(self) -> bytes:
        return _le(self.vlan, 2, "vlan")

    def fields_json(self) -> dict[str, Any]:
        return {"vlan": self.vlan}


class VlanAdd(_Vlan):
    """Frames of this VLAN are received (5.1.6.5.3)."""

    __slots__ = ()
    key = (Class.VLAN, 0)


class VlanDel(_Vlan):
    """Frames of this VLAN are received no longer (5.1.6.5.3)."""

    __slots__ = ()
    key = (Class.VLAN, 1)


@dataclass(frozen=True, slots=True)
class AnnounceAck(_Command):
    """The driver saw that it shall announce itself (5.1.6.5.4)."""

    key = (Class.ANNOUNCE, 0)

    @classmethod
    def read(cls, data: _Reader, code: int) -> Self:
        return cls()

    def data(self) -> bytes:
        return b""

    def fields_json(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, slots=True)
class VqPairsSet(_Command):
    """Automatic receive steering over the first ``pairs`` queue pairs (5.1.6.5.6)."""

    key = (Class.MQ, 0)
    pairs: int

    @classmethod
    def read(cls, data: _Reader, code: int) -> Self:
        return cls(data.le(2, "virtqueue_pairs"))

    def data(self) -> bytes:
        return _le(self.pairs, 2, "virtqueue_pairs")

    def fields_json(self) -> dict[str, Any]:
        return {"pairs": self.pairs}


@dataclass(frozen=True, slots=True, kw_only=True)
class RssConfigSet(_Command):
    """Receive-side scaling: ``struct virtio_net_rss_config`` (5.1.6.5.7.1).

    Queues count from 0, receiveq1. The mask is not kept: it is the length of
    the table less one.
    """

    key = (Class.MQ, 1)
    hash_types: int
    indirection_table: tuple[int, ...]
    unclassified_queue: int
    max_tx_vq: int
    hash_key: bytes

    @classmethod
    def read(cls, data: _Reader, code: int) -> Self:
        hash_types = data.le(4, "hash_types")
        mask = data.le(2, "indirection_table_mask")
        if mask & (mask + 1):
            raise CommandError(f"has a mask {mask:#x}, which is not a power of two less one")
        unclassified = data.le(2, "unclassified_queue")
        table = struct.unpack(f"<{mask + 1}H", data.bytes(2 * (mask + 1), "indirection_table"))
        for what, queues in (("unclassified_queue", (unclassified,)), ("indirection_table", table)):
            if max(queues) > _QUEUE_ID_MAX:
                raise CommandError(f"has a reserved bit set in {what}")
        return cls(
            hash_types=hash_types,
            indirection_table=table,
            unclassified_queue=unclassified,
            max_tx_vq=data.le(2, "max_tx_vq"),
            hash_key=_read_key(data),
        )

    def data(self) -> bytes:
        table = b"".join(_le(queue, 2, "indirection_table") for queue in self.indirection_table)
        return (
            _le(self.hash_types, 4, "hash_types")
            + _le(len(self.indirection_table) - 1, 2, "indirection_table_mask")
            + _le(self.unclassified_queue, 2, "unclassified_queue")
            + table
            + _le(self.max_tx_vq, 2, "max_tx_vq")
            + _key(self.hash_key)
        )

    def fields_json(self) -> dict[str, Any]:
        return {
            "hash_types": types_json(self.hash_types),
            "indirection_table": list(self.indirection_table),
            "unclassified_queue": self.unclassified_queue,
            "max_tx_vq": self.max_tx_vq,
            "hash_key": self.hash_key.hex(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HashConfigSet(_Command):
    """What is hashed under automatic steering: ``struct virtio_net_hash_config`` (5.1.6.5.6.4)."""

    key = (Class.MQ, 2)
    hash_types: int
    hash_key: bytes

    @classmethod
    def read(cls, data: _Reader, code: int) -> Self:
        hash_types = data.le(4, "hash_types")
        if any(data.bytes(6, "reserved")):
            raise CommandError("has a reserved field that is not zero")
        # The fourth reserved word lies where virtio_net_rss_config has max_tx_vq, and Linux
        # before 6.6 leaves its own there (drivers/net/virtio_net.c, virtnet_init_default_rss).
        data.bytes(2, "reserved")
        return cls(hash_types=hash_types, hash_key=_read_key(data))

    def data(self) -> bytes:
        return _le(self.hash_types, 4, "hash_types") + bytes(8) + _key(self.hash_key)

    def fields_json(self) -> dict[str, Any]:
        return {"hash_types": types_json(self.hash_types), "hash_key": self.hash_key.hex()}


@dataclass(frozen=True, slots=True)
class GuestOffloadsSet(_Command):
    """The offloads in force for received packets, as bits of their features (5.1.6.5.8)."""

    key = (Class.GUEST_OFFLOADS, 0)
    offloads: int

    @classmethod
    def read(cls, data: _Reader, code: int) -> Self:
        return cls(data.le(8, "offloads"))

    def data(self) -> bytes:
        return _le(self.offloads, 8, "offloads")

    def fields_json(self) -> dict[str, Any]:
        return {"offloads": bits_json(self.offloads)}


@dataclass(frozen=True, slots=True)
class HashTunnelSet(_Command):
    """Encapsulations whose inner header is hashed (5.1.6.4.4)."""

    key = (Class.HASH_TUNNEL, 0)
    tunnel_types: int

    @classmethod
    def read(cls, data: _Reader, code: int) -> Self:
        return cls(data.le(4, "enabled_tunnel_types"))

    def data(self) -> bytes:
        return _le(self.tunnel_types, 4, "enabled_tunnel_types")

    def fields_json(self) -> dict[str, Any]:
        return {"tunnel_types": tunnels_json(self.tunnel_types)}


Command = (
    RxModeSet
    | MacTableSet
    | MacAddrSet
    | VlanAdd
    | VlanDel
    | AnnounceAck
    | VqPairsSet
    | RssConfigSet
    | HashConfigSet
    | GuestOffloadsSet
    | HashTunnelSet
)

_COMMANDS: dict[tuple[int, int], tuple[str, type[Command]]] = {
    **{(Class.RX, mode): (f"RX_{mode.name}", RxModeSet) for mode in RxMode},
    MacTableSet.key: ("MAC_TABLE_SET", MacTableSet),
    MacAddrSet.key: ("MAC_ADDR_SET", MacAddrSet),
    VlanAdd.key: ("VLAN_ADD", VlanAdd),
    VlanDel.key: ("VLAN_DEL", VlanDel),
    AnnounceAck.key: ("ANNOUNCE_ACK", AnnounceAck),
    VqPairsSet.key: ("MQ_VQ_PAIRS_SET", VqPairsSet),
    RssConfigSet.key: ("MQ_RSS_CONFIG", RssConfigSet),
    HashConfigSet.key: ("MQ_HASH_CONFIG", HashConfigSet),
    GuestOffloadsSet.key: ("GUEST_OFFLOADS_SET", GuestOffloadsSet),
    HashTunnelSet.key: ("HASH_TUNNEL_SET", HashTunnelSet),
}


def parse(command: bytes) -> Command:
    """The command in the buffers the device reads, put together.

    CommandError if it is not known, truncated, has surplus bytes, or breaks
    a rule that needs no device to tell.
    """
    if len(command) < 2:
        raise CommandError(f"a command has two bytes or more, not {len(command)}")
    kind, code = command[0], command[1]
    if (kind, code) not in _COMMANDS:
        raise CommandError(f"class {kind} has no command {code} that is known here")
    name, command_type = _COMMANDS[kind, code]
    data = _Reader(bytes(command[2:]))
    try:
        parsed: Command = command_type.read(data, code)
        data.end()
    except CommandError as error:
        raise CommandError(f"{name} {error}") from None
    return parsed


def format_mac(mac: bytes) -> str:
    """``02:00:00:00:00:01``"""
    return mac.hex(":")


def types_json(types: int) -> list[str]:
    """Names of hash types; bits that are none in hexadecimal."""
    return format_hash_types(HashType(types & HashType.ALL)) + _rest(types & ~int(HashType.ALL))


def tunnels_json(types: int) -> list[str]:
    """Names of tunnel types; bits that are none in hexadecimal."""
    known = TunnelType(types & TunnelType.ALL)
    return format_tunnel_types(known) + _rest(types & ~int(TunnelType.ALL))


def bits_json(bits: int) -> list[str]:
    """Names of features; bits that are none in hexadecimal."""
    known = feature_set(bits)
    return format_features(known) + _rest(bits & ~feature_bits(known))


def _rest(bits: int) -> list[str]:
    return [hex(bits)] if bits else []


_QUEUE_ID_MAX = 0x7FFF
"""A queue is 15 bits of ``struct rss_rq_id``; the last one is reserved (5.1.6.5.7.1)."""


def _le(value: int, size: int, what: str) -> bytes:
    try:
        return value.to_bytes(size, "little")
    except OverflowError:
        raise ConfigError(what, f"{value} does not fit into {size} bytes") from None


def _mac(mac: bytes) -> bytes:
    if len(mac) != MAC_LENGTH:
        raise ConfigError("mac", f"must have {MAC_LENGTH} bytes, not {len(mac)}")
    return mac


def _mac_table(macs: tuple[bytes, ...]) -> bytes:
    return _le(len(macs), 4, "entries") + b"".join(_mac(mac) for mac in macs)


def _key(key: bytes) -> bytes:
    return _le(len(key), 1, "hash_key_length") + key


def _read_macs(data: _Reader, what: str) -> tuple[bytes, ...]:
    entries = data.le(4, f"{what} entries")
    macs = data.bytes(MAC_LENGTH * entries, f"the {what} table")
    return tuple(macs[at : at + MAC_LENGTH] for at in range(0, len(macs), MAC_LENGTH))


def _read_key(data: _Reader) -> bytes:
    return data.bytes(data.le(1, "hash_key_length"), "hash_key_data")
