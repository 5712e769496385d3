# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A key and an indirection table that even out traffic that was seen."""

import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vnethash.analysis.flows import Flows, is_ipv6
from vnethash.analysis.result import Analysis
from vnethash.errors import ConfigError
from vnethash.rss import balance
from vnethash.rss.config import RssConfig
from vnethash.rss.ethtool import format_table
from vnethash.rss.keys import format_key, is_symmetric
from vnethash.rss.keysearch import (
    DEFAULT_CANDIDATES,
    DEFAULT_TOLERANCE,
    Rows,
    Traffic,
    search_key,
)
from vnethash.rss.makespan import ANY_TABLE, TABLE_OF_RUNS, Bound, Loads, assign_runs
from vnethash.rss.native import Hasher
from vnethash.rss.table import check_entries
from vnethash.stats import Measure
from vnethash.virtio.hash_types import ReportType

_MOST_RENAMED = 256
"""Queues, as many as a tap has; of more there would be too many pairs to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What is wanted of a plan."""

    queues: int | None = None
    """None: as many as there are."""
    entries: int | None = None
    """Of the table; None: as many as it has."""
    measure: Measure = Measure.PACKETS
    symmetric: bool = False
    """Both directions of a flow go to one queue: a key that repeats every 16 bits."""
    keep_key: bool = False
    """Only another table."""
    few_moves: bool = False
    """Of the present table, change as few entries as bring the queues within the tolerance."""
    for_ethtool: bool = False
    """Only tables that ``ethtool -X`` can be told."""
    seed: int = 0
    candidates: int = DEFAULT_CANDIDATES
    """Keys to try at most."""
    tolerance: float | None = None
    """Share of what is best by which the busiest queue may exceed it; with few moves, share
    of the mean. None: 1%, and 10%."""

    def __post_init__(self) -> None:
        if self.few_moves and (self.for_ethtool or self.entries is not None):
            raise ConfigError(
                "few_moves",
                "keeps the present table but for a few entries, so that neither its length "
                "nor what ethtool can set is free",
            )
        if self.entries is not None:
            check_entries(self.entries, "entries")
        if self.tolerance is not None:
            balance.check_tolerance(self.tolerance)

    @property
    def found_within(self) -> float:
        """The tolerance of the search for a key."""
        return self.tolerance or DEFAULT_TOLERANCE


@dataclass(frozen=True)
class TrafficPlan:
    """A configuration, and what the one before and this one make of the same traffic."""

    before: RssConfig
    after: RssConfig
    aim: Aim
    loads_before: tuple[int, ...]
    """Packets or bytes of each queue."""
    loads_after: tuple[int, ...]
    bound: Bound
    """What the busiest queue has at least, whatever the key and the table."""
    moved: float
    """Share of the traffic that goes to another queue than before."""
    tried: int
    """Keys that were looked at."""
    ethtool: "EthtoolPlan | None"
    """What ``ethtool -X`` can set of it; None if that would move more than the few entries
    that were asked for."""

    @property
    def measure(self) -> Measure:
        return self.aim.measure

    @property
    def changed(self) -> bool:
        """Whether there is something to gain."""
        return self.after != self.before

    @property
    def above_bound(self) -> float:
        """Share of the bound by which the busiest queue may exceed the optimum, at most."""
        return max(self.loads_after) / self.bound.load - 1 if self.bound.load else 0.0

    @cached_property
    def moved_entries(self) -> int | None:
        """Entries of the table that change; None if they are not the same buckets."""
        if self.after.key != self.before.key:
            return None
        tables = self.before.indirection_table, self.after.indirection_table
        if len(tables[0]) != len(tables[1]):
            return None
        return sum(old != new for old, new in zip(*tables, strict=True))

    def to_json(self, device: str = "eth0") -> dict[str, Any]:
        """JSON types only."""
        return {
            "by": self.measure.value,
            "symmetric": self.aim.symmetric,
            "changed": self.changed,
            "before": {"rss": self.before.to_json(), **_side(self.loads_before)},
            "after": {"rss": self.after.to_json(), **_side(self.loads_after)},
            "bound": {"load": self.bound.load, "limit": self.bound.limit.value},
            "above_bound": self.above_bound,
            "moved": self.moved,
            "moved_entries": self.moved_entries,
            "keys_tried": self.tried,
            "ethtool": self.ethtool
            and {
                "command": self.ethtool.line(device),
                "same": self.ethtool.rss == self.after,
                "moved": self.ethtool.moved,
                **_side(self.ethtool.loads),
            },
        }


class EthtoolPlan(NamedTuple):
    """The plan, if ``ethtool -X`` can set it, or the evenest table that it can for its key."""

    rss: RssConfig
    loads: tuple[int, ...]
    moved: float
    """Share of the traffic that goes to another queue than before."""

    def line(self, device: str) -> str:
        """The command that sets it on a device, its key too."""
        key, table = format_key(self.rss.key), format_table(self.rss.indirection_table)
        return f"ethtool -X {shlex.quote(device)} hkey {key} {table}"


