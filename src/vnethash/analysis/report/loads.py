# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Loads by one measure, and what they come to."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vnethash.analysis.result import Analysis, Load
from vnethash.analysis.statistics import Evenness, evenness
from vnethash.stats import Measure


def amounts(load: Load, by: Measure) -> NDArray[np.uint64]:
    """The packets or the bytes of a load."""
    return load.bytes if by is Measure.BYTES else load.packets


def busiest_queue(analysis: Analysis, by: Measure) -> int:
    """Its number; the first one of several."""
    return int(amounts(analysis.by_queue, by).argmax())


def evenness_of(analysis: Analysis, by: Measure) -> Evenness:
    """Of the load of the queues over all of the time."""
    return evenness(amounts(analysis.by_queue, by))


def moved_buckets(before: Analysis, after: Analysis) -> NDArray[np.intp]:
    """Entries whose queue changes; none if the two are not of the same buckets."""
    tables = before.rss.indirection_table, after.rss.indirection_table
    if before.rss.key != after.rss.key or len(tables[0]) != len(tables[1]):
        return np.empty(0, np.intp)
    return np.flatnonzero(np.array(tables[0]) != np.array(tables[1]))


def busiest(sides: Sequence[NDArray[np.uint64]], most: int) -> tuple[list[int], int]:
    """The indices that are busiest on any side, in the order of their numbers, and how
    many there are besides."""
    largest = np.zeros(max(map(len, sides)), np.uint64)
    for loads in sides:
        largest[: len(loads)] = np.maximum(largest[: len(loads)], loads)
    shown = sorted(int(index) for index in heaviest(largest, most))
    return shown, len(largest) - len(shown)


def heaviest(weights: NDArray[np.uint64], most: int) -> NDArray[np.intp]:
    """Indices of the heaviest ones, those first; ties by their numbers."""
    return np.argsort(-weights.astype(np.float64), kind="stable")[:most]
