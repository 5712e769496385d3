# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Flows of every kind a driver can ask to have hashed, from the EtherType on."""

import random
from collections.abc import Callable

from tests import frames
from vnethash.demo.frames import checksum


def flows(count: int, seed: int = 1) -> list[bytes]:
    """So many packets in turn of each kind, no two alike, addressed to nobody."""
    source = random.Random(seed)
    return [_KINDS[number % len(_KINDS)](source) for number in range(count)]


def _ports(source: random.Random) -> tuple[int, int]:
    return source.randrange(1, 1 << 16), source.randrange(1, 1 << 16)


def _v4(source: random.Random, payload: bytes, protocol: int, fragment: int = 0) -> bytes:
    # 198.18.0.0/15, for benchmarks (RFC 2544): nobody in the guest.
    here, there = (bytes([198, 18]) + source.randbytes(2) for _ in range(2))
    bare = frames.ipv4(payload, protocol, source=here, destination=there, fragment=fragment)
    # A bridge with netfilter drops those whose sum is wrong.
    return b"\x08\x00" + bare[:10] + checksum(bare[:20]).to_bytes(2, "big") + bare[12:]


def _v6(source: random.Random, payload: bytes, next_header: int) -> bytes:
    # 2001:db8::/32, for documentation (RFC 3849).
    here, there = (b"\x20\x01\x0d\xb8" + source.randbytes(12) for _ in range(2))
    return b"\x86\xdd" + frames.ipv6(payload, next_header, source=here, destination=there)


def _options_before_tcp(source: random.Random) -> bytes:
    number, payload = frames.chain(
        [(frames.OPTIONS, frames.extension(0, b"\1\4"))], frames.TCP, frames.tcp(*_ports(source))
    )
    return _v6(source, payload, number)


def _first_fragment(source: random.Random) -> bytes:
    return _v4(source, frames.udp(*_ports(source), bytes(24)), frames.UDP, fragment=0x2000)


_KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    lambda source: _v4(source, frames.tcp(*_ports(source), b"data"), frames.TCP),
    lambda source: _v4(source, frames.udp(*_ports(source), b"data"), frames.UDP),
    lambda source: _v4(source, source.randbytes(32), 47),
    lambda source: _v6(source, frames.tcp(*_ports(source)), frames.TCP),
    lambda source: _v6(source, frames.udp(*_ports(source)), frames.UDP),
    lambda source: _v6(source, source.randbytes(32), 47),
    lambda source: _v4(source, frames.tcp(*_ports(source), bytes(1000)), frames.TCP),
    _options_before_tcp,
    _first_fragment,
    lambda source: b"\x88\xb5" + source.randbytes(46),  # no IP (IEEE 802 local experimental)
)
