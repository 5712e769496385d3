# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Tables in Arrow's types: Parquet files, and Arrow in memory."""

from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np

from vnethash.analysis.extras import load
from vnethash.analysis.tables.columns import Given, Layout, find_layout
from vnethash.analysis.tables.rows import Chunk, unreadable

_ROWS = 1 << 16


def read_parquet(file: IO[bytes], given: Given, path: str) -> tuple[Layout, Iterator[Chunk]]:
    """The layout and the rows of a Parquet file that can be sought in. Raises FlowTableError."""
    pa, parquet = load("pyarrow", "flow tables"), load("pyarrow.parquet", "flow tables")
    errors = (pa.ArrowException, OSError)
    try:
        table = parquet.ParquetFile(pa.PythonFile(file, mode="r"))
        schema = table.schema_arrow
    except errors as error:
        raise unreadable(path, error) from error
    fields = _leaves(schema)
    names = [name for name, _ in fields]
    layout = find_layout(names, given, path)
    wanted = [names[index] for index in layout.used]

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
    layout = find_layout([name for name, _ in fields], given, path)

    def chunks() -> Iterator[Chunk]:
        before = 0
        for whole in batches:
            for start in range(0, whole.num_rows, _ROWS):  # is as long as it likes
                batch = whole.slice(start, _ROWS)
                yield _chunk(batch, fields, layout, before, 0)
                before += batch.num_rows

    return layout, chunks()


def _leaves(schema: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Names of columns and how to get there: those of structs have a name of two parts."""
    types = load("pyarrow", "flow tables").types
    leaves: list[tuple[str, tuple[str, ...]]] = []
    for field in schema:
        if types.is_struct(field.type):
            inner = (part.name for part in field.type)
            leaves += [(f"{field.name}.{name}", (field.name, name)) for name in inner]
        else:
            leaves.append((field.name, (field.name,)))
    return leaves


def _chunk(
    batch: Any,
    fields: list[tuple[str, tuple[str, ...]]],
    layout: Layout,
    before: int,
    bytes_read: int,
) -> Chunk:
    pc = load("pyarrow.compute", "flow tables")
    columns = {}
    for index in layout.used:
        outer, *inner = fields[index][1]
        column = batch.column(batch.schema.get_field_index(outer))
        columns[index] = pc.struct_field(column, inner) if inner else column
    numbers = np.arange(before + 1, before + batch.num_rows + 1)
    return Chunk(columns, batch.num_rows, numbers, "row", (), bytes_read)
