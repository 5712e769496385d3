# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What every engine offers: steering and hash for one tap."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from vnethash.kernel.tun import Offload, TunDevice
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig
from vnethash.stats import Stats

if TYPE_CHECKING:
    from vnethash.rss.observed import Counts

ProgramSource = str | Path | bytes


@dataclass(frozen=True, slots=True)
class Setup:
    """What an engine is told of the tap it is to work on."""

    device: TunDevice
    rss: RssConfig
    reporting: Reporting
    offloads: Offload
    l3: bool
    """The device has no Ethernet headers."""
    max_indirection: int
    """Entries of the longest indirection table to come."""
    program: ProgramSource | None = None
    """A hash program of the user's own: the path of its object, or what is in it."""
    adaptive: bool = False
    """Packets are to be counted by bucket."""


class Reader(Protocol):
    """Reads one queue."""

    def fileno(self) -> int:
        """Readable when there may be packets."""

    def receive(self, arena: Any, size: int, packets: Any, most: int) -> int:
        """Fill ``packets`` (struct vh_packet[most]), their frames into ``arena``.

        Does not block. Returns how many, or a negative errno.
        """

    def close(self) -> None: ...


class Attachment(Protocol):
    """An engine at work on one tap."""

    @property
    def point(self) -> str:
        """Where it works: "tcx", "clsact" or "reader"; in the lab "steering" or "driver"."""

    @property
    def header(self) -> int:
        """Bytes in front of a frame that is written to a queue: 12 or 20."""

    def configure(self, rss: RssConfig, reporting: Reporting) -> None:
        """Put a configuration in force, for every packet as a whole."""

    def stats(self) -> Stats: ...

    def reader(self, queue: int) -> Reader: ...

    def close(self) -> None:
        """Leave the device as it was."""


@runtime_checkable
class RunsProgram(Protocol):
    """An attachment that runs a hash program of the user's own."""

    def replace_program(self, source: ProgramSource) -> None:
        """Put another hash program in the place of this one while packets pass.

        Every packet is judged by the one or the other. Raises ProgramRefused,
        VerifierError, NotPermitted, BpfError; the present program then stays.
        """


@runtime_checkable
class CountsBuckets(Protocol):
    """An attachment that counts by bucket, if it was set up for that."""

    def buckets(self) -> "Counts":
        """What came to each entry of the indirection table; entries not in use may follow."""


class Engine(Protocol):
    """A way to get steering and hash."""

    @property
    def name(self) -> str: ...

    def attach(self, setup: Setup) -> Attachment:
        """Take the device over. An error leaves it as it was."""
