# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The header in front of every frame: ``struct virtio_net_hdr`` (virtio 1.3, 5.1.6).

With VIRTIO_NET_F_HASH_REPORT it has 20 bytes (``virtio_net_hdr_v1_hash`` in
Linux), without it 12 (``virtio_net_hdr_v1``). All fields are little-endian.
"""

import struct
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag

from vnethash.errors import HeaderError
from vnethash.virtio.hash_types import ReportType

V1_SIZE = 12
"""Bytes of a header without hash."""

HASH_SIZE = 20
"""Bytes of a header with hash."""

GSO_ECN = 0x80
"""VIRTIO_NET_HDR_GSO_ECN, a bit of ``gso_type`` beside the type itself."""

Buffer = bytes | bytearray | memoryview

_V1 = struct.Struct("<BBHHHHH")
_HASH = struct.Struct("<IHH")


class HeaderFlag(IntFlag):
    """VIRTIO_NET_HDR_F_* (virtio 1.3, 5.1.6)."""

    NEEDS_CSUM = 1
    DATA_VALID = 2
    RSC_INFO = 4


class GsoType(IntEnum):
    """VIRTIO_NET_HDR_GSO_*, without the ECN bit (virtio 1.3, 5.1.6)."""

    NONE = 0
    TCPV4 = 1
    UDP = 3
    TCPV6 = 4
    UDP_L4 = 5


@dataclass(frozen=True, slots=True)
class Header:
    """One header. ``flags`` are HeaderFlag bits, ``gso_type`` a GsoType with or without GSO_ECN.

    Lengths and offsets are in bytes; ``csum_start`` counts from the first
    byte of the frame, ``csum_offset`` from ``csum_start``.
    """

    flags: int = 0
    gso_type: int = GsoType.NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0
    num_buffers: int = 1
    hash_value: int = 0
    hash_report: ReportType = ReportType.NONE

    def encode(self) -> bytes:
        """The 20 bytes with hash; HeaderError if a field does not fit its width."""
        return self.encode_v1() + _pack(_HASH, self.hash_value, self.hash_report, 0)

    def encode_v1(self) -> bytes:
        """The 12 bytes without hash; HeaderError if a field does not fit its width."""
        return _pack(
            _V1,
            self.flags,
            self.gso_type,
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.num_buffers,
        )

    @classmethod
    def decode(cls, data: Buffer) -> "Header":
        """A header from its 20 bytes, or from 12, which carry no hash.

        The reserved padding is not looked at. HeaderError for any other
        length and for a report type the specification does not know.
        """
        size = memoryview(data).nbytes
        if size not in (V1_SIZE, HASH_SIZE):
            raise HeaderError(f"a virtio-net header has {V1_SIZE} or {HASH_SIZE} bytes, not {size}")
        header = cls(*_V1.unpack_from(data))
        if size == V1_SIZE:
            return header
        hash_value, report, _padding = _HASH.unpack_from(data, V1_SIZE)
        try:
            hash_report = ReportType(report)
        except ValueError:
            raise HeaderError(
                f"hash_report {report} is not a report type (virtio 1.3, 5.1.6.4.5)"
            ) from None
        return replace(header, hash_value=hash_value, hash_report=hash_report)

    def corrected(self, prefix: int = 8) -> "Header":
        """The header of the frame behind ``prefix`` bytes the kernel counted into it.

        ``csum_start`` and ``hdr_len`` shrink where they hold an offset, and
        ``num_buffers`` becomes 1: a read from a tap is one buffer, and
        older kernels leave the field unwritten. HeaderError if an
        offset points into the prefix.
        """
        # With RSC_INFO, csum_start counts coalesced segments (virtio 1.3, 5.1.6.4).
        has_start = self.flags & HeaderFlag.NEEDS_CSUM and not self.flags & HeaderFlag.RSC_INFO
        return replace(
            self,
            csum_start=self._less("csum_start", prefix) if has_start else self.csum_start,
            hdr_len=self._less("hdr_len", prefix) if self.hdr_len else 0,
            num_buffers=1,
        )

    @property
    def segmentation(self) -> GsoType:
        """``gso_type`` without its ECN bit; HeaderError if it is no known type."""
        try:
            return GsoType(self.gso_type & ~GSO_ECN)
        except ValueError:
            raise HeaderError(f"gso_type {self.gso_type:#x} is not known") from None

    def _less(self, field: str, prefix: int) -> int:
        value: int = getattr(self, field)
        if value < prefix:
            raise HeaderError(f"{field} {value} lies inside the {prefix} bytes before the frame")
        return value - prefix


def _pack(layout: struct.Struct, *fields: int) -> bytes:
    try:
        return layout.pack(*fields)
    except struct.error as error:
        raise HeaderError(f"a field does not fit the header: {error}") from None
