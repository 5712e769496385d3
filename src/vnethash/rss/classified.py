# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What RSS makes of one packet."""

from dataclasses import dataclass

from vnethash.virtio.hash_types import ReportType


@dataclass(frozen=True, slots=True)
class Classified:
    """Hash, report type and queue of a packet (virtio 1.3, 5.1.6.4.5 and 5.1.6.5.7).

    Not hashed: ``hash_report`` NONE, ``hash_value`` 0, ``index`` None, and
    ``queue`` the unclassified queue. A hash may be 0 as well; only the
    report type tells.
    """

    hash_value: int
    hash_report: ReportType
    index: int | None
    """Entry of the indirection table."""
    queue: int

    def to_json(self) -> dict[str, int | str | None]:
        """The four values as JSON types, the report type by its name."""
        return {
            "hash_value": self.hash_value,
            "hash_report": self.hash_report.name,
            "index": self.index,
            "queue": self.queue,
        }
