# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Pictures of a run, as SVG: growth for scale, bars with their quartiles for the others.

The same rows give the same file, byte for byte, with the same version of
matplotlib. Each file names the numbers it was drawn from (``digest``).
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vnethash.bench import scale
from vnethash.bench.measure import Row, Summary
from vnethash.bench.report import base_of
from vnethash.errors import ConfigError, DependencyMissing

_RATIOS = {"path", "tcp", "vhost"}
"""Benchmarks whose numbers mean something only as a ratio."""

_STYLE = {
    "svg.hashsalt": "vnethash",
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    # Opaque, and so legible on a dark page as well.
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
_BLUE, _GREY, _RED = "#4477aa", "#999999", "#cc6677"
_COLUMNS, _WIDTH, _BAR, _HEAD = 2, 9.0, 0.19, 0.55  # inches


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """A picture for each benchmark there are rows of. Raises DependencyMissing, ConfigError."""
    matplotlib = _matplotlib()
    drawn = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in dict.fromkeys(row.benchmark for row in rows):
            of_it = [row for row in rows if row.benchmark == name]
            with matplotlib.rc_context({**_STYLE}):
                figure = _growth(of_it) if name == scale.NAME else _bars(name, of_it)
                file = folder / f"{name}.svg"
                about = {"Date": None, "Title": name, "Description": digest(of_it)}
                figure.savefig(file, format="svg", metadata=about)
            file.write_text(_tidy(file.read_text()))
            drawn.append(file)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError("plot", f"cannot write to {folder}: {reason}") from error
    return drawn


def _tidy(picture: str) -> str:
    """Without what differs from run to run, in the last digits of places and names made of
    them, and without what makes a file large.
    """
    names: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        return names.setdefault(found[0], f"n{len(names)}")

    def tag(found: re.Match[str]) -> str:
        return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", found[0])

    picture = re.sub(r"\b[mp][0-9a-f]{10}\b", name, picture)
    picture = re.sub(r"<[^!?>]+>", tag, picture)
    return re.sub(r"^ +| +$", "", picture, flags=re.M)


def digest(rows: Sequence[Row]) -> str:
    """What tells whether a picture is of these rows."""
    text = json.dumps([row.to_json() for row in rows], sort_keys=True)
    return "rows " + hashlib.sha256(text.encode()).hexdigest()[:16]


def require_matplotlib() -> None:
    """Raise DependencyMissing if nothing can be drawn."""
    _matplotlib()


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise DependencyMissing(
            f"plots need matplotlib: {error}",
            hint="pip install 'vnethash[plot]', or matplotlib by itself",
        ) from error
    return matplotlib


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # without pyplot, which looks for a screen

    return Figure(figsize=(width, height), layout="constrained")


# Bars


def _bars(name: str, rows: Sequence[Row]) -> Any:
    """A panel for each case."""
    cases: dict[str, list[Row]] = {}
    for row in rows:
        cases.setdefault(row.case, []).append(row)
    columns = min(_COLUMNS, len(cases))
    groups = [list(cases.items())[i : i + columns] for i in range(0, len(cases), columns)]
    heights = [_HEAD + _BAR * max(len(found) for _, found in group) for group in groups]
    figure = _figure(_WIDTH * columns / _COLUMNS, sum(heights))
    grid = figure.subplots(len(groups), columns, squeeze=False, height_ratios=heights)
    for axes, group in zip(grid, groups, strict=True):
        for place, (case, found) in zip(axes, group, strict=False):
            _panel(place, name, case, found)
        for place in axes[len(group) :]:
            place.set_axis_off()
    return figure


def _panel(axes: Any, name: str, case: str, rows: Sequence[Row]) -> None:
    base = base_of(name, case)
    rated = name in _RATIOS and all(row.ratio for row in rows)
    shown = [row.ratio if rated and row.ratio else row.value for row in rows]
    unit = f"of {base}" if rated else rows[0].unit
    places = range(len(rows))
    axes.barh(
        places,
        [summary.median for summary in shown],
        xerr=_spreads(shown),
        color=[_GREY if row.variant == base else _BLUE for row in rows],
        error_kw={"linewidth": 0.8},
        height=0.7,
    )
    most = max(summary.high for summary in shown)
    for place, summary in zip(places, shown, strict=True):
        axes.text(max(summary.high, 0) + most * 0.015, place, _number(summary.median), va="center")
    axes.set_yticks(places, [row.variant for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.15)
    axes.locator_params("x", nbins=5)
    axes.tick_params(left=False)
    axes.set_title(f"{case}, {unit}")


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _spreads(shown: Sequence[Summary]) -> list[list[float]]:
    """From the medians to the quartiles."""
    return [
        [summary.median - summary.low for summary in shown],
        [summary.high - summary.median for summary in shown],
    ]


# Growth

_UNITS = (("taps", r"(\d+) taps?"), ("queues", r"(\d+) queues?"), ("entries", r"table of (\d+)"))
_SHOWN = (scale.ATTACH, scale.MEMORY, scale.RECONFIGURE, scale.PACKET)
_BESIDE = {scale.PACKET: scale.AGAIN}
"""What is drawn into the same panel."""


def _growth(rows: Sequence[Row]) -> Any:
    """A line of panels for each quantity, over what grows."""
    figure = _figure(_WIDTH, 1.65 * len(_SHOWN))
    grid = figure.subplots(len(_SHOWN), len(_UNITS), squeeze=False, sharex="col", sharey="row")
    for line, case in zip(grid, _SHOWN, strict=True):
        for axes, (unit, form) in zip(line, _UNITS, strict=True):
            _curve(axes, _sizes(rows, case, form), _BLUE)
            if beside := _BESIDE.get(case):
                # Named once: there is no room for it where lines are close.
                label = beside if unit == _UNITS[0][0] else ""
                _curve(axes, _sizes(rows, beside, form), _GREY, label)
            if case == _SHOWN[-1]:
                axes.set_xlabel(unit)
        ours = [row for row in rows if row.case == case]
        line[0].set_ylabel(f"{case}, {ours[0].unit}" if ours else case)
        line[0].set_ylim(bottom=0)
    return figure


def _sizes(rows: Sequence[Row], case: str, form: str) -> dict[int, Row]:
    """Rows of a case by the number in what they are called."""
    return {
        int(size[1]): row
        for row in rows
        if row.case == case and (size := re.fullmatch(form, row.variant))
    }


def _curve(axes: Any, found: Mapping[int, Row], colour: str, label: str = "") -> None:
    axes.set_xscale("log", base=10)
    axes.grid(axis="y", linewidth=0.4, color="#dddddd")
    if not found:
        return
    sizes = sorted(found)
    shown = [found[size].value for size in sizes]
    medians, style = [summary.median for summary in shown], {"linewidth": 1, "marker": "."}
    axes.errorbar(sizes, medians, yerr=_spreads(shown), color=colour, elinewidth=0.8, **style)
    if label:
        above = {"xytext": (0, 4), "textcoords": "offset points", "ha": "right"}
        axes.annotate(label, (sizes[-1], medians[-1]), color="#666666", **above)
    for row in found.values():
        if row.target and not row.ratio:
            (most,) = re.findall(r"<= (\d+)", row.target.text)
            axes.axhline(float(most), color=_RED, linewidth=0.8, linestyle="--")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
