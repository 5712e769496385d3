# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Tables of one JSON object a line: Zeek's logs, Suricata's eve.json, nfdump's ndjson."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vnethash.analysis.extras import load
from vnethash.analysis.tables.columns import Given, Layout, find_layout
from vnethash.analysis.tables.rows import Chunk, Rejected
from vnethash.analysis.tables.text import Text
from vnethash.errors import FlowTableError

_BLOCK = 1 << 20
_LONGEST = 64 << 20
_SHOWN = 40


def read_ndjson(text: Text, given: Given, path: str) -> tuple[Layout, Iterator[Chunk]]:
    """The layout and the rows of JSON lines. Raises FlowTableError."""
    names: dict[str, None] = {}
    for line in text.head.split(b"\n"):
        names |= dict.fromkeys(_cells(line) or ())
    layout = find_layout(list(names), given, path)
    return layout, _chunks(text, layout, list(names), path)


def _cells(line: bytes) -> dict[str, Any] | None:
    """By name, ``outer.inner`` for those of an object in the object; None if it is no object."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    cells = dict(value)
    for outer, inner in value.items():
        if isinstance(inner, dict):
            cells |= {f"{outer}.{name}": cell for name, cell in inner.items()}
    return cells


def _chunks(text: Text, layout: Layout, names: Sequence[str], path: str) -> Iterator[Chunk]:
    number, rest = 0, b""
    while block := text.read(_BLOCK):
        whole, _, rest = (rest + block).rpartition(b"\n")
        if len(rest) > _LONGEST:
            raise FlowTableError(path, f"a line after line {number} has over {_LONGEST} bytes")
        lines = whole.split(b"\n") if whole else []
        yield _chunk(lines, layout, names, number, text.bytes_read)
        number += len(lines)
    if rest:
        yield _chunk([rest], layout, names, number, text.bytes_read)


def _chunk(
    lines: Sequence[bytes], layout: Layout, names: Sequence[str], before: int, bytes_read: int
) -> Chunk:
    pa = load("pyarrow", "flow tables")
    used = {index: names[index] for index in layout.used}
    columns: dict[int, list[str | None]] = {index: [] for index in used}
    numbers: list[int] = []
    spoilt: list[int] = []
    for number, line in enumerate(lines):
        cells = _cells(line)
        if cells is not None:
            numbers.append(number)
            for index, name in used.items():
                cell = cells.get(name)
                columns[index].append(None if cell is None else str(cell))
        elif line.strip():
            spoilt.append(number)
    rejected: tuple[Rejected, ...] = ()
    if spoilt:
        first = lines[spoilt[0]][:_SHOWN].decode("utf-8", "backslashreplace")
        where = f"line {before + spoilt[0] + 1}: {first!r}"
        rejected = (Rejected("not a JSON object", len(spoilt), where),)
    arrays = {
        # A lone surrogate is JSON, but no text.
        index: pa.array([_utf8(cell) for cell in column], pa.string())
        for index, column in columns.items()
    }
    places = np.array(numbers, np.int64) + before + 1
    return Chunk(arrays, len(numbers), places, "line", rejected, bytes_read)


def _utf8(cell: str | None) -> str | None:
    return None if cell is None else cell.encode("utf-8", "replace").decode()
