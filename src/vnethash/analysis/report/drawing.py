# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Charts to SVG and PNG, by vl-convert: no browser, no network."""

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from vnethash.analysis.extras import load
from vnethash.analysis.report.figures import Figure
from vnethash.analysis.report.theme import chart_config

_SVG = "http://www.w3.org/2000/svg"
_PNG_SCALE = 2
_NEEDLESS = (
    "aria-hidden",
    "aria-roledescription",
    "class",
    "font-family",
    "pointer-events",
    "role",
)
"""Attributes that only make a page large."""
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")


def svg(figure: Figure, colours: Mapping[str, str]) -> str:
    """A picture by itself."""
    return str(_converter().vegalite_to_svg(_fitted(figure, colours)))


def inline_svg(figure: Figure, colours: Mapping[str, str]) -> str:
    """A picture for the inside of a page: it takes the width there is, its marks tell their
    numbers to a pointer, and to a screen reader it is one image with its title.
    """
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(svg(figure, colours))
    for element in root.iter():
        label = element.attrib.pop("aria-label", None)
        for name in _NEEDLESS:
            element.attrib.pop(name, None)
        for name, value in element.attrib.items():
            element.attrib[name] = _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value)
        # The groups around the marks have labels too, of Vega's own making.
        if label is not None and element.tag == f"{{{_SVG}}}path":
            element.insert(0, _title(label))
    _drop_invisible(root)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", figure.title)
    return ElementTree.tostring(root, encoding="unicode")


def png(figure: Figure, colours: Mapping[str, str]) -> bytes:
    """A picture by itself, at twice its size."""
    return bytes(_converter().vegalite_to_png(_fitted(figure, colours), scale=_PNG_SCALE))


def all_in_one(figures: list[Figure]) -> Figure:
    """All pictures below each other, as one."""
    titled = [figure.chart.properties(title=figure.title) for figure in figures]
    chart = (
        load("altair", "pictures")
        .vconcat(*titled, spacing=28)
        .resolve_scale(color="independent", opacity="independent")
    )
    data = {name: rows for figure in figures for name, rows in figure.data.items()}
    return Figure("all", "Where the flows land", chart, data)


def _converter() -> Any:
    return load("vl_convert", "pictures")


def _fitted(figure: Figure, colours: Mapping[str, str]) -> dict[str, Any]:
    spec: dict[str, Any] = figure.chart.to_dict(validate=False)  # its parts were already
    spec["datasets"] = figure.data
    config = chart_config(dict(colours))
    if "vconcat" in spec:
        spec["padding"] = 16
    else:  # the width is of all of it, axes and all
        spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    spec["config"] = config
    return spec


def _title(text: str) -> ElementTree.Element:
    title = ElementTree.Element(f"{{{_SVG}}}title")
    title.text = text
    return title


def _drop_invisible(parent: ElementTree.Element) -> None:
    """Vega draws backgrounds and foregrounds that nobody sees, one in each group."""
    for child in list(parent):
        _drop_invisible(child)
        if child.get("display") == "none" or child.get("d") == "M0,0h0v0h0Z":
            parent.remove(child)
