# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Analysing files on a Dask cluster: a task a file, several of a large one, sums in a tree."""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from operator import itemgetter
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from vnethash.analysis.blocks import BLOCK_BYTES, BLOCK_LEAST, Block, Joint, count_block, split
from vnethash.analysis.census import DEFAULT_WINDOW_NS, Census, merge
from vnethash.analysis.counting import Progress, count_file
from vnethash.analysis.files import File, find_files
from vnethash.analysis.result import Analysis, Source
from vnethash.analysis.tables import Given
from vnethash.errors import ClusterError, ConfigError, DependencyMissing
from vnethash.rss.config import RssConfig

_GROUP_FILES: Final = 256
_GROUP_BYTES: Final = 64 << 20
"""As many are one task, unless workers were idle then."""
_TASKS_A_THREAD: Final = 4
_FAN_IN: Final = 8
"""Analyses that one task adds up."""
_PATIENCE: Final = 30
"""Seconds until a scheduler must have answered, and a worker have come."""


def analyze_cluster(
    paths: Iterable[str | os.PathLike[str]],
    rss: RssConfig | None = None,
    *,
    cluster: str | Any | None = None,
    workers: int | None = None,
    window_ns: int = DEFAULT_WINDOW_NS,
    progress: Progress | None = None,
    columns: Given | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Analysis:
    """What `analyze` finds in the same files, to the last digit, by the workers of a cluster.

    ``cluster`` is the address of a scheduler, or a `distributed.Client` of one, whose workers
    find the files by the same paths or addresses; without it, ``workers`` processes are
    started here, by default one a CPU, and ended. Captures that are not compressed are
    split into blocks of ``block_bytes``, at least 1 MiB. A file that cannot be read, or that kills
    its workers again and again, counts as far as it goes: `Analysis.failed`.

    Raises what `analyze` raises, ClusterError, and DependencyMissing without Dask.
    """
    if block_bytes < BLOCK_LEAST:
        raise ConfigError("block_bytes", f"must be at least {BLOCK_LEAST}, not {block_bytes}")
    return analyze_files_cluster(
        find_files(paths),
        rss or RssConfig.default(4),
        cluster=cluster,
        workers=workers,
        window_ns=window_ns,
        progress=progress,
        columns=columns,
        block_bytes=block_bytes,
    )


def analyze_files_cluster(
    files: Sequence[File],
    rss: RssConfig,
    *,
    cluster: str | Any | None = None,
    workers: int | None = None,
    window_ns: int = DEFAULT_WINDOW_NS,
    progress: Progress | None = None,
    columns: Given | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Analysis:
    """`analyze_cluster` for files that were found already."""
    if any(file.path == "-" for file in files):
        raise ConfigError("files", "standard input cannot be read by other processes")
    nothing = Census(rss, window_ns=window_ns).result()  # what is wrong is said before work begins
    with connected(cluster, workers) as client:
        run = _Run(client, rss, window_ns, progress, columns)
        run.add(files, block_bytes)
        whole, sources = run.finish()
    return dataclasses.replace(
        nothing if whole is None else whole, sources=tuple(sources[n] for n in sorted(sources))
    )


@contextmanager
def connected(address: str | Any | None, workers: int | None) -> Iterator[Any]:
    """A client of the cluster at ``address``, which can be one, or of one of this machine's own."""
    if not isinstance(address, str | None):
        yield address
        return
    try:
        distributed = import_module("distributed")
    except ImportError as error:
        raise DependencyMissing(
            f"a cluster needs Dask: {error}", hint="pip install 'vnethash[dask]'"
        ) from error
    if address is None:
        try:
            # A scheduler executes what its clients send, and all users of a machine reach its
            # loopback: only who has this certificate, made for this run, is let in.
            security = distributed.security.Security.temporary()
        except ImportError as error:
            raise DependencyMissing(
                f"workers on this machine need cryptography: {error}",
                hint="pip install 'vnethash[dask]'",
            ) from error
        # Its pages have no certificate, and would tell all users of the machine of files and
        # stacks: none, no dashboard, a port that is free.
        dask_config = import_module("dask.config")
        with (
            dask_config.set(
                {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
            ),
            TemporaryDirectory(prefix="vnethash-") as folder,
            distributed.LocalCluster(
                n_workers=workers or len(os.sched_getaffinity(0)),
                threads_per_worker=1,
                host="127.0.0.1",
                protocol="tls://",
                security=security,
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0", "local_directory": folder},
                local_directory=folder,
                silence_logs=logging.CRITICAL,
            ) as local,
            distributed.Client(local, set_as_default=False) as client,
        ):
            yield client
        return
    try:
        _check(address)
        client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {address}: {error}",
            hint="start one with `dask scheduler`, and name it as tcp://HOST:8786",
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError as error:
            raise ClusterError(
                f"the Dask scheduler at {address} has no workers",
                hint=f"start some with `dask worker {address}`",
            ) from error
        yield client


def _check(address: str) -> None:
    """Raise ValueError or OSError if a scheduler cannot be asked there.

    A Client does not see that until it is half made, and hangs when it is given up.
    """
    addressing = import_module("distributed.comm.addressing")
    addressing.get_address_host(address)
    security = import_module("distributed.security").Security()  # as Dask is configured
    is_tls = addressing.parse_address(address)[0] in ("tls", "wss")
    if is_tls and security.get_connection_args("client").get("ssl_context") is None:
        raise ValueError("Dask has no certificates in its configuration (distributed.comm.tls)")


class _Run:
    """The tasks of an analysis, and what came of those that are done."""

    def __init__(
        self,
        client: Any,
        rss: RssConfig,
        window_ns: int,
        progress: Progress | None,
        columns: Given | None,
    ) -> None:
        self._distributed = import_module("distributed")
        self._client = client
        # As a task: were it data, it would be lost with the worker that holds it.
        self._rss = client.submit(RssConfig.from_json, rss.to_json(), pure=False)
        self._window_ns = window_ns
        self._progress = progress
        self._count = partial(_count_files, columns)
        self._done = self._distributed.as_completed(loop=client.loop)
        self._tasks: dict[str, _Task] = {}
        self._joints: dict[int, tuple[Joint, dict[int, _Task]]] = {}
        self._sum = _Sum(client)
        self._sources: dict[int, Source] = {}
        self._suspects: list[_Task] = []

    def add(self, files: Sequence[File], block_bytes: int) -> None:
        """Have files counted: small ones several to a task, large ones in blocks."""
        threads = sum(self._client.nthreads().values()) or 1
        most = max(1, min(_GROUP_FILES, len(files) // (_TASKS_A_THREAD * threads)))
        group: list[_Named] = []
        size = 0
        for number, file in enumerate(files):
            if file.failure is not None:
                self._sources[number] = Source.of_failure(file.path, file.failure)
                continue
            path = file.path if "://" in file.path else os.path.abspath(file.path)
            named = _Named(number, file.path, path)
            if blocks := split(dataclasses.replace(file, path=path), block_bytes):
                self._add_blocks(named, blocks, file.size or 0)
                continue
            group.append(named)
            size += file.size or _GROUP_BYTES
            if len(group) == most or size >= _GROUP_BYTES:
                self._add_group(group, size)
                group, size = [], 0
        if group:
            self._add_group(group, size)

    def _add_group(self, group: Sequence["_Named"], size: int) -> None:
        paths = [one.path for one in group]
        self._submit(_Task(tuple(group), None, size, self._count, paths))

    def _add_blocks(self, file: "_Named", blocks: Sequence[Block], size: int) -> None:
        tasks: dict[int, _Task] = {}
        self._joints[file.number] = Joint(blocks, size), tasks
        for place, block in enumerate(blocks):
            length = (block.end or size) - block.start
            tasks[place] = _Task((file,), place, length, count_block, block)
            self._submit(tasks[place])

    def _submit(self, task: "_Task") -> None:
        arguments = (task.count, task.what, self._rss, self._window_ns)
        # What was found stays with the workers; what is told of it comes here.
        task.counted = self._client.submit(_counted, *arguments, pure=False)
        told = self._client.submit(itemgetter(0), task.counted, pure=False, priority=1)
        self._tasks[told.key] = task
        self._done.add(told)

    def finish(self) -> tuple[Analysis | None, dict[int, Source]]:
        """The sum, None of nothing, and what is told of each file."""
        self._wait(self._suspect)
        # Dask blames a death on all that the worker had at hand. Alone, each shows what it does.
        for task in sorted(self._suspects, key=lambda task: (task.files[0], task.place)):
            if task.place is None:
                for file in task.files:
                    self._add_group([file], 0)
                    self._wait(self._convict)
            elif self._is_awaited(task):
                self._submit(task)
                self._wait(self._convict)
        return self._sum.result(), self._sources

    def _wait(self, killed: Callable[["_Task", str], None]) -> None:
        """For all tasks; ``killed`` is told of those whose workers died."""
        for told in self._done:
            task = self._tasks.pop(told.key)
            try:
                answer = told.result()
            except self._distributed.KilledWorker as error:
                killed(task, f"{error.allowed_failures + 1} workers that read it died")
            except Exception as error:
                # Of the library, of workers, of the connection: it cannot be told from here.
                raise ClusterError(f"the cluster does not do its work: {error}") from error
            else:
                self._take(task, answer)

    def _suspect(self, task: "_Task", _reason: str) -> None:
        self._suspects.append(task)

    def _convict(self, task: "_Task", reason: str) -> None:
        (file,) = task.files
        if task.place is None:
            self._sources[file.number] = Source(file.name, 0, 0, reason)
        else:
            self._joints[file.number][0].lose(task.place, reason)
            self._join(file)

    def _defect(self, task: "_Task", text: str) -> None:
        raise ClusterError(
            f"{task.files[0].name}: a worker failed: {text}",
            hint="workers need the same version of vnethash as this machine",
        )

    def _take(self, task: "_Task", told: Any) -> None:
        if isinstance(told, _Defect):
            self._defect(task, told.text)
        if task.place is None:
            for file, source in zip(task.files, told, strict=True):
                self._sources[file.number] = dataclasses.replace(source, path=file.name)
            self._sum.add(task.counted)
            self._tell(task, sum(source.packets for source in told))
        elif self._is_awaited(task):
            (file,) = task.files
            self._tell(task, told.packets)
            self._joints[file.number][0].put(task.place, told)
            self._join(file)

    def _is_awaited(self, task: "_Task") -> bool:
        """Whether a block is not passed over by now, or counted anew as this time was wrong."""
        _, tasks = self._joints.get(task.files[0].number, (None, {}))
        return task.place is not None and tasks.get(task.place) is task

    def _join(self, file: "_Named") -> None:
        """Go on with the blocks of a file as far as they are there."""
        joint, tasks = self._joints[file.number]
        while step := joint.step():
            if isinstance(step, dict):
                for place, block in step.items():
                    tasks[place] = _Task((file,), place, 0, count_block, block)
                    self._submit(tasks[place])
            else:
                place, counts = step
                task = tasks.pop(place)
                if counts:
                    self._sum.add(task.counted)
        if joint.is_done:
            self._sources[file.number] = dataclasses.replace(joint.source(), path=file.name)
            del self._joints[file.number]

    def _tell(self, task: "_Task", packets: int) -> None:
        if self._progress is not None:
            self._progress(task.bytes, packets)


class _Named(NamedTuple):
    number: int
    name: str
    """As it was given."""
    path: str
    """As workers find it."""


@dataclasses.dataclass(slots=True, eq=False)
class _Task:
    files: tuple[_Named, ...]
    place: int | None
    """Of the block of the file; None for whole files."""
    bytes: int
    count: Callable[..., Any]
    what: Any
    counted: Any = None
    """The future of what is told of it, and of its analysis."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Defect:
    text: str


class _Sum:
    """Adds up analyses where they are, some at a time, as they come: a tree of small depth."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._levels: list[list[Any]] = []

    def add(self, counted: Any, level: int = 0) -> None:
        """Add what is, or will be, on a worker."""
        if level == len(self._levels):
            self._levels.append([])
        waiting = self._levels[level]
        waiting.append(counted)
        if len(waiting) == _FAN_IN:
            self._levels[level] = []
            self.add(self._merge(waiting), level + 1)

    def _merge(self, counted: list[Any]) -> Any:
        return self._client.submit(_merged, counted, pure=False, priority=2)

    def result(self) -> Analysis | None:
        """The sum of all; None if there was none. Raises ClusterError."""
        parts = [counted for waiting in self._levels for counted in waiting]
        if not parts:
            return None
        while len(parts) > 1:
            starts = range(0, len(parts), _FAN_IN)
            parts = [self._merge(parts[start : start + _FAN_IN]) for start in starts]
        (whole,) = parts
        try:
            return _result(whole)
        except Exception as error:
            if whole.status != "error":
                raise ClusterError(f"the connection to the cluster was lost: {error}") from error
        self._client.retry([whole])  # it may have been blamed for the death of a worker
        try:
            return _result(whole)
        except Exception as error:
            raise ClusterError(f"the parts could not be added up: {error}") from error


def _result(whole: Any) -> Analysis:
    analysis: Analysis = whole.result()[1]
    return analysis


def _merged(counted: Sequence[tuple[Any, Analysis]]) -> tuple[None, Analysis]:
    return None, merge(analysis for _, analysis in counted)


def _counted(count: Any, what: Any, rss: RssConfig, window_ns: int) -> tuple[Any, Any]:
    try:
        counted: tuple[Any, Any] = count(what, rss, window_ns)
    except Exception as error:
        # As a value, for not all errors can be pickled.
        return _Defect(f"{type(error).__name__}: {error}"), None
    return counted


def _count_files(
    columns: Given | None, paths: Sequence[str], rss: RssConfig, window_ns: int
) -> tuple[list[Source], Analysis]:
    census = Census(rss, window_ns=window_ns)
    sources = [count_file(census, path, columns=columns) for path in paths]
    return sources, census.result()
