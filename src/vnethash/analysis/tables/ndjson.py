# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Tables of one JSON object a line: Zeek's logs, Suricata's eve.json, nfdump's ndjson."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
_EVENT = "event_type"
_MOST_COLUMNS = 10_000


def read_ndjson(text: Text, given: Given, path: str) -> tuple[Layout, Iterator[Chunk]]:
    """The layout and the rows of JSON lines. Raises FlowTableError."""
    # Each chunk brings its own.
    return Layout({}, {}, None), _chunks(text, _Columns(given, path), path)


class _Columns:
    """Those that there are, as far as the file has been read.

    Objects need not have all of them: of other events, of the other family of addresses.
    """

    def __init__(self, given: Given, path: str) -> None:
        self._given, self._path = given, path
        self._places: dict[str, int] = {}
        self._layout: Layout | None = None
        self.names: list[str] = []

    def learn(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """What these have is there as well, whichever come after."""
        for cells in rows:
            if cells.keys() <= self._places.keys():
                continue
            for name in cells:
                # Objects whose names are data have ever more of them.
                if name not in self._places and len(self.names) < _MOST_COLUMNS:
                    self._places[name] = len(self.names)
                    self.names.append(name)
                    self._layout = None

    def layout(self) -> Layout:
        """Of all that is known. Raises FlowTableError without addresses."""
        if self._layout is None:
            self._layout = find_layout(self.names, self._given, self._path)
        return self._layout


def _cells(line: bytes) -> dict[str, Any] | None:
    """By name, ``outer.inner`` for those of an object in the object; None if it is no object."""
    try:
        try:
            value = json.loads(line)
        except UnicodeDecodeError:  # of a device in Latin-1; numbers and addresses have none
            value = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    cells = dict(value)
    for outer, inner in value.items():
        if isinstance(inner, dict):
            cells |= {f"{outer}.{name}": cell for name, cell in inner.items()}
    return cells


def _chunks(text: Text, columns: _Columns, path: str) -> Iterator[Chunk]:
    number, rest = 0, b""
    while block := text.read(_BLOCK):
        whole, _, rest = (rest + block).rpartition(b"\n")
        if len(rest) > _LONGEST:
            raise FlowTableError(path, f"a line after line {number} has over {_LONGEST} bytes")
        lines = whole.split(b"\n") if whole else []
        if lines:
            yield from _chunk(lines, columns, number, text.bytes_read)
        number += len(lines)
    if rest:
        yield from _chunk([rest], columns, number, text.bytes_read)
    columns.layout()  # or there was nothing but other events


def _chunk(
    lines: Sequence[bytes], known: _Columns, before: int, bytes_read: int
) -> Iterator[Chunk]:
    """These lines as a chunk; none if they come before any that could have addresses."""
    pa = load("pyarrow", "flow tables")
    numbers: list[int] = []
    spoilt: list[int] = []
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        cells = _cells(line)
        if cells is not None:
            numbers.append(number)
            rows.append(cells)
        elif line.strip():
            spoilt.append(number)
    known.learn(rows)
    try:
        layout = known.layout()
    except FlowTableError:
        # Of Suricata, which tells of itself until there is a flow.
        if rows and not spoilt and all(row.get(_EVENT, "flow") != "flow" for row in rows):
            return
        raise
    columns = {index: [row.get(known.names[index]) for row in rows] for index in layout.used}
    rejected: tuple[Rejected, ...] = ()
    if spoilt:
        first = lines[spoilt[0]][:_SHOWN].decode("utf-8", "backslashreplace")
        where = f"line {before + spoilt[0] + 1}: {first!r}"
        rejected = (Rejected("not a JSON object", len(spoilt), where),)
    arrays = {
        # A lone surrogate is JSON, but no text.
        index: pa.array([_text(cell) for cell in column], pa.string())
        for index, column in columns.items()
    }
    places = np.array(numbers, np.int64) + before + 1
    yield Chunk(arrays, len(numbers), places, "line", rejected, bytes_read, layout)


def _text(cell: Any) -> str | None:
    return None if cell is None else str(cell).encode("utf-8", "replace").decode()
