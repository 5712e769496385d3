# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Analysing files here, several at once."""

import dataclasses
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from vnethash.analysis.census import DEFAULT_WINDOW_NS, Census, merge
from vnethash.analysis.files import File, find_files
from vnethash.analysis.result import Analysis, Source
from vnethash.capture.stream import open_stream
from vnethash.capture.walk import Walker
from vnethash.errors import CaptureError, DependencyMissing
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
) -> Analysis:
    """What ``rss`` makes of the packets of files: captures, folders of them.

    By default that is `RssConfig.default` of four queues. A file that is damaged or
    cannot be read counts as far as it goes: `Analysis.failed` says which and why.
    ``jobs`` files are read at once, as many as there are CPUs by default; the result
    does not depend on it. Raises ConfigError for ``window_ns`` (see `Census`), and
    CaptureError for a folder without captures.
    """
    files = find_files(paths)
    return analyze_files(
        files, rss or RssConfig.default(4), jobs=jobs, window_ns=window_ns, progress=progress
    )


def analyze_files(
    files: Sequence[File],
    rss: RssConfig,
    *,
    jobs: int | None = None,
    window_ns: int = DEFAULT_WINDOW_NS,
    progress: Progress | None = None,
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
            sources.append((number, count_file(census, file.path, tell)))
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


def count_file(census: Census, path: str, progress: Progress | None = None) -> Source:
    """Count the packets of a file, as far as it can be read."""
    before, read = census.packets, 0
    error: str | None = None
    offset: int | None = None
    try:
        with open_stream(path) as stream:
            for block in Walker(stream, stream.path):
                census.add_frames(block.memory, block.frames)
                if progress is not None:
                    progress(stream.bytes_read - read, len(block.frames))
                read = stream.bytes_read
            read = stream.bytes_read
    except CaptureError as caught:
        error, offset = caught.reason, caught.offset
    except DependencyMissing as caught:
        error = str(caught)
    return Source(path, census.packets - before, read, error, offset)


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
