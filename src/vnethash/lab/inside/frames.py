# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Frames of every kind that RSS tells apart, and some it does not look into."""

import random
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

from vnethash.demo import frames
from vnethash.demo.frames import TCP, UDP, Address
from vnethash.rss.vectors import Vector

NEAR, FAR = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
_EXPERIMENTAL = 253  # RFC 3692: a protocol nobody hashes
_ROUTING = 43

Make = Callable[[random.Random], bytes]


def groups(count: int, seed: int = 1) -> dict[str, list[bytes]]:
    """By what they are, ``count`` different frames each, the same ones for the same seed."""
    chance = random.Random(seed)
    return {name: [make(chance) for _ in range(count)] for name, make in _KINDS.items()}


def vector(flow: Vector, protocol: int | None) -> bytes:
    """A published vector with that transport, or with none that is hashed."""
    near, far = ip_address(flow.source), ip_address(flow.destination)
    ports = (flow.source_port, flow.destination_port)
    return ethernet(_ip(near, far, protocol, ports))


def ethernet(packet: bytes, *tags: tuple[int, int]) -> bytes:
    return frames.ethernet(NEAR, FAR, packet, tags=tags)


def ipv4(chance: random.Random) -> tuple[Address, Address]:
    """Two addresses that differ from call to call."""
    return IPv4Address(0x0A000000 | chance.getrandbits(24)), IPv4Address(chance.getrandbits(31))


def ipv6(chance: random.Random) -> tuple[Address, Address]:
    return tuple(IPv6Address(0x20 << 120 | chance.getrandbits(112)) for _ in "12")  # type: ignore[return-value]


def packet(
    chance: random.Random,
    addresses: Callable[[random.Random], tuple[Address, Address]],
    protocol: int | None,
    size: int = 20,
) -> bytes:
    """An IP packet of one flow; without a protocol, of one that is hashed by addresses alone."""
    ports = (chance.getrandbits(16), chance.getrandbits(16))
    return _ip(*addresses(chance), protocol, ports, bytes(size))


def _ip(
    near: Address, far: Address, protocol: int | None, ports: tuple[int, int], data: bytes = b""
) -> bytes:
    if protocol is None:
        return frames.ip(near, far, _EXPERIMENTAL, bytes(20) + data)
    segment = (frames.tcp if protocol == TCP else frames.udp)(near, far, ports, data)
    return frames.ip(near, far, protocol, segment)


def _plain(
    addresses: Callable[[random.Random], tuple[Address, Address]],
    protocol: int | None,
    *tags: tuple[int, int],
) -> Make:
    return lambda chance: ethernet(packet(chance, addresses, protocol), *tags)


def _mobile(protocol: int | None) -> Make:
    """IPv6 with a routing header and a home address (RFC 6275, 6.3 and 6.4), and ports."""

    def make(chance: random.Random) -> bytes:
        near, far = ipv6(chance)
        last = _EXPERIMENTAL if protocol is None else protocol
        inner = packet(chance, ipv6, protocol)[40:]
        home = struct.pack("!BB", last, 2) + bytes((1, 2, 0, 0, 201, 16)) + chance.randbytes(16)
        route = struct.pack("!BBBBI", frames.DESTINATION_OPTIONS, 2, 2, 1, 0) + chance.randbytes(16)
        return ethernet(frames.ip(near, far, _ROUTING, route + home + inner))

    return make


def _fragment(addresses: Callable[[random.Random], tuple[Address, Address]], index: int) -> Make:
    def make(chance: random.Random) -> bytes:
        near, far = addresses(chance)
        segment = frames.udp(near, far, (chance.getrandbits(16), 53), bytes(3000))
        return ethernet(frames.fragments(near, far, UDP, segment, size=1200)[index])

    return make


def _options4(chance: random.Random) -> bytes:
    """Ports behind 8 bytes of IPv4 options."""
    plain = packet(chance, ipv4, TCP)
    length = struct.pack("!H", len(plain) + 8)
    return ethernet(b"\x47" + plain[1:2] + length + plain[4:20] + b"\x01" * 7 + b"\0" + plain[20:])


def _options6(chance: random.Random) -> bytes:
    """Ports behind destination options that say nothing."""
    near, far = ipv6(chance)
    segment = frames.udp(near, far, (chance.getrandbits(16), 53), bytes(20))
    options = frames.destination_options(UDP)
    return ethernet(frames.ip(near, far, frames.DESTINATION_OPTIONS, options + segment))


def _not_ip(chance: random.Random) -> bytes:
    kind = chance.choice((frames.ETHERTYPE_ARP, 0x88CC, 0x88B5))
    return FAR + NEAR + struct.pack("!H", kind) + chance.randbytes(46)


_KINDS: dict[str, Make] = {
    "IPv4": _plain(ipv4, None),
    "TCPv4": _plain(ipv4, TCP),
    "UDPv4": _plain(ipv4, UDP),
    "IPv6": _plain(ipv6, None),
    "TCPv6": _plain(ipv6, TCP),
    "UDPv6": _plain(ipv6, UDP),
    "IPv6_EX": _mobile(None),
    "TCPv6_EX": _mobile(TCP),
    "UDPv6_EX": _mobile(UDP),
    "IPv4 fragment, first": _fragment(ipv4, 0),
    "IPv4 fragment, last": _fragment(ipv4, -1),
    "IPv6 fragment, first": _fragment(ipv6, 0),
    "IPv6 fragment, last": _fragment(ipv6, -1),
    "IPv4 options": _options4,
    "IPv6 options": _options6,
    "VLAN": _plain(ipv4, UDP, (frames.TPID_8021Q, 5)),
    "VLAN in VLAN": _plain(ipv6, TCP, (frames.TPID_8021AD, 5), (frames.TPID_8021Q, 6)),
    "not IP": _not_ip,
}
