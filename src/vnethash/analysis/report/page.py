# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The page: one HTML file with everything in it, without scripts, that asks nobody for anything."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vnethash import __version__
from vnethash.analysis.extras import load
from vnethash.analysis.report import sentences, tables
from vnethash.analysis.report.drawing import inline_svg
from vnethash.analysis.report.figures import STEPS, Figure, Frame, figures
from vnethash.analysis.report.theme import DARK, FONT, LIGHT, PAGE, css_variables
from vnethash.analysis.result import Analysis
from vnethash.analysis.text import amount, count, moment
from vnethash.stats import Measure

WIDE, NARROW = 880, 340
"""Widths that each picture is drawn in, in pixels; the page shows one of them."""

_TEMPLATES = Path(__file__).parent


def html(
    analysis: Analysis,
    after: Analysis | None = None,
    *,
    by: Measure = Measure.PACKETS,
    advice: Sequence[str] = (),
) -> str:
    """A report of an analysis, and of what another configuration would make of the
    same traffic (`Analysis.under`), as a page. ``advice`` are lines of command that
    bring it about.

    The same input gives the same page. Raises DependencyMissing.
    """
    jinja2 = load("jinja2", "reports")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.jinja").render(
        analysis=analysis,
        after=after,
        by=by.value,
        facts=sentences,
        tables=tables,
        measure=by,
        steps=STEPS,
        overview=_overview(analysis),
        period=period(analysis),
        advice=tuple(advice),
        planned=_settable(after),
        damage=f"{count(len(analysis.failed), 'file')} could not be read to the end.",
        short=f"{count(analysis.captured_short, 'packet')} "
        f"{'was' if analysis.captured_short == 1 else 'were'}",
        pictures=_pictures(analysis, after, by, jinja2.utils.markupsafe.Markup),
        light=css_variables(LIGHT),
        dark=css_variables(DARK),
        font=FONT,
        narrow=f"{WIDE - 200}px",
        version=__version__,
    )
    return str(page)


def _pictures(
    analysis: Analysis, after: Analysis | None, by: Measure, markup: Any
) -> dict[str, Any]:
    """Title, wide and narrow drawing, by name."""
    wide = figures(analysis, after, Frame(by, PAGE, WIDE))
    narrow = figures(analysis, after, Frame(by, PAGE, NARROW))

    def drawn(figure: Figure) -> Any:
        return markup(inline_svg(figure, PAGE))

    return {
        one.name: {
            "title": one.title,
            "wide": drawn(one),
            "narrow": drawn(other),
        }
        for one, other in zip(wide, narrow, strict=True)
    }


def _settable(after: Analysis | None) -> str:
    """The configuration as JSON; nothing if its key is not to be told."""
    values = {} if after is None else after.rss_json()
    return json.dumps(values) if values.get("key") else ""


def _overview(analysis: Analysis) -> list[tuple[str, str]]:
    """What was looked at: numbers and what they are of."""
    made = [
        (amount(analysis.packets), "packets"),
        (amount(analysis.bytes, "B"), "on the wire"),
        (amount(len(analysis.flows)), "flows"),
        (str(analysis.rss.queues), "queues"),
        (str(len(analysis.sources)), "files"),
    ]
    return [
        (number, what[:-1] if number == "1" and what[-1] == "s" else what) for number, what in made
    ]


def period(analysis: Analysis) -> str:
    """From when to when packets are, or nothing."""
    windows = analysis.windows
    if windows is None or not len(windows.starts_ns):
        return ""
    start, end = int(windows.starts_ns[0]), int(windows.starts_ns[-1]) + windows.length_ns
    return f"{moment(start)} to {moment(end)} UTC"
