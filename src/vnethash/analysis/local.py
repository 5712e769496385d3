# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Analysing files here, several at once."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any

from vnethash.analysis.census import DEFAULT_WINDOW_NS, Census, merge
from vnethash.analysis.counting import Progress, count_rows
from vnethash.analysis.files import File, find_files
from vnethash.analysis.result import Analysis, Source
from vnethash.analysis.tables import Given, read_arrow
from vnethash.analysis.threads import Threads
from vnethash.errors import FlowTableError
from vnethash.rss.config import RssConfig


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
    ``jobs`` threads read files, or parts of large captures, by default one a CPU; the
    result does not depend on it. ``columns`` of flow tables are found by their usual
    names, or given (see `parse_columns`). Raises ConfigError for ``window_ns`` (see `Census`).
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
    jobs = jobs or len(os.sched_getaffinity(0))
    parts, sources = Threads(files, rss, jobs, window_ns, progress, columns).run()
    whole = merge(parts) if len(parts) > 1 else parts[0]
    return dataclasses.replace(whole, sources=tuple(sources))


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
    packets, error, kind = 0, None, None
    batches = read_arrow(table, columns)
    first = next(batches, None)  # what is wrong with the whole is no matter of rows
    whole = () if first is None else itertools.chain([first], batches)
    try:
        for more, _ in count_rows(census, whole, "table"):
            packets += more
    except FlowTableError as caught:
        error, kind = caught.reason, type(caught).__name__
    return census.result([Source("table", packets, 0, error, kind=kind)])
