# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Transport headers, and what is none."""

import struct

from tests.differential.dice import Dice

TCP, UDP = 6, 17

OTHERS = (0, 1, 2, 4, 33, 41, 43, 44, 46, 47, 50, 51, 58, 59, 60, 89, 132, 135, 136, 139, 140, 255)
"""Protocols that bring no ports of RSS, some of them IPv6 extension headers."""

_TCP = struct.Struct("!HHIIBBHHH")
_UDP = struct.Struct("!HHHH")


def tcp(dice: Dice, destination: int | None = None) -> bytes:
    """RFC 9293; with options at times, or with a data offset that lies."""
    options = bytes(4 * dice.below(11)) if dice.chance(0.2) else b""
    offset = 5 + len(options) // 4 if dice.chance(0.95) else dice.below(16)
    bits = dice.getrandbits(32)
    port = dice.getrandbits(16) if destination is None else destination
    fixed = _TCP.pack(bits >> 16, port, 1, 0, offset << 4, bits & 0xFF, 1024, bits & 0xFFFF, 0)
    return fixed + options + dice.some(24)


def udp(dice: Dice, payload: bytes, destination: int | None = None) -> bytes:
    """RFC 768; the length is 0 at times, or lies."""
    bits = dice.getrandbits(32)
    port = bits & 0xFFFF if destination is None else destination
    length = 8 + len(payload)
    if dice.chance(0.06):
        length = dice.pick((0, 7, 8, dice.below(length), length + dice.below(99), 0xFFFF))
    return _UDP.pack(bits >> 16, port, length & 0xFFFF, bits >> 8 & 0xFFFF) + payload


def plain(dice: Dice) -> tuple[int, bytes]:
    """A protocol and its packet, which carries no other one."""
    kind = dice.random()
    if kind < 0.40:
        return TCP, tcp(dice)
    if kind < 0.80:
        return UDP, udp(dice, dice.some(24))
    if kind < 0.90:  # a header cut short, or none at all
        return dice.pick((TCP, UDP)), dice.some(21)
    return dice.pick(OTHERS), dice.some(40)
