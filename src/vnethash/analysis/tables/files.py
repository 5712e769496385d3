# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Open a flow table, whatever it is written in."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from vnethash.analysis.extras import load
from vnethash.analysis.tables.columnar import read_batches, read_parquet
from vnethash.analysis.tables.columns import Given, Layout
from vnethash.analysis.tables.delimited import read_delimited
from vnethash.analysis.tables.ndjson import read_ndjson
from vnethash.analysis.tables.rows import Chunk, FlowBatch, read_rows, unreadable
from vnethash.analysis.tables.text import Text
from vnethash.capture.stream import Stream, open_stream
from vnethash.errors import FlowTableError

_PARQUET = b"PAR1"
_PARQUET_ENDINGS = (".parquet", ".pq")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")


def is_flow_table(head: bytes) -> bool:
    """Whether a file that begins so (decompressed) can be one: Parquet, or text.

    Text is what has no control bytes. The letters may be of any code: who names a
    device in Latin-1, or with a no-break space, has a table nevertheless.
    """
    if head.startswith(_PARQUET):
        return True
    return bool(head.strip()) and not _CONTROL.search(head)


def open_flow_table(
    source: str | os.PathLike[str] | IO[bytes] | Stream, columns: Given | None = None
) -> Iterator[FlowBatch]:
    """The flows of a table, in batches: text (compressed or not), Parquet, a folder of Parquet.

    ``source`` is a path, an address, ``-``, or an open file, which stays open (see
    `open_stream`). ``columns`` says what columns are that have no usual name. Rows that
    cannot be read are told in the batch. Raises FlowTableError, after the batches before
    the damage; CaptureError if it cannot be opened; DependencyMissing without pyarrow.
    """
    load("pyarrow", "flow tables")
    given = columns or {}
    with ExitStack() as resources:
        if isinstance(source, Stream):
            stream = source
        elif isinstance(source, str | os.PathLike) and os.path.isdir(source):
            yield from _open_folder(Path(source), given)
            return
        else:
            stream = resources.enter_context(open_stream(source))
        yield from _batches(*_open(stream, given), stream.path)


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
    yield from _batches(*read_batches(table.schema, table, columns or {}, "table"), "table")


def _batches(layout: Layout, chunks: Iterator[Chunk], path: str) -> Iterator[FlowBatch]:
    arrow_error = load("pyarrow", "flow tables").ArrowException
    for chunk in chunks:
        try:
            batch = read_rows(chunk, layout)
        except arrow_error as error:  # lists and the like
            raise unreadable(path, error) from error
        yield batch


def _open(stream: Stream, given: Given) -> tuple[Layout, Iterator[Chunk]]:
    path = stream.path
    if stream.head.startswith(_PARQUET):
        if stream.is_compressed or not stream.file.seekable():
            raise FlowTableError(
                path,
                "is Parquet that cannot be sought in",
                hint="give it as a file, not as a pipe; Parquet compresses by itself",
            )
        return read_parquet(stream.file, given, path)
    text = Text(stream)
    if not text.head:
        raise FlowTableError(path, "is empty")
    # Of more bytes than these, one that is odd would refuse a table that began well.
    if not is_flow_table(stream.head):
        raise FlowTableError(path, "is neither a capture nor a flow table")
    if text.head.lstrip().startswith(b"{"):
        return read_ndjson(text, given, path)
    return read_delimited(text, given, path)


def _open_folder(path: Path, given: Given) -> Iterator[FlowBatch]:
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
