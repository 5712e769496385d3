# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""How even tables get: properties, and the optimum by brute force where that can be had."""

from itertools import combinations_with_replacement, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from vnethash.rss import makespan
from vnethash.rss.balance import queue_loads
from vnethash.rss.makespan import (
    ANY_TABLE,
    TABLE_OF_RUNS,
    Limit,
    assign,
    assign_runs,
    heaviest,
    judge,
    lower_bound,
)

Scene = tuple[list[int], int, list[int]]


@st.composite
def scenes(draw: st.DrawFn, most: int = 80, most_queues: int = 8) -> Scene:
    """Weights, queues, fixed loads: whole numbers, so that sums are exact."""
    queues = draw(st.integers(1, most_queues))
    weight = st.integers(0, 9) | st.integers(0, 1000) | st.just(0)
    weights = draw(st.lists(weight, max_size=most))
    fixed = draw(st.just([0] * queues) | st.lists(weight, min_size=queues, max_size=queues))
    return weights, queues, fixed


def busiest(table: tuple[int, ...], weights: list[int], queues: int, fixed: list[int]) -> float:
    return float(queue_loads(table, weights, queues, fixed).max())


def optimum(weights: list[int], queues: int, fixed: list[int]) -> float:
    tables = product(range(queues), repeat=len(weights))
    return min(busiest(table, weights, queues, fixed) for table in tables)


@settings(max_examples=examples(400), deadline=None)
@given(scene=scenes())
def test_every_weight_has_a_queue_and_none_is_less_busy_than_the_bound(scene: Scene) -> None:
    weights, queues, fixed = scene
    bound = lower_bound(weights, queues, fixed).load
    for make, judged in (ANY_TABLE, TABLE_OF_RUNS):
        table = make(np.array(weights), queues, np.array(fixed))
        assert len(table) == len(weights)
        assert all(0 <= queue < queues for queue in table)
        assert busiest(table, weights, queues, fixed) >= bound
        assert make(np.array(weights), queues, np.array(fixed)) == table
        told = judged(np.array(weights), queues, np.array(fixed))
        assert busiest(table, weights, queues, fixed) <= told * (1 + 1e-5)


@settings(max_examples=examples(150), deadline=None)
@given(scene=scenes(most=6, most_queues=3))
def test_against_the_optimum(scene: Scene) -> None:
    weights, queues, fixed = scene
    best = optimum(weights, queues, fixed)
    assert lower_bound(weights, queues, fixed).load <= best
    found = busiest(assign(weights, queues, fixed), weights, queues, fixed)
    ratio = 3 / 2 - 1 / (2 * queues) if any(fixed) else 4 / 3 - 1 / (3 * queues)
    assert found <= ratio * best + 1e-9


@settings(max_examples=examples(150), deadline=None)
@given(scene=scenes(most=8, most_queues=4))
def test_runs_are_the_best_runs(scene: Scene) -> None:
    weights, queues, fixed = scene
    found = assign_runs(weights, queues, fixed)
    assert list(found) == sorted(found)
    tables = combinations_with_replacement(range(queues), len(weights))
    best = min(busiest(table, weights, queues, fixed) for table in tables)
    assert busiest(found, weights, queues, fixed) == best


def usual(table: tuple[int, ...], weights: list[int], queues: int) -> float:
    """The load of the busiest of the queues that have more than one weight."""
    many = [0]
    for queue in range(queues):
        own = [
            weight for weight, its in zip(weights, table, strict=True) if its == queue and weight
        ]
        if len(own) > 1:
            many.append(sum(own))
    return max(many)


@settings(max_examples=examples(150), deadline=None)
@given(scene=scenes(most=8, most_queues=4))
def test_runs_of_several_are_short_too(scene: Scene) -> None:
    weights, queues, _ = scene
    found = assign_runs(weights, queues)
    best = busiest(found, weights, queues, [0] * queues)
    tables = [
        table
        for table in combinations_with_replacement(range(queues), len(weights))
        if busiest(table, weights, queues, [0] * queues) == best
    ]
    assert usual(found, weights, queues) == min(usual(t, weights, queues) for t in tables)


def test_runs_leave_no_queue_out() -> None:
    assert sorted(np.bincount(assign_runs([1] * 9, 8))) == [1, 1, 1, 1, 1, 1, 1, 2]
    assert np.bincount(assign_runs([1] * 128, 100)).tolist().count(1) == 72
    one = [1] * 60 + [500] + [1] * 67
    counts = np.bincount(assign_runs(one, 8))
    assert counts.tolist().count(1) == 1
    assert sorted(counts)[1:] == pytest.approx([18] * 7, abs=2)
    late = [1, 1, 1, 3, 0, 1, 3, 1, 1, 1, 29, 1, 1, 1, 3, 2]  # what comes behind needs no room
    assert min(np.bincount(assign_runs(late, 8, [5, 0, 5, 0, 0, 0, 0, 5]), minlength=8)) == 1


