# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which buckets are moved: properties, and the optimum by brute force where that can be had."""

import math
from collections.abc import Sequence
from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from vnethash.errors import ConfigError
from vnethash.rss.balance import (
    Plan,
    Smoothed,
    check_tolerance,
    imbalance,
    plan,
    queue_loads,
)


@st.composite
def scenes(
    draw: st.DrawFn, most_buckets: int = 64, most_queues: int = 8
) -> tuple[list[int], list[int], int, list[int]]:
    """Table, loads of buckets, queues, fixed loads: whole numbers, so that sums are exact."""
    queues = draw(st.integers(1, most_queues))
    buckets = draw(st.sampled_from([n for n in (1, 2, 4, 8, 16, 64) if n <= most_buckets]))
    load = st.integers(0, 9) | st.integers(0, 1000) | st.just(0)
    table = draw(st.lists(st.integers(0, queues - 1), min_size=buckets, max_size=buckets))
    loads = draw(st.lists(load, min_size=buckets, max_size=buckets))
    fixed = draw(st.just([0] * queues) | st.lists(load, min_size=queues, max_size=queues))
    return table, loads, queues, fixed


tolerances = st.sampled_from([0.01, 0.05, 0.1, 0.3, 1.0])


@settings(max_examples=examples(500), deadline=None)
@given(scene=scenes(), tolerance=tolerances)
def test_what_any_plan_keeps_to(
    scene: tuple[list[int], list[int], int, list[int]], tolerance: float
) -> None:
    table, loads, queues, fixed = scene
    found = plan(table, loads, queues, fixed=fixed, tolerance=tolerance)
    before = queue_loads(table, loads, queues, fixed)
    after = queue_loads(found.apply(table), loads, queues, fixed)
    assert found.before == tuple(before)
    assert found.after == tuple(after)
    assert imbalance(found.after) <= imbalance(found.before)
    assert plan(table, loads, queues, fixed=fixed, tolerance=tolerance) == found  # no dice
    mean = sum(before) / queues
    buckets = [move.bucket for move in found.moves]
    assert len(set(buckets)) == len(buckets)
    for move in found.moves:
        assert table[move.bucket] == move.source != move.target
        assert loads[move.bucket] > 0
        assert before[move.source] > mean
    if max(before) <= mean * (1 + tolerance):
        assert not found.moves
    if found.moves:
        # None grows into what another was; what is left too busy has nothing that would help.
        limit = mean * (1 + tolerance / 2)
        sources = {move.source for move in found.moves}
        for queue in range(queues):
            kept = [
                loads[b] for b in range(len(table)) if found.apply(table)[b] == table[b] == queue
            ]
            kept = [load for load in kept if load]
            if before[queue] > limit and after[queue] > limit and kept:
                assert after[queue] <= min(after) + min(kept) + 1e-9
            if queue not in sources and before[queue] <= limit:
                assert after[queue] < max(before)


@settings(max_examples=examples(200), deadline=None)
@given(scene=scenes(), tolerance=tolerances)
def test_a_second_plan_finds_nothing_to_do_where_the_first_has_succeeded(
    scene: tuple[list[int], list[int], int, list[int]], tolerance: float
) -> None:
    table, loads, queues, fixed = scene
    found = plan(table, loads, queues, fixed=fixed, tolerance=tolerance)
    if imbalance(found.after) <= 1 + tolerance:
        again = plan(found.apply(table), loads, queues, fixed=fixed, tolerance=tolerance)
        assert not again.moves


def fewest(table: Sequence[int], loads: Sequence[int], queues: int, most: float) -> int:
    """Moves that the best answer takes to bring every queue to at most ``most``: all are tried."""
    busy = [b for b in range(len(table)) if loads[b]]
    for count in range(len(busy) + 1):
        for chosen in combinations(busy, count):
            for targets in product(range(queues), repeat=count):
                moved = list(table)
                for bucket, target in zip(chosen, targets, strict=True):
                    moved[bucket] = target
                if max(queue_loads(moved, loads, queues)) <= most:
                    return count
    raise AssertionError("the plan itself is an answer")


@settings(max_examples=examples(150), deadline=None)
@given(scene=scenes(most_buckets=8, most_queues=3))
def test_moves_are_near_the_fewest(scene: tuple[list[int], list[int], int, list[int]]) -> None:
    table, loads, queues, _ = scene
    found = plan(table, loads, queues)
    # Where a bucket is too heavy for any queue, it stays and many light ones go.
    if found.moves and imbalance(found.after) <= 1.05:
        optimum = fewest(table, loads, queues, max(found.after))
        assert len(found.moves) <= optimum + 1


