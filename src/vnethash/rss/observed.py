# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What a balancer is told of a tap."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from vnethash.rss.config import RssConfig
from vnethash.stats import Stats

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]
    """Rows of packets and bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What a tap has counted so far, and the configuration in force."""

    rss: RssConfig
    buckets: "Counts"
    """A row for each entry of the indirection table."""
    queues: "Counts"

    @classmethod
    def of(cls, rss: RssConfig, buckets: "Counts", stats: Stats) -> Self:
        """From counters, those of buckets read first, which may be more than the table has."""
        import numpy as np

        totals = [queue.total for queue in stats.queues[: rss.queues]]
        queues = np.array([[total.packets, total.bytes] for total in totals], np.int64)
        return cls(rss, buckets[: len(rss.indirection_table)], queues)
