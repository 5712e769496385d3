# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What became of each frame."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from vnethash.capture import LINKTYPE_ETHERNET, Frame, link_type_name
from vnethash.errors import CaptureError
from vnethash.reporting import Reporting
from vnethash.virtio.hash_types import ReportType


class Replayed(NamedTuple):
    """A frame that came through; ``number`` counts from 0, ``length`` is in bytes."""

    number: int
    length: int
    queue: int
    hash_value: int
    hash_report: ReportType
    has_record: bool

    def to_json(self) -> dict[str, object]:
        return {
            "index": self.number,
            "queue": self.queue,
            "hash_value": self.hash_value,
            "hash_report": self.hash_report.name,
            "length": self.length,
            "record": self.has_record,
        }


class Failed(NamedTuple):
    """A frame that could not be sent, or was sent and lost."""

    number: int
    length: int
    error: str
    is_lost: bool = False

    def to_json(self) -> dict[str, object]:
        return {"index": self.number, "length": self.length, "error": self.error}


Outcome = Replayed | Failed


class Way(Protocol):
    """A way through which frames go."""

    @property
    def engine(self) -> str: ...

    @property
    def point(self) -> str:
        """Where the engine works: "tcx", "clsact", "reader", or "library"."""

    @property
    def reporting(self) -> Reporting: ...

    def replay(self, frames: Sequence[Frame]) -> list[Outcome]:
        """What became of each frame, in their order."""


def not_ethernet(frame: Frame) -> str | None:
    """Why the frame is none for a tap; None if it has an Ethernet header."""
    if frame.link_type == LINKTYPE_ETHERNET:
        return None
    return f"link type {frame.link_type} ({link_type_name(frame.link_type)}), not Ethernet"


def windows(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """The frames in lists of ``size``; those before a `CaptureError` come before it is raised."""
    window: list[Frame] = []
    try:
        for frame in frames:
            window.append(frame)
            if len(window) == size:
                yield window
                window = []
    except CaptureError:
        if window:
            yield window
        raise
    if window:
        yield window
