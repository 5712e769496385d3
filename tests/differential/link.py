# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Link layer headers in front of a packet."""

from tests.differential.dice import Dice
from tests.differential.network import IPV4, IPV6

_TAGS = (*(0x8100,) * 10, *(0x88A8,) * 8, 0x9100, 0x9200)
_MORE = (0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3)
_PADDED = 60
"""Bytes of the shortest frame on a wire, without its checksum."""


def ethernet(dice: Dice, ethertype: int, packet: bytes) -> bytes:
    """A frame of whatever kind, with up to three VLAN tags."""
    kind = dice.random()
    if kind < 0.86:
        payload = ethertype.to_bytes(2, "big") + packet
    elif kind < 0.94:
        payload = _llc(dice, ethertype, packet)
    else:
        payload = dice.pick(_ODD)(dice, ethertype, packet)
    tags = b""
    for _ in range(dice.pick(_MORE)):
        # A priority tag has VLAN 0; 802.1Q, 9.6.
        tci = dice.getrandbits(16) if dice.chance(0.7) else dice.below(8) << 13
        tags += (dice.pick(_TAGS) << 16 | tci).to_bytes(4, "big")
    frame = dice.randbytes(12) + tags + payload
    if dice.chance(0.1):
        frame += dice.some(12)
    if len(frame) < _PADDED and dice.chance(0.3):
        frame = frame.ljust(_PADDED, b"\0")
    return frame


_SAPS = (
    *(b"\xaa\xaa\x03\0\0\0",) * 8,  # SNAP, RFC 1042
    b"\xaa\xaa\x03\0\0\xf8",  # bridge tunnel, 802.1H
    b"\xaa\xaa\x03\0\0\x0c",
    b"\xaa\xaa\x02\0\0\0",
    b"\xaa\xab\x03\0\0\0",
    b"\xab\xaa\x03\0\0\0",
    b"\x06\x06\x03",  # IP, RFC 948
    b"\x42\x42\x03",
    b"\xff\xff",
)


def _llc(dice: Dice, ethertype: int, packet: bytes) -> bytes:
    """802.3: a length, LLC, mostly SNAP. The length lies at times."""
    llc = dice.pick(_SAPS)
    data = llc + ethertype.to_bytes(2, "big") + packet if len(llc) == 6 else llc + packet
    length = len(data)
    if dice.chance(0.2):
        length = dice.pick((0, 1, 7, 8, dice.below(length + 1), length + 1, 1500, 1501, 1535, 1536))
    return (length & 0xFFFF).to_bytes(2, "big") + data


def _pppoe(dice: Dice, ethertype: int, packet: bytes) -> bytes:
    """RFC 2516."""
    size = (len(packet) + 2).to_bytes(2, "big")
    kind = b"\0\x21" if ethertype == IPV4 else b"\0\x57"
    return dice.pick((b"\x88\x64", b"\x88\x63")) + b"\x11\0\0\1" + size + kind + packet


def _mpls(dice: Dice, ethertype: int, packet: bytes) -> bytes:
    """RFC 3032: one to three labels, the last one marked."""
    del ethertype
    above = dice.below(3)
    labels = b"".join([(dice.getrandbits(20) << 12 | 64).to_bytes(4, "big") for _ in range(above)])
    last = (dice.getrandbits(20) << 12 | 0x140).to_bytes(4, "big")
    return dice.pick((b"\x88\x47", b"\x88\x48")) + labels + last + packet


def _arp(dice: Dice, ethertype: int, packet: bytes) -> bytes:
    del ethertype, packet
    return b"\x08\x06\0\1\x08\0\6\4\0" + bytes([dice.pick((1, 2))]) + dice.randbytes(20)


def _other_version(dice: Dice, ethertype: int, packet: bytes) -> bytes:
    del dice
    return (IPV4 if ethertype == IPV6 else IPV6).to_bytes(2, "big") + packet


def _other_type(dice: Dice, ethertype: int, packet: bytes) -> bytes:
    del ethertype
    return dice.randbytes(2) + packet


_ODD = (_pppoe, _mpls, _arp, _other_version, _other_type)
