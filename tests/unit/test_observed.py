# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import numpy as np

from vnethash.rss.config import RssConfig
from vnethash.rss.observed import Observation
from vnethash.stats import QueueStats, Stats, Traffic
from vnethash.virtio.hash_types import ReportType


def test_of_the_entries_and_queues_in_use() -> None:
    rss = RssConfig.default(2).replace(indirection_table=(0, 1))
    buckets = np.array([[3, 300], [1, 60], [9, 9]])  # the map has room for a longer table
    kinds = {ReportType.TCPv4: Traffic(2, 200), ReportType.NONE: Traffic(1, 100)}
    stats = Stats((QueueStats(kinds), QueueStats({}), QueueStats(kinds)))
    seen = Observation.of(rss, buckets, stats)
    assert seen.rss is rss
    assert seen.buckets.tolist() == [[3, 300], [1, 60]]
    assert seen.queues.tolist() == [[3, 300], [0, 0]]
