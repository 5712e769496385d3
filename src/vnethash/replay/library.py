# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Through the library: the native core or the Python reference, no rights needed."""

from collections.abc import Sequence
from typing import Literal

from vnethash.capture import Frame
from vnethash.replay.outcome import Failed, Outcome, Replayed, not_ethernet
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.classified import Classified
from vnethash.rss.config import RssConfig
from vnethash.rss.native import Hasher
from vnethash.virtio.hash_types import ReportType

LibraryEngine = Literal["native", "python"]


class LibraryWay:
    """Frames are classified, not sent; there is never a record."""

    point = "library"

    def __init__(self, engine: LibraryEngine, rss: RssConfig, reporting: Reporting) -> None:
        self.engine = engine
        self.rss = rss
        self.reporting = reporting
        self._hasher = Hasher(rss) if engine == "native" else None

    def replay(self, frames: Sequence[Frame]) -> list[Outcome]:
        """What the library makes of each frame, in their order."""
        errors = [not_ethernet(frame) for frame in frames]
        good = [frame.data for frame, error in zip(frames, errors, strict=True) if not error]
        classified = iter(self._classify(good))
        return [
            Failed(frame.index, len(frame.data), error)
            if error
            else self._outcome(frame, next(classified))
            for frame, error in zip(frames, errors, strict=True)
        ]

    def _classify(self, frames: list[bytes]) -> list[Classified]:
        if self._hasher is not None:
            return self._hasher.classify_many(frames)
        return [reference.classify(frame, self.rss) for frame in frames]

    def _outcome(self, frame: Frame, classified: Classified) -> Replayed:
        value, report = classified.hash_value, classified.hash_report
        if self.reporting is Reporting.OFF:
            value, report = 0, ReportType.NONE
        return Replayed(frame.index, len(frame.data), classified.queue, value, report, False)
