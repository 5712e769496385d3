# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Received packets, one at a time or as a batch of numpy columns."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vnethash.virtio.hash_types import ReportType
from vnethash.virtio.header import Header

PACKET_DTYPE = np.dtype(
    [
        ("offset", "<u4"),
        ("length", "<u4"),
        ("flags", "u1"),
        ("gso_type", "u1"),
        ("hdr_len", "<u2"),
        ("gso_size", "<u2"),
        ("csum_start", "<u2"),
        ("csum_offset", "<u2"),
        ("num_buffers", "<u2"),
        ("hash_value", "<u4"),
        ("hash_report", "<u2"),
        ("padding", "<u2"),
        ("queue", "<u2"),
        ("has_record", "<u2"),
    ]
)
"""struct vh_packet (native/core.h)."""

_HEADER = slice(8, 28)
"""Where its header lies: struct vnet_hdr, the 20 bytes of virtio."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet as the guest should see it: header and frame, without any record."""

    header: Header
    frame: bytes
    queue: int
    has_record: bool
    """The hash came with the packet; else the reader calculated it, if there is one."""

    @property
    def hash_value(self) -> int:
        return self.header.hash_value

    @property
    def hash_report(self) -> ReportType:
        return self.header.hash_report


class Batch:
    """Packets of one read.

    Columns and frames are views of the queue's memory: the next receive of
    that queue overwrites them, ``packets()`` copies.
    """

    def __init__(self, packets: np.ndarray, arena: npt.NDArray[np.uint8]) -> None:
        self.columns = packets
        """Structured array of PACKET_DTYPE, shape (n,)."""
        self.arena = arena
        """The memory that the frames lie in."""

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def hash_value(self) -> npt.NDArray[np.uint32]:
        """Hash of each packet, shape (n,); 0 where hash_report is 0."""
        column: npt.NDArray[np.uint32] = self.columns["hash_value"]
        return column

    @property
    def hash_report(self) -> npt.NDArray[np.uint16]:
        """Report type of each packet as a number, shape (n,)."""
        column: npt.NDArray[np.uint16] = self.columns["hash_report"]
        return column

    @property
    def offset(self) -> npt.NDArray[np.uint64]:
        """Where in ``arena`` each frame begins, shape (n,)."""
        return self.columns["offset"].astype(np.uint64)

    @property
    def length(self) -> npt.NDArray[np.uint32]:
        """Bytes of each frame, shape (n,)."""
        column: npt.NDArray[np.uint32] = self.columns["length"]
        return column

    def frame(self, index: int) -> npt.NDArray[np.uint8]:
        """The bytes of a frame, a view."""
        offset = int(self.columns["offset"][index])
        return self.arena[offset : offset + int(self.columns["length"][index])]

    def packet(self, index: int) -> Packet:
        """A copy of one packet."""
        row = self.columns[index]
        header = Header.decode(row.tobytes()[_HEADER])
        return Packet(
            header, self.frame(index).tobytes(), int(row["queue"]), bool(row["has_record"])
        )

    def packets(self) -> list[Packet]:
        """Copies of all packets."""
        return list(self)

    def __iter__(self) -> Iterator[Packet]:
        return (self.packet(index) for index in range(len(self)))
