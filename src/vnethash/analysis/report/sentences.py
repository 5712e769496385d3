# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What a report says in words."""

import numpy as np
from numpy.typing import NDArray

from vnethash.analysis.report.loads import amounts, busiest_queue, evenness_of, moved_buckets
from vnethash.analysis.report.series import series_of
from vnethash.analysis.result import Analysis
from vnethash.analysis.statistics import TELLING, over_time
from vnethash.analysis.text import count, duration, moment, percent, times
from vnethash.stats import Measure
from vnethash.virtio.hash_types import ReportType

_EVEN = 1.1
"""Imbalance up to which queues are called evenly loaded."""


def verdict(analysis: Analysis, by: Measure) -> str:
    """The one sentence to be read if no other is."""
    if not analysis.packets:
        return "There are no packets."
    if analysis.rss.queues == 1:
        return "There is one queue, which gets everything."
    busiest, ratio = busiest_queue(analysis, by), evenness_of(analysis, by).imbalance
    if ratio <= _EVEN:
        return (
            f"The queues are evenly loaded: the busiest, queue {busiest}, gets "
            f"{times(ratio)} the mean."
        )
    return f"Queue {busiest} gets {times(ratio)} the mean."


def about_queues(analysis: Analysis, by: Measure) -> list[str]:
    """Sentences on the load of the queues."""
    loads = amounts(analysis.by_queue, by)
    sentences = []
    idle = int(np.count_nonzero(loads == 0))
    if idle and analysis.packets:
        sentences.append(f"{count(idle, 'queue')} of {len(loads)} {_get(idle)} nothing.")
    without = int(amounts(analysis.by_report, by)[ReportType.NONE])
    if without:
        sentences.append(
            f"{percent(without, float(loads.sum()))} of the {by.value} have no hash and go "
            f"to queue {analysis.rss.unclassified_queue}, the unclassified one."
        )
    return sentences


def about_buckets(analysis: Analysis, by: Measure) -> list[str]:
    """Sentences on the heaviest entry of the table and the heaviest flow."""
    loads = amounts(analysis.by_bucket, by)
    whole = float(amounts(analysis.by_queue, by).sum())
    if not loads.any():
        return ["No packet has a hash."]
    heaviest = int(loads.argmax())
    queue = analysis.rss.indirection_table[heaviest]
    sentences = [
        f"Entry {heaviest} is the heaviest: {percent(float(loads[heaviest]), whole)} of all "
        f"{by.value}, on queue {queue}."
    ]
    empty = int(np.count_nonzero(loads == 0))
    if empty:
        sentences.append(f"{empty} of {len(loads)} entries {_get(empty)} nothing.")
    return sentences


def about_flows(analysis: Analysis, by: Measure) -> list[str]:
    """Sentences on the heaviest flow and what it allows."""
    flows = analysis.flows
    if not len(flows):
        return ["There are no flows."]
    weights = flows[by.value]
    first = int(weights.argmax())
    heaviest = float(weights[first])
    loads = amounts(analysis.by_queue, by)
    whole = float(loads.sum())
    sentences = [
        f"The heaviest flow carries {percent(heaviest, whole)} of all {by.value}, "
        f"on queue {analysis.flow_queues[first]}."
    ]
    mean = whole / len(loads)
    if heaviest > mean:
        sentences.append(
            f"A flow stays on one queue: no key and no table brings the busiest queue below "
            f"{times(heaviest / mean)} the mean."
        )
    return sentences


def about_time(analysis: Analysis, by: Measure, steps: int) -> list[str]:
    """Sentences on how the imbalance goes over time, in the windows and in as many steps
    as a picture has."""
    windows, series = analysis.windows, series_of(analysis, by, steps)
    if windows is None or series is None:
        return []
    sentences = []
    if analysis.rss.queues > 1:
        course = over_time(analysis, by)
        ratios = series.imbalances
        telling = ~np.isnan(ratios)
        starts = np.array(series.starts_ns)[telling]
        sentences += _course("windows", windows.length_ns, course.imbalances, course.starts_ns)
        if series.step_ns != windows.length_ns:
            sentences += _course("steps", series.step_ns, ratios[telling], starts)
        if len(course.imbalances) < len(windows.starts_ns):
            sentences.append(
                f"What has fewer than {TELLING} packets a queue is not counted: "
                "that says more of chance than of load."
            )
    untimed = int(windows.untimed_packets.sum())
    if untimed:
        sentences.append(
            f"{count(untimed, 'packet')} without a time {'is' if untimed == 1 else 'are'} left out."
        )
    return sentences


def _course(
    what: str, length_ns: int, ratios: NDArray[np.float64], starts_ns: NDArray[np.int64]
) -> list[str]:
    if not len(ratios):
        return []
    worst = int(ratios.argmax())
    return [
        f"In {what} of {duration(length_ns)} the busiest queue gets "
        f"{times(float(np.median(ratios)))} the mean, in the median; at worst "
        f"{times(float(ratios[worst]))}, at "
        f"{moment(int(starts_ns[worst]), fine=length_ns < 10**9)} UTC."
    ]


def about_plan(before: Analysis, after: Analysis, by: Measure) -> list[str]:
    """Sentences on what another configuration changes."""
    if after.rss == before.rss:
        return ["Nothing: no key and table that were tried are evener by more than 1%."]
    was, will = evenness_of(before, by), evenness_of(after, by)
    sentences = [
        f"The busiest queue gets {times(will.imbalance)} the mean, instead of "
        f"{times(was.imbalance)}."
    ]
    if after.rss.key != before.rss.key:
        sentences.append("The key is another one, so every flow may change its queue.")
    elif len(after.rss.indirection_table) != len(before.rss.indirection_table):
        sentences.append("The table has another length.")
    else:
        moved = len(moved_buckets(before, after))
        sentences.append(
            f"{moved} of {len(after.rss.indirection_table)} entries of the table change."
        )
    moving = before.flow_queues != after.flow_queues
    whole = float(amounts(before.by_queue, by).sum())
    weight = float(before.flows[by.value][moving].sum())
    sentences.append(
        f"{count(int(moving.sum()), 'flow')} with {percent(weight, whole)} of the {by.value} "
        f"{'goes' if moving.sum() == 1 else 'go'} to another queue."
    )
    return sentences


def _get(number: int) -> str:
    return "gets" if number == 1 else "get"
