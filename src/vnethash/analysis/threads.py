# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Files counted by several threads, large captures in blocks."""

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from vnethash.analysis.blocks import Block, Joint, Seam, count_block, split
from vnethash.analysis.census import Census
from vnethash.analysis.counting import Progress, count_file
from vnethash.analysis.files import File, is_pipe
from vnethash.analysis.result import Analysis, Source
from vnethash.analysis.tables import Given
from vnethash.rss.config import RssConfig

_BLOCK_LEAST: Final = 64 << 20
_BLOCKS_A_THREAD: Final = 4
"""Of a large capture, so that threads end at about the same time."""


@dataclass(frozen=True, slots=True)
class _Task:
    number: int
    """Of the file."""
    file: File
    place: int = 0
    """Of the block in the file."""
    block: Block | None = None
    """None: the whole file."""


class _Stopped(Exception):
    """Somebody has interrupted the whole."""


class _Blocks:
    """A capture in blocks, and what came of those that are not added up yet."""

    def __init__(self, number: int, file: File, blocks: Sequence[Block]) -> None:
        self._joint = Joint(blocks, file.size or 0)
        self._parts: dict[int, Analysis] = {}
        self.awaited = {
            place: _Task(number, file, place, block) for place, block in enumerate(blocks)
        }
        """What is to be counted, or is being counted."""

    def put(self, task: _Task, seam: Seam, part: Analysis) -> tuple[list[Analysis], list[_Task]]:
        """What can be added up by now, and what is to be counted anew."""
        joined: list[Analysis] = []
        anew: list[_Task] = []
        del self.awaited[task.place]
        self._parts[task.place] = part
        self._joint.put(task.place, seam)
        while step := self._joint.step():
            if isinstance(step, dict):
                again = {
                    place: _Task(task.number, task.file, place, block)
                    for place, block in step.items()
                }
                self.awaited |= again
                anew += again.values()
            else:
                place, counts = step
                passed = self._parts.pop(place, None)
                self.awaited.pop(place, None)
                if counts and passed is not None:
                    joined.append(passed)
        return joined, anew

    def source(self) -> Source:
        """What is told of the file so far; when nothing is awaited, of all of it."""
        return self._joint.source()


class Threads:
    """One analysis. Each thread has a census for what it counts."""

    def __init__(
        self,
        files: Sequence[File],
        rss: RssConfig,
        jobs: int,
        window_ns: int,
        progress: Progress | None = None,
        columns: Given | None = None,
    ) -> None:
        self._rss = rss
        self._window_ns = window_ns
        self._progress = progress
        self._columns = columns
        self._changed = threading.Condition()
        self._is_stopped = False
        self._cause: BaseException | None = None
        self._todo: deque[_Task] = deque()
        self._pipes: deque[_Task] = deque()
        self._at_work = 0
        self._blocks: dict[int, _Blocks] = {}
        self._sources: dict[int, Source] = {}
        for number, file in enumerate(files):
            self._add(number, file, jobs)
        self._jobs = min(jobs, len(self._todo))

    def _add(self, number: int, file: File, jobs: int) -> None:
        if file.failure is not None:
            self._sources[number] = Source.of_failure(file.path, file.failure)
            return
        block_bytes = max(_BLOCK_LEAST, (file.size or 0) // (jobs * _BLOCKS_A_THREAD))
        blocks = split(file, block_bytes) if jobs > 1 else ()
        if not blocks:
            # A pipe may be silent, and only the main thread can be interrupted there.
            todo = self._pipes if is_pipe(file.path) else self._todo
            todo.append(_Task(number, file))
            return
        self._blocks[number] = _Blocks(number, file, blocks)
        self._todo += self._blocks[number].awaited.values()

    def run(self) -> tuple[list[Analysis], list[Source]]:
        """Analyses that add up to the whole, at least one, and what is told of each file."""
        if self._jobs <= 1:
            self._todo += self._pipes
            parts = [self._work()]
        else:
            with ThreadPoolExecutor(self._jobs, "vnethash") as pool:
                workers = [pool.submit(self._work) for _ in range(self._jobs)]
                try:
                    parts = [self._count_pipes()] if self._pipes else []
                    parts += [worker.result() for worker in workers]
                except _Stopped:
                    raise self._cause or _Stopped from None
                finally:
                    self._stop()  # an interrupt ends all of them
        return parts, [self._sources[number] for number in sorted(self._sources)]

    def _work(self) -> Analysis:
        census = Census(self._rss, window_ns=self._window_ns)
        while task := self._take():
            try:
                self._do(task, census)
            except BaseException as error:
                self._stop(error)
                raise
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()
        return census.result()

    def _count_pipes(self) -> Analysis:
        census = Census(self._rss, window_ns=self._window_ns)
        for task in self._pipes:
            self._do(task, census)
        return census.result()

    def _take(self) -> _Task | None:
        """The next task; None if there is none, and nobody at work who may bring another."""
        with self._changed:
            while not self._todo and self._at_work and not self._is_stopped:
                self._changed.wait()
            if not self._todo or self._is_stopped:
                return None
            self._at_work += 1
            return self._todo.popleft()

    def _do(self, task: _Task, census: Census) -> None:
        if task.block is None:
            source = count_file(census, task.file.path, self._tell, self._columns)
            with self._changed:
                self._sources[task.number] = source
            return
        if not self._is_awaited(task):
            return
        seam, part = count_block(task.block, self._rss, self._window_ns)
        for joined in self._join(task, seam, part):
            census.absorb(joined)
        self._tell((task.block.end or task.file.size or 0) - task.block.start, seam.packets)

    def _is_awaited(self, task: _Task) -> bool:
        """Whether a block is not passed over by now, or counted anew as its guess was wrong."""
        return self._blocks[task.number].awaited.get(task.place) is task

    def _join(self, task: _Task, seam: Seam, part: Analysis) -> list[Analysis]:
        """Go on with the blocks of a file as far as they are there: those to be added up."""
        with self._changed:
            if not self._is_awaited(task):
                return []
            blocks = self._blocks[task.number]
            joined, anew = blocks.put(task, seam, part)
            self._todo.extendleft(reversed(anew))
            self._sources[task.number] = blocks.source()
        return joined

    def _tell(self, read: int, packets: int) -> None:
        """Progress, of one thread at a time; ends the thread if it is to stop."""
        with self._changed:
            if self._is_stopped:
                raise _Stopped
            if self._progress is not None:
                self._progress(read, packets)

    def _stop(self, cause: BaseException | None = None) -> None:
        with self._changed:
            if not self._is_stopped:
                self._cause = cause
            self._is_stopped = True
            self._changed.notify_all()
