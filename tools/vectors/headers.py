# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Headers to build the frames of the vectors from, with right lengths and checksums.

What a frame is built of defaults to the same two addresses and ports, so that a
case says only what it is about. Wrong frames are right ones, changed by `put`
and `cut`.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from vnethash.demo.frames import checksum

PORTS = (49200, 443)


def address(text: str) -> bytes:
    """4 or 16 bytes."""
    return ip_address(text).packed


A4, B4 = address("192.0.2.1"), address("198.51.100.2")
A6, B6 = address("2001:db8:1::1"), address("2001:db8:2::2")
"""Source and destination unless a case says otherwise."""

MAC = bytes.fromhex("020000000002020000000001")
"""Destination and source."""


def ports(pair: tuple[int, int] = PORTS) -> bytes:
    """As they are hashed."""
    return struct.pack("!HH", *pair)


def put(data: bytes, offset: int, new: bytes) -> bytes:
    """``data`` with other bytes from ``offset`` on."""
    return data[:offset] + new + data[offset + len(new) :]


def cut(data: bytes, length: int) -> bytes:
    """The first ``length`` bytes; ValueError if there are no more than these."""
    if length >= len(data):
        raise ValueError(f"{len(data)} bytes cut to {length}")
    return data[:length]


@dataclass(frozen=True, slots=True)
class Upper:
    """What an IP header is in front of."""

    number: int
    data: bytes
    checksum_at: int | None = None
    """Of a checksum over the pseudo header too."""

    def cut(self, length: int) -> "Upper":
        return replace(self, data=cut(self.data, length))

    def between(self, source: bytes, destination: bytes) -> bytes:
        """With its checksum (RFC 1071)."""
        at = self.checksum_at
        if at is None or len(self.data) < at + 2:
            return self.data
        pseudo = source + destination + struct.pack("!II", len(self.data), self.number)
        # UDP writes 0 as all ones; for the others the two are the same.
        return put(self.data, at, struct.pack("!H", checksum(pseudo + self.data) or 0xFFFF))


def tcp(
    pair: tuple[int, int] = PORTS, data: bytes = b"vectors!", options: bytes = b"", flags: int = 16
) -> Upper:
    """RFC 9293, 3.1."""
    words = 5 + len(options) // 4
    fixed = struct.pack("!HHIIBBHHH", *pair, 1, 1, words << 4, flags, 0xFFFF, 0, 0)
    return Upper(6, fixed + options + data, 16)


def udp(pair: tuple[int, int] = PORTS, data: bytes = b"vectors!") -> Upper:
    """RFC 768."""
    return Upper(17, struct.pack("!HHHH", *pair, 8 + len(data), 0) + data, 6)


def icmp() -> Upper:
    """An echo request (RFC 792)."""
    message = struct.pack("!BBHHH", 8, 0, 0, 7, 1)
    return Upper(1, put(message, 2, struct.pack("!H", checksum(message))))


def icmpv6() -> Upper:
    """An echo request (RFC 4443)."""
    return Upper(58, struct.pack("!BBHHH", 128, 0, 0, 7, 1), 2)


def other(number: int, data: bytes | None = None) -> Upper:
    """Another protocol; its bytes look like ports, for who takes them for that."""
    return Upper(number, ports((1, 2)) + bytes(28) if data is None else data)


def ipv4(
    upper: Upper,
    *,
    source: bytes = A4,
    destination: bytes = B4,
    options: bytes = b"",
    fragment: int = 0,
    tos: int = 0,
    ttl: int = 64,
    length: int | None = None,
) -> bytes:
    """RFC 791, 3.1; ``fragment`` is the whole field, flags included."""
    payload = upper.between(source, destination)
    total = 20 + len(options) + len(payload) if length is None else length
    words = 5 + len(options) // 4
    header = struct.pack("!BBHHHBBH", 64 | words, tos, total, 1, fragment, ttl, upper.number, 0)
    header += source + destination + options
    return put(header, 10, struct.pack("!H", checksum(header))) + payload


@dataclass(frozen=True, slots=True)
class Extension:
    """An IPv6 extension header, without the number of the next one."""

    number: int
    body: bytes


def ipv6(
    upper: Upper,
    extensions: Sequence[Extension] = (),
    *,
    source: bytes = A6,
    destination: bytes = B6,
    ends: tuple[bytes, bytes] | None = None,
    traffic_class: int = 0,
    flow_label: int = 0,
    length: int | None = None,
) -> bytes:
    """RFC 8200, 3; ``ends`` are the addresses of the pseudo header where these are others."""
    payload = upper.between(*(ends or (source, destination)))
    number = upper.number
    for extension in reversed(extensions):
        payload = bytes([number]) + extension.body + payload
        number = extension.number
    first = 6 << 28 | traffic_class << 20 | flow_label
    size = len(payload) if length is None else length
    return struct.pack("!IHBB", first, size, number, 64) + source + destination + payload


def _padded(number: int, content: bytes) -> Extension:
    """A header whose length is told in units of 8 bytes, less one."""
    units = (len(content) + 2 + 7) // 8 - 1
    return Extension(number, bytes([units]) + content.ljust(8 * units + 6, b"\0"))


def padding(length: int) -> bytes:
    """Pad1 or PadN, ``length`` bytes in all (RFC 8200, 4.2)."""
    return b"\0" if length == 1 else bytes([1, length - 2]) + bytes(length - 2)


HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS = 0, 43, 44, 51, 60
MOBILITY, HOST_IDENTITY, SHIM6 = 135, 139, 140


