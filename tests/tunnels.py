# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Packets in tunnels of every kind, and some that only look like it.

Each case is an Ethernet frame, the encapsulations it is of, and what is
hashed of it if one of these is enabled.
"""

from dataclasses import dataclass

from tests import frames
from tests.frames import TCP, TRANSPARENT_ETHERNET, UDP
from vnethash.virtio.hash_types import ReportType, TunnelType

IPV4, IPV6 = 0x0800, 0x86DD
GRE, IPV4_IN_IP, IPV6_IN_IP = 47, 4, 41

T = TunnelType


@dataclass(frozen=True)
class Case:
    """One packet."""

    name: str
    frame: bytes
    types: TunnelType
    """The encapsulations it is of; NONE: no tunnel, or none to look into."""
    report: ReportType
    """Of what is inside, all hash types being enabled."""
    hashed: bytes
    """The bytes of the inner headers that are hashed."""


_FROM4, _TO4 = b"\xc0\xa8\0\1", b"\xc0\xa8\0\2"
_FROM6, _TO6 = b"\xfd" + bytes(14) + b"\1", b"\xfd" + bytes(14) + b"\2"
_PORTS = b"\x27\x10\x00\x50"
_TCP = frames.tcp(10000, 80, b"inner")
_UDP = frames.udp(10000, 80, b"inner")

TCP4 = frames.ipv4(_TCP, TCP, source=_FROM4, destination=_TO4)
UDP6 = frames.ipv6(_UDP, UDP, source=_FROM6, destination=_TO6)
ETHERNET_TCP4 = frames.ethernet(IPV4, TCP4)
ETHERNET_UDP6 = frames.ethernet(IPV6, UDP6, ((0x88A8, 2), (0x8100, 3)))
ARP = frames.ethernet(0x0806, bytes(28))

_HASHED_TCP4 = _FROM4 + _TO4 + _PORTS
_HASHED_UDP6 = _FROM6 + _TO6 + _PORTS
_NOTHING = (ReportType.NONE, b"")


def over4(protocol: int, payload: bytes, *, fragment: int = 0, options: bytes = b"") -> bytes:
    """Ethernet and an outer IPv4 header."""
    return frames.ethernet(IPV4, frames.ipv4(payload, protocol, fragment=fragment, options=options))


def over6(protocol: int, payload: bytes, *extensions: tuple[int, bytes]) -> bytes:
    """Ethernet, an outer IPv6 header and its extension headers."""
    first, packet = frames.chain(list(extensions), protocol, payload)
    return frames.ethernet(IPV6, frames.ipv6(packet, first))


def over_udp(port: int, payload: bytes) -> bytes:
    """Ethernet, outer IPv4 and UDP."""
    return over4(UDP, frames.udp(50000, port, payload))


def _tcp4(name: str, frame: bytes, types: TunnelType) -> Case:
    return Case(name, frame, types, ReportType.TCPv4, _HASHED_TCP4)


def _udp6(name: str, frame: bytes, types: TunnelType) -> Case:
    return Case(name, frame, types, ReportType.UDPv6, _HASHED_UDP6)


def _not_ip(name: str, frame: bytes, types: TunnelType) -> Case:
    return Case(name, frame, types, ReportType.NONE, b"")


def _plain(name: str, frame: bytes) -> Case:
    return Case(name, frame, T.NONE, ReportType.NONE, b"")


def _cut(frame: bytes, end: int) -> bytes:
    """The outer IPv4 packet has ``end`` bytes; the frame goes on."""
    return frame[:16] + end.to_bytes(2, "big") + frame[18:]


_LIMIT = frames.extension(0, b"\x04\x01\x04\x01\x00")  # RFC 2473, 4.1.1: encapsulation limit
_VXLAN_TCP4 = over_udp(4789, frames.vxlan(ETHERNET_TCP4))

CASES = [
    # IP in IP
    _tcp4("4in4", over4(IPV4_IN_IP, TCP4), T.IPIP),
    _udp6("6in4", over4(IPV6_IN_IP, UDP6), T.IPIP),
    _tcp4("4in6", over6(IPV4_IN_IP, TCP4), T.IPIP),
    _udp6("6in6", over6(IPV6_IN_IP, UDP6), T.IPIP),
    _udp6("6in6 with an encapsulation limit", over6(IPV6_IN_IP, UDP6, (60, _LIMIT)), T.IPIP),
    _tcp4("4in4 behind options", over4(IPV4_IN_IP, TCP4, options=bytes(40)), T.IPIP),
    _tcp4("4in4 with DF", over4(IPV4_IN_IP, TCP4, fragment=0x4000), T.IPIP),
    _not_ip("4in4 without 4", over4(IPV4_IN_IP, UDP6), T.IPIP),
    _not_ip("6in4 without 6", over4(IPV6_IN_IP, TCP4), T.IPIP),
    _not_ip("4in4 with nothing", over4(IPV4_IN_IP, b""), T.IPIP),
    _plain("first fragment", over4(IPV4_IN_IP, TCP4, fragment=0x2000)),
    _plain("later fragment", over4(IPV4_IN_IP, TCP4, fragment=0x0010)),
    _plain("IPv6 fragment", over6(IPV6_IN_IP, UDP6, (44, frames.fragment(0, True)))),
    _udp6("atomic fragment", over6(IPV6_IN_IP, UDP6, (44, frames.fragment(0, False))), T.IPIP),
    # one level only: the inner packet is a tunnel itself
    Case(
        "two levels",
        over4(IPV4_IN_IP, frames.ipv4(TCP4, IPV4_IN_IP, source=_FROM4, destination=_TO4)),
        T.IPIP,
        ReportType.IPv4,
        _FROM4 + _TO4,
    ),
    # GRE
    _tcp4("GRE", over4(GRE, frames.gre(IPV4, TCP4)), T.GRE_2784),
    _tcp4("GRE with a checksum", over4(GRE, frames.gre(IPV4, TCP4, checksum=True)), T.GRE_2784),
    _tcp4("GRE with a key", over4(GRE, frames.gre(IPV4, TCP4, key=True)), T.GRE_2890),
    _tcp4("GRE with a number", over4(GRE, frames.gre(IPV4, TCP4, sequence=True)), T.GRE_2890),
    _tcp4(
        "GRE with all",
        over4(GRE, frames.gre(IPV4, TCP4, checksum=True, key=True, sequence=True)),
        T.GRE_2890,
    ),
    _tcp4("GRE over IPv6", over6(GRE, frames.gre(IPV4, TCP4)), T.GRE_7676),
    _udp6("GRE over IPv6 with a key", over6(GRE, frames.gre(IPV6, UDP6, key=True)), T.GRE_7676),
    _udp6("IPv6 in GRE", over4(GRE, frames.gre(IPV6, UDP6)), T.GRE_2784 | T.GRE_7676),
    _udp6(
        "IPv6 in GRE with a key",
        over4(GRE, frames.gre(IPV6, UDP6, key=True)),
        T.GRE_2890 | T.GRE_7676,
    ),
    _tcp4(
        "Ethernet in GRE", over4(GRE, frames.gre(TRANSPARENT_ETHERNET, ETHERNET_TCP4)), T.GRE_2784
    ),
    _tcp4("GRE with ignored bits", over4(GRE, frames.gre(IPV4, TCP4, flags=0x03F8)), T.GRE_2784),
    _not_ip("MPLS in GRE", over4(GRE, frames.gre(0x8847, TCP4)), T.GRE_2784),
    _plain("GRE with routing", over4(GRE, frames.gre(IPV4, TCP4, flags=0x4000))),
    _plain("GRE with strict routing", over4(GRE, frames.gre(IPV4, TCP4, flags=0x0800))),
    _plain("GRE with recursion", over4(GRE, frames.gre(IPV4, TCP4, flags=0x0400))),
    _plain("GRE version 1", over4(GRE, frames.gre(0x880B, TCP4, key=True, flags=1))),
    _plain("GRE cut short", over4(GRE, frames.gre(IPV4, b"")[:3])),
    _plain("GRE without its key", over4(GRE, frames.gre(IPV4, b"", key=True)[:7])),
    # NVGRE
    _tcp4(
        "NVGRE",
        over4(GRE, frames.gre(TRANSPARENT_ETHERNET, ETHERNET_TCP4, key=True)),
        T.GRE_2890 | T.NVGRE,
    ),
    _udp6(
        "NVGRE over IPv6",
        over6(GRE, frames.gre(TRANSPARENT_ETHERNET, ETHERNET_UDP6, key=True)),
        T.GRE_7676 | T.NVGRE,
    ),
    _tcp4(
        "Ethernet in GRE with key and number",
        over4(GRE, frames.gre(TRANSPARENT_ETHERNET, ETHERNET_TCP4, key=True, sequence=True)),
        T.GRE_2890,
    ),
    _tcp4(
        "Ethernet in GRE with key and checksum",
        over4(GRE, frames.gre(TRANSPARENT_ETHERNET, ETHERNET_TCP4, key=True, checksum=True)),
        T.GRE_2890,
    ),
    # GRE in UDP
    _tcp4("GRE in UDP", over_udp(4754, frames.gre(IPV4, TCP4)), T.GRE_UDP),
    _udp6("GRE in UDP with a key", over_udp(4754, frames.gre(IPV6, UDP6, key=True)), T.GRE_UDP),
    _udp6(
        "GRE in UDP over IPv6",
        over6(UDP, frames.udp(50000, 4754, frames.gre(IPV6, UDP6))),
        T.GRE_UDP,
    ),
    _plain("GRE version 1 in UDP", over_udp(4754, frames.gre(IPV4, TCP4, flags=1))),
    _plain("GRE in UDP with DTLS", over_udp(4755, frames.gre(IPV4, TCP4))),
    # VXLAN
    _tcp4("VXLAN", _VXLAN_TCP4, T.VXLAN),
    _udp6("VXLAN with tags", over_udp(4789, frames.vxlan(ETHERNET_UDP6)), T.VXLAN),
    _udp6(
        "VXLAN over IPv6",
        over6(UDP, frames.udp(50000, 4789, frames.vxlan(ETHERNET_UDP6))),
        T.VXLAN,
    ),
    _tcp4("VXLAN, reserved bits", over_udp(4789, frames.vxlan(ETHERNET_TCP4, flags=0xFF)), T.VXLAN),
    _not_ip("ARP in VXLAN", over_udp(4789, frames.vxlan(ARP)), T.VXLAN),
    _not_ip("nothing in VXLAN", over_udp(4789, frames.vxlan(b"")), T.VXLAN),
    _plain("VXLAN without an identifier", over_udp(4789, frames.vxlan(ETHERNET_TCP4, flags=0xF7))),
    _plain("VXLAN cut short", over_udp(4789, frames.vxlan(b"")[:7])),
    _plain(
        "from the port of VXLAN", over4(UDP, frames.udp(4789, 50000, frames.vxlan(ETHERNET_TCP4)))
    ),
    _plain(
        "TCP to the port of VXLAN", over4(TCP, frames.tcp(1, 4789, frames.vxlan(ETHERNET_TCP4)))
    ),
    # VXLAN-GPE
    _tcp4("VXLAN-GPE, IPv4", over_udp(4790, frames.vxlan_gpe(1, TCP4)), T.VXLAN_GPE),
    _udp6("VXLAN-GPE, IPv6", over_udp(4790, frames.vxlan_gpe(2, UDP6)), T.VXLAN_GPE),
    _tcp4("VXLAN-GPE, Ethernet", over_udp(4790, frames.vxlan_gpe(3, ETHERNET_TCP4)), T.VXLAN_GPE),
    _tcp4(
        "VXLAN-GPE without a protocol",
        over_udp(4790, frames.vxlan_gpe(1, ETHERNET_TCP4, flags=0x08)),
        T.VXLAN_GPE,
    ),
    _not_ip("VXLAN-GPE, NSH", over_udp(4790, frames.vxlan_gpe(4, TCP4)), T.VXLAN_GPE),
    _plain("VXLAN-GPE, OAM", over_udp(4790, frames.vxlan_gpe(1, TCP4, flags=0x0D))),
    _plain("VXLAN-GPE, version 1", over_udp(4790, frames.vxlan_gpe(1, TCP4, flags=0x1C))),
    # Geneve
    _tcp4("Geneve", over_udp(6081, frames.geneve(TRANSPARENT_ETHERNET, ETHERNET_TCP4)), T.GENEVE),
    _udp6("Geneve, IPv6", over_udp(6081, frames.geneve(IPV6, UDP6)), T.GENEVE),
    _tcp4(
        "Geneve, options", over_udp(6081, frames.geneve(IPV4, TCP4, options=bytes(252))), T.GENEVE
    ),
    _tcp4("Geneve, critical", over_udp(6081, frames.geneve(IPV4, TCP4, second=0x40)), T.GENEVE),
    _plain("Geneve, control", over_udp(6081, frames.geneve(IPV4, TCP4, second=0x80))),
    _plain("Geneve, version 1", over_udp(6081, frames.geneve(IPV4, TCP4, first=0x40))),
    _plain(
        "Geneve, options cut short", over_udp(6081, frames.geneve(IPV4, b"", options=bytes(8))[:-1])
    ),
    _not_ip("Geneve with nothing", over_udp(6081, frames.geneve(IPV4, b"")), T.GENEVE),
    # What is inside ends where the outer packet does
    _tcp4("padding behind the outer packet", _VXLAN_TCP4 + bytes(20), T.VXLAN),
    Case(
        "inner ports behind the outer end",
        _cut(_VXLAN_TCP4, 84),
        T.VXLAN,
        ReportType.IPv4,
        _FROM4 + _TO4,
    ),
    _not_ip("inner addresses behind the outer end", _cut(_VXLAN_TCP4, 69), T.VXLAN),
    _not_ip("inner Ethernet behind the outer end", _cut(_VXLAN_TCP4, 49), T.VXLAN),
    _plain("VXLAN behind the outer end", _cut(_VXLAN_TCP4, 35)),
    # What is no tunnel
    _plain("TCP", frames.ethernet(IPV4, TCP4)),
    _plain("UDP to no port of a tunnel", over_udp(53, frames.vxlan(ETHERNET_TCP4))),
    _plain("UDP cut short", over4(UDP, b"\0\1\x12\xb5\0\0\0")),
    _plain("ESP", over4(50, TCP4)),
]
