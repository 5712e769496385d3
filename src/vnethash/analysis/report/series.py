# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The load of the queues over time, in as many steps as a picture has room for."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vnethash.analysis.result import Analysis
from vnethash.analysis.statistics import TELLING, imbalances
from vnethash.analysis.text import moment
from vnethash.stats import Measure

_FEWEST = 12
"""Steps, however few packets there are."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Loads in steps of one length, without a gap."""

    start_ns: int
    step_ns: int
    """A multiple of the length of the windows."""
    end_ns: int
    """Of the last window, which the last step may reach beyond."""
    loads: NDArray[np.float64]
    """Packets or bytes, shape (steps, queues)."""
    packets: NDArray[np.uint64]
    """Of all queues, shape (steps,)."""

    @property
    def starts_ns(self) -> list[int]:
        """Of the steps. Integers of Python: times that are absurd do not fit others."""
        return [self.start_ns + step * self.step_ns for step in range(len(self.loads))]

    @property
    def ends_ns(self) -> list[int]:
        return [*self.starts_ns[1:], self.end_ns]

    @property
    def per_second(self) -> NDArray[np.float64]:
        """Shape (steps, queues)."""
        lengths = np.full(len(self.loads), float(self.step_ns))
        lengths[-1] = self.end_ns - self.starts_ns[-1]
        rates: NDArray[np.float64] = self.loads * 1e9 / lengths[:, None]
        return rates

    def moment(self, step: int) -> str:
        """When a step begins, as text."""
        return moment(self.starts_ns[step], fine=self.step_ns < 10**9)

    @property
    def imbalances(self) -> NDArray[np.float64]:
        """Busiest queue over the mean in each step, shape (steps,); NaN where there are
        too few packets to tell (see `over_time`)."""
        telling = self.packets >= TELLING * self.loads.shape[1]
        return np.where(telling, imbalances(self.loads), np.nan)


def series_of(analysis: Analysis, by: Measure, most: int) -> Series | None:
    """At most ``most`` steps, and fewer where they would have too few packets to tell;
    None if the analysis has no windows, or they are empty."""
    windows = analysis.windows
    if windows is None or len(windows.starts_ns) == 0:
        return None
    packets, octets = windows.by_queue(analysis.rss)
    loads = octets if by is Measure.BYTES else packets
    # Windows begin at multiples of their length: whole numbers tell them apart.
    numbers = windows.starts_ns // windows.length_ns
    first, span = int(numbers[0]), int(numbers[-1]) - int(numbers[0]) + 1
    telling = int(packets.sum()) // (2 * TELLING * analysis.rss.queues)
    merged = -(-span // min(most, max(_FEWEST, telling)))
    step = (numbers - first) // merged
    sums = np.zeros((-(-span // merged), analysis.rss.queues))
    np.add.at(sums, step, loads.astype(np.float64))
    counted = np.zeros(len(sums), np.uint64)
    np.add.at(counted, step, packets.sum(1))
    length_ns = windows.length_ns
    return Series(
        start_ns=first * length_ns,
        step_ns=merged * length_ns,
        end_ns=(first + span) * length_ns,
        loads=sums,
        packets=counted,
    )
