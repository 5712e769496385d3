# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A picture of the costs: bars with their quartiles, as SVG."""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from vnethash.engines.select import EBPF
from vnethash.lab.compare.measure import HOST
from vnethash.lab.compare.page import CB, KFUNC, PROGTYPE, WAYS
from vnethash.lab.inside.cost import HASH_STAGE
from vnethash.lab.options import STOCK

_WIDTH, _LABEL, _ROW, _BAR = 720, 230, 22, 12
_TRAFFIC = "bridge, 60 B"
_COLOURS = {"stock": "#4477aa", "new": "#cc6677", "other": "#999999"}

Bar = tuple[str, Mapping[str, Any], str]
"""Label, summary, and of which colour."""


def draw(results: Mapping[str, Any]) -> str:
    """Two panels: programs alone with a JIT, whole paths against a plain tap."""
    kernels = results["kernels"]
    programs = kernels[HOST]["cost"]["programs"]
    own = [
        (f"{title}, {kind}", programs[name]["ns"][kind], colour)
        for kind in ("IPv4/TCP", "IPv6/TCP")
        for title, name, colour in (
            ("read in place (ebpf)", HASH_STAGE, "stock"),
            ("read by copy (tun-cb)", CB, "new"),
        )
    ]
    interpreted = [
        (f"{way}, {kind}", _of_hash_stage(kernels[way], way, kind), "new")
        for kind in ("IPv4/TCP", "IPv6/TCP")
        for way in (KFUNC, PROGTYPE, CB)
    ]
    path = [(f"{EBPF} {how}", _ratio(kernels[STOCK], f"{EBPF} {how}"), "stock") for how in _REPORTS]
    path.append(("software", _ratio(kernels[STOCK], "software"), "other"))
    path += [(f"{way} record", _ratio(kernels[way], f"{way} record"), "new") for way in WAYS]
    panels = [
        ("Program alone, ns, machine code (JIT)", own),
        ("Program alone, interpreted, of the hash stage of ebpf in the same kernel", interpreted),
        (f"Whole path in user-mode-linux, of a plain tap in the same kernel ({_TRAFFIC})", path),
    ]
    parts, top = [], 10
    for title, bars in panels:
        parts.append(_panel(title, bars, top))
        top += 34 + _ROW * len(bars)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" '
        f'viewBox="0 0 {_WIDTH} {top}" font-family="sans-serif" font-size="12">'
    )
    background = f'<rect width="{_WIDTH}" height="{top}" fill="#ffffff"/>'
    return "\n".join([head, background, *parts, "</svg>"]) + "\n"


_REPORTS = ("record", "rehash")


def _ratio(kernel: Mapping[str, Any], variant: str) -> Mapping[str, Any]:
    rows = kernel["cost"]["path"]
    found: Mapping[str, Any] = next(
        row["ratio"] for row in rows if (row["case"], row["variant"]) == (_TRAFFIC, variant)
    )
    return found


def _of_hash_stage(kernel: Mapping[str, Any], way: str, kind: str) -> Mapping[str, Any]:
    programs = kernel["cost"]["programs"]
    base = programs[HASH_STAGE]["ns"][kind]["median"]
    return {end: programs[way]["ns"][kind][end] / base for end in ("low", "median", "high")}


def _panel(title: str, bars: Sequence[Bar], top: int) -> str:
    most = max(summary["high"] for _, summary, _ in bars)
    scale = (_WIDTH - _LABEL - 70) / most
    lines = [f'<text x="10" y="{top + 14}" font-weight="bold">{escape(title)}</text>']
    for index, (label, summary, colour) in enumerate(bars):
        y = top + 24 + index * _ROW
        middle = y + _BAR / 2
        low, median, high = (_LABEL + summary[k] * scale for k in ("low", "median", "high"))
        digits = 2 if most < 10 else 0
        lines += [
            f'<text x="{_LABEL - 8}" y="{y + 10}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{_LABEL}" y="{y}" width="{median - _LABEL:.1f}" height="{_BAR}" '
            f'fill="{_COLOURS[colour]}"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#000000"/>',
            f'<text x="{high + 6:.1f}" y="{y + 10}">{summary["median"]:.{digits}f}</text>',
        ]
    return "\n".join(lines)
