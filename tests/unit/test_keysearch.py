# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Keys that are found, and how even queues are with them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from vnethash.errors import ConfigError
from vnethash.rss import MICROSOFT_KEY, SYMMETRIC_KEY, RssConfig, reference
from vnethash.rss.balance import queue_loads
from vnethash.rss.keys import is_symmetric
from vnethash.rss.keysearch import Traffic, _rounds, search_key
from vnethash.rss.makespan import TABLE_OF_RUNS, judge
from vnethash.rss.native import Hasher


def zipf(flows: int, exponent: float, seed: int = 1, queues: int = 8) -> Traffic:
    """IPv4 and IPv6 flows, the n-th of which has 1/n^exponent of what the first has."""
    dice = np.random.default_rng(seed)
    weights = dice.permutation(np.ceil(1e9 / np.arange(1, flows + 1) ** exponent))
    half = flows // 2
    parts = tuple(
        (dice.integers(0, 256, (len(some), width), np.uint8), some)
        for width, some in ((12, weights[:half]), (36, weights[half:]))
    )
    return Traffic(parts, np.zeros(queues))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.2, 1.6, 2.0])
def test_within_five_per_cent_of_what_any_key_could(exponent: float, symmetric: bool) -> None:
    """The target: skewed traffic, 128 entries, 8 queues."""
    for seed in range(3):
        traffic = zipf(100_000, exponent, seed)
        found = search_key(traffic, 128, MICROSOFT_KEY, symmetric=symmetric)
        assert found.busiest <= 1.05 * traffic.bound().load
        assert len(found.key) == 40
        assert is_symmetric(found.key) == symmetric
        # What it says is so.
        loads = traffic.buckets(found.key, 128)
        assert loads == pytest.approx(found.buckets)
        assert queue_loads(found.table, loads, 8).max() == pytest.approx(found.busiest)


def test_the_present_key_stays_unless_another_is_better() -> None:
    """Two flows that no key parts: all keys are as good, and none is good enough."""
    twice = np.random.default_rng(1).integers(0, 256, (1, 12), np.uint8).repeat(2, axis=0)
    traffic = Traffic(((twice, np.ones(2)),), np.zeros(2))
    found = search_key(traffic, 128, MICROSOFT_KEY, candidates=70)
    assert (found.key, found.tried, found.busiest) == (MICROSOFT_KEY, 70, 2)


def test_of_a_round_the_best_keys_are_tried() -> None:
    """So few flows that all of them judge: none of the round is better."""
    dice = np.random.default_rng(2)
    traffic = Traffic(((dice.integers(0, 256, (40, 12), np.uint8), np.arange(40.0)),), np.zeros(32))
    (present,), round_of_keys = _rounds(MICROSOFT_KEY, 0, 33, symmetric=False)
    found = search_key(traffic, 32, present, candidates=33, tolerance=0)
    loads = [judge(traffic.buckets(key, 32), 32) for key in (present, *round_of_keys)]
    assert found.busiest == min(loads)
    assert min(loads) < min(loads[:3])


def test_another_key_helps_where_no_table_does() -> None:
    """Two flows that the present key has in one bucket carry nearly everything."""
    hasher = Hasher(RssConfig.default(2))
    rows = np.random.default_rng(3).integers(0, 256, (4096, 12), np.uint8)
    buckets = hasher.hash_batch(rows) & 127
    together = np.flatnonzero(buckets == buckets[0])[:2]
    weights = np.ones(len(rows))
    weights[together] = 1e6
    traffic = Traffic(((rows, weights),), np.zeros(2))
    kept = search_key(traffic, 128, MICROSOFT_KEY, candidates=1)
    assert (kept.key, kept.tried) == (MICROSOFT_KEY, 1)
    assert kept.busiest > 1.9 * traffic.bound().load
    found = search_key(traffic, 128, MICROSOFT_KEY)
    assert found.key != MICROSOFT_KEY
    assert found.busiest <= 1.01 * traffic.bound().load
    assert search_key(traffic, 128, MICROSOFT_KEY).key == found.key
    assert search_key(traffic, 128, MICROSOFT_KEY, seed=1).key != found.key


