# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Tunnel headers in front of an inner packet or frame, right ones and wrong ones.

Each function is given what to carry and gives back a protocol of IP and its
payload.
"""

from collections.abc import Callable

from tests.differential.dice import Dice
from tests.differential.network import IPV4, IPV6
from tests.differential.transport import TCP, UDP, tcp, udp

ETHERNET = 0x6558
"""Transparent Ethernet bridging, the protocol type of a frame in a tunnel."""

IPIP, IPV6_IN_IP, GRE = 4, 41, 47
GRE_PORT, VXLAN_PORT, GPE_PORT, GENEVE_PORT = 4754, 4789, 4790, 6081
PORTS = (GRE_PORT, 4755, VXLAN_PORT, GPE_PORT, GENEVE_PORT)

Carried = Callable[[int], bytes]
"""Makes what a tunnel carries: a packet (IPV4, IPV6) or a frame (ETHERNET)."""

_PACKETS = (IPV4, IPV4, IPV6, IPV6)
_ANY = (*_PACKETS, ETHERNET, ETHERNET)


def _protocol(dice: Dice, kind: int) -> int:
    """The protocol type of ``kind``, or at times another one."""
    if dice.chance(0.95):
        return kind
    return dice.pick((IPV4, IPV6, ETHERNET, 0x8847, 0x880B, 0, dice.getrandbits(16)))


_CHECKSUM, _ROUTING, _KEY, _SEQUENCE = 0x8000, 0x4000, 0x2000, 0x1000


def _gre_header(dice: Dice, flags: int, protocol: int) -> bytes:
    """RFC 2784 and 2890: fields in the order checksum, key, sequence number."""
    header = (flags << 16 | protocol).to_bytes(4, "big")
    if flags & (_CHECKSUM | _ROUTING):
        header += dice.randbytes(4)
    if flags & _KEY:
        header += dice.randbytes(4)
    if flags & _SEQUENCE:
        header += dice.randbytes(4)
    return header


def _gre_body(dice: Dice, carried: Carried) -> bytes:
    kind = dice.pick(_ANY)
    flags = 0
    if dice.chance(0.6):
        flags = dice.pick((_CHECKSUM, 0)) | dice.pick((_KEY, 0)) | dice.pick((_SEQUENCE, 0))
    if dice.chance(0.08):  # RFC 1701 bits, versions, reserved ones
        flags |= dice.pick((_ROUTING, 1, 1, 2, 7, 0x80, 0x0800, 0x0300, 0x0008))
    return _gre_header(dice, flags, _protocol(dice, kind)) + carried(kind)


def _gre(dice: Dice, carried: Carried) -> tuple[int, bytes]:
    return GRE, _gre_body(dice, carried)


def _nvgre(dice: Dice, carried: Carried) -> tuple[int, bytes]:
    """RFC 7637, 3.2."""
    flags = _KEY if dice.chance(0.9) else dice.pick((0, _KEY | _SEQUENCE, _KEY | _CHECKSUM))
    return GRE, _gre_header(dice, flags, _protocol(dice, ETHERNET)) + carried(ETHERNET)


def _gre_in_udp(dice: Dice, carried: Carried) -> tuple[int, bytes]:
    """RFC 8086."""
    port = GRE_PORT if dice.chance(0.95) else 4755
    return UDP, udp(dice, _gre_body(dice, carried), port)


def _vxlan(dice: Dice, carried: Carried) -> tuple[int, bytes]:
    """RFC 7348, 5."""
    flags = 0x08 if dice.chance(0.88) else dice.getrandbits(8)
    header = bytes([flags]) + (bytes(3) if dice.chance(0.9) else dice.randbytes(3))
    return UDP, udp(dice, header + dice.randbytes(3) + b"\0" + carried(ETHERNET), VXLAN_PORT)


def _vxlan_gpe(dice: Dice, carried: Carried) -> tuple[int, bytes]:
    """draft-ietf-nvo3-vxlan-gpe, 3: I and P set, and the protocol of what follows."""
    kind = dice.pick(_ANY)
    following = {IPV4: 1, IPV6: 2, ETHERNET: 3}[kind]
    flags = 0x0C
    if dice.chance(0.2):  # version, I, P, B, O
        flags = dice.pick((0x08, 0x04, 0x0D, 0x0E, 0x1C, 0x3C, 0x2C, dice.getrandbits(8)))
    if dice.chance(0.08):
        following = dice.pick((0, 1, 2, 3, 4, 5, 0x80, 0xFF))
    header = bytes([flags, 0, 0, following]) + dice.randbytes(3) + b"\0"
    return UDP, udp(dice, header + carried(kind), GPE_PORT)


def _geneve(dice: Dice, carried: Carried) -> tuple[int, bytes]:
    """RFC 8926, 3.4: up to 63 words of options."""
    kind = dice.pick(_ANY)
    words = dice.pick((0, 0, 0, 1, 2, 3, 8, dice.below(64)))
    options = dice.randbytes(4 * words)
    first, second = words, 0
    if dice.chance(0.06):  # a length that lies
        first = dice.below(64)
    if dice.chance(0.06):
        first |= dice.pick((1, 2, 3)) << 6
    if dice.chance(0.1):  # O, C, reserved
        second = dice.pick((0x80, 0x40, 0xC0, 0x3F))
    header = bytes([first, second]) + _protocol(dice, kind).to_bytes(2, "big")
    return UDP, udp(dice, header + dice.randbytes(3) + b"\0" + options + carried(kind), GENEVE_PORT)


def _ipip(dice: Dice, carried: Carried) -> tuple[int, bytes]:
    """RFC 2003, RFC 2473, RFC 4213."""
    kind = dice.pick(_PACKETS)
    number = IPIP if (kind == IPV4) == dice.chance(0.95) else IPV6_IN_IP
    return number, carried(kind)


def _wrong_place(dice: Dice, carried: Carried) -> tuple[int, bytes]:
    """The port of a tunnel where it makes none: as source port, in TCP; or too little behind it."""
    port = dice.pick(PORTS)
    kind = dice.random()
    if kind < 0.3:
        return TCP, tcp(dice, port) + carried(ETHERNET)
    if kind < 0.6:
        turned = bytearray(udp(dice, b"\x08" + bytes(7) + carried(ETHERNET), port))
        turned[0:4] = turned[2:4] + turned[0:2]
        return UDP, bytes(turned)
    if kind < 0.8:
        return UDP, udp(dice, dice.some(17), port)
    return dice.pick((GRE, IPIP, IPV6_IN_IP)), dice.some(24)


_TUNNELS = (
    *(_gre, _gre, _gre, _nvgre, _gre_in_udp, _gre_in_udp, _vxlan, _vxlan),
    *(_vxlan_gpe, _vxlan_gpe, _geneve, _geneve, _ipip, _ipip, _wrong_place),
)


def tunnel(dice: Dice, carried: Carried) -> tuple[int, bytes]:
    """Any of them: protocol and payload of the outer packet."""
    return dice.pick(_TUNNELS)(dice, carried)
