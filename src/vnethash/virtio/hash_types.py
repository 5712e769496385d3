# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Hash types (what may be hashed), report types (what was), and their names.

virtio 1.3, 5.1.6.4.3.1 and 5.1.6.4.5.
"""

from enum import IntEnum, IntFlag

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


_BY_NAME: dict[str, HashType] = {str(member.name).lower(): member for member in HashType} | {
    "all": HashType.ALL,
    "none": HashType.NONE,
}


def parse_hash_types(text: str) -> HashType:
    """``"TCPv4,IPv4"``, ``"all"`` or ``"none"``, in any case, as a bitmask.

    ConfigError names the first word that is no hash type.
    """
    types = HashType.NONE
    for word in text.split(","):
        name = word.strip()
        try:
            types |= _BY_NAME[name.lower()]
        except KeyError:
            rule = f"{name!r} is not a hash type" if name else "a name is missing"
            raise ConfigError(
                "hash_types",
                rule,
                hint=f"use all, none, or names of: {','.join(format_hash_types(HashType.ALL))}",
            ) from None
    return types


def format_hash_types(types: HashType) -> list[str]:
    """Names of the types in ``types``, in the order of the specification."""
    return [str(member.name) for member in HashType if member in types]
