# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The pictures of a report, as Vega-Lite charts made by Altair."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vnethash.analysis.extras import load
from vnethash.analysis.report.loads import amounts, busiest, heaviest, moved_buckets
from vnethash.analysis.report.series import Series, series_of
from vnethash.analysis.report.theme import QUEUE_COLOURS
from vnethash.analysis.result import Analysis
from vnethash.analysis.text import amount, times
from vnethash.stats import Measure

STEPS = 60
"""Of time, in pictures and in what is said of them."""
_BARS = 64
_MAP_QUEUES = 16
_CELLS = 1024
"""What one picture has room for, and a file of reasonable size."""

Colours = Mapping[str, str]
Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture: what it shows in a few words, the chart, and the rows it is drawn from.

    Charts name their data: Altair would look at each row several times.
    """

    name: str
    title: str
    chart: Any
    data: Mapping[str, Rows]


@dataclass(frozen=True, slots=True)
class Frame:
    """What all pictures of a report share."""

    by: Measure
    colours: Colours
    width: int

    @property
    def unit(self) -> str:
        return "B" if self.by is Measure.BYTES else ""

    @property
    def rate(self) -> tuple[float, str]:
        """What a load per second is multiplied by, and the unit of that."""
        return (8.0, "bit/s") if self.by is Measure.BYTES else (1.0, "packets/s")


def figures(analysis: Analysis, after: Analysis | None, frame: Frame) -> list[Figure]:
    """All pictures there is something to draw for. Raises DependencyMissing."""
    made = [_queues(analysis, after, frame)]
    series = series_of(analysis, frame.by, STEPS)
    if series is not None:
        if analysis.rss.queues <= len(QUEUE_COLOURS):
            made.append(_lines(series, frame))
        else:
            made.append(_time_map(analysis, frame))
        if analysis.rss.queues > 1 and not np.isnan(series.imbalances).all():
            planned = None if after is None else series_of(after, frame.by, STEPS)
            made.append(_imbalance(series, planned, frame))
    made.append(_buckets("buckets", "Load of the table's entries", analysis, (), frame))
    if after is not None:
        moved = tuple(int(bucket) for bucket in moved_buckets(analysis, after))
        title = "Load of the table's entries, as planned"
        made.append(_buckets("buckets-planned", title, after, moved, frame))
    return made


def _altair() -> Any:
    return load("altair", "pictures")


def _chart(data: str) -> Any:
    alt = _altair()
    return alt.Chart(alt.NamedData(data))


def _queues(analysis: Analysis, after: Analysis | None, frame: Frame) -> Figure:
    alt = _altair()
    now = amounts(analysis.by_queue, frame.by)
    sides = [("now", now)]
    if after is not None:
        sides.append(("planned", amounts(after.by_queue, frame.by)))
    shown, _ = busiest([loads for _, loads in sides], _BARS)
    mean = float(now.mean())
    rows = [
        {
            "queue": queue,
            "side": side,
            "load": float(loads[queue]),
            "text": f"queue {queue}, {side}: {amount(float(loads[queue]), frame.unit)}, "
            f"{times(float(loads[queue]) / mean if mean else 0)} the mean",
        }
        for side, loads in sides
        for queue in shown
        if queue < len(loads)
    ]
    x = alt.X("queue:O", title="queue", axis=alt.Axis(labelOverlap=True, ticks=False))
    y = alt.Y("load:Q", title=frame.by.value, axis=alt.Axis(format="~s", tickCount=4))
    bars = _chart("queues").mark_bar()
    bars = bars.encode(x=x, y=y, description="text:N", color=_sides(after is not None, frame))
    if after is not None:
        bars = bars.encode(xOffset=alt.XOffset("side:N", sort=["now", "planned"]))
    rule = _chart("mean").mark_rule(strokeDash=[5, 4], color=frame.colours["ink"])
    rule = rule.encode(y="mean:Q", description="text:N")
    chart = (bars + rule).properties(width=frame.width, height=200)
    data = {
        "queues": rows,
        "mean": [{"mean": mean, "text": f"mean: {amount(mean, frame.unit)}"}],
    }
    return Figure("queues", "Load of the queues; the dashed line is the mean", chart, data)


def _sides(both: bool, frame: Frame, **legend: Any) -> Any:
    """Colours of now and planned, with a legend if there are both."""
    alt = _altair()
    if not both:
        return alt.value(frame.colours["before"])
    scale = alt.Scale(
        domain=["now", "planned"], range=[frame.colours["before"], frame.colours["after"]]
    )
    return alt.Color("side:N", scale=scale, legend=alt.Legend(title=None, orient="top", **legend))


def _stairs(series: Series, heights: NDArray[np.float64]) -> Iterator[tuple[float, float | None]]:
    """Time (milliseconds since the epoch, as Vega has it) and height of where each step
    begins and ends; no height where it is NaN."""
    for start, end, height in zip(series.starts_ns, series.ends_ns, heights.tolist(), strict=True):
        shown = None if math.isnan(height) else float(f"{height:.5g}")
        yield start / 1e6, shown
        yield end / 1e6, shown


def _time_axis(series: Series) -> Any:
    alt = _altair()
    span = series.step_ns * len(series.loads) / 1e9
    steps = ((3, "%H:%M:%S.%L"), (600, "%H:%M:%S"), (86400, "%H:%M"), (1e8, "%m-%d %H:%M"))
    form = next((form for most, form in steps if span <= most), "%Y-%m-%d")
    axis = alt.Axis(
        format=form, formatType="time", grid=False, tickCount=4, labelOverlap=True, labelFlush=True
    )
    return alt.X("when:T", title="time (UTC)", scale=alt.Scale(type="utc"), axis=axis)


def _lines(series: Series, frame: Frame) -> Figure:
    alt = _altair()
    factor, unit = frame.rate
    per_second = series.per_second * factor
    rows = [
        {"when": when, "queue": queue, "rate": rate, "text": f"queue {queue}"}
        for queue, rates in enumerate(per_second.T)
        for when, rate in _stairs(series, rates)
    ]
    queues = list(range(series.loads.shape[1]))
    scale = alt.Scale(domain=queues, range=[frame.colours[QUEUE_COLOURS[q]] for q in queues])
    legend = alt.Legend(title="queue", orient="top", symbolType="stroke", columns=8)
    lines = _chart("time").mark_line(strokeWidth=1.5)
    chart = lines.encode(
        x=_time_axis(series),
        y=alt.Y("rate:Q", title=unit, axis=alt.Axis(format="~s", tickCount=4)),
        color=alt.Color("queue:N", scale=scale, legend=legend),
        description="text:N",
    )
    chart = chart.properties(width=frame.width, height=220)
    return Figure("time", "Load of the queues over time", chart, {"time": rows})


def _time_map(analysis: Analysis, frame: Frame) -> Figure:
    alt = _altair()
    series = series_of(analysis, frame.by, STEPS)
    assert series is not None
    factor, unit = frame.rate
    per_second = series.per_second * factor
    totals = amounts(analysis.by_queue, frame.by)
    shown = sorted(int(queue) for queue in heaviest(totals, _MAP_QUEUES))
    rows = [
        {
            "when": start / 1e6,
            "to": end / 1e6,
            "queue": queue,
            "rate": round(float(per_second[step, queue]), 3),
            "text": f"queue {queue}, {series.moment(step)}: "
            f"{amount(float(per_second[step, queue]), unit)}",
        }
        for step, (start, end) in enumerate(zip(series.starts_ns, series.ends_ns, strict=True))
        for queue in shown
        if per_second[step, queue]
    ]
    chart = (
        _chart("time")
        .mark_rect(color=frame.colours["heat"])
        .encode(
            x=_time_axis(series),
            x2="to:T",
            y=alt.Y(
                "queue:O", title="queue", axis=alt.Axis(ticks=False), scale=alt.Scale(domain=shown)
            ),
            opacity=_heat("rate", unit, frame),
            description="text:N",
        )
    )
    which = "" if len(shown) == len(totals) else f" (the {len(shown)} busiest)"
    title = f"Load of the queues{which} over time"
    chart = chart.properties(width=frame.width, height=18 * len(shown))
    return Figure("time", title, chart, {"time": rows})


def _heat(field: str, title: str, frame: Frame) -> Any:
    """One hue that fades into the page: the same reading by day and by night."""
    alt = _altair()
    scale = alt.Scale(type="sqrt", range=[0.03, 1], domainMin=0)
    legend = alt.Legend(
        title=title,
        orient="top",
        format="~s",
        symbolType="square",
        symbolFillColor=frame.colours["heat"],
        symbolStrokeWidth=0,
        tickCount=4,
    )
    return alt.Opacity(f"{field}:Q", scale=scale, legend=legend)


def _imbalance(series: Series, planned: Series | None, frame: Frame) -> Figure:
    alt = _altair()
    sides = [("now", series)] + ([("planned", planned)] if planned is not None else [])
    rows = [
        {"when": when, "side": side, "ratio": ratio}
        for side, of_side in sides
        for when, ratio in _stairs(of_side, of_side.imbalances)
    ]
    lines = _chart("imbalance").mark_line(strokeWidth=1.5)
    chart = lines.encode(
        x=_time_axis(series),
        y=alt.Y(
            "ratio:Q",
            title="times the mean",
            scale=alt.Scale(domainMin=1),
            axis=alt.Axis(tickCount=4),
        ),
        color=_sides(planned is not None, frame, symbolType="stroke"),
        description="side:N",
    )
    title = "Busiest queue over the mean, in each step (1 is even)"
    chart = chart.properties(width=frame.width, height=140)
    return Figure("imbalance", title, chart, {"imbalance": rows})


def _buckets(
    name: str, title: str, analysis: Analysis, moved: tuple[int, ...], frame: Frame
) -> Figure:
    alt = _altair()
    loads = amounts(analysis.by_bucket, frame.by).astype(np.float64)
    each = max(1, len(loads) // _CELLS)  # a power of two, as both are
    sums = loads.reshape(-1, each).sum(axis=1)
    columns = 32 if len(sums) > 256 else min(16, len(sums))
    changed = set(moved) if each == 1 else set()
    rows = []
    for cell, total in enumerate(sums):
        first = cell * each
        queue = analysis.rss.indirection_table[first]
        which = (
            f"entry {first}, queue {queue}"
            if each == 1
            else f"entries {first} to {first + each - 1}"
        )
        rows.append(
            {
                "row": cell // columns * columns * each,
                "column": cell % columns,
                "load": float(total),
                "queue": queue,
                "cell": cell,
                "text": f"{which}: {amount(float(total), frame.unit)}"
                + (", another queue than now" if cell in changed else ""),
            }
        )
    apart = alt.Scale(paddingInner=0.1, paddingOuter=0.05)
    bare = {"ticks": False, "domain": False}
    x = alt.X("column:O", title=None, scale=apart, axis=alt.Axis(**bare, labels=columns <= 16))
    y = alt.Y("row:O", title="entry", scale=apart, axis=alt.Axis(**bare))
    data = {name: rows}
    chart = _chart(name).mark_rect(color=frame.colours["heat"])
    chart = chart.encode(
        x=x, y=y, opacity=_heat("load", frame.by.value, frame), description="text:N"
    )
    if changed:
        data["moved"] = [row for row in rows if row["cell"] in changed]
        outlines = _chart("moved")
        outlines = outlines.mark_rect(filled=False, stroke=frame.colours["after"], strokeWidth=1.5)
        chart += outlines.encode(x=x, y=y, description="text:N")
    if each == 1 and columns <= 16:
        numbers = _chart(name).mark_text(fontSize=10, color=frame.colours["ink"])
        chart += numbers.encode(x=x, y=y, text="queue:N")
    height = max(20, min(26, 420 // (len(sums) // columns))) * (len(sums) // columns)
    if each > 1:
        title += f"; each cell is {each} neighbouring entries"
    return Figure(name, title, chart.properties(width=frame.width, height=height), data)
