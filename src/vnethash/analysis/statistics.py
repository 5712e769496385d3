# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""How even loads are: of queues, and of queues over time."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vnethash.analysis.result import Analysis
from vnethash.stats import Measure

TELLING: Final = 16
"""Packets a queue, on average, below which a window says more of chance than of load."""


@dataclass(frozen=True, slots=True)
class Evenness:
    """``imbalance`` is the greatest load over the mean, ``variation`` the coefficient of
    variation: standard deviation over the mean. 1 and 0 at best, and where there is no load."""

    imbalance: float
    variation: float


def evenness(loads: ArrayLike) -> Evenness:
    """Of the loads of queues, or of anything else; shape (n,), n at least 1."""
    values = np.asarray(loads, np.float64)
    mean = float(values.mean())
    if not mean:
        return Evenness(1.0, 0.0)
    return Evenness(float(values.max()) / mean, float(values.std()) / mean)


@dataclass(frozen=True, slots=True, eq=False)
class OverTime:
    """The imbalance of queues in each window that tells something."""

    starts_ns: NDArray[np.int64]
    imbalances: NDArray[np.float64]

    @property
    def worst_ns(self) -> int:
        """The start of the window with the greatest imbalance."""
        return int(self.starts_ns[self.imbalances.argmax()])


def over_time(analysis: Analysis, by: Measure = Measure.PACKETS) -> OverTime:
    """The imbalance of queues in windows with 16 packets a queue or more."""
    windows = analysis.windows
    if windows is None:
        return OverTime(np.empty(0, np.int64), np.empty(0))
    packets, octets = windows.by_queue(analysis.rss)
    telling = packets.sum(1) >= TELLING * analysis.rss.queues
    loads = (packets if by is Measure.PACKETS else octets)[telling].astype(np.float64)
    return OverTime(windows.starts_ns[telling], imbalances(loads))


def imbalances(loads: NDArray[np.float64]) -> NDArray[np.float64]:
    """The greatest load over the mean in each row, shape (n, queues); 1 where there is no
    load: frames may have no bytes."""
    means = loads.mean(1)
    ratios = np.ones(len(loads))
    np.divide(loads.max(1), means, out=ratios, where=means > 0)
    return ratios
