# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""IPv4 and IPv6 headers around a payload, right ones and wrong ones."""

import struct

from tests.differential.dice import Dice
from tests.frames import (
    AUTHENTICATION,
    FRAGMENT,
    HIP,
    HOP_BY_HOP,
    MOBILITY,
    OPTIONS,
    ROUTING,
    SHIM6,
)

IPV4, IPV6 = 0x0800, 0x86DD

_IPV4 = struct.Struct("!BBHHHBBH8s")
_IPV6 = struct.Struct("!IHBB32s")
_DF, _MF, _RESERVED = 0x4000, 0x2000, 0x8000


def _declared(dice: Dice, length: int) -> int:
    """A length field: mostly the truth."""
    kind = dice.random()
    if kind < 0.80:
        return length
    if kind < 0.85:
        return 0
    if kind < 0.93:
        return dice.below(length + 1)
    return min(length + 1 + dice.below(dice.pick((4, 99, 0xFFFF))), 0xFFFF)


def _fragment_field(dice: Dice) -> int:
    kind = dice.random()
    if kind < 0.60:
        return 0
    if kind < 0.80:
        return _DF
    if kind < 0.84:
        return _RESERVED | dice.pick((0, _DF))
    offset = dice.pick((0, 1, 2, 0x1FFF, dice.getrandbits(13)))
    return dice.pick((_MF, _MF, 0, _DF | _MF, _RESERVED)) | offset


def ipv4(dice: Dice, protocol: int, payload: bytes) -> bytes:
    """RFC 791."""
    options, words = b"", 5
    if dice.chance(0.2):
        options = dice.pick((b"\x01", b"\0", b"\x44")) * (4 * dice.below(11))
        words += len(options) // 4
        if dice.chance(0.15):  # a length that lies
            words = dice.below(16)
    version = 4 if dice.chance(0.985) else dice.below(16)
    header = _IPV4.pack(
        version << 4 | words,
        dice.getrandbits(8),
        _declared(dice, 20 + len(options) + len(payload)) & 0xFFFF,
        dice.getrandbits(16),
        _fragment_field(dice),
        64,
        protocol,
        0,
        dice.randbytes(8),
    )
    return header + options + payload


def ipv6(dice: Dice, protocol: int, payload: bytes) -> bytes:
    """RFC 8200, with a chain of extension headers in half of all cases."""
    next_header = protocol
    if dice.chance(0.5):
        next_header, payload = _chain(dice, protocol, payload)
    version = 6 if dice.chance(0.985) else dice.below(16)
    return (
        _IPV6.pack(
            version << 28 | dice.getrandbits(28),
            _declared(dice, len(payload)) & 0xFFFF,
            next_header,
            64,
            dice.randbytes(32),
        )
        + payload
    )


_LONGEST = (1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10)


def _chain(dice: Dice, protocol: int, payload: bytes) -> tuple[int, bytes]:
    """Up to ten extension headers, in any order."""
    number = protocol
    for _ in range(dice.pick(_LONGEST)):  # from the inside out
        kind = dice.pick(_KINDS)
        body = _BODIES[kind](dice)
        if dice.chance(0.03):  # a length that lies
            body = bytes([dice.getrandbits(8)]) + body[1:]
        payload = bytes([number]) + body + payload
        number = kind
    return number, payload


# Each makes a header without its next header byte.


def _units(content: bytes) -> bytes:
    """A length in units of 8 bytes, then ``content``, filled up with zeros."""
    units = (len(content) + 9) // 8 - 1
    return bytes([units & 0xFF]) + content.ljust(8 * units + 6, b"\0")


def _hop_by_hop(dice: Dice) -> bytes:
    """RFC 8200, 4.3: padding, a jumbo payload (RFC 2675), router alert."""
    kind = dice.random()
    if kind < 0.3:
        return _units(b"\xc2\x04" + dice.pick((bytes(4), b"\0\1\0\0", dice.randbytes(4))))
    if kind < 0.6:
        return _units(b"\x05\x02\0\0\x01\0")
    return _options(dice)


def _option(dice: Dice) -> bytes:
    kind = dice.random()
    if kind < 0.30:
        return b"\0"  # Pad1
    if kind < 0.55:
        size = dice.below(7)
        return bytes([1, size]) + bytes(size)  # PadN
    if kind < 0.80:
        return b"\xc9\x10" + dice.randbytes(16)
    if kind < 0.90:  # a home address of another length
        size = dice.pick((0, 15, 17, 4))
        return bytes([0xC9, size]) + dice.randbytes(size)
    if kind < 0.96:
        size = dice.below(12)
        return bytes([dice.getrandbits(8), size]) + dice.randbytes(size)
    return dice.randbytes(2)  # likely one that overruns


def _options(dice: Dice) -> bytes:
    """RFC 8200, 4.6; up to eleven options, a home address (RFC 6275, 6.3) at any position."""
    return _units(b"".join([_option(dice) for _ in range(dice.below(12))]))


def _routing(dice: Dice) -> bytes:
    """RFC 8200, 4.4; mostly type 2 (RFC 6275, 6.4), which has one address."""
    if dice.chance(0.6):
        return b"\x02\x02" + bytes([dice.pick((0, 1, 1, 255))]) + bytes(4) + dice.randbytes(16)
    kind = dice.pick((0, 2, 2, 3, 4, 253))
    addresses = dice.below(4)
    units = 2 * addresses if dice.chance(0.7) else dice.below(8)
    body = bytes([kind, dice.below(3)]) + bytes(4) + dice.randbytes(16 * addresses)
    return bytes([units]) + body.ljust(8 * units + 6, b"\0")


def _fragment(dice: Dice) -> bytes:
    """RFC 8200, 4.5: atomic (RFC 6946), first, later, with reserved bits set."""
    kind = dice.random()
    field = 0
    if kind > 0.5:
        field = dice.pick((0, 8, 0xFFF8, dice.getrandbits(16) & 0xFFF8)) | dice.getrandbits(1)
    if kind > 0.9:
        field |= dice.pick((2, 4, 6))
    return bytes([dice.getrandbits(8)]) + field.to_bytes(2, "big") + dice.randbytes(4)


def _authentication(dice: Dice) -> bytes:
    """RFC 4302: the length counts words, less two."""
    words = dice.pick((0, 1, 4, 4, 5, 6))
    return bytes([words]) + dice.randbytes(4 * words + 6)


def _other(dice: Dice) -> bytes:
    """Mobility (RFC 6275, 6.1), HIP (RFC 7401), shim6 (RFC 5533): all count units of 8 bytes."""
    return _units(dice.some(24))


_BODIES = {
    HOP_BY_HOP: _hop_by_hop,
    ROUTING: _routing,
    FRAGMENT: _fragment,
    AUTHENTICATION: _authentication,
    OPTIONS: _options,
    MOBILITY: _other,
    HIP: _other,
    SHIM6: _other,
}
_KINDS = (
    *(HOP_BY_HOP, HOP_BY_HOP, ROUTING, ROUTING, ROUTING, FRAGMENT, AUTHENTICATION),
    *(OPTIONS, OPTIONS, OPTIONS, OPTIONS, MOBILITY, HIP, SHIM6),
)