def hop_by_hop(options: bytes = padding(6)) -> Extension:
    """RFC 8200, 4.3."""
    return _padded(HOP_BY_HOP, options)


def destination_options(options: bytes = padding(6)) -> Extension:
    """RFC 8200, 4.6."""
    return _padded(OPTIONS, options)


def home_address(home: bytes) -> bytes:
    """The option (RFC 6275, 6.3)."""
    return b"\xc9\x10" + home


def mobile_options(home: bytes) -> Extension:
    """Destination options with a home address, aligned at 8n + 6 as RFC 6275, 6.3 wants it."""
    return destination_options(padding(4) + home_address(home))


def routing(kind: int, content: bytes, segments_left: int = 1) -> Extension:
    """RFC 8200, 4.4; ``content`` with the four bytes that are reserved or of the type's own."""
    return _padded(ROUTING, bytes([kind, segments_left]) + content)


def mobile_routing(home: bytes, segments_left: int = 1) -> Extension:
    """Type 2 (RFC 6275, 6.4)."""
    return routing(2, bytes(4) + home, segments_left)


def fragment(offset: int = 0, *, more: bool = False, reserved: int = 0) -> Extension:
    """RFC 8200, 4.5; ``offset`` in units of 8 bytes."""
    field = offset << 3 | reserved << 1 | more
    return Extension(FRAGMENT, struct.pack("!BHI", 0, field, 7))


def authentication(words: int = 3) -> Extension:
    """RFC 4302, 2.2, with an integrity check value of so many 4-byte words."""
    return Extension(
        AUTHENTICATION, bytes([words + 1, 0, 0]) + struct.pack("!II", 256, 1) + bytes(4 * words)
    )


def mobility() -> Extension:
    """A binding refresh request (RFC 6275, 6.1.2), as if something followed it."""
    return _padded(MOBILITY, bytes([0, 0, 0, 0, 0, 0]))


def host_identity() -> Extension:
    """The fixed part of RFC 7401, 5.1."""
    return _padded(HOST_IDENTITY, bytes([1, 0x21]) + bytes(36))


def shim6() -> Extension:
    """A payload extension header (RFC 5533, 5.1)."""
    return _padded(SHIM6, bytes([0x80]) + bytes(5))


def ethernet(
    packet: bytes, ethertype: int | None = None, tags: Sequence[tuple[int, int]] = ()
) -> bytes:
    """A frame around an IP packet or what ``ethertype`` says; tags (TPID, TCI) outer first."""
    if ethertype is None:
        ethertype = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    in_band = b"".join(struct.pack("!HH", *tag) for tag in tags)
    return MAC + in_band + struct.pack("!H", ethertype) + packet


def snap(packet: bytes, ethertype: int, organisation: bytes = bytes(3)) -> bytes:
    """802.3 with LLC and SNAP (RFC 1042)."""
    llc = b"\xaa\xaa\x03" + organisation + struct.pack("!H", ethertype) + packet
    return MAC + struct.pack("!H", len(llc)) + llc


def gre(
    payload: bytes,
    protocol: int | None = None,
    *,
    key: int | None = None,
    sequence: int | None = None,
    sum_present: bool = False,
    version: int = 0,
) -> bytes:
    """RFC 2784 and 2890."""
    if protocol is None:
        protocol = 0x0800 if payload[0] >> 4 == 4 else 0x86DD
    flags = sum_present << 15 | (key is not None) << 13 | (sequence is not None) << 12 | version
    header = struct.pack("!HH", flags, protocol)
    fields = b""
    if key is not None:
        fields += struct.pack("!I", key)
    if sequence is not None:
        fields += struct.pack("!I", sequence)
    if sum_present:
        whole = header + bytes(4) + fields + payload
        fields = struct.pack("!HH", checksum(whole), 0) + fields
    return header + fields + payload


def vxlan(frame: bytes, *, vni: int = 0x1234, flags: int = 8) -> bytes:
    """RFC 7348, 5."""
    return struct.pack("!II", flags << 24, vni << 8) + frame


def vxlan_gpe(payload: bytes, protocol: int, *, flags: int = 0x0C, vni: int = 0x1234) -> bytes:
    """draft-ietf-nvo3-vxlan-gpe, 3; next protocol 1 IPv4, 2 IPv6, 3 Ethernet."""
    return struct.pack("!BBBBI", flags, 0, 0, protocol, vni << 8) + payload


def geneve(
    payload: bytes,
    protocol: int = 0x6558,
    *,
    options: bytes = b"",
    first: int = 0,
    flags: int = 0,
    vni: int = 0x1234,
) -> bytes:
    """RFC 8926, 3.4; ``first`` is added to the first byte, whose upper bits are the version."""
    lead = first | len(options) // 4
    return struct.pack("!BBHI", lead, flags, protocol, vni << 8) + options + payload


GRE_UDP_PORT, VXLAN_PORT, VXLAN_GPE_PORT, GENEVE_PORT = 4754, 4789, 4790, 6081


def over_udp(tunnel: bytes, port: int, source_port: int = 50000) -> Upper:
    """A tunnel header and what is behind it, to that port."""
    return udp((source_port, port), tunnel)


def over_gre(tunnel: bytes) -> Upper:
    """Behind protocol number 47."""
    return Upper(47, tunnel)


def in_ip(packet: bytes) -> Upper:
    """An IP packet behind an IP header (RFC 2003, RFC 2473, RFC 4213)."""
    return Upper(4 if packet[0] >> 4 == 4 else 41, packet)
