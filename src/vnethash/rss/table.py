# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Indirection tables: which queue each value of the masked hash goes to."""

import heapq
import math
from collections.abc import Sequence

from vnethash.errors import ConfigError

TABLE_MAX = 32768
"""Entries: the largest power of two a device can announce in a le16 (virtio 1.3, 5.1.4)."""

DEFAULT_ENTRIES = 128
"""Entries every device must support (virtio 1.3, 5.1.4)."""


def check_entries(entries: int, field: str = "indirection_table") -> int:
    """``entries`` itself; ConfigError on ``field`` unless a power of two from 1 to 32768."""
    if not 1 <= entries <= TABLE_MAX or entries & (entries - 1):
        raise ConfigError(
            field,
            f"the number of entries must be a power of two from 1 to {TABLE_MAX}, not {entries}",
        )
    return entries


def even_table(queues: int) -> tuple[int, ...]:
    """Queues in turn: 128 entries, or the next power of two if there are more queues."""
    entries = max(DEFAULT_ENTRIES, 1 << (queues - 1).bit_length())
    return tuple(entry % queues for entry in range(entries))


def weighted_table(weights: Sequence[float], entries: int = DEFAULT_ENTRIES) -> tuple[int, ...]:
    """Entries in proportion to ``weights``, one weight a queue, neighbours of different queues.

    Shares are rounded by the largest remainder; the lower queue wins a tie.
    A queue whose share is small against one entry may get none. Two
    neighbours are alike only where one queue has more than half of the
    entries. ConfigError for weights that are empty, negative, not finite or
    all zero, and for a bad number of entries.
    """
    check_entries(entries, "entries")
    return _interleave(_apportion(_shares(weights), entries))


def _shares(weights: Sequence[float]) -> list[int]:
    """The weights as integers of the same proportions, so that rounding is exact."""
    for queue, weight in enumerate(weights):
        if not math.isfinite(weight) or weight < 0:
            raise ConfigError(
                "weights", f"must be finite and not negative, but queue {queue} has {weight}"
            )
    if not any(weights):
        raise ConfigError("weights", "at least one must be greater than zero")
    ratios = [float(weight).as_integer_ratio() for weight in weights]
    scale = math.lcm(*(denominator for _, denominator in ratios))
    return [numerator * (scale // denominator) for numerator, denominator in ratios]


def _apportion(shares: Sequence[int], entries: int) -> list[int]:
    """How many entries each queue gets: whole shares first, then by largest remainder."""
    total = sum(shares)
    counts = [share * entries // total for share in shares]
    remainders = [share * entries % total for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda queue: (-remainders[queue], queue))
    for queue in by_remainder[: entries - sum(counts)]:
        counts[queue] += 1
    return counts


def _interleave(counts: Sequence[int]) -> tuple[int, ...]:
    """An order of ``counts[q]`` entries for each queue ``q`` that spreads each of them evenly."""
    entries = sum(counts)
    fullest = max(range(len(counts)), key=lambda queue: counts[queue])
    if 2 * counts[fullest] <= entries:
        return _take_turns(counts)
    # It has to follow itself somewhere: the others go in between, equally
    # spaced, which is more than two places apart.
    others = _take_turns([0 if queue == fullest else n for queue, n in enumerate(counts)])
    table = [fullest] * entries
    for place, queue in enumerate(others):
        table[(2 * place + 1) * entries // (2 * len(others))] = queue
    return tuple(table)


def _take_turns(counts: Sequence[int]) -> tuple[int, ...]:
    """The queue whose next entry is due earliest comes next, but never one twice in a row.

    A queue that needs every second place left goes first, so that this
    works out unless one has more than half of the entries.
    """
    left = list(counts)
    due = [(0.5 / count, queue) for queue, count in enumerate(counts) if count]
    heapq.heapify(due)
    table: list[int] = []
    for places in range(sum(counts), 0, -1):
        most = max(left)
        queue = left.index(most)
        if most > places // 2 and queue not in table[-1:]:
            due.remove(next(entry for entry in due if entry[1] == queue))
            heapq.heapify(due)
        else:
            entry = heapq.heappop(due)
            if entry[1] in table[-1:] and due:
                entry = heapq.heapreplace(due, entry)
            queue = entry[1]
        table.append(queue)
        left[queue] -= 1
        if left[queue]:
            had = counts[queue] - left[queue]
            heapq.heappush(due, ((had + 0.5) / counts[queue], queue))
    return tuple(table)