@settings(max_examples=examples(100), deadline=None)
@given(scene=scenes(most=12, most_queues=4))
def test_nothing_that_the_busiest_queue_could_still_exchange(scene: Scene) -> None:
    weights, queues, fixed = scene
    table = assign(weights, queues, fixed)
    loads = queue_loads(table, weights, queues, fixed)
    top = int(loads.argmax())
    if loads[top] <= lower_bound(weights, queues, fixed).load * (1 + 1e-4):
        return
    given = [w for w, queue in zip(weights, table, strict=True) if queue == top]
    for other in set(range(queues)) - {top}:
        taken = [0] + [w for w, queue in zip(weights, table, strict=True) if queue == other]
        for gives, takes in product(given, taken):
            less = gives - takes
            assert max(loads[top] - less, loads[other] + less) >= loads[top]


def test_an_exchange_beats_the_longest_first() -> None:
    weights = [5, 5, 4, 4, 3, 3, 3]  # Graham's worst case, of three queues
    assert judge(weights, 3) == 11
    assert optimum(weights, 3, [0] * 3) == 9
    two = [3, 3, 2, 2, 2]
    assert judge(two, 2) == 7
    assert busiest(assign(two, 2), two, 2, [0] * 2) == 6
    small_gain = [13, 15, 12, 11, 13]  # the best exchange takes half a unit off
    assert busiest(assign(small_gain, 2), small_gain, 2, [0] * 2) == 36


@pytest.mark.parametrize(
    ("weights", "queues", "fixed", "load", "limit"),
    [
        ([1] * 8, 4, None, 2, Limit.EVEN),
        ([7, 1, 1], 3, None, 7, Limit.LARGEST),
        ([3, 3, 3], 2, None, 6, Limit.SHARED),
        ([2, 2, 2, 2, 2], 2, None, 6, Limit.SHARED),  # three of five
        ([1, 1], 2, [9, 0], 9, Limit.FIXED),
        ([4, 4], 3, [6, 0, 1], 6, Limit.FIXED),
        ([3, 3, 3], 3, [9, 1, 0], 9, Limit.FIXED),
        ([2] * 8, 3, [9, 0, 0], 25 / 3, Limit.FIXED),
        ([], 2, None, 0, Limit.EVEN),
    ],
)
def test_what_limits(
    weights: list[int], queues: int, fixed: list[int] | None, load: float, limit: Limit
) -> None:
    if limit is Limit.FIXED:
        load = max(load, max(fixed or ()))
    assert lower_bound(weights, queues, fixed) == (load, limit)


def test_what_is_fixed_counts() -> None:
    assert lower_bound([1] * 10, 3, [6, 1, 0]).load == 6  # 5.5 on each of the two others
    assert lower_bound([1] * 14, 3, [6, 1, 0]).load == 7


def test_what_weighs_nothing_goes_where_there_is_least() -> None:
    table = assign([5, 0, 0, 0, 3, 2, 0, 0], 4)
    assert sorted(np.bincount(table, minlength=4)) == [2, 2, 2, 2]


def test_the_heaviest() -> None:
    assert heaviest([3, 9, 3, 1, 3], 2).tolist() == [0, 1]
    assert heaviest([3, 9, 3, 1, 3], 3).tolist() == [0, 1, 2]
    assert heaviest([1, 2], 3).tolist() == [0, 1]


def test_a_queue_that_only_has_what_is_fixed_has_nothing_to_give() -> None:
    assert assign([1, 1], 2, [5, 0]) == (1, 1)


def test_exchanges_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.random.default_rng(2).integers(1, 1000, 128).tolist()
    most = [0] * 8
    loads = []
    for exchanges in (0, 1, 1000):
        monkeypatch.setattr(makespan, "_EXCHANGES", exchanges)
        loads.append(busiest(assign(weights, 8), weights, 8, most))
    assert loads[0] == judge(weights, 8)
    assert loads[0] > loads[1] > loads[2]


def test_many_queues_end() -> None:
    weights = np.random.default_rng(1).integers(1, 1000, 1024)
    loads = queue_loads(assign(weights, 256), weights, 256)
    assert loads.max() <= 1.01 * lower_bound(weights, 256).load
