# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Evening out the load of queues by moving few entries of the indirection table.

A bucket is an entry of the table: all flows whose masked hash is its index. The
idea is that of RSS++ (Barbette et al., CoNEXT 2019), which does it for NICs.
No I/O here: vnethash.balancer has the counters and the tap.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vnethash.errors import ConfigError

DEFAULT_TOLERANCE = 0.1
"""Share of the mean by which the busiest queue may exceed it."""

_AIM = 0.5
"""Of the tolerance, what is aimed at, so that little does not bring a queue out of it again."""
_SMOOTHING = 0.5
"""Weight of the newest look."""
_SIGMAS = 3.0

Loads = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Move:
    """A bucket that goes from one queue to another."""

    bucket: int
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Moves, and the loads of the queues without and with them."""

    moves: tuple[Move, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]

    def apply(self, table: Sequence[int]) -> tuple[int, ...]:
        """The table with the moves made."""
        moved = list(table)
        for move in self.moves:
            moved[move.bucket] = move.target
        return tuple(moved)


def imbalance(loads: Sequence[float]) -> float:
    """Load of the busiest queue over the mean: 1 at best, and where there is no load."""
    total = math.fsum(loads)
    return max(loads) * len(loads) / total if total > 0 else 1.0


def check_tolerance(tolerance: float) -> float:
    """``tolerance`` itself; ConfigError unless it is from 0.01 to 1."""
    if not 0.01 <= tolerance <= 1:
        raise ConfigError("tolerance", f"must be from 1% to 100%, not {tolerance:.4g}")
    return tolerance


def queue_loads(
    table: Sequence[int], loads: ArrayLike, queues: int, fixed: ArrayLike | None = None
) -> Loads:
    """Load of each queue: of its buckets, and what is ``fixed`` to it."""
    sums = np.zeros(queues) if fixed is None else np.array(fixed, np.float64)
    np.add.at(sums, np.asarray(table, np.intp), np.asarray(loads, np.float64))
    return sums


def plan(
    table: Sequence[int],
    loads: ArrayLike,
    queues: int,
    *,
    fixed: ArrayLike | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
) -> Plan:
    """Few buckets to move so that no queue exceeds the mean by more than the tolerance.

    ``loads`` are of the buckets, not negative; ``fixed`` is load of the queues
    that the table does not move. Nothing moves while the busiest queue is within
    the tolerance. Otherwise buckets move until all queues are within half of it,
    or no move helps; and not at all if that takes less than half of the tolerance
    off what queues have too much.

    The fewest moves are a bin packing problem, and this a greedy answer. The
    busiest queue gives to the least busy one the lightest bucket that makes up for
    its excess, of those that the other has room for, else the heaviest of these;
    where there is room for none, the one that leaves the busier of the two least
    busy. What later moves have made needless is taken back. Where that brings all
    queues to the aim, it rarely takes more moves than the optimum. A bucket that no
    queue has room for stays, with its packets in order, and lighter ones go.

    A bucket moves at most once, and from a queue that was too busy. No queue becomes
    as busy as the one that it takes from was, so the imbalance never grows. A queue
    that stays too busy exceeds the least busy one by no more than the lightest loaded
    bucket it had and has kept. Ties go to the lower number: the same input has the
    same answer.
    """
    weights = np.asarray(loads, np.float64)
    before = queue_loads(table, weights, queues, fixed)
    nothing = Plan((), tuple(before.tolist()), tuple(before.tolist()))
    mean = float(before.mean())
    if not mean > 0 or float(before.max()) <= mean * (1 + tolerance):
        return nothing
    limit = mean * (1 + tolerance * _AIM)
    moves = _moves(table, weights, before, limit)
    done = Plan(tuple(moves), nothing.before, ())
    after = queue_loads(done.apply(table), weights, queues, fixed)
    if _excess(before, limit) - _excess(after, limit) < limit - mean:
        return nothing
    return Plan(done.moves, done.before, tuple(after.tolist()))


def _excess(loads: Loads, limit: float) -> float:
    return float(np.maximum(loads - limit, 0).sum())


def _moves(table: Sequence[int], weights: Loads, before: Loads, limit: float) -> list[Move]:
    now = before.copy()
    loaded = [int(bucket) for bucket in np.argsort(weights, kind="stable") if weights[bucket] > 0]
    left = {  # of each queue that is too busy, what it may give away, lightest first
        int(queue): [bucket for bucket in loaded if table[bucket] == queue]
        for queue in np.flatnonzero(before > limit)
    }
    moves: list[Move] = []
    while True:
        target = int(now.argmin())
        busy = sorted((queue for queue in left if now[queue] > limit), key=lambda q: (-now[q], q))
        for source in busy:
            given = left[source]
            index = _choose(weights[given], float(now[source]), float(now[target]), limit)
            if index is not None:
                break
        else:
            return _needed(moves, weights, now, limit)
        bucket = given.pop(index)
        moves.append(Move(bucket, source, target))
        now[source] -= weights[bucket]
        now[target] += weights[bucket]


def _needed(moves: list[Move], weights: Loads, now: Loads, limit: float) -> list[Move]:
    """The moves less those that a later, heavier one has made needless."""
    needed = set(moves)
    # Where a queue stays too busy, no other may end up less busy than the least busy is:
    # then there would be a move that helps.
    floor = 0.0 if now.max() <= limit else float(now.min())
    for move in sorted(moves, key=lambda move: (weights[move.bucket], move.bucket)):
        weight = weights[move.bucket]
        if now[move.source] + weight <= limit and now[move.target] - weight >= floor:
            needed.remove(move)
            now[move.source] += weight
            now[move.target] -= weight
    return [move for move in moves if move in needed]


def _choose(weights: Loads, source: float, target: float, limit: float) -> int | None:
    """Which of the buckets, lightest first, to move; None if no move helps."""
    if not len(weights):
        return None
    fit = int(np.searchsorted(weights, limit - target, side="right"))
    if fit:
        enough = int(np.searchsorted(weights, source - limit))
        return min(enough, fit - 1)
    busier = np.maximum(source - weights, target + weights)
    best = int(busier.argmin())
    return best if busier[best] < source else None


class Smoothed:
    """Loads of buckets, and of queues without any, as rates that calm down what jumps."""

    def __init__(self, tolerance: float = DEFAULT_TOLERANCE) -> None:
        self._least = (_SIGMAS / tolerance) ** 2
        self.forget()

    def forget(self) -> None:
        """Begin anew: what was seen has nothing to do with what comes."""
        self._rates: tuple[Loads, Loads] | None = None

    def tells(self, packets: int, queues: int) -> bool:
        """Whether so many packets tell an imbalance from chance.

        Of ``n`` packets that come to a queue by chance, one time more and one time
        less, ``3 * sqrt(n)`` are hardly ever exceeded; the tolerance has to be more.
        """
        return packets >= self._least * queues

    def add(self, loads: ArrayLike, fixed: ArrayLike, seconds: float) -> tuple[Loads, Loads]:
        """Rates of buckets and of queues, after a look at what came in ``seconds``."""
        buckets = np.asarray(loads, np.float64) / seconds
        queues = np.asarray(fixed, np.float64) / seconds
        if self._rates is not None and len(self._rates[0]) == len(buckets):
            buckets = self._rates[0] + _SMOOTHING * (buckets - self._rates[0])
            queues = self._rates[1] + _SMOOTHING * (queues - self._rates[1])
        self._rates = buckets, queues
        return self._rates
