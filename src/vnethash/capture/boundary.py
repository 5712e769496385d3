# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Where a record begins, somewhere in the middle of a capture.

A guess: what looks like records in a row may lie within a frame. Whoever guesses
has to see that what comes before ends there.
"""

import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vnethash.capture.format import EPB, IDB, MAX_FRAME, PB, SHB, SPB, CaptureState

WINDOW: Final = 1 << 20
"""Bytes that are enough for a guess: four of the longest frames."""

_CHAIN: Final = 16
"""Records in a row that are believed."""
_LEAST: Final = 2
"""As many, if memory ends behind them."""
_STEP: Final = 1 << 15
_HEAD: Final = 16
_BLOCK_MAX: Final = 1 << 20
# draft-ietf-opsawg-pcapng, 10.1; and blocks of whose kind that says nothing.
_KNOWN: Final = (IDB, PB, SPB, 4, 5, EPB, 7, 8, 9, 10, SHB, 0xBAD, 0x40000BAD)


def guess_boundary(memory: bytes, state: CaptureState, offset: int) -> int | None:
    """Where in ``memory``, which lies at ``offset`` of a capture, the first record begins.

    None if there is nothing like one.
    """
    length: Callable[[int], int]
    if state.is_pcapng:
        starts = _pcapng_starts(memory, state, -offset % 4)
        length = partial(_pcapng_length, memory, state)
    else:
        starts = _pcap_starts(memory, state)
        length = partial(_pcap_length, memory, state)
    for start in starts:
        at, records = start, 0
        while records < _CHAIN and at + _HEAD <= len(memory) and (size := length(at)):
            at, records = at + size, records + 1
        # Where memory ends, that is all there is to see.
        if records == _CHAIN or (at + _HEAD > len(memory) and records >= _LEAST):
            return start
    return None


def _pcap_starts(memory: bytes, state: CaptureState) -> Iterator[int]:
    """Places whose lengths and ticks can be those of a record."""
    ticks = 10 ** state.interfaces[0].tsresol
    for first in range(0, max(0, len(memory) - _HEAD + 1), _STEP):
        part = np.frombuffer(memory, np.uint8)[first : first + _STEP + _HEAD - 1]
        captured = _words(part, 8, state.order)
        good = (captured - 1 < MAX_FRAME) & (_words(part, 4, state.order) < ticks)
        yield from (np.flatnonzero(good) + first).tolist()


def _pcap_length(memory: bytes, state: CaptureState, at: int) -> int:
    """Of the record at ``at``; 0 if there is none."""
    (interface,) = state.interfaces
    _, ticks, captured, original = struct.unpack_from(state.order + "IIII", memory, at)
    if not 0 < captured <= MAX_FRAME or captured > original or ticks >= 10**interface.tsresol:
        return 0
    return int(captured) + _HEAD


def _pcapng_starts(memory: bytes, state: CaptureState, skip: int) -> Iterator[int]:
    """Places, four bytes apart, with the number of a kind of block."""
    count = (len(memory) - skip) // 4
    words = np.frombuffer(memory, state.order + "u4", max(0, count), skip if count > 0 else 0)
    for first in range(0, len(words), _STEP):
        known = np.isin(words[first : first + _STEP], _KNOWN)
        yield from (4 * (np.flatnonzero(known) + first) + skip).tolist()


def _pcapng_length(memory: bytes, state: CaptureState, at: int) -> int:
    """Of the block at ``at``, if that is behind it as well; 0 if there is none."""
    kind, length = struct.unpack_from(state.order + "II", memory, at)
    if kind not in _KNOWN or not 12 <= length <= _BLOCK_MAX or length % 4:
        return 0
    if at + length <= len(memory):
        (again,) = struct.unpack_from(state.order + "I", memory, at + length - 4)
        if again != length:
            return 0
    return int(length)


def _words(memory: NDArray[np.uint8], at: int, order: str) -> NDArray[np.uint32]:
    """Of each place that has `_HEAD` bytes: the four ``at`` bytes behind it, as a number."""
    count = len(memory) - _HEAD + 1
    octets = [memory[at + place : at + place + count].astype(np.uint32) for place in range(4)]
    if order == ">":
        octets.reverse()
    return np.asarray(octets[0] | octets[1] << 8 | octets[2] << 16 | octets[3] << 24, np.uint32)
