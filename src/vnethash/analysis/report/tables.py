# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What a report says in numbers: rows of text, no markup."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vnethash.analysis.flows import flow_text
from vnethash.analysis.report.loads import (
    amounts,
    busiest,
    busiest_queue,
    evenness_of,
    heaviest,
    moved_buckets,
)
from vnethash.analysis.report.series import series_of
from vnethash.analysis.result import Analysis, Reason
from vnethash.analysis.text import amount, count, percent
from vnethash.analysis.words import REASONS, ether_type
from vnethash.stats import Measure
from vnethash.virtio.hash_types import ReportType

QUEUES_SHOWN = 64
BUCKETS_SHOWN = 16
FLOWS_SHOWN = 20


class Cell(NamedTuple):
    """One field of a table; ``style`` is a class of the page's style sheet."""

    text: str
    style: str = ""
    """``n``: a number; ``long``: may be broken anywhere; ``lines``: where it says."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows to be read, with what they are about."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left_out: str = ""
    """What is not shown, or nothing."""


def summary_table(analysis: Analysis, after: Analysis | None) -> Table:
    """The ratios, by both measures."""
    head = ["by", "busiest queue", "times the mean", "coefficient of variation"]
    if after is not None:
        head += ["planned: times the mean", "planned: coefficient of variation"]
    rows = []
    for by in (Measure.BYTES, Measure.PACKETS):
        row = [Cell(by.value)]
        even = evenness_of(analysis, by)
        row += [
            _number(busiest_queue(analysis, by)),
            _ratio(even.imbalance),
            _ratio(even.variation),
        ]
        if after is not None:
            even = evenness_of(after, by)
            row += [_ratio(even.imbalance), _ratio(even.variation)]
        rows.append(tuple(row))
    return Table("How uneven the queues are", tuple(head), tuple(rows))


def queue_table(analysis: Analysis, after: Analysis | None, by: Measure) -> Table:
    """The load of the queues."""
    load = analysis.by_queue
    sides = [amounts(load, by)]
    head = ["queue", "packets", "bytes", "flows", "of the mean"]
    if after is not None:
        sides.append(amounts(after.by_queue, by))
        head += [f"planned: {by.value}", "of the mean"]
    shown, rest = busiest(sides, QUEUES_SHOWN)
    rows = []
    for queue in shown:
        row = [_number(queue)]
        row += [_of(values, queue) for values in load]
        row.append(_of_mean(sides[0], queue))
        for planned in sides[1:]:
            row += [_of(planned, queue), _of_mean(planned, queue)]
        rows.append(tuple(row))
    left_out = f"The busiest; {rest:,} others are not shown." if rest else ""
    return Table("Load of the queues", tuple(head), tuple(rows), left_out)


def time_table(analysis: Analysis, by: Measure, steps: int) -> Table | None:
    """The load over time."""
    series = series_of(analysis, by, steps)
    if series is None:
        return None
    ratios = series.imbalances
    rows = []
    for step, loads in enumerate(series.loads):
        rows.append(
            (
                Cell(series.moment(step)),
                _number(loads.sum()),
                _number(int(loads.argmax())) if loads.any() else Cell("-", "n"),
                Cell("-", "n") if np.isnan(ratios[step]) else _ratio(float(ratios[step])),
            )
        )
    head = ("from (UTC)", by.value, "busiest queue", "times the mean")
    return Table("Load over time", head, tuple(rows))


def bucket_table(analysis: Analysis, after: Analysis | None, by: Measure) -> Table:
    """The heaviest entries of the table, in the order of their load."""
    load = analysis.by_bucket
    loads = amounts(load, by)
    order = heaviest(loads, BUCKETS_SHOWN)
    moved = set() if after is None else {int(b) for b in moved_buckets(analysis, after)}
    whole = float(amounts(analysis.by_queue, by).sum())
    head = ["entry", "queue", "packets", "bytes", "flows", f"of all {by.value}"]
    if moved and after is not None:
        head.append("planned queue")
    rows = []
    for bucket in (int(b) for b in order if loads[b]):
        row = [_number(bucket), _number(analysis.rss.indirection_table[bucket])]
        row += [_number(values[bucket]) for values in load]
        row.append(Cell(percent(float(loads[bucket]), whole), "n"))
        if moved and after is not None:
            row.append(_number(after.rss.indirection_table[bucket]))
        rows.append(tuple(row))
    rest = int(np.count_nonzero(loads)) - len(rows)
    left_out = f"{rest:,} lighter ones are not shown." if rest else ""
    return Table(
        "The heaviest entries of the indirection table", tuple(head), tuple(rows), left_out
    )


def flow_table(analysis: Analysis, after: Analysis | None, by: Measure) -> Table:
    """The heaviest flows and where they land."""
    flows = analysis.flows
    whole = float(amounts(analysis.by_queue, by).sum())
    head = [f"of all {by.value}", "queue", "flow", "packets", "bytes", "report type", "entry"]
    if after is not None:
        head.insert(2, "planned queue")
    rows = []
    for index in heaviest(flows[by.value], FLOWS_SHOWN):
        flow = flows[index]
        row = [
            Cell(percent(float(flow[by.value]), whole), "n"),
            _number(analysis.flow_queues[index]),
            Cell(flow_text(flow).replace(" > ", "\n> "), "lines"),
            _number(flow["packets"]),
            _number(flow["bytes"]),
            Cell(ReportType(flow["report"]).name),
            _number(analysis.flow_buckets[index]) if flow["report"] else Cell("-", "n"),
        ]
        if after is not None:
            row.insert(2, _number(after.flow_queues[index]))
        rows.append(tuple(row))
    rest = len(flows) - len(rows)
    left_out = f"{rest:,} lighter ones are not shown." if rest else ""
    return Table("The heaviest flows", tuple(head), tuple(rows), left_out)


def report_table(analysis: Analysis) -> Table:
    """What was hashed, by report type."""
    load = analysis.by_report
    rows = tuple(
        (
            Cell("no hash" if kind is ReportType.NONE else kind.name),
            *(_number(values[kind]) for values in load),
            Cell(percent(float(load.packets[kind]), analysis.packets), "n"),
        )
        for kind in ReportType
        if load.packets[kind]
    )
    return Table(
        "Report types", ("report type", "packets", "bytes", "flows", "of all packets"), rows
    )


def unhashed_table(analysis: Analysis) -> Table:
    """What has no hash, and why."""
    rows = []
    for reason, words in REASONS.items():
        packets, octets = analysis.unhashed[reason]
        if packets:
            rows.append((Cell(words), _number(packets), _number(octets)))
        if reason is Reason.NOT_IP:
            for kind, number in sorted(analysis.ether_types.items(), key=lambda item: -item[1]):
                rows.append((Cell(f"— {ether_type(kind)}"), _number(number), Cell("", "n")))
    return Table("Packets without a hash", ("why", "packets", "bytes"), tuple(rows))


def source_table(analysis: Analysis) -> Table:
    """The files, those that broke first."""
    ordered = sorted(analysis.sources, key=lambda source: source.error is None)
    shown = ordered[:QUEUES_SHOWN]
    rows = tuple(
        (
            Cell(source.name, "long"),
            _number(source.packets),
            Cell(amount(source.bytes_read, "B"), "n"),
            Cell(_damage(source.error, source.offset), "long"),
        )
        for source in shown
    )
    rest = len(ordered) - len(shown)
    left_out = f"{count(rest, 'more file')}, read to the end." if rest else ""
    return Table("Files", ("file", "packets", "read", "damage"), rows, left_out)


def configuration(analysis: Analysis) -> list[tuple[str, str]]:
    """Names and values; all but the entries of the table."""
    values, rss = analysis.rss_json(), analysis.rss
    table = rss.indirection_table
    in_turn = all(queue == entry % rss.queues for entry, queue in enumerate(table))
    return [
        ("queues", str(rss.queues)),
        ("hash types", ", ".join(values["hash_types"]) or "none"),
        ("inner headers of", ", ".join(values["tunnels"]) or "no tunnel"),
        ("key", values["key"] or "left out, as it is not a public one"),
        ("unclassified queue", str(rss.unclassified_queue)),
        ("indirection table", f"{len(table)} entries" + (", the queues in turn" * in_turn)),
    ]


def _damage(error: str | None, offset: int | None) -> str:
    if error is None:
        return "none"
    return error if offset is None else f"{error} (byte {offset:,})"


def _of(loads: NDArray[np.uint64], index: int) -> Cell:
    """A load; none where one side has fewer queues."""
    return _number(loads[index]) if index < len(loads) else Cell("-", "n")


def _of_mean(loads: NDArray[np.uint64], index: int) -> Cell:
    mean = float(np.mean(loads))
    return _ratio(float(loads[index]) / mean) if mean and index < len(loads) else Cell("-", "n")


def _number(number: int | float) -> Cell:
    return Cell(f"{int(number):,}", "n")


def _ratio(number: float) -> Cell:
    return Cell(f"{number:.2f}", "n")
