# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Planning for a million flows: how long it takes, and how far from the bound it ends.

Flows of IPv4 and IPv6 whose packets follow Zipf's law, a table of 128 entries, 8
queues. The distance is that of the busiest queue from what it has at least under any
key and any table.
"""

import time
from functools import partial

import numpy as np

from vnethash.analysis.flows import FLOW_DTYPE, Flows, hash_flows
from vnethash.analysis.planning import Aim, TrafficPlan, plan_for
from vnethash.bench.measure import (
    Advance,
    Effort,
    Row,
    Summary,
    Target,
    interleave,
    pinned,
)
from vnethash.rss.config import RssConfig
from vnethash.rss.native import Hasher
from vnethash.virtio.hash_types import ReportType

NAME = "plan"
FLOWS = 1_000_000
QUEUES = 8
EXPONENTS = (0.8, 1.0, 1.2, 1.5)
"""The flow of rank r has packets in proportion to r ** -exponent."""
AIMS = {
    "key and table": Aim(),
    "symmetric key": Aim(symmetric=True),
    "for ethtool": Aim(for_ethtool=True),
    "table alone": Aim(keep_key=True),
    "few moves": Aim(few_moves=True),
}
_TARGETED = "key and table"
_SECONDS = 1.0
_ABOVE = 0.05
_ROUNDS_MAX = 7


def steps(effort: Effort) -> int:
    return min(effort.rounds, _ROUNDS_MAX) * len(EXPONENTS)


def run(effort: Effort, advance: Advance) -> list[Row]:
    """The same number of flows whatever the effort: the target is about them."""
    rss = RssConfig.default(QUEUES)
    with pinned():
        return [
            row
            for exponent in EXPONENTS
            for row in _case(exponent, rss, min(effort.rounds, _ROUNDS_MAX), advance)
        ]


def zipf_flows(count: int, exponent: float, rss: RssConfig, seed: int = 1) -> Flows:
    """Flows of random addresses and ports, a third of them IPv6; packets by Zipf's law."""
    dice = np.random.default_rng(seed)
    flows = np.zeros(count, FLOW_DTYPE)
    is_six = dice.random(count) < 1 / 3
    flows["kind"] = np.where(is_six, ReportType.TCPv6, ReportType.TCPv4)
    flows["addresses"] = dice.integers(0, 256, (count, 32), np.uint8)
    flows["addresses"][~is_six, 8:] = 0
    flows["ports"] = dice.integers(0, 256, (count, 4), np.uint8)
    flows["packets"] = dice.permutation(np.ceil(1e9 / np.arange(1, count + 1) ** exponent))
    flows["bytes"] = flows["packets"] * np.uint64(1000)
    return hash_flows(flows, Hasher(rss))


def _case(exponent: float, rss: RssConfig, rounds: int, advance: Advance) -> list[Row]:
    flows = zipf_flows(FLOWS, exponent, rss)
    variants = {name: partial(_timed, flows, rss, aim) for name, aim in AIMS.items()}
    measured = interleave(variants, rounds, advance)
    return [_row(exponent, name, results) for name, results in measured.items()]


def _timed(flows: Flows, rss: RssConfig, aim: Aim) -> tuple[float, TrafficPlan]:
    start = time.perf_counter()
    plan = plan_for(flows, rss, aim)
    return time.perf_counter() - start, plan


def _row(exponent: float, name: str, results: list[tuple[float, TrafficPlan]]) -> Row:
    seconds = Summary.of([second for second, _ in results])
    plan = results[0][1]
    parts = {
        "above bound %": 100 * plan.above_bound,
        "before %": 100 * (max(plan.loads_before) / plan.bound.load - 1),
        "moved %": 100 * plan.moved,
        "keys": plan.tried,
    }
    met = seconds.median < _SECONDS and plan.above_bound <= _ABOVE
    return Row(
        NAME,
        f"Zipf {exponent}, 1M flows",
        name,
        "s",
        seconds,
        parts={part: Summary.of([float(value)]) for part, value in parts.items()},
        target=Target(f"< {_SECONDS:.0f} s, <= {_ABOVE:.0%}", met) if name == _TARGETED else None,
    )
