# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Open a flow table, whatever it is written in."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from vnethash.analysis.extras import load
from vnethash.analysis.tables.columnar import read_batches, read_parquet
from vnethash.analysis.tables.columns import Given, Layout
from vnethash.analysis.tables.delimited import read_delimited
from vnethash.analysis.tables.ndjson import read_ndjson
from vnethash.analysis.tables.rows import Chunk, FlowBatch, read_rows
from vnethash.analysis.tables.streams import Decompressed
from vnethash.errors import FlowTableError

_PARQUET = b"PAR1"
_PARQUET_ENDINGS = (".parquet", ".pq")


def is_flow_table(head: bytes) -> bool:
    """Whether a file that begins so (decompressed) can be one: Parquet, or text."""
    if head.startswith(_PARQUET):
        return True
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # no letter that was cut in two
            return False
        text = head[: error.start].decode()
    return bool(text.strip()) and all(c.isprintable() or c in "\t\r\n\ufeff" for c in text)


def open_flow_table(
    path: str | Path, columns: Given | None = None, *, file: BinaryIO | None = None
) -> Iterator[FlowBatch]:
    """The flows of a table, in batches: text (compressed or not), Parquet, a directory of Parquet.

    ``columns`` says what columns are that have no usual name. ``file`` is what to read
    in place of what ``path`` names; it stays open. Rows that cannot be read are told in
    the batch. Raises FlowTableError (after the batches before the damage), OSError, and
    DependencyMissing without pyarrow.
    """
    load("pyarrow", "flow tables")
    given, name = columns or {}, str(path)
    if file is None and Path(path).is_dir():
        yield from _open_directory(Path(path), given)
        return
    with ExitStack() as resources:
        stream = file or resources.enter_context(open(path, "rb"))
        layout, chunks = _open(stream, given, name)
        for chunk in chunks:
            yield read_rows(chunk, layout)


def read_arrow(table: Any, columns: Given | None = None) -> Iterator[FlowBatch]:
    """The flows of Arrow data: a table, a record batch, a reader of them, or whatever gives
    itself as a stream of Arrow (``__arrow_c_stream__``: Polars, DuckDB, pandas).

    Raises FlowTableError if it has no columns of addresses.
    """
    pa = load("pyarrow", "flow tables")
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    if isinstance(table, pa.Table):
        table = table.to_reader()
    if not isinstance(table, pa.RecordBatchReader):
        table = pa.RecordBatchReader.from_stream(table)
    layout, chunks = read_batches(table.schema, table, columns or {}, "table")
    for chunk in chunks:
        yield read_rows(chunk, layout)


def _open(file: BinaryIO, given: Given, path: str) -> tuple[Layout, Iterator[Chunk]]:
    if file.seekable():
        start = file.tell()
        magic = file.read(len(_PARQUET))
        file.seek(start)
        if magic == _PARQUET:
            return read_parquet(file, given, path)
    stream = Decompressed(file, path)
    head = stream.head
    if head.startswith(_PARQUET):
        raise FlowTableError(
            path,
            "is Parquet that cannot be sought in",
            hint="give it as a file, not as a pipe; Parquet compresses by itself",
        )
    if not head:
        raise FlowTableError(path, "is empty")
    if not is_flow_table(head):
        raise FlowTableError(path, "is neither a capture nor a flow table")
    if head.lstrip().startswith(b"{"):
        return read_ndjson(stream, given, path)
    return read_delimited(stream, given, path)


def _open_directory(path: Path, given: Given) -> Iterator[FlowBatch]:
    parts = sorted(
        part
        for part in path.rglob("*")
        # Files beginning so are notes of Spark and others, not data.
        if part.suffix in _PARQUET_ENDINGS and not part.name.startswith(("_", "."))
    )
    if not parts:
        raise FlowTableError(str(path), "has no Parquet files in it")
    for part in parts:
        yield from open_flow_table(part, given)
