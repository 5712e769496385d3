# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A small frame builder: Ethernet, VLAN tags, IP, fragments, TCP, UDP, ICMP."""

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPE_ARP = 0x0806
TPID_8021Q = 0x8100
TPID_8021AD = 0x88A8

ICMP = 1
TCP = 6
UDP = 17
FRAGMENT = 44
ICMPV6 = 58
DESTINATION_OPTIONS = 60

PADDING_OPTIONS = bytes([1, 4, 0, 0, 0, 0])
"""A destination options header's content that says nothing: one PadN (RFC 8200, 4.2)."""

_ACK_PSH = 0x18


def checksum(data: bytes) -> int:
    """The ones' complement sum of RFC 1071."""
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(
    source: bytes, destination: bytes, packet: bytes, *, tags: Sequence[tuple[int, int]] = ()
) -> bytes:
    """A frame around an IP packet; ``tags`` are (TPID, VLAN number), outermost first."""
    ethertype = ETHERTYPE_IPV4 if packet[0] >> 4 == 4 else ETHERTYPE_IPV6
    in_band = b"".join(struct.pack("!HH", tpid, number) for tpid, number in tags)
    return destination + source + in_band + struct.pack("!H", ethertype) + packet


def ip(source: Address, destination: Address, protocol: int, payload: bytes) -> bytes:
    """An IPv4 or IPv6 packet, as the addresses are."""
    if isinstance(source, IPv4Address):
        return ipv4(source, destination, protocol, payload)
    header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
    return header + source.packed + destination.packed + payload


def ipv4(
    source: Address,
    destination: Address,
    protocol: int,
    payload: bytes,
    *,
    identification: int = 0,
    fragment: int = 0,
) -> bytes:
    """An IPv4 packet; ``fragment`` is the field of that name: flags, and offset in 8 bytes."""
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(payload),
        identification,
        fragment,
        64,
        protocol,
        0,
        source.packed,
        destination.packed,
    )
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def fragments(
    source: Address, destination: Address, protocol: int, payload: bytes, *, size: int = 1480
) -> list[bytes]:
    """The packets ``payload`` is sent in, ``size`` bytes (a multiple of 8) of it in each."""
    packets = []
    for offset in range(0, len(payload), size):
        part = payload[offset : offset + size]
        more = offset + size < len(payload)
        if isinstance(source, IPv4Address):
            field = offset // 8 | (0x2000 if more else 0)
            packet = ipv4(source, destination, protocol, part, identification=1, fragment=field)
        else:
            header = struct.pack("!BBHI", protocol, 0, offset | more, 1)
            packet = ip(source, destination, FRAGMENT, header + part)
        packets.append(packet)
    return packets


def tcp(source: Address, destination: Address, ports: tuple[int, int], data: bytes = b"") -> bytes:
    """A TCP segment with data."""
    header = struct.pack("!HHIIBBHHH", *ports, 1, 1, 5 << 4, _ACK_PSH, 0xFFFF, 0, 0)
    return _with_checksum(source, destination, TCP, header + data, 16)


def udp(source: Address, destination: Address, ports: tuple[int, int], data: bytes = b"") -> bytes:
    """A UDP datagram."""
    header = struct.pack("!HHHH", *ports, 8 + len(data), 0)
    return _with_checksum(source, destination, UDP, header + data, 6)


def icmp_echo(source: Address, destination: Address, identifier: int, data: bytes = b"") -> bytes:
    """An echo request, ICMP or ICMPv6 as the addresses are."""
    if isinstance(source, IPv4Address):
        message = struct.pack("!BBHHH", 8, 0, 0, identifier, 1) + data
        return _put16(message, 2, checksum(message))
    message = struct.pack("!BBHHH", 128, 0, 0, identifier, 1) + data
    return _with_checksum(source, destination, ICMPV6, message, 2)


def destination_options(protocol: int) -> bytes:
    """A destination options header that says nothing, in front of ``protocol``."""
    return bytes([protocol, 0]) + PADDING_OPTIONS


def _with_checksum(
    source: Address, destination: Address, protocol: int, segment: bytes, offset: int
) -> bytes:
    """`segment` with the sum over it and the pseudo header at `offset` (RFC 9293, RFC 8200)."""
    pseudo = source.packed + destination.packed + struct.pack("!II", len(segment), protocol)
    # UDP writes 0 as all ones; for the others the two are the same.
    return _put16(segment, offset, checksum(pseudo + segment) or 0xFFFF)


def _put16(data: bytes, offset: int, value: int) -> bytes:
    return data[:offset] + struct.pack("!H", value) + data[offset + 2 :]
