# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Indirection tables from numbers of queues and from weights."""

import math
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnethash.errors import ConfigError
from vnethash.rss.table import check_entries, even_table, weighted_table

WEIGHTS = st.lists(st.floats(0, 1e6), min_size=1, max_size=20).filter(any)


@pytest.mark.parametrize(
    ("queues", "entries"), [(1, 128), (3, 128), (128, 128), (129, 256), (257, 512), (32768, 32768)]
)
def test_even(queues: int, entries: int) -> None:
    table = even_table(queues)
    assert len(table) == entries
    assert table[:queues] == tuple(range(queues))
    assert max(Counter(table).values()) - min(Counter(table).values()) <= 1


@pytest.mark.parametrize(
    ("weights", "entries", "counts"),
    [
        ((1, 1), 8, {0: 4, 1: 4}),
        ((3, 1), 4, {0: 3, 1: 1}),
        ((2, 1, 1), 8, {0: 4, 1: 2, 2: 2}),
        ((1,), 4, {0: 4}),
        ((0, 5), 2, {1: 2}),
        ((0.1, 0.2, 0.1), 128, {0: 32, 1: 64, 2: 32}),
    ],
)
def test_weighted(weights: tuple[float, ...], entries: int, counts: dict[int, int]) -> None:
    assert Counter(weighted_table(weights, entries)) == counts


def test_equal_weights_take_turns() -> None:
    assert weighted_table((1, 1, 1, 1)) == even_table(4)


@pytest.mark.parametrize("weights", [(1, 1, 1, 1, 4), (1, 1, 4, 1, 1)])
def test_a_queue_with_half_of_the_entries_gets_every_second(weights: tuple[float, ...]) -> None:
    table = weighted_table(weights, 8)
    assert not any(a == b for a, b in pairwise(table))


def test_each_queue_is_spread_over_the_table() -> None:
    table = weighted_table((6, 1, 1), 128)
    for quarter in range(4):
        assert Counter(table[32 * quarter : 32 * quarter + 32]) == {0: 24, 1: 4, 2: 4}


def test_largest_remainder() -> None:
    # Shares of 8: 3.6, 2.8, 1.6. The two entries left go to .8 and, of equal remainders, to 0.
    assert Counter(weighted_table((4.5, 3.5, 2), 8)) == {0: 4, 1: 3, 2: 1}


@given(WEIGHTS, st.sampled_from([1, 2, 16, 128]))
def test_shares_are_within_one_entry(weights: list[float], entries: int) -> None:
    table = weighted_table(weights, entries)
    assert len(table) == entries
    counts = Counter(table)
    for queue, weight in enumerate(weights):
        share = weight / math.fsum(weights) * entries
        assert share - 1 - 1e-6 < counts[queue] < share + 1 + 1e-6
        assert weight or not counts[queue]


@given(WEIGHTS, st.sampled_from([2, 16, 128]))
def test_neighbours_differ_wherever_they_can(weights: list[float], entries: int) -> None:
    table = weighted_table(weights, entries)
    alike = sum(a == b for a, b in pairwise(table))
    most = max(Counter(table).values())
    assert alike == max(0, most - (entries - most) - 1)


@pytest.mark.parametrize(
    ("weights", "rule"),
    [
        ((), "at least one must be greater than zero"),
        ((0, 0.0), "at least one must be greater than zero"),
        ((1, -1), "must be finite and not negative, but queue 1 has -1"),
        ((math.nan,), "must be finite and not negative, but queue 0 has nan"),
        ((1, 2, math.inf), "must be finite and not negative, but queue 2 has inf"),
    ],
)
def test_bad_weights(weights: tuple[float, ...], rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        weighted_table(weights)
    assert (caught.value.field, caught.value.rule) == ("weights", rule)


@pytest.mark.parametrize("entries", [-1, 0, 3, 127, 65536])
def test_bad_number_of_entries(entries: int) -> None:
    with pytest.raises(
        ConfigError, match=f"entries: .*power of two from 1 to 32768, not {entries}"
    ):
        weighted_table((1, 2), entries)


@pytest.mark.parametrize("power", range(16))
def test_good_numbers_of_entries(power: int) -> None:
    assert check_entries(1 << power) == 1 << power