class Judgement(NamedTuple):
    """What a plan makes of traffic that it was not made from, in its measure."""

    loads_before: tuple[int, ...]
    loads_after: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        return {"before": _side(self.loads_before), "after": _side(self.loads_after)}


def _side(loads: tuple[int, ...]) -> dict[str, Any]:
    return {"loads": list(loads), "imbalance": balance.imbalance(loads)}


def judge(plan: TrafficPlan, other: Analysis) -> Judgement:
    """See whether a plan holds for other traffic.

    Raises ConfigError if that was analysed with other hash types or tunnels.
    """
    measure = plan.measure.value
    return Judgement(
        *(
            tuple(getattr(other.under(rss).by_queue, measure).tolist())
            for rss in (plan.before, plan.after)
        )
    )


def plan_analysis(analysis: Analysis, aim: Aim | None = None) -> TrafficPlan:
    """A plan for what was analysed, from the configuration that it was analysed under.

    Raises ConfigError where what is aimed at contradicts itself or that configuration, and
    for an anonymous analysis: other addresses have other hashes.
    """
    if analysis.anonymous:
        raise ConfigError(
            "analysis",
            "cannot be planned from where the addresses are anonymised",
            hint="plan first, and anonymise then",
        )
    aim = aim or Aim()
    unhashed = int(analysis.unhashed[:, int(aim.measure is Measure.BYTES)].sum())
    return plan_for(analysis.flows, analysis.rss, aim, unhashed=unhashed)


def plan_for(
    flows: Flows, rss: RssConfig, aim: Aim | None = None, *, unhashed: int | None = None
) -> TrafficPlan:
    """A plan for ``flows`` (FLOW_DTYPE), which ``rss`` steers at present.

    ``unhashed``: packets or bytes without a hash, which stay on the unclassified
    queue; None: of the flows without one. The present configuration is kept
    if it is as good as what is found, or within the tolerance, and what is
    aimed at. Hash types and tunnels stay. Raises ConfigError as ``plan_analysis`` does.
    """
    aim = aim or Aim()
    base = _base(rss, aim)
    present = traffic_of(flows, rss, aim.measure, unhashed)
    traffic = Traffic(present.parts, _fixed(base, float(present.fixed.sum())))
    bound = (traffic.folded() if aim.symmetric else traffic).bound()
    loads_before = _queue_loads(present, rss)
    if aim.few_moves:
        after, tried = _few_moves(traffic, base, aim), 1
    else:
        after, tried = _search(traffic, base, aim)
        good = max(*_queue_loads(traffic, after), bound.load * (1 + aim.found_within))
        if _suits(rss, aim) and max(loads_before) <= good:
            after = rss
        can_differ = format_table(after.indirection_table) is None
        if after != rss and can_differ and max(rss.queues, after.queues) <= _MOST_RENAMED:
            after = _renamed(traffic, rss, after)
    return TrafficPlan(
        before=rss,
        after=after,
        aim=aim,
        loads_before=loads_before,
        loads_after=_queue_loads(traffic, after),
        bound=bound,
        moved=_moved(traffic, rss, after),
        tried=tried,
        ethtool=_for_ethtool(traffic, rss, after, aim),
    )


def _for_ethtool(
    traffic: Traffic, before: RssConfig, after: RssConfig, aim: Aim
) -> EthtoolPlan | None:
    if format_table(after.indirection_table) is None:
        if aim.few_moves:
            return None
        buckets = traffic.buckets(after.key, len(after.indirection_table))
        runs = assign_runs(buckets, after.queues, traffic.fixed)
        after = after.replace(indirection_table=runs)
    return EthtoolPlan(after, _queue_loads(traffic, after), _moved(traffic, before, after))


def traffic_of(
    flows: Flows, rss: RssConfig, measure: Measure, unhashed: int | None = None
) -> Traffic:
    """What ``rss`` hashes of ``flows``, and what its unclassified queue gets beside it."""
    amounts = flows[measure.value].astype(np.float64)
    hashed = flows["report"] > ReportType.NONE
    has_ports = (flows["report"] - 1) % 3 > 0  # IPv4, TCPv4, UDPv4, IPv6, ...
    is_six = is_ipv6(flows)
    parts = []
    for chosen, width in ((hashed & ~is_six, 8), (hashed & is_six, 32)):
        some = flows[chosen]
        rows = np.zeros((len(some), width + 4), np.uint8)  # zeros add nothing to a hash
        rows[:, :width] = some["addresses"][:, :width]
        rows[:, width:] = some["ports"] * has_ports[chosen, np.newaxis]
        parts.append((rows, amounts[chosen]))
    rest = float(amounts[~hashed].sum()) if unhashed is None else unhashed
    return Traffic(tuple(parts), _fixed(rss, rest))


