# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The colours of a report, by day and by night, and what charts make of them."""

from typing import Any

LIGHT = {
    "page": "#ffffff",
    "panel": "#f5f6f8",
    "ink": "#1b1f24",
    "muted": "#59636e",
    "line": "#d5dae0",
    "before": "#2f6fb7",
    "after": "#c2540a",
    "heat": "#4d97e6",
    "q0": "#2f6fb7",
    "q1": "#c2540a",
    "q2": "#1f8a5b",
    "q3": "#a3408f",
    "q4": "#8a6d00",
    "q5": "#0b8793",
    "q6": "#c03a4b",
    "q7": "#6a5acd",
}
DARK = {
    "page": "#14171b",
    "panel": "#1d2127",
    "ink": "#e6e9ed",
    "muted": "#9ba5b0",
    "line": "#363d46",
    "before": "#6cabf0",
    "after": "#f0914a",
    "heat": "#3d84d1",
    "q0": "#6cabf0",
    "q1": "#f0914a",
    "q2": "#54c792",
    "q3": "#dd86cb",
    "q4": "#d9b83c",
    "q5": "#4cc4d0",
    "q6": "#f0808d",
    "q7": "#a99cf5",
}
QUEUE_COLOURS = tuple(f"q{queue}" for queue in range(8))

PAGE = {name: f"var(--{name})" for name in LIGHT}
"""Colours for charts inside of the page, which takes them from its style sheet."""

FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def css_variables(colours: dict[str, str]) -> str:
    """Declarations for the style sheet of the page."""
    return "".join(f"--{name}:{value};" for name, value in colours.items())


def chart_config(colours: dict[str, str]) -> dict[str, Any]:
    """The ``config`` of a Vega-Lite chart."""
    text = {"labelColor": colours["muted"], "titleColor": colours["muted"]}
    return {
        "background": colours.get("background"),
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            **text,
            "domainColor": colours["line"],
            "tickColor": colours["line"],
            "gridColor": colours["line"],
            "gridOpacity": 0.6,
            "labelFontSize": 11,
            "titleFontSize": 11,
            "titleFontWeight": "normal",
            "labelAngle": 0,
        },
        "legend": {**text, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"},
        "title": {"color": colours["ink"], "fontSize": 13, "anchor": "start", "frame": "group"},
        "text": {"color": colours["ink"]},
    }
