# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The configuration most cases have, and how others are made from it."""

from vnethash.rss.config import RssConfig

QUEUES = 8


def turning_table(entries: int = 128, queues: int = QUEUES) -> tuple[int, ...]:
    """The queues in turn, each round one further: no queue is its index modulo anything."""
    return tuple((entry + entry // queues) % queues for entry in range(entries))


# The unclassified queue is one that no entry 0 and no zeroed answer is.
STANDARD = RssConfig(QUEUES, indirection_table=turning_table(), unclassified_queue=7)
ONLY_STANDARD = {"standard": STANDARD}
