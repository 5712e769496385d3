# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Tables in Arrow's types: Parquet files, and Arrow in memory."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

import numpy as np

from vnethash.analysis.extras import load
from vnethash.analysis.tables.columns import Given, Layout, find_layout
from vnethash.analysis.tables.rows import Chunk, unreadable

_ROWS = 1 << 16
_BUFFER = 1 << 20


def read_parquet(file: IO[bytes], given: Given, path: str) -> tuple[Layout, Iterator[Chunk]]:
    """The layout and the rows of a Parquet file that can be sought in. Raises FlowTableError."""
    pa, parquet = load("pyarrow", "flow tables"), load("pyarrow.parquet", "flow tables")
    errors = (pa.ArrowException, OSError, UnicodeDecodeError)
    try:
        # Without a buffer, a column of a row group is read at once: of the largest, all rows.
        table = parquet.ParquetFile(
            pa.PythonFile(file, mode="r"), buffer_size=_BUFFER, pre_buffer=False
        )
        schema = table.schema_arrow
    except errors as error:
        raise unreadable(path, error) from error
    fields = _leaves(schema)
    names = [field.name for field in fields]
    layout = find_layout(names, given, path)
    wanted = list(dict.fromkeys(names[index] for index in layout.used))

    def batches() -> Iterator[Chunk]:
        size = file.seek(0, 2)
        before = 0
        try:
            for batch in table.iter_batches(_ROWS, columns=wanted, use_threads=False):
                before += batch.num_rows
                read = size * before // table.metadata.num_rows
                yield _chunk(batch, fields, layout, before - batch.num_rows, read)
        except errors as error:
            raise unreadable(path, error) from error

    return layout, batches()


def read_batches(
    schema: Any, batches: Iterable[Any], given: Given, path: str
) -> tuple[Layout, Iterator[Chunk]]:
    """The layout and the rows of Arrow record batches. Raises FlowTableError."""
    fields = _leaves(schema)
    layout = find_layout([field.name for field in fields], given, path)
    errors = (load("pyarrow", "flow tables").ArrowException, UnicodeDecodeError)

    def chunks() -> Iterator[Chunk]:
        before = 0
        try:
            for whole in batches:
                for start in range(0, whole.num_rows, _ROWS):  # is as long as it likes
                    batch = whole.slice(start, _ROWS)
                    yield _chunk(batch, fields, layout, before, 0)
                    before += batch.num_rows
        except errors as error:
            raise unreadable(path, error) from error

    return layout, chunks()


class _Field(NamedTuple):
    """A column, or a part of one that is a struct, which has a name of two parts."""

    name: str
    outer: str
    nth: int
    """Of the columns called ``outer``: there can be several, and not all are read."""
    inner: tuple[str, ...]


def _leaves(schema: Any) -> list[_Field]:
    types = load("pyarrow", "flow tables").types
    leaves: list[_Field] = []
    seen: Counter[str] = Counter()
    for field in schema:
        outer, nth = field.name, seen[field.name]
        seen[outer] += 1
        if types.is_struct(field.type):
            parts = (part.name for part in field.type)
            leaves += [_Field(f"{outer}.{part}", outer, nth, (part,)) for part in parts]
        else:
            leaves.append(_Field(outer, outer, nth, ()))
    return leaves


def _chunk(batch: Any, fields: list[_Field], layout: Layout, before: int, bytes_read: int) -> Chunk:
    pc = load("pyarrow.compute", "flow tables")
    columns = {}
    for index in layout.used:
        _, outer, nth, inner = fields[index]
        places = [place for place, name in enumerate(batch.schema.names) if name == outer]
        column = batch.column(places[nth])
        columns[index] = pc.struct_field(column, list(inner)) if inner else column
        columns[index].validate(full=True)  # text that is none would end in a UnicodeDecodeError
    numbers = np.arange(before + 1, before + batch.num_rows + 1)
    return Chunk(columns, batch.num_rows, numbers, "row", (), bytes_read)