def _fixed(rss: RssConfig, unhashed: float) -> Loads:
    """What each queue gets without a hash."""
    fixed = np.zeros(rss.queues)
    fixed[rss.unclassified_queue] = unhashed
    return fixed


def _base(rss: RssConfig, aim: Aim) -> RssConfig:
    """The present configuration with as many queues and entries as are wanted."""
    queues = rss.queues if aim.queues is None else aim.queues
    table = rss.indirection_table
    entries = len(table) if aim.entries is None else aim.entries
    must_keep_key = aim.keep_key or aim.few_moves
    if aim.symmetric and must_keep_key and not is_symmetric(rss.key):
        raise ConfigError(
            "symmetric",
            "needs a key that repeats every 16 bits, and the present one, which is to be kept, "
            "does not",
            hint="leave the choice of the key free",
        )
    if aim.few_moves and max(table) >= queues:
        raise ConfigError(
            "few_moves",
            f"keeps entries of queue {max(table)}, but queues are to be 0 to {queues - 1}",
            hint="plan a new table",
        )
    if not aim.few_moves:
        table = (0,) * entries  # to be filled
    return rss.replace(queues=queues, indirection_table=table)


def _suits(rss: RssConfig, aim: Aim) -> bool:
    """Whether the present configuration is what is aimed at, load aside."""
    table = rss.indirection_table
    return (
        aim.queues in (None, rss.queues)
        and aim.entries in (None, len(table))
        and (is_symmetric(rss.key) or not aim.symmetric)
        and (format_table(table) is not None or not aim.for_ethtool)
    )


def _few_moves(traffic: Traffic, base: RssConfig, aim: Aim) -> RssConfig:
    table = base.indirection_table
    moves = balance.plan(
        table,
        traffic.buckets(base.key, len(table)),
        base.queues,
        fixed=traffic.fixed,
        tolerance=aim.tolerance or balance.DEFAULT_TOLERANCE,
    )
    return base.replace(indirection_table=moves.apply(table))


def _search(traffic: Traffic, base: RssConfig, aim: Aim) -> tuple[RssConfig, int]:
    found = search_key(
        traffic,
        len(base.indirection_table),
        base.key,
        symmetric=aim.symmetric,
        seed=aim.seed,
        candidates=1 if aim.keep_key else aim.candidates,
        tolerance=aim.found_within,
        way=TABLE_OF_RUNS if aim.for_ethtool else ANY_TABLE,
    )
    return base.replace(key=found.key, indirection_table=found.table), found.tried


def _queue_loads(traffic: Traffic, rss: RssConfig) -> tuple[int, ...]:
    buckets = traffic.buckets(rss.key, len(rss.indirection_table))
    loads = balance.queue_loads(rss.indirection_table, buckets, rss.queues, traffic.fixed)
    return tuple(int(load) for load in loads)  # sums of whole numbers


def _renamed(traffic: Traffic, before: RssConfig, after: RssConfig) -> RssConfig:
    """``after`` with its queues numbered so that more stays where it is.

    The queues that share most with a present one choose first. That of packets without
    a hash keeps its number.
    """
    shape = before.queues, after.queues
    shared = np.zeros(before.queues * after.queues)
    for rows, weights in traffic.parts:
        pairs = np.ravel_multi_index((_queues(rows, before), _queues(rows, after)), shape)
        shared += np.bincount(pairs, weights, len(shared))
    numbers = {after.unclassified_queue: after.unclassified_queue}
    free = set(range(after.queues)) - {after.unclassified_queue}
    some = np.flatnonzero(shared)
    for pair in some[np.argsort(-shared[some], kind="stable")].tolist():
        old, new = divmod(pair, after.queues)
        if new not in numbers and old in free:
            numbers[new] = old
            free.remove(old)
    unnumbered = (queue for queue in range(after.queues) if queue not in numbers)
    numbers.update(zip(unnumbered, sorted(free), strict=True))
    return after.replace(indirection_table=[numbers[q] for q in after.indirection_table])


def _moved(traffic: Traffic, before: RssConfig, after: RssConfig) -> float:
    """Share of the hashed traffic that goes to another queue."""
    total = moved = 0.0
    for rows, weights in traffic.parts:
        queues = (_queues(rows, rss) for rss in (before, after))
        moved += float(weights[np.not_equal(*queues)].sum())
        total += float(weights.sum())
    return moved / total if total else 0.0


def _queues(rows: Rows, rss: RssConfig) -> NDArray[np.intp]:
    table = np.array(rss.indirection_table, np.intp)
    buckets: NDArray[np.intp] = table[Hasher(rss).hash_batch(rows) & np.uint32(len(table) - 1)]
    return buckets
