# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Hash types (what may be hashed), report types (what was), tunnel types, and their names.

virtio 1.3, 5.1.6.4.3.1, 5.1.6.4.5 and 5.1.6.4.4.
"""

from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import TypeVar

from vnethash.errors import ConfigError


class HashType(IntFlag):
    """VIRTIO_NET_HASH_TYPE_*, a bitmask (virtio 1.3, 5.1.6.4.3.1)."""

    NONE = 0
    IPv4 = 1 << 0
    TCPv4 = 1 << 1
    UDPv4 = 1 << 2
    IPv6 = 1 << 3
    TCPv6 = 1 << 4
    UDPv6 = 1 << 5
    IP_EX = 1 << 6
    TCP_EX = 1 << 7
    UDP_EX = 1 << 8
    ALL = (1 << 9) - 1

    @property
    def report(self) -> "ReportType":
        """The report type of a single hash type.

        ConfigError if this is no type at all, or several.
        """
        if self.bit_count() != 1 or self & ~int(HashType.ALL):  # ~ of a flag has its members only
            raise ConfigError("hash_types", f"{int(self):#x} is not a single hash type")
        return ReportType(self.bit_length())


class ReportType(IntEnum):
    """VIRTIO_NET_HASH_REPORT_* (virtio 1.3, 5.1.6.4.5)."""

    NONE = 0
    IPv4 = 1
    TCPv4 = 2
    UDPv4 = 3
    IPv6 = 4
    TCPv6 = 5
    UDPv6 = 6
    IPv6_EX = 7
    TCPv6_EX = 8
    UDPv6_EX = 9

    @property
    def hash_type(self) -> HashType | None:
        """The hash type it reports: ``1 << (report - 1)``; None for NONE."""
        return HashType(1 << (self - 1)) if self else None


class TunnelType(IntFlag):
    """VIRTIO_NET_HASH_TUNNEL_TYPE_*, a bitmask (virtio 1.3, 5.1.6.4.4).

    Encapsulations whose packets are hashed by their inner headers.
    """

    NONE = 0
    GRE_2784 = 1 << 0
    GRE_2890 = 1 << 1
    GRE_7676 = 1 << 2
    GRE_UDP = 1 << 3
    VXLAN = 1 << 4
    VXLAN_GPE = 1 << 5
    GENEVE = 1 << 6
    IPIP = 1 << 7
    NVGRE = 1 << 8
    ALL = (1 << 9) - 1


_Flags = TypeVar("_Flags", bound=IntFlag)


def _by_name(flags: type[_Flags]) -> dict[str, _Flags]:
    # Iteration gives the single types only.
    return {str(flag.name).lower(): flag for flag in flags} | {
        "all": flags["ALL"],
        "none": flags["NONE"],
    }


_HASH_TYPES = _by_name(HashType)
_TUNNEL_TYPES = _by_name(TunnelType)


def parse_hash_types(text: str) -> HashType:
    """``"TCPv4,IPv4"``, ``"all"`` or ``"none"``, in any case, as a bitmask.

    ConfigError names the first word that is no hash type.
    """
    return _parse(text, _HASH_TYPES, HashType.NONE, "hash_types", "a hash type")


def format_hash_types(types: HashType) -> list[str]:
    """Names of the types in ``types``, in the order of the specification."""
    return [str(member.name) for member in HashType if member in types]


def parse_tunnel_types(text: str) -> TunnelType:
    """``"VXLAN,GENEVE"``, ``"all"`` or ``"none"``, in any case, as a bitmask.

    ConfigError names the first word that is no tunnel type.
    """
    text = text.replace("-", "_")
    return _parse(text, _TUNNEL_TYPES, TunnelType.NONE, "tunnels", "a tunnel type")


def format_tunnel_types(types: TunnelType) -> list[str]:
    """Names of the types in ``types``, in the order of the specification."""
    return [str(member.name) for member in TunnelType if member in types]


def _parse(text: str, by_name: Mapping[str, _Flags], none: _Flags, field: str, what: str) -> _Flags:
    types = none
    for word in text.split(","):
        name = word.strip()
        try:
            types |= by_name[name.lower()]
        except KeyError:
            rule = f"{name!r} is not {what}" if name else "a name is missing"
            names = [str(flag.name) for key, flag in by_name.items() if key not in ("all", "none")]
            hint = f"use all, none, or names of: {','.join(names)}"
            raise ConfigError(field, rule, hint=hint) from None
    return types