def test_a_key_for_weights_of_ethtool() -> None:
    traffic = zipf(20_000, 1.0)
    found = search_key(traffic, 128, MICROSOFT_KEY, way=TABLE_OF_RUNS, tolerance=0.02)
    assert list(found.table) == sorted(found.table)
    kept = search_key(traffic, 128, MICROSOFT_KEY, way=TABLE_OF_RUNS, candidates=1)
    assert found.busiest < kept.busiest


def test_never_worse_than_the_present_key() -> None:
    for seed in range(5):
        traffic = zipf(64, 0.5, seed)
        kept = search_key(traffic, 16, MICROSOFT_KEY, candidates=1)
        found = search_key(traffic, 16, MICROSOFT_KEY, candidates=70, tolerance=0)
        assert found.busiest <= kept.busiest
        assert found.tried == 70 or found.busiest <= traffic.bound().load


def test_no_more_keys_than_needed() -> None:
    assert search_key(zipf(10_000, 0.8), 128, MICROSOFT_KEY).tried == 1
    assert search_key(zipf(10_000, 0.8), 128, MICROSOFT_KEY, symmetric=True).tried == 32


def test_fixed_load_is_kept_clear_of() -> None:
    traffic = zipf(10_000, 1.0)
    total = traffic.weights.sum()
    loaded = dataclasses.replace(traffic, fixed=np.array([total / 4, *[0.0] * 7]))
    found = search_key(loaded, 128, MICROSOFT_KEY)
    loads = queue_loads(found.table, found.buckets, 8, loaded.fixed)
    assert 0 not in found.table
    assert loads.max() == found.busiest == total / 4


def test_a_symmetric_key_that_is_there_is_a_candidate() -> None:
    traffic = zipf(10_000, 0.5)
    kept = search_key(traffic, 128, SYMMETRIC_KEY, symmetric=True, candidates=1)
    assert (kept.key, kept.tried) == (SYMMETRIC_KEY, 1)
    made = search_key(traffic, 128, MICROSOFT_KEY, symmetric=True, candidates=1)
    assert made.key != MICROSOFT_KEY
    assert is_symmetric(made.key)


@settings(max_examples=examples(60), deadline=None)
@given(
    addresses=st.binary(min_size=8, max_size=8) | st.binary(min_size=32, max_size=32),
    ports=st.binary(min_size=4, max_size=4) | st.just(b""),
    seed=st.integers(0, 1000),
)
def test_both_directions_hash_alike(addresses: bytes, ports: bytes, seed: int) -> None:
    rows = np.frombuffer(addresses + ports, np.uint8).reshape(1, -1)
    traffic = Traffic(((rows, np.ones(1)),), np.zeros(2))
    key = search_key(traffic, 2, MICROSOFT_KEY, symmetric=True, seed=seed, candidates=3).key
    half, port = len(addresses) // 2, len(ports) // 2
    back = addresses[half:] + addresses[:half] + ports[port:] + ports[:port]
    assert reference.toeplitz(key, addresses + ports) == reference.toeplitz(key, back)


def test_what_symmetric_keys_cannot_part_is_one_flow() -> None:
    traffic = zipf(20_000, 1.0)
    folded = traffic.folded()
    assert sum(len(weights) for _, weights in folded.parts) <= 1 << 16
    assert folded.weights.sum() == traffic.weights.sum()
    for key in (SYMMETRIC_KEY, b"\xa1\x3c" * 20):
        assert folded.buckets(key, 512) == pytest.approx(traffic.buckets(key, 512))


def test_the_heaviest_of_all_parts() -> None:
    traffic = zipf(1000, 1.0)
    heavy = traffic.heaviest(10)
    assert sorted(heavy.weights) == sorted(traffic.weights)[-10:]
    for (rows, weights), (all_rows, all_weights) in zip(heavy.parts, traffic.parts, strict=True):
        for row, weight in zip(rows, weights, strict=True):
            assert row.tobytes() in {r.tobytes() for r in all_rows[all_weights == weight]}
    assert traffic.heaviest(1000) is not None
    assert len(traffic.heaviest(5000).weights) == 1000


def test_no_traffic() -> None:
    found = search_key(Traffic((), np.zeros(4)), 8, MICROSOFT_KEY)
    assert found.key == MICROSOFT_KEY
    assert sorted(np.bincount(found.table)) == [2, 2, 2, 2]


def test_there_has_to_be_a_candidate() -> None:
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        search_key(Traffic((), np.zeros(4)), 8, MICROSOFT_KEY, candidates=0)
