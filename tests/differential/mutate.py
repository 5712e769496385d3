# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Frames with something wrong in them."""

from tests.differential.dice import Dice

_INTERESTING = (
    *(0x00, 0x01, 0x02, 0x04, 0x06, 0x07, 0x08, 0x0F, 0x10, 0x11, 0x14, 0x18, 0x20, 0x29, 0x2B),
    *(0x2C, 0x2F, 0x33, 0x3B, 0x3C, 0x40, 0x44, 0x45, 0x4F, 0x60, 0x7F, 0x80, 0x81, 0x87, 0x88),
    *(0x8B, 0x8C, 0xAA, 0xC9, 0xFE, 0xFF),
)


def mutated(dice: Dice, frame: bytes, other: bytes) -> bytes:
    """``frame`` with one to three changes; ``other`` is one to splice it with."""
    changed = bytearray(frame)
    for _ in range(dice.pick((1, 1, 1, 2, 3))):
        if not changed:
            break
        dice.pick(_CHANGES)(dice, changed, other)
    return bytes(changed)


def _at(dice: Dice, frame: bytearray) -> int:
    """A place, mostly among the outer headers."""
    size = len(frame)
    return dice.below(min(size, 96) if dice.chance(0.8) else size)


def _cut(dice: Dice, frame: bytearray, other: bytes) -> None:
    del other
    del frame[_at(dice, frame) :]


def _flip(dice: Dice, frame: bytearray, other: bytes) -> None:
    del other
    frame[_at(dice, frame)] ^= 1 << dice.below(8)


def _overwrite(dice: Dice, frame: bytearray, other: bytes) -> None:
    del other
    frame[_at(dice, frame)] = dice.pick(_INTERESTING)


def _overwrite_two(dice: Dice, frame: bytearray, other: bytes) -> None:
    """A field of 16 bits: small, large, or near what is left of the frame."""
    del other
    at = _at(dice, frame)
    left = len(frame) - at
    value = dice.pick((0, 1, left, left + 1, left - 1, 0x7FFF, 0x8000, 0xFFFF, 0x05DC, 0x0600))
    frame[at : at + 2] = (value & 0xFFFF).to_bytes(2, "big")[: max(0, left)]


def _nudge(dice: Dice, frame: bytearray, other: bytes) -> None:
    """A length one too large or too small."""
    del other
    at = _at(dice, frame)
    frame[at] = (frame[at] + dice.pick((-4, -1, 1, 4))) & 0xFF


def _splice(dice: Dice, frame: bytearray, other: bytes) -> None:
    """The start of the one, the end of the other."""
    if other:
        frame[_at(dice, frame) :] = other[dice.below(len(other)) :]


def _double(dice: Dice, frame: bytearray, other: bytes) -> None:
    """A piece of the size of a header once more."""
    del other
    at, size = _at(dice, frame), dice.pick((2, 4, 8, 8, 16, 20, 24, 40))
    frame[at:at] = frame[at : at + size]


def _remove(dice: Dice, frame: bytearray, other: bytes) -> None:
    del other
    at, size = _at(dice, frame), dice.pick((1, 2, 4, 4, 8, 8, 14, 20, 40))
    del frame[at : at + size]


def _lengthen(dice: Dice, frame: bytearray, other: bytes) -> None:
    """A little, or so much that a length of 255 units may be true."""
    if dice.chance(0.1):
        frame += dice.some(2300)
    else:
        frame += other[: dice.below(48)]


_CHANGES = (
    *(_cut, _cut, _flip, _flip, _flip, _overwrite, _overwrite, _overwrite, _overwrite_two),
    *(_nudge, _nudge, _splice, _double, _remove, _lengthen),
)
