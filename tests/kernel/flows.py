# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Frames of many flows to a tap of somebody else's, and what its owner reads."""

import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests import frames
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.virtio.hash_types import ReportType

# struct vnet_record, native/vnethash.h
_RECORD = struct.Struct("<IH2s")
_MARK = b"\xb5\x1d"

FLOWS = [
    frames.ethernet(ethertype, packet)
    for port in range(8)
    for ethertype, packet in (
        (0x0800, frames.ipv4(frames.udp(port, payload=bytes(20)))),
        (0x0800, frames.ipv4(frames.tcp(port), frames.TCP)),
        (0x0800, frames.ipv4(b"ping", 1, source=bytes([10, 0, 0, port]))),
        (0x86DD, frames.ipv6(frames.udp(port))),
        (0x86DD, frames.ipv6(frames.tcp(port), frames.TCP)),
        (0x88B5, bytes([port]) * 46),  # no IP, so no hash
    )
]


@dataclass(frozen=True)
class Got:
    """A frame and the queue it was on; hash and type are None without a record."""

    queue: int
    frame: bytes
    hash_value: int | None = None
    hash_report: ReportType | None = None


def parse(queue: int, data: bytes) -> Got:
    """What follows the virtio-net header."""
    value, report, mark = _RECORD.unpack_from(data)
    if mark != _MARK:
        return Got(queue, data)
    return Got(queue, data[_RECORD.size :], value, ReportType(report))


def expected(rss: RssConfig, *, record: bool) -> set[Got]:
    """What the owner must get of FLOWS, by the reference."""
    wanted = set()
    for frame in FLOWS:
        told = reference.classify(frame, rss)
        told_hash = (told.hash_value, told.hash_report) if record else (None, None)
        wanted.add(Got(told.queue, frame, *told_hash))
    return wanted


def send(name: str, packets: Sequence[bytes] = FLOWS) -> None:
    """Have the kernel transmit frames on a link."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((name, 0))
        for frame in packets:
            raw.send(frame)


def read(fds: Sequence[int], header_size: int = 12) -> set[Got]:
    """As many packets as there are FLOWS, from the queues of ``fds``."""
    got = set()
    deadline = time.monotonic() + 5
    left = len(FLOWS)
    while left and time.monotonic() < deadline:
        for fd in select.select(fds, [], [], 0.1)[0]:
            got.add(parse(fds.index(fd), os.read(fd, 1 << 16)[header_size:]))
            left -= 1
    assert not left, f"{left} of {len(FLOWS)} packets did not come"
    return got
