# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Where a record begins, somewhere in the middle of a capture.

A guess: what follows each other like records may lie within a frame. Whoever guesses
has to see that what comes before ends there.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vnethash.capture.format import EPB, IDB, MAX_FRAME, PB, SHB, SPB, CaptureState

WINDOW: Final = 1 << 20
"""Bytes that are enough for a guess: four of the longest frames."""

_CHAIN: Final = 16
"""Records in a row that are believed."""
_LEAST: Final = 2
"""As many, if memory ends behind them."""
_BLOCK_MAX: Final = 1 << 20
_RECORD: Final = 16
# Custom blocks aside, those of draft-ietf-opsawg-pcapng, 10.1.
_KNOWN: Final = (IDB, PB, SPB, 4, 5, EPB, 7, 8, 9, 10, SHB, 0xBAD, 0x40000BAD)


def guess_boundary(memory: bytes, state: CaptureState, offset: int) -> int | None:
    """Where in ``memory``, which lies at ``offset`` of a capture, the first record begins.

    None if there is nothing like one.
    """
    find = _pcapng_lengths if state.is_pcapng else _pcap_lengths
    starts, lengths = find(np.frombuffer(memory, np.uint8), state, offset)
    chain = dict(zip(starts.tolist(), lengths.tolist(), strict=True))
    for start in chain:
        at, records = start, 0
        while records < _CHAIN and (length := chain.get(at)):
            at, records = at + length, records + 1
        # What begins too close to the end cannot be judged.
        ends = at + _RECORD > len(memory) or at + chain.get(at, 0) > len(memory)
        if records == _CHAIN or (ends and records >= _LEAST):
            return int(start)
    return None


def _pcap_lengths(
    memory: NDArray[np.uint8], state: CaptureState, offset: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Places that can be the header of a record, and the length of the record."""
    count = len(memory) - _RECORD + 1
    if count <= 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    (interface,) = state.interfaces
    captured, original, ticks = (_words(memory, at, count, state.order) for at in (8, 12, 4))
    good = (captured <= MAX_FRAME) & (ticks < 10**interface.tsresol)
    if interface.snaplen:
        good &= (captured <= interface.snaplen) | (captured <= original)
    # No frame is of no bytes; zeros would be an endless row of such.
    good &= (captured > 0) & (original >= captured)
    starts = np.flatnonzero(good)
    return starts, captured[starts].astype(np.int64) + _RECORD


def _pcapng_lengths(
    memory: NDArray[np.uint8], state: CaptureState, offset: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Places that can be a block of a known type, with its length before and behind."""
    skip = -offset % 4
    words = memory[skip : skip + (len(memory) - skip) // 4 * 4].view(state.order + "u4")
    if len(words) < 3:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    lengths = words[1:].astype(np.int64)
    kinds = words[:-1]
    good = np.isin(kinds, _KNOWN) & (lengths >= 12) & (lengths % 4 == 0) & (lengths <= _BLOCK_MAX)
    starts = np.flatnonzero(good)
    ends = starts + lengths[starts] // 4 - 1
    inside = ends < len(words)
    starts, ends = starts[inside], ends[inside]
    starts = starts[words[ends] == lengths[starts]]
    return 4 * starts + skip, lengths[starts]


def _words(memory: NDArray[np.uint8], at: int, count: int, order: str) -> NDArray[np.uint32]:
    """The 4 bytes behind each of the first ``count`` places and ``at``, as a number."""
    octets = [memory[at + place : at + place + count].astype(np.uint32) for place in range(4)]
    if order == ">":
        octets.reverse()
    return octets[0] | octets[1] << 8 | octets[2] << 16 | octets[3] << 24
