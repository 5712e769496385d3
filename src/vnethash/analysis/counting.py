# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Counting what is in one file."""

from collections.abc import Callable, Iterable, Iterator

from vnethash.analysis.census import Census
from vnethash.analysis.result import Source
from vnethash.analysis.tables import (
    FlowBatch,
    Given,
    Rejected,
    is_flow_table,
    merge_rejected,
    open_flow_table,
    rejected_text,
)
from vnethash.capture.stream import Stream, open_stream
from vnethash.capture.walk import Walker
from vnethash.errors import CaptureError, DependencyMissing, FlowTableError

Progress = Callable[[int, int], None]
"""Called now and then with the bytes of files that were read, and packets, since the last call."""


def count_file(
    census: Census, path: str, progress: Progress | None = None, columns: Given | None = None
) -> Source:
    """Count the packets of a capture or a flow table, as far as it can be read."""
    packets = before = read = 0
    error: str | None = None
    offset: int | None = None
    hint: str | None = None
    kind: str | None = None
    is_compressed = False
    try:
        with open_stream(path) as stream:
            is_compressed = stream.is_compressed
            if is_flow_table(stream.head):
                counted = count_rows(census, open_flow_table(stream, columns), path)
            else:
                counted = _frames(census, stream)
            for more, read in counted:
                packets += more
                if progress is not None:
                    progress(read - before, more)
                before = read
            read = max(read, stream.bytes_read)
    except CaptureError as caught:
        error, offset, hint = caught.reason, caught.offset, caught.hint
        if offset is not None and not is_compressed:
            read = offset  # a megabyte is read at once, but this is as far as it is good
    except FlowTableError as caught:
        error, hint, kind = caught.reason, caught.hint, type(caught).__name__
    except DependencyMissing as caught:
        error = f"{caught} ({caught.hint})" if caught.hint else str(caught)
        kind = type(caught).__name__
    return Source(path, packets, read, error, offset, hint, kind)


def count_rows(
    census: Census, batches: Iterable[FlowBatch], path: str
) -> Iterator[tuple[int, int]]:
    """Count a flow table likewise; raises FlowTableError at last if rows could not be read,
    or if not one of them is of a flow."""
    rejected: tuple[Rejected, ...] = ()
    rows = left_out = 0
    for batch in batches:
        rows, left_out = rows + batch.rows, left_out + batch.left_out
        census.add_flows(batch.flows, batch.times_ns)
        rejected = merge_rejected((*rejected, *batch.rejected))
        yield int(batch.flows["packets"].sum()), batch.bytes_read
    if reason := rejected_text(rejected):
        raise FlowTableError(path, reason)
    if left_out and not rows:
        raise FlowTableError(path, f"has {left_out} rows, and none of them says that it is a flow")


def _frames(census: Census, stream: Stream) -> Iterator[tuple[int, int]]:
    """Count a capture; packets of each block, and bytes that were read up to there."""
    for block in Walker(stream, stream.path):
        census.add_frames(block.memory, block.frames)
        yield len(block.frames), stream.bytes_read
