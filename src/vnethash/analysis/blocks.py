# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Parts of one capture, counted apart, whose sum is what the whole would have been.

A block is counted from the first record in it, which is guessed, to the record that
begins in it last. It says where it began and ended, and with what the capture had
told of its interfaces there; whoever adds blocks up takes none whose beginning is not
the end of the one before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from vnethash.analysis.census import Census
from vnethash.analysis.files import File
from vnethash.analysis.result import Analysis, Source
from vnethash.capture.boundary import WINDOW, guess_boundary
from vnethash.capture.format import PCAP_MAGIC, PCAPNG_MAGIC, CaptureState
from vnethash.capture.reader import Capture
from vnethash.capture.stream import open_stream
from vnethash.capture.walk import Walker
from vnethash.errors import CaptureError, VnethashError
from vnethash.rss.config import RssConfig

BLOCK_BYTES: Final = 256 << 20
BLOCK_LEAST: Final = WINDOW
_GUESSES: Final = 2
"""As often a changed state is taken for that of all blocks behind; each costs counting them."""


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere between two records."""

    offset: int
    state: CaptureState


@dataclass(frozen=True, slots=True)
class Block:
    """Records of a capture that start at bytes ``start`` to ``end``, None for its end.

    ``known`` is a place to count from, ``guess`` what the state probably is where no
    place is known. With neither it is the capture from its beginning.
    """

    path: str
    start: int
    end: int | None
    known: Place | None = None
    guess: CaptureState | None = None


@dataclass(frozen=True, slots=True)
class Seam:
    """How a block fits with its neighbours, and how far it could be read."""

    began: Place | None
    """None at the beginning of the capture."""
    ended: Place | None
    """None if it could not be read to its end."""
    packets: int
    error: str | None = None
    offset: int | None = None
    """Where it broke."""
    hint: str | None = None


def split(file: File, block_bytes: int) -> tuple[Block, ...]:
    """Blocks of a capture that is not compressed; none if it is another file, or a small one.

    Raises nothing: what cannot be read is left to whoever reads all of it.
    """
    if file.size is None or file.size < 2 * block_bytes:
        return ()
    try:
        with open_stream(file.path) as stream:
            is_capture = stream.head[:4] in PCAP_MAGIC or stream.head[:4] == PCAPNG_MAGIC
            if stream.is_compressed or not is_capture or not stream.file.seekable():
                return ()
            capture = Capture(stream, file.path)
            next(capture, None)  # behind what is told of interfaces before the first frame
            state = capture.state
    except (VnethashError, OSError):
        return ()
    starts = range(0, file.size, block_bytes)
    ends: Sequence[int | None] = [*starts[1:], None]
    return tuple(
        Block(file.path, start, end, guess=state if start else None)
        for start, end in zip(starts, ends, strict=True)
    )


def count_block(block: Block, rss: RssConfig, window_ns: int) -> tuple[Seam, Analysis]:
    """What is in a block; its analysis has no sources, and its flows have no order."""
    census = Census(rss, window_ns=window_ns)
    try:
        with open_stream(block.path) as stream:
            # At any offset, by the megabyte: nothing between the walker and the file.
            file = stream.file
            place = block.known
            if block.guess is not None:
                file.seek(block.start)
                found = guess_boundary(file.read(WINDOW), block.guess, block.start)
                if found is None:
                    return Seam(None, None, 0, "no record was found"), census.result()
                place = Place(block.start + found, block.guess)
            file.seek(place.offset if place else 0)
            walker = Walker(
                file,
                block.path,
                state=place.state if place else None,
                offset=place.offset if place else 0,
                end=block.end,
            )
            try:
                for frames in walker:
                    census.add_frames(frames.memory, frames.frames)
            except CaptureError as error:
                seam = Seam(place, None, census.packets, error.reason, error.offset, error.hint)
            else:
                seam = Seam(place, Place(walker.offset, walker.state), census.packets)
    except CaptureError as error:
        # Of a file that has gone away meanwhile; counting it anew would not bring it back.
        seam = Seam(block.known, None, 0, error.reason, error.offset, error.hint)
    return seam, census.result(ordered=False)


class Joint:
    """Which blocks of a file to add up, found out as their seams come in, in any order."""

    def __init__(self, blocks: Sequence[Block], size: int) -> None:
        self._blocks = blocks
        self._size = size
        self._seams: dict[int, Seam] = {}
        self._lost: dict[int, str] = {}
        self._next = 0
        self._place: Place | None = None
        self._guess = blocks[-1].guess
        self._guesses = 0
        self._packets = 0
        self._error: str | None = None
        self._offset: int | None = None
        self._hint: str | None = None
        self._is_broken = False

    def put(self, number: int, seam: Seam) -> None:
        """The seam of block ``number``."""
        self._seams[number] = seam

    def lose(self, number: int, reason: str) -> None:
        """Block ``number`` cannot be counted, for whatever is in it."""
        self._lost[number] = reason

    @property
    def is_done(self) -> bool:
        return self._next == len(self._blocks)

    def step(self) -> "tuple[int, bool] | dict[int, Block] | None":
        """What is to be done next: a block's number and whether it counts; blocks to count
        anew, in place of those that do not fit; None if there is nothing to be done yet."""
        number = self._next
        if self.is_done:
            return None
        block = self._blocks[number]
        if self._is_passed(block):
            self._next += 1
            return number, False
        if number in self._lost:
            self._next += 1
            self._is_broken = True
            self._error = self._lost[number]
            self._offset = self._place.offset if self._place else 0
            return number, False
        seam = self._seams.get(number)
        if seam is None:
            return None
        if number and seam.began != self._place:
            return self._anew(number)
        self._next += 1
        self._packets += seam.packets
        if seam.ended is None:
            self._is_broken = True
            self._error, self._offset, self._hint = seam.error, seam.offset, seam.hint
        self._place = seam.ended
        return number, True

    def _is_passed(self, block: Block) -> bool:
        """Whether it lies behind damage, or in the middle of one record."""
        if self._is_broken:
            return True
        return self._place is not None and block.end is not None and self._place.offset >= block.end

    def _anew(self, number: int) -> dict[int, Block]:
        """The block from where the one before it ended; those behind it too, if they were
        counted with another state than the capture has now, and it does not change often."""
        todo = {number: replace(self._blocks[number], known=self._place, guess=None)}
        state = self._guess if self._place is None else self._place.state
        if state != self._guess and self._guesses < _GUESSES:
            self._guesses += 1
            self._guess = state
            for later in range(number + 1, len(self._blocks)):
                todo[later] = replace(self._blocks[later], guess=state)
        for again in todo:
            self._seams.pop(again, None)
        return todo

    def source(self) -> Source:
        """What is told of the file, when all is done."""
        read = self._size if self._error is None or self._offset is None else self._offset
        path = self._blocks[0].path
        return Source(path, self._packets, read, self._error, self._offset, self._hint)
