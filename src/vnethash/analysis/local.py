# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Analysing files here, several at once."""

import dataclasses
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vnethash.analysis.census import DEFAULT_WINDOW_NS, Census, merge
from vnethash.analysis.files import File, find_files
from vnethash.analysis.result import Analysis, Source
from vnethash.analysis.tables import (
    FlowBatch,
    Given,
    Rejected,
    is_flow_table,
    merge_rejected,
    open_flow_table,
    read_arrow,
    rejected_text,
)
from vnethash.capture.stream import Stream, open_stream
from vnethash.capture.walk import Walker
from vnethash.errors import CaptureError, DependencyMissing, FlowTableError
from vnethash.rss.config import RssConfig

Progress = Callable[[int, int], None]
"""Called now and then with the bytes of files that were read, and packets, since the last call."""


def analyze(
    paths: Iterable[str | os.PathLike[str]],
    rss: RssConfig | None = None,
    *,
    jobs: int | None = None,
    window_ns: int = DEFAULT_WINDOW_NS,
    progress: Progress | None = None,
    columns: Given | None = None,
) -> Analysis:
    """What ``rss`` makes of the packets of files: captures, flow tables, folders of them.

    By default that is `RssConfig.default` of four queues. A file that is damaged or
    cannot be read counts as far as it goes: `Analysis.failed` says which and why.
    ``jobs`` files are read at once, as many as there are CPUs by default; the result
    does not depend on it. ``columns`` of flow tables are found by their usual names, or
    given (see `parse_columns`). Raises ConfigError for ``window_ns`` (see `Census`), and
    CaptureError for a folder without captures.
    """
    files = find_files(paths)
    return analyze_files(
        files,
        rss or RssConfig.default(4),
        jobs=jobs,
        window_ns=window_ns,
        progress=progress,
        columns=columns,
    )


def analyze_files(
    files: Sequence[File],
    rss: RssConfig,
    *,
    jobs: int | None = None,
    window_ns: int = DEFAULT_WINDOW_NS,
    progress: Progress | None = None,
    columns: Given | None = None,
) -> Analysis:
    """`analyze` for files that were found already."""
    jobs = max(1, min(jobs or len(os.sched_getaffinity(0)), len(files)))
    todo = iter(enumerate(files))
    lock = threading.Lock()
    stop = threading.Event()
    tell = _shared(progress, lock, stop)

    def work() -> tuple[Analysis, list[tuple[int, Source]]]:
        census = Census(rss, window_ns=window_ns)
        sources = []
        while not stop.is_set():
            with lock:
                number, file = next(todo, (None, None))
            if number is None or file is None:
                break
            sources.append((number, count_file(census, file.path, tell, columns)))
        return census.result(), sources

    if jobs == 1:
        parts = [work()]
    else:
        with ThreadPoolExecutor(jobs, "vnethash") as pool:
            workers = [pool.submit(work) for _ in range(jobs)]
            try:
                parts = [worker.result() for worker in workers]
            finally:
                stop.set()  # an interrupt ends all of them
    found = dict(pair for _, pairs in parts for pair in pairs)
    whole = merge(analysis for analysis, _ in parts) if len(parts) > 1 else parts[0][0]
    return dataclasses.replace(whole, sources=tuple(found[number] for number in sorted(found)))


def analyze_table(
    table: Any,
    rss: RssConfig | None = None,
    *,
    window_ns: int = DEFAULT_WINDOW_NS,
    columns: Given | None = None,
) -> Analysis:
    """`analyze` for a flow table in memory: whatever `read_arrow` takes.

    Rows that cannot be read are told as those of a file are. Raises FlowTableError if it
    has no columns of addresses, and DependencyMissing without pyarrow.
    """
    census = Census(rss or RssConfig.default(4), window_ns=window_ns)
    packets, error = 0, None
    batches = read_arrow(table, columns)
    first = next(batches, None)  # what is wrong with the whole is no matter of rows
    whole = () if first is None else itertools.chain([first], batches)
    try:
        for more, _ in _rows(census, whole, "table"):
            packets += more
    except FlowTableError as caught:
        error = caught.reason
    return census.result([Source("table", packets, 0, error)])


def count_file(
    census: Census, path: str, progress: Progress | None = None, columns: Given | None = None
) -> Source:
    """Count the packets of a capture or a flow table, as far as it can be read."""
    packets = before = read = 0
    error: str | None = None
    offset: int | None = None
    try:
        with open_stream(path) as stream:
            if is_flow_table(stream.head):
                counted = _rows(census, open_flow_table(stream, columns), path)
            else:
                counted = _frames(census, stream)
            for more, read in counted:
                packets += more
                if progress is not None:
                    progress(read - before, more)
                before = read
            read = max(read, stream.bytes_read)
    except CaptureError as caught:
        error, offset = caught.reason, caught.offset
    except FlowTableError as caught:
        error = caught.reason
    except DependencyMissing as caught:
        error = str(caught)
    return Source(path, packets, read, error, offset)


def _frames(census: Census, stream: Stream) -> Iterator[tuple[int, int]]:
    """Count a capture; packets of each block, and bytes that were read up to there."""
    for block in Walker(stream, stream.path):
        census.add_frames(block.memory, block.frames)
        yield len(block.frames), stream.bytes_read


def _rows(census: Census, batches: Iterable[FlowBatch], path: str) -> Iterator[tuple[int, int]]:
    """Count a flow table likewise; raises FlowTableError at last if rows could not be read."""
    rejected: tuple[Rejected, ...] = ()
    for batch in batches:
        census.add_flows(batch.flows, batch.times_ns)
        rejected = merge_rejected((*rejected, *batch.rejected))
        yield int(batch.flows["packets"].sum()), batch.bytes_read
    if reason := rejected_text(rejected):
        raise FlowTableError(path, reason)


class _Stopped(Exception):
    """Somebody has interrupted the whole."""


def _shared(progress: Progress | None, lock: threading.Lock, stop: threading.Event) -> Progress:
    """Progress of several threads, one after the other; ends them when they are to stop."""

    def tell(read: int, packets: int) -> None:
        if stop.is_set():
            raise _Stopped
        if progress is not None:
            with lock:
                progress(read, packets)

    return tell
