# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""How everything is measured: in turn, several times, median and quartiles.

A machine drifts: its clock, its caches, its neighbours. So variants that are
compared take turns within one run, a ratio is taken within a round, and what
is reported is the median over rounds with the quartiles around it.
"""

import os
import reprlib
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vnethash.errors import VnethashError

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

Advance = Callable[[], None]
"""To be called once a round, for the progress bar."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int
    """Turns of each variant."""
    work: float = 1.0
    """Work in a turn, as a share of the usual."""

    def share(self, usual: int) -> int:
        """``usual`` repetitions, scaled; at least one."""
        return max(1, round(usual * self.work))


FULL = Effort(rounds=21)
QUICK = Effort(rounds=5, work=0.2)


@dataclass(frozen=True, slots=True)
class Summary:
    """Median and quartiles of ``count`` values."""

    median: float
    low: float
    """First quartile."""
    high: float
    """Third quartile."""
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Summary":
        """Of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))

    def to_json(self) -> dict[str, Any]:
        digits = {"median": self.median, "low": self.low, "high": self.high}
        return {
            **{name: round(float(value), 5) for name, value in digits.items()},
            "count": self.count,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Summary":
        """KeyError, TypeError or ValueError for anything else than to_json() gives."""
        low, median, high = (float(data[name]) for name in ("low", "median", "high"))
        return cls(median, low, high, int(data["count"]))


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that the project sets itself."""

    text: str
    met: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One measured number."""

    benchmark: str
    case: str
    """What was worked on: a kind of packet, of traffic, of input."""
    variant: str
    """What did the work."""
    unit: str
    value: Summary
    ratio: Summary | None = None
    """To the variant that the benchmark names as its base, in the same round."""
    parts: Mapping[str, Summary] = field(default_factory=dict)
    """What the value is made of."""
    target: Target | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells rows apart, from run to run."""
        return self.benchmark, self.case, self.variant

    def to_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "case": self.case,
            "variant": self.variant,
            "unit": self.unit,
            "value": self.value.to_json(),
            "ratio": self.ratio.to_json() if self.ratio else None,
            "parts": {name: part.to_json() for name, part in self.parts.items()},
            "target": {"text": self.target.text, "met": self.target.met} if self.target else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Row":
        """KeyError, TypeError or ValueError for anything else than to_json() gives."""
        target = data["target"]
        return cls(
            str(data["benchmark"]),
            str(data["case"]),
            str(data["variant"]),
            str(data["unit"]),
            Summary.from_json(data["value"]),
            Summary.from_json(data["ratio"]) if data["ratio"] else None,
            {name: Summary.from_json(part) for name, part in data["parts"].items()},
            Target(str(target["text"]), bool(target["met"])) if target else None,
        )


def interleave(
    variants: Mapping[K, Callable[[], T]], rounds: int, advance: Advance
) -> dict[K, list[T]]:
    """Measure each variant once a round; who is first changes from round to round."""
    names = list(variants)
    measured: dict[K, list[T]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            measured[name].append(variants[name]())
        advance()
    return measured


def ratios(values: Sequence[float], base: Sequence[float]) -> Summary | None:
    """``values`` over ``base``, round by round; None where the base is not above zero."""
    found = [value / other for value, other in zip(values, base, strict=True) if other > 0]
    return Summary.of(found) if found else None


def differences(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """``values`` less ``base``, round by round."""
    return [value - other for value, other in zip(values, base, strict=True)]


def nanoseconds(work: Callable[[], object]) -> int:
    """Wall time of one call."""
    start = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - start


@contextmanager
def pinned() -> Iterator[int]:
    """Keep the calling thread on one CPU, the last it may use; gives its number."""
    allowed = os.sched_getaffinity(0)
    cpu = max(allowed)
    os.sched_setaffinity(0, {cpu})
    try:
        yield cpu
    finally:
        os.sched_setaffinity(0, allowed)


def check_agreement(what: str, got: object, expected: object) -> None:
    """Nothing is timed that gives a wrong answer. Raises VnethashError."""
    if got != expected:
        raise VnethashError(
            f"{what} is wrong: {reprlib.repr(got)}, expected {reprlib.repr(expected)}",
            hint="this is a defect in vnethash: please report it",
        )
