# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which bucket to which queue, so that the busiest queue has least: makespan on identical machines.

The problem is NP-hard (Garey and Johnson 1979, SS8), so there is a heuristic, and
a bound that tells how far from the optimum its answer can be.
"""

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Loads = NDArray[np.float64]
Table = tuple[int, ...]

_CLOSE = 1e-4
"""Share of the bound that is not worth an exchange."""
_EXCHANGES = 1000
_DIGITS = 1e-6
"""Share of a load that halving leaves open."""
_DEEPEST = 64
"""How many of the heaviest have to share a queue, at most, in the bound."""


class Limit(StrEnum):
    """What keeps the busiest queue from having less."""

    EVEN = "even"
    """Nothing: all queues would have the same."""
    LARGEST = "largest"
    """The largest weight, which is on one queue."""
    SHARED = "shared"
    """The largest are more than there are queues, so that some share one."""
    FIXED = "fixed"
    """Load that a queue has anyway."""


class Bound(NamedTuple):
    """A load that the busiest queue has at least, and why."""

    load: float
    limit: Limit


class Way(NamedTuple):
    """A way to make tables."""

    assign: Callable[[Loads, int, Loads], Table]
    judge: Callable[[Loads, int, Loads], float]
    """About what load the busiest queue will have, told with less effort."""


def lower_bound(weights: ArrayLike, queues: int, fixed: ArrayLike | None = None) -> Bound:
    """What the busiest queue has at least, however ``weights`` are put on queues.

    The greatest of: the mean, what is ``fixed`` included; what is fixed to one queue; the
    largest weight; and, for each k, the k + 1 smallest of the k * queues + 1 largest, of which
    some queue has k + 1 (Dell'Amico and Martello, "Optimal scheduling of tasks on identical
    parallel processors", 1995).
    """
    loads = np.asarray(weights, np.float64)
    had = np.zeros(queues) if fixed is None else np.asarray(fixed, np.float64)
    bounds = [(float(loads.sum() + had.sum()) / queues, Limit.EVEN)]
    largest = np.sort(loads[heaviest(loads, _DEEPEST * queues + 1)])[::-1]
    if len(largest):
        bounds.append((float(largest[0]), Limit.LARGEST))
    if len(largest) > queues:
        sums = np.concatenate([[0.0], np.cumsum(largest)])
        sharing = np.arange(1, (len(largest) - 1) // queues + 1)
        ends = sharing * queues + 1
        bounds.append((float((sums[ends] - sums[ends - sharing - 1]).max()), Limit.SHARED))
    bounds.append((float(had.max()), Limit.FIXED))
    return Bound(*max(bounds, key=lambda bound: bound[0]))  # of equal ones the first


def heaviest(weights: ArrayLike, count: int) -> NDArray[np.intp]:
    """Where the ``count`` largest are, in the order in which they lie; of equal ones the first."""
    loads = np.asarray(weights, np.float64)
    if len(loads) <= count:
        return np.arange(len(loads))
    least = -np.partition(-loads, count - 1)[count - 1]
    kept = loads > least
    kept[np.flatnonzero(loads == least)[: count - np.count_nonzero(kept)]] = True
    return np.flatnonzero(kept)


def assign(weights: ArrayLike, queues: int, fixed: ArrayLike | None = None) -> Table:
    """The queue of each weight, so that the busiest queue has little.

    The longest first, to the queue that has least: within 4/3 - 1/(3 queues) of the
    optimum (Graham, "Bounds on multiprocessing timing anomalies", 1969), and within
    3/2 - 1/(2 queues) where queues have ``fixed`` load (Lee, "Parallel machines
    scheduling with nonsimultaneous machine available time", 1991). Then the
    busiest queue gives one of its weights to another queue, or exchanges it, as long
    as that helps, which never makes it worse. What weighs nothing goes
    where there is least of it. The same input has the same answer.
    """
    loads = np.asarray(weights, np.float64)
    had = np.zeros(queues) if fixed is None else np.array(fixed, np.float64)
    table, sums = _longest_first(loads, had)
    _exchange(table, loads, sums, lower_bound(loads, queues, had).load)
    return tuple(table.tolist())


def judge(weights: ArrayLike, queues: int, fixed: ArrayLike | None = None) -> float:
    """The load of the busiest queue as ``assign`` begins: the longest first, no exchange."""
    loads = np.asarray(weights, np.float64)
    had = np.zeros(queues) if fixed is None else np.asarray(fixed, np.float64)
    return float(_longest_first(loads, had)[1].max())


def assign_runs(weights: ArrayLike, queues: int, fixed: ArrayLike | None = None) -> Table:
    """As ``assign``, of tables in which queues come in order, each of them once in a row.

    These are what the weights of ``ethtool -X`` can say. Of them this is the
    best: whether a load is enough is told by filling queue after queue as far as it
    goes, and the least that is enough by halving, to six digits. Of the best ones it is
    one in which the queues that no single weight fills have little, too.
    """
    loads = np.asarray(weights, np.float64)
    had = np.zeros(queues) if fixed is None else np.asarray(fixed, np.float64)
    runs = _Runs(loads, had)
    most = judge_runs(loads, queues, had)
    usual = _least(lambda load: runs.fit(load, most), 0.0, most)
    counts = np.diff(runs.even_ends(usual, most), prepend=0)
    return tuple(np.repeat(np.arange(queues), counts).tolist())


def judge_runs(weights: ArrayLike, queues: int, fixed: ArrayLike | None = None) -> float:
    """The load of the busiest queue after ``assign_runs``."""
    loads = np.asarray(weights, np.float64)
    had = np.zeros(queues) if fixed is None else np.asarray(fixed, np.float64)
    runs = _Runs(loads, had)
    highest = float(had.max() + loads.sum())
    return _least(lambda load: runs.fit(load, load), lower_bound(loads, queues, had).load, highest)


def _least(is_enough: Callable[[float], bool], low: float, high: float) -> float:
    """The least load that is enough, as ``high`` is."""
    while high - low > _DIGITS * high:
        middle = (low + high) / 2
        if is_enough(middle):
            high = middle
        else:
            low = middle
    return high


ANY_TABLE = Way(assign, judge)
TABLE_OF_RUNS = Way(assign_runs, judge_runs)


class _Runs:
    """Weights in a row, cut into a run for each queue.

    A run makes the load of a queue ``usual`` at most, or ``most`` if it has but one weight
    that is not zero.
    """

    def __init__(self, loads: Loads, had: Loads) -> None:
        self._loads = loads
        self._had = had
        self._sums = [0.0, *np.cumsum(loads).tolist()]

    def fit(self, usual: float, most: float) -> bool:
        """Whether there are such runs: each takes as much as it can."""
        end = 0
        for had in self._had.tolist():
            end = self._last_end(end, usual - had, most - had)
        return end == len(self._loads)

    def even_ends(self, usual: float, most: float) -> list[int]:
        """Where the runs end if each takes about an even share of what is left, if that fits."""
        sums = [0.0, *np.cumsum(np.minimum(self._loads, usual)).tolist()]
        needed = self._needed_ends(usual, most)
        ends, start = [], 0
        for queue, had in enumerate(self._had.tolist()):
            rest = sums[-1] - sums[start] + float(self._had[queue:].sum())
            share = rest / (len(self._had) - queue) - had
            end = self._end_of_first(start)
            goal = sums[start] + share
            if goal > sums[end]:
                above = min(bisect_left(sums, goal), len(self._loads))
                end = above - 1 if goal - sums[above - 1] < sums[above] - goal else above
            last = self._last_end(start, usual - had, most - had)
            start = min(max(end, needed[queue]), last)
            ends.append(start)
        return [*ends[:-1], len(self._loads)]

    def _end_of_first(self, start: int) -> int:
        """Where a run from ``start`` ends that has one weight, or less if there is none."""
        zeros = bisect_right(self._sums, self._sums[start]) - 1
        return min(zeros + 1, len(self._loads))

    def _last_end(self, start: int, usual: float, most: float) -> int:
        """How far a run from ``start`` can go."""
        sums = self._sums
        end = max(start, bisect_right(sums, sums[start] + usual) - 1)
        alone = bisect_right(sums, sums[self._end_of_first(start)]) - 1
        return max(end, alone) if sums[alone] - sums[start] <= most else end

    def _needed_ends(self, usual: float, most: float) -> list[int]:
        """Where each run has to end at least, so that the others can take the rest."""
        sums, end = self._sums, len(self._loads)
        ends = []
        for had in reversed(self._had.tolist()):
            ends.append(end)
            start = min(end, bisect_left(sums, sums[end] - (usual - had)))
            before = max(0, bisect_left(sums, sums[end]) - 1)
            alone = bisect_left(sums, sums[before])
            end = min(start, alone) if sums[end] - sums[alone] <= most - had else start
        return ends[::-1]


def _longest_first(loads: Loads, had: Loads) -> tuple[NDArray[np.intp], Loads]:
    """Queue of each weight, load of each queue."""
    table = np.zeros(len(loads), np.intp)
    order = np.argsort(-loads, kind="stable")
    loaded = int(np.count_nonzero(loads > 0))
    queues = [(load, queue) for queue, load in enumerate(had.tolist())]
    heapq.heapify(queues)
    for bucket, weight in zip(order[:loaded].tolist(), loads[order].tolist(), strict=False):
        load, queue = queues[0]
        table[bucket] = queue
        heapq.heapreplace(queues, (load + weight, queue))
    counts = np.bincount(table[order[:loaded]], minlength=len(had)).tolist()
    fewest = [(count, queue) for queue, count in enumerate(counts)]
    heapq.heapify(fewest)
    for bucket in order[loaded:].tolist():
        count, queue = fewest[0]
        table[bucket] = queue
        heapq.heapreplace(fewest, (count + 1, queue))
    sums = np.zeros(len(had))
    for load, queue in queues:
        sums[queue] = load
    return table, sums


def _exchange(table: NDArray[np.intp], loads: Loads, sums: Loads, bound: float) -> None:
    """Take from the busiest queue until it is close to the bound, or nothing helps."""
    for _ in range(_EXCHANGES):
        busiest = int(sums.argmax())
        given = np.flatnonzero((table == busiest) & (loads > 0))
        if sums[busiest] <= bound * (1 + _CLOSE) or not len(given):
            return
        for other in np.argsort(sums, kind="stable").tolist():
            taken = np.flatnonzero((table == other) & (loads > 0))
            pair = _best_pair(loads[given], loads[taken], float(sums[busiest] - sums[other]))
            if pair is not None:
                break
        else:
            return
        gives, takes = given[pair[0]], taken[list(pair[1:])]
        lighter = loads[gives] - loads[takes].sum()
        table[gives], table[takes] = other, busiest
        sums[busiest] -= lighter
        sums[other] += lighter


def _best_pair(given: Loads, taken: Loads, gap: float) -> tuple[int, ...] | None:
    """Of two queues ``gap`` apart what to give, and what to take for it, if anything.

    The difference that is closest to half of the gap leaves the busier of them least
    busy; None if that is no less than before.
    """
    order = np.argsort(taken, kind="stable")
    offers = np.concatenate([[0.0], taken[order]])
    above = np.searchsorted(offers, given - gap / 2)
    places = np.stack([np.maximum(above - 1, 0), np.minimum(above, len(offers) - 1)])
    missed = np.abs(given - offers[places] - gap / 2)
    best = int(missed.argmin())
    if missed.flat[best] >= gap / 2:
        return None
    offer = int(places.flat[best])
    gives = best % len(given)
    return (gives, int(order[offer - 1])) if offer else (gives,)
