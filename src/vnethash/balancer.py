# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Adapting the indirection table of a tap to its load: looks, decides, moves buckets.

For taps whose owner did not set the table, and never for one that a guest has
programmed. What to move is decided in ``rss.balance``.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vnethash.errors import ConfigError
from vnethash.rss.balance import (
    DEFAULT_TOLERANCE,
    Plan,
    Smoothed,
    check_tolerance,
    imbalance,
    plan,
    queue_loads,
)
from vnethash.rss.config import RssConfig
from vnethash.rss.observed import Observation
from vnethash.stats import Measure


class Balanced(Protocol):
    """A tap whose table may be adapted: Tap, or PinnedTap."""

    @property
    def name(self) -> str: ...

    def observe(self) -> Observation: ...

    def rebalance(self, seen: RssConfig, table: Sequence[int]) -> bool: ...


@dataclass(frozen=True, slots=True)
class Step:
    """What a look at a tap has led to."""

    seconds: float
    """That the look was long; 0 where loads were not known before."""
    packets: int
    """That came meanwhile."""
    plan: Plan | None
    """None while there were too few packets to tell."""
    applied: bool = False
    """The moves of the plan are in force."""

    @property
    def imbalance(self) -> float | None:
        """Load of the busiest queue over the mean, as it was."""
        return imbalance(self.plan.before) if self.plan else None

    @property
    def expected(self) -> float | None:
        """The same as the plan makes it."""
        return imbalance(self.plan.after) if self.plan else None

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        values: dict[str, Any] = {"seconds": round(self.seconds, 3), "packets": self.packets}
        if self.plan is None:
            return values
        return {
            **values,
            "loads": [round(load, 1) for load in self.plan.before],
            "imbalance": round(self.imbalance or 1, 4),
            "expected": round(self.expected or 1, 4),
            "moves": [
                {"bucket": move.bucket, "from": move.source, "to": move.target}
                for move in self.plan.moves
            ],
            "applied": self.applied,
        }


class Balancer:
    """Keeps the queues of a tap evenly loaded; call step() now and then.

    ``tolerance`` is the share of the mean load by which the busiest queue may
    exceed it. A look goes on for as many steps as it takes packets to tell that
    from chance, and loads are smoothed over looks. With ``dry_run`` nothing moves.
    """

    def __init__(
        self,
        tap: Balanced,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
        by: Measure | str = Measure.PACKETS,
        dry_run: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins the first look. Raises ConfigError, and what ``tap.observe()`` raises."""
        self.tap = tap
        self.tolerance = check_tolerance(tolerance)
        self.by = _measure(by)
        self._dry_run = dry_run
        self._clock = clock
        self._smoothed = Smoothed(tolerance)
        self._begin(tap.observe())

    def _begin(self, seen: Observation) -> None:
        self._since, self._last = self._clock(), seen

    def step(self) -> Step:
        """Look, and move buckets if that helps.

        Raises TableOwned as soon as the table is its owner's, or a guest's,
        DeviceError when the tap is gone.
        """
        seen = self.tap.observe()
        if not _same_buckets(seen.rss, self._last.rss):
            self._smoothed.forget()
            self._begin(seen)
            return Step(0.0, 0, None)
        seconds = self._clock() - self._since
        # Of packets and bytes, for buckets and for queues.
        buckets, came = seen.buckets - self._last.buckets, seen.queues - self._last.queues
        packets = int(came[:, 0].sum())
        queues = seen.rss.queues
        if seconds <= 0 or not self._smoothed.tells(packets, queues):
            return Step(seconds, packets, None)
        table = seen.rss.indirection_table
        column = list(Measure).index(self.by)
        loads = buckets[:, column]
        # Of what came to a queue, the table does not move what has no bucket.
        fixed = (came[:, column] - queue_loads(table, loads, queues)).clip(0)
        rates = self._smoothed.add(loads, fixed, seconds)
        found = plan(table, rates[0], queues, fixed=rates[1], tolerance=self.tolerance)
        applied = False
        if found.moves and not self._dry_run:
            applied = self.tap.rebalance(seen.rss, found.apply(table))
            seen = self.tap.observe()
        self._begin(seen)
        return Step(seconds, packets, found, applied)


def _measure(by: Measure | str) -> Measure:
    try:
        return Measure(by)
    except ValueError:
        raise ConfigError("by", f"must be one of {', '.join(Measure)}, not {by!r}") from None


def _same_buckets(one: RssConfig, other: RssConfig) -> bool:
    """Whether a flow has the same bucket, on whatever of the same queues."""

    def hashing(rss: RssConfig) -> tuple[object, ...]:
        return rss.queues, len(rss.indirection_table), rss.hash_types, rss.key, rss.tunnels

    return hashing(one) == hashing(other)
