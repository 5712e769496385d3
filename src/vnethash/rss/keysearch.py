# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A key that puts heavy flows into different buckets, found by trying.

The heaviest flow and what shares its bucket go to one queue whatever the table
says: where a few flows carry most of the traffic, only another key helps.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vnethash.errors import ConfigError
from vnethash.rss.balance import queue_loads
from vnethash.rss.config import RssConfig
from vnethash.rss.keys import KEY_LENGTH, is_symmetric
from vnethash.rss.makespan import ANY_TABLE, Bound, Loads, Table, Way, heaviest, lower_bound
from vnethash.rss.native import Hasher

Rows = NDArray[np.uint8]

DEFAULT_CANDIDATES = 1024
DEFAULT_TOLERANCE = 0.01
"""Share of the bound by which the busiest queue may exceed it for a key to be good enough."""

_HEAVY = 4096
"""Flows by which a key is judged at first."""
_ROUND = 32
"""Keys that are judged before the best of them are tried on all flows."""
_FINAL = 2
_PERIOD = 2
"""Bytes that repeat in a symmetric key."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is hashed, and how much each weighs.

    ``parts``: inputs of one length each, shape (n, bytes), as ``Hasher.hash_batch``
    takes them, and their weights, shape (n,). ``fixed``: what queues get that is not
    hashed, shape (queues,).
    """

    parts: tuple[tuple[Rows, Loads], ...]
    fixed: Loads

    @property
    def weights(self) -> Loads:
        """Of all flows."""
        return np.concatenate([np.empty(0), *(weights for _, weights in self.parts)])

    def bound(self) -> Bound:
        """What the busiest queue has at least, under any key and any table."""
        return lower_bound(self.weights, len(self.fixed), self.fixed)

    def folded(self) -> "Traffic":
        """The same for symmetric keys, with flows that no such key can part as one.

        A key that repeats every 16 bits adds the same to the hash for a bit of the input as
        for the one 16 bits on. So what is hashed is the sum of the 16-bit words without
        carry, two bytes, whatever the length was.
        """
        sums = np.zeros(1 << 16)
        for rows, weights in self.parts:
            words = np.bitwise_xor.reduce(rows.view(np.uint16), axis=1)
            sums += np.bincount(words, weights, len(sums))
        loaded = np.flatnonzero(sums)
        inputs = loaded.astype(np.uint16).view(np.uint8).reshape(-1, 2)
        return Traffic(((inputs, sums[loaded]),), self.fixed)

    def heaviest(self, count: int) -> "Traffic":
        """Only the ``count`` heaviest flows."""
        kept = heaviest(self.weights, count)
        ends = np.cumsum([0, *(len(weights) for _, weights in self.parts)])
        cuts = np.searchsorted(kept, ends)
        parts = []
        for number, (rows, weights) in enumerate(self.parts):
            chosen = kept[cuts[number] : cuts[number + 1]] - ends[number]
            parts.append((rows[chosen], weights[chosen]))
        return Traffic(tuple(parts), self.fixed)

    def buckets(self, key: bytes, entries: int) -> Loads:
        """What each entry of a table gets under ``key``."""
        hasher = Hasher(RssConfig(1, key=key, indirection_table=(0,)))
        loads = np.zeros(entries)
        for rows, weights in self.parts:
            loads += np.bincount(hasher.hash_batch(rows) & (entries - 1), weights, entries)
        return loads


@dataclass(frozen=True, slots=True)
class Found:
    """A key and a table."""

    key: bytes
    table: Table
    buckets: Loads
    """Load of each entry of the table."""
    busiest: float
    """Load of the busiest queue."""
    tried: int
    """Keys that were looked at."""


def search_key(
    traffic: Traffic,
    entries: int,
    present: bytes,
    *,
    symmetric: bool = False,
    seed: int = 0,
    candidates: int = DEFAULT_CANDIDATES,
    tolerance: float = DEFAULT_TOLERANCE,
    way: Way = ANY_TABLE,
) -> Found:
    """The best of ``candidates`` keys for tables of ``entries``, and its table.

    The ``present`` key comes first, the others are made from the seed. They are judged by
    the heaviest flows, as if the rest were spread evenly, and the best of each
    round by all flows. The first one that brings the busiest queue within the
    tolerance of what any key could do is taken. The same input has the same answer.

    With ``symmetric`` both directions of a flow go to one queue; the present key is a
    candidate only if it does that. Raises ConfigError for fewer candidates than one.
    """
    if candidates < 1:
        raise ConfigError("candidates", f"must be at least 1, not {candidates}")
    if symmetric:
        traffic = traffic.folded()
    enough = traffic.bound().load * (1 + tolerance)
    heavy = traffic.heaviest(_HEAVY)
    rest = (traffic.weights.sum() - heavy.weights.sum()) / entries

    def judged(key: bytes) -> float:
        return way.judge(heavy.buckets(key, entries) + rest, len(traffic.fixed), traffic.fixed)

    found = Found(present, (), np.empty(0), math.inf, 0)
    tried = 0
    for keys in _rounds(present, seed, candidates, symmetric=symmetric):
        tried += len(keys)
        for key in sorted(keys, key=judged)[:_FINAL]:
            loads = traffic.buckets(key, entries)
            table = way.assign(loads, len(traffic.fixed), traffic.fixed)
            busiest = float(queue_loads(table, loads, len(traffic.fixed), traffic.fixed).max())
            if busiest < found.busiest:
                found = Found(key, table, loads, busiest, tried)
        if found.busiest <= enough:
            break
    return dataclasses.replace(found, tried=tried)


def _rounds(
    present: bytes, seed: int, candidates: int, *, symmetric: bool
) -> Iterator[list[bytes]]:
    """The candidates: the present key alone, then made ones, ``_ROUND`` at once."""
    if is_symmetric(present) or not symmetric:
        yield [present]
        candidates -= 1
    length = _PERIOD if symmetric else KEY_LENGTH
    for start in range(0, candidates, _ROUND):
        numbers = range(start, min(start + _ROUND, candidates))
        yield [_made_key(seed, number, length) for number in numbers]


def _made_key(seed: int, number: int, length: int) -> bytes:
    """A key that looks random, the same for ever for the same seed and number."""
    made = hashlib.shake_128(f"vnethash key {seed} {number}".encode()).digest(length)
    return made * (KEY_LENGTH // length)
