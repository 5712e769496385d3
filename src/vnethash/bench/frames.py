# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Frames for the benchmarks: well-formed, checksums left zero (nobody here looks)."""

import struct

IPIP, TCP, UDP, GRE = 4, 6, 17, 47
_VXLAN, _GENEVE = 4789, 6081
_IPV4, _IPV6, _VLAN, _SERVICE_VLAN, _ETHERNET = 0x0800, 0x86DD, 0x8100, 0x88A8, 0x6558
_MORE_FRAGMENTS = 0x2000
_DESTINATION_OPTIONS = 60

SENDER = bytes.fromhex("020000000001")
RECEIVER = bytes.fromhex("020000000002")


def ethernet(kind: int, payload: bytes) -> bytes:
    """From SENDER to RECEIVER."""
    return RECEIVER + SENDER + kind.to_bytes(2, "big") + payload


def ipv4(protocol: int, payload: bytes, *, flow: int = 0, fragment: int = 0) -> bytes:
    """An IPv4 packet; ``flow`` changes the source address."""
    length = 20 + len(payload)
    source, destination = struct.pack(">I", 0x0A000001 + flow), bytes((10, 1, 0, 2))
    fixed = struct.pack(">BBHHHBBH", 0x45, 0, length, 0, fragment, 64, protocol, 0)
    return fixed + source + destination + payload


def ipv6(following: int, payload: bytes, *, flow: int = 0) -> bytes:
    """An IPv6 packet; ``flow`` changes the source address."""
    prefix = bytes.fromhex("20010db80000000000000000")
    fixed = struct.pack(">IHBB", 0x60000000, len(payload), following, 64)
    return fixed + prefix + struct.pack(">I", 1 + flow) + prefix + b"\0\1\0\0" + payload


def transport(protocol: int, size: int, *, flow: int = 0) -> bytes:
    """A TCP or UDP header and ``size`` bytes behind it; ``flow`` changes the source port."""
    ports = struct.pack(">HH", 1024 + flow, 80)
    if protocol == TCP:
        return ports + struct.pack(">IIBBHHH", 1, 1, 0x50, 0x10, 1000, 0, 0) + bytes(size)
    return ports + struct.pack(">HH", 8 + size, 0) + bytes(size)


def udp_to(port: int, payload: bytes) -> bytes:
    """A UDP header with that destination port, and what it carries."""
    return struct.pack(">HHHH", 49152, port, 8 + len(payload), 0) + payload


def tcp4(flow: int, length: int) -> bytes:
    """An Ethernet frame of ``length`` bytes (at least 54) of the TCP connection ``flow``."""
    segment = transport(TCP, length - 54, flow=flow)
    return ethernet(_IPV4, ipv4(TCP, segment, flow=flow))


def tcp6(flow: int, length: int) -> bytes:
    """The same over IPv6, at least 74 bytes."""
    segment = transport(TCP, length - 74, flow=flow)
    return ethernet(_IPV6, ipv6(TCP, segment, flow=flow))


def kinds() -> dict[str, bytes]:
    """A frame of each kind of packet that takes its own way through the dissector.

    By their outer headers; those of tunnels take another where these are looked into.
    """
    tcp, udp = transport(TCP, 32), transport(UDP, 32)
    inner = ipv4(TCP, tcp, flow=1)
    vxlan = struct.pack(">II", 0x08000000, 1 << 8) + ethernet(_IPV4, inner)
    geneve = struct.pack(">HHI", 0, _ETHERNET, 1 << 8) + ethernet(_IPV6, ipv6(TCP, tcp, flow=1))
    tagged = struct.pack(">HH", 5, _IPV4) + ipv4(TCP, tcp)
    twice = struct.pack(">HH", 6, _VLAN) + tagged
    options = bytes((TCP, 0, 1, 4, 0, 0, 0, 0))  # PadN
    return {
        "IPv4/TCP": ethernet(_IPV4, ipv4(TCP, tcp)),
        "IPv6/TCP": ethernet(_IPV6, ipv6(TCP, tcp)),
        "IPv4/UDP": ethernet(_IPV4, ipv4(UDP, udp)),
        "IPv6/UDP": ethernet(_IPV6, ipv6(UDP, udp)),
        "IPv4 fragment": ethernet(_IPV4, ipv4(UDP, udp, fragment=_MORE_FRAGMENTS)),
        "VLAN/IPv4/TCP": ethernet(_VLAN, tagged),
        "QinQ/IPv4/TCP": ethernet(_SERVICE_VLAN, twice),
        "IPv6/options/TCP": ethernet(_IPV6, ipv6(_DESTINATION_OPTIONS, options + tcp)),
        "4in4/TCP": ethernet(_IPV4, ipv4(IPIP, inner)),
        "GRE/IPv4/TCP": ethernet(_IPV4, ipv4(GRE, struct.pack(">HH", 0, _IPV4) + inner)),
        "VXLAN/IPv4/TCP": ethernet(_IPV4, ipv4(UDP, udp_to(_VXLAN, vxlan))),
        "Geneve/IPv6/TCP": ethernet(_IPV4, ipv4(UDP, udp_to(_GENEVE, geneve))),
    }