def test_one_move_where_one_does() -> None:
    # Queue 0 has 40 of 80: the bucket of 20 and not the many of 1.
    table = [0, 0, *[0] * 10, 1]
    found = plan(table, [20, 10, *[1] * 10, 40 - 20], 2, tolerance=0.1)
    assert list(found.before) == [40, 20]
    assert [move.bucket for move in found.moves] == [1]
    assert list(found.after) == [30, 30]


def test_no_heavier_bucket_than_needed() -> None:
    found = plan([0, 0, 0, 1], [11, 13, 26, 26], 2)
    assert [move.bucket for move in found.moves] == [0]
    assert list(found.after) == [39, 37]


def test_an_elephant_stays_and_the_others_leave_it() -> None:
    """A bucket that is more than a queue's share cannot be divided, and is not sent around."""
    table = [0, 0, 0, 1, 1, 2, 2, 3, 3]
    loads = [1000, 20, 30, 40, 50, 45, 45, 40, 50]
    counts = []
    for _ in range(5):
        found = plan(table, loads, 4)
        assert all(move.bucket != 0 for move in found.moves)
        table = list(found.apply(table))
        counts.append(len(found.moves))
    assert counts[0] == 2
    assert counts[1:] == [0] * 4
    assert found.after[0] == 1000


def test_two_elephants_part() -> None:
    found = plan([0, 0, 1, 2], [100, 100, 5, 5], 3)
    assert len(found.moves) == 1
    assert max(found.after) == 105


@pytest.mark.parametrize(
    ("table", "loads", "queues"),
    [
        ([0, 1, 2, 3], [10, 10, 10, 10], 4),  # balanced
        ([0, 1, 2, 3], [0, 0, 0, 0], 4),  # idle
        ([0, 0, 1, 1], [10, 11, 10, 10], 2),  # within the tolerance
        ([0], [7], 1),
    ],
)
def test_nothing_moves(table: list[int], loads: list[int], queues: int) -> None:
    found = plan(table, loads, queues)
    assert found.apply(table) == tuple(table)
    assert len(found.moves) == 0


def test_moves_go_on_to_half_of_the_tolerance() -> None:
    """Or the next packet would bring a queue out of it again."""
    table = [bucket % 2 for bucket in range(200)]
    loads = [12 if bucket % 2 else 8 for bucket in range(200)]
    found = plan(table, loads, 2, tolerance=0.15)
    assert 1 < imbalance(found.after) <= 1.075
    assert not plan(table, loads, 2, tolerance=0.2).moves


def test_load_that_does_not_move_counts() -> None:
    found = plan([0, 0, 1, 1], [10, 10, 10, 10], 2, fixed=[20, 0])
    assert list(found.before) == [40, 20]
    assert list(found.after) == [30, 30]
    assert [(move.source, move.target) for move in found.moves] == [(0, 1)]


def test_imbalance() -> None:
    assert imbalance([30, 10, 20]) == 1.5
    assert imbalance([0, 0]) == 1.0
    assert Plan((), (4.0,), (4.0,)).apply([0]) == (0,)


@pytest.mark.parametrize("tolerance", [0, -1, 0.009, 1.01, math.nan])
def test_tolerances_that_cannot_be(tolerance: float) -> None:
    with pytest.raises(ConfigError, match="tolerance: must be from 1% to 100%"):
        check_tolerance(tolerance)


def test_rates_calm_down_what_jumps() -> None:
    smoothed = Smoothed()
    assert smoothed.add([100, 0], [10], 2.0)[0].tolist() == [50, 0]
    buckets, queues = smoothed.add([100, 100], [0], 1.0)
    assert buckets.tolist() == [75, 50]
    assert queues.tolist() == [2.5]
    smoothed.forget()
    assert smoothed.add([100, 100], [0], 1.0)[0].tolist() == [100, 100]


def test_few_packets_tell_nothing() -> None:
    smoothed = Smoothed(0.1)  # 900 a queue: three times their root is a tenth
    assert not smoothed.tells(4 * 899, 4)
    assert smoothed.tells(4 * 900, 4)
    assert not smoothed.tells(0, 4)


@pytest.mark.parametrize("tolerance", [0, 0.009, 1.01, float("nan")])
def test_tolerances_that_mean_nothing(tolerance: float) -> None:
    with pytest.raises(ConfigError, match="tolerance: must be from 1% to 100%, not"):
        check_tolerance(tolerance)


def test_a_tolerance_is_what_it_was() -> None:
    assert [check_tolerance(share) for share in (0.01, 0.1, 1)] == [0.01, 0.1, 1]
