# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Captures with many flows, made quickly; and whether two analyses are the same."""

import random
import struct
from dataclasses import fields

import numpy as np

from vnethash.analysis.result import Analysis

START = 1_700_000_000


def random_frames(count: int, seed: int, *, longest: int = 400) -> list[bytes]:
    """Ethernet frames, IPv4 and IPv6, TCP, UDP and ICMP, and some that are no IP."""
    dice = random.Random(seed)
    return [_frame(dice, dice.randrange(longest)) for _ in range(count)]


def _frame(dice: random.Random, payload: int) -> bytes:
    ports = struct.pack(">HH", dice.randrange(1024, 1100), dice.choice((53, 80, 443)))
    protocol = dice.choice((6, 6, 6, 17, 1))
    transport = ports + {6: bytes(8) + b"\x50" + bytes(7), 17: bytes(4), 1: b""}[protocol]
    body = transport + dice.randbytes(payload)
    kind = dice.randrange(10)
    if kind == 0:
        return bytes(12) + b"\x88\xcc" + body
    if kind < 4:
        ends = b"".join(b"\x20\x01\x0d\xb8" + bytes(11) + bytes([dice.randrange(9)]) for _ in "ab")
        protocol = 58 if protocol == 1 else protocol
        header = struct.pack(">IHBB", 6 << 28, len(body), protocol, 64) + ends
        return bytes(12) + b"\x86\xdd" + header + body
    ends = bytes([192, 0, 2, dice.randrange(99), 198, 51, 100, dice.randrange(9)])
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0) + ends
    return bytes(12) + b"\x08\x00" + header + body


def pcap_records(frames: list[bytes], *, order: str = "<", first: int = 0) -> bytes:
    """Records a millisecond apart, the ``first`` of them so many after the start."""
    return b"".join(
        struct.pack(
            order + "IIII",
            START + number // 1000,
            number % 1000 * 1000,
            len(frame),
            len(frame),
        )
        + frame
        for number, frame in enumerate(frames, first)
    )


def pcap_header(order: str = "<") -> bytes:
    return struct.pack(order + "IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)


def pcapng_block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def pcapng_section(order: str = "<") -> bytes:
    return pcapng_block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def pcapng_interface(order: str = "<", *, snaplen: int = 0, tsresol: int = 6) -> bytes:
    option = struct.pack(order + "HHB3xI", 9, 1, tsresol, 0)
    return pcapng_block(1, struct.pack(order + "HHI", 1, 0, snaplen) + option, order)


def pcapng_packets(frames: list[bytes], *, order: str = "<", number: int = 0) -> bytes:
    """Enhanced packet blocks of one interface, a millisecond apart."""
    blocks = []
    for place, frame in enumerate(frames):
        ticks = START * 1_000_000 + place * 1000
        head = (number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
        blocks.append(pcapng_block(6, struct.pack(order + "IIIII", *head) + frame, order))
    return b"".join(blocks)


def assert_same(one: Analysis, other: Analysis, *, read: bool = True) -> None:
    """To the last digit; without ``read``, not how much was read of files that broke."""
    assert one.rss == other.rss
    assert np.array_equal(one.flows, other.flows)
    assert np.array_equal(one.unhashed, other.unhashed)
    assert one.ether_types == other.ether_types
    assert one.captured_short == other.captured_short
    assert one.windows is not None
    assert other.windows is not None
    for field in fields(one.windows):
        assert np.array_equal(
            getattr(one.windows, field.name), getattr(other.windows, field.name)
        ), field.name
    for mine, theirs in zip(one.sources, other.sources, strict=True):
        for field in fields(mine):
            if read or mine.error is None or field.name != "bytes_read":
                assert getattr(mine, field.name) == getattr(theirs, field.name), field.name
