# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Frames for tests: built from the standards' layouts, right ones and wrong ones.

``frames()`` is a hypothesis strategy that knows the structure of a packet, so
that what it draws reaches the far corners of a dissector, and then lies about
lengths, cuts frames short and flips bytes.
"""

import struct
from typing import Any

from hypothesis import strategies as st

ETHERNET = bytes.fromhex("020000000002020000000001")
"""Destination and source address."""

TCP, UDP = 6, 17
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT, OPTIONS = 0, 43, 44, 51, 59, 60
MOBILITY, HIP, SHIM6 = 135, 139, 140


def ethernet(ethertype: int, payload: bytes, tags: tuple[tuple[int, int], ...] = ()) -> bytes:
    """A frame; ``tags`` are VLAN tags (protocol, tci), the outer one first."""
    in_band = b"".join(struct.pack("!HH", protocol, tci) for protocol, tci in tags)
    return ETHERNET + in_band + struct.pack("!H", ethertype) + payload


def tcp(sport: int = 1000, dport: int = 80, payload: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, 1, 0, 0x50, 0x10, 1024, 0, 0) + payload


def udp(sport: int = 1000, dport: int = 53, payload: bytes = b"") -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def ipv4(
    payload: bytes,
    protocol: int = UDP,
    *,
    source: bytes = b"\x0a\0\0\1",
    destination: bytes = b"\x0a\0\0\2",
    options: bytes = b"",
    fragment: int = 0,
    length: int | None = None,
) -> bytes:
    """An IPv4 packet; ``fragment`` is the whole field, flags included."""
    total = 20 + len(options) + len(payload) if length is None else length
    first = 0x40 | (5 + len(options) // 4)
    fixed = struct.pack("!BBHHHBBH", first, 0, total & 0xFFFF, 1, fragment, 64, protocol, 0)
    return fixed + source + destination + options + payload


def ipv6(
    payload: bytes,
    next_header: int = UDP,
    *,
    source: bytes = bytes(15) + b"\1",
    destination: bytes = bytes(15) + b"\2",
    length: int | None = None,
) -> bytes:
    size = len(payload) if length is None else length
    fixed = struct.pack("!IHBB", 6 << 28, size & 0xFFFF, next_header, 64)
    return fixed + source + destination + payload


def chain(extensions: list[tuple[int, bytes]], last: int, payload: bytes) -> tuple[int, bytes]:
    """Extension headers (number, bytes behind the next header byte) in front of ``payload``."""
    numbers = [number for number, _ in extensions] + [last]
    data = b"".join(
        bytes([after]) + body for (_, body), after in zip(extensions, numbers[1:], strict=True)
    )
    return numbers[0], data + payload


def extension(units: int, content: bytes = b"") -> bytes:
    """A header of ``units`` + 1 times 8 bytes, without its next header byte."""
    return bytes([units]) + content.ljust(8 * units + 6, b"\0")


def route(address: bytes, kind: int = 2) -> bytes:
    """A routing header with one address (RFC 6275, 6.4)."""
    return extension(2, bytes([kind, 1, 0, 0, 0, 0]) + address)


def home_address(address: bytes, before: bytes = b"") -> bytes:
    """Destination options with a home address (RFC 6275, 6.3) behind the options ``before``."""
    content = before + b"\xc9\x10" + address
    units = (len(content) + 2 + 7) // 8 - 1
    return extension(units, content)


def fragment(offset: int, more: bool) -> bytes:
    return struct.pack("!BHI", 0, offset << 3 | more, 7)


TRANSPARENT_ETHERNET = 0x6558


def gre(
    kind: int,
    payload: bytes,
    *,
    checksum: bool = False,
    key: bool = False,
    sequence: bool = False,
    flags: int = 0,
) -> bytes:
    """A GRE header (RFC 2784, 2890); ``flags`` are further bits of the first two bytes."""
    flags |= checksum << 15 | key << 13 | sequence << 12
    optional = bytes(4) * checksum + b"\0\0\x2a\x01" * key + b"\0\0\0\1" * sequence
    return struct.pack("!HH", flags, kind) + optional + payload


def vxlan(payload: bytes, *, flags: int = 0x08) -> bytes:
    """A VXLAN header (RFC 7348)."""
    return struct.pack("!II", flags << 24, 42 << 8) + payload


def vxlan_gpe(next_protocol: int, payload: bytes, *, flags: int = 0x0C) -> bytes:
    """A VXLAN-GPE header (draft-ietf-nvo3-vxlan-gpe)."""
    return struct.pack("!II", flags << 24 | next_protocol, 42 << 8) + payload


def geneve(
    kind: int, payload: bytes, *, options: bytes = b"", first: int = 0, second: int = 0
) -> bytes:
    """A Geneve header (RFC 8926); ``first`` has the version, ``second`` the flags O and C."""
    fixed = struct.pack("!BBHI", first | len(options) // 4, second, kind, 42 << 8)
    return fixed + options + payload


_addresses4 = st.binary(min_size=4, max_size=4)
_addresses6 = st.binary(min_size=16, max_size=16)
_ports = st.integers(0, 0xFFFF)
_l4 = st.one_of(
    st.builds(lambda s, d: (TCP, tcp(s, d)), _ports, _ports),
    st.builds(lambda s, d: (UDP, udp(s, d)), _ports, _ports),
    st.tuples(st.sampled_from([1, 6, 17, 47, 50, 58, 59, 132]), st.binary(max_size=24)),
)
_option = st.one_of(
    st.just(b"\0"),  # Pad1
    st.integers(0, 6).map(lambda n: bytes([1, n]) + bytes(n)),  # PadN
    _addresses6.map(lambda address: b"\xc9\x10" + address),
    st.tuples(st.integers(0, 255), st.integers(0, 255)).map(bytes),
)
_extension = st.one_of(
    st.tuples(
        st.sampled_from([HOP_BY_HOP, MOBILITY, HIP, SHIM6, AUTHENTICATION]),
        st.integers(0, 3).map(extension),
    ),
    st.tuples(st.just(ROUTING), st.builds(route, _addresses6, st.sampled_from([0, 2, 2, 4]))),
    st.tuples(st.just(ROUTING), st.builds(extension, st.integers(0, 3), st.binary(max_size=6))),
    st.tuples(
        st.just(OPTIONS),
        st.lists(_option, max_size=10).map(
            lambda options: extension((len(b"".join(options)) + 9) // 8 - 1, b"".join(options))
        ),
    ),
    st.tuples(st.just(FRAGMENT), st.builds(fragment, st.sampled_from([0, 0, 0, 9]), st.booleans())),
)
_tags = st.lists(
    st.tuples(st.sampled_from([0x8100, 0x88A8]), st.integers(0, 0xFFFF)), max_size=3
).map(tuple)
_lie = st.one_of(st.none(), st.none(), st.integers(0, 120))


_LLC = [
    bytes.fromhex(text) for text in ("aaaa03000000", "aaaa030000f8", "aaaa02000000", "424203000000")
]
_NEXT_PROTOCOL = {0x0800: 1, 0x86DD: 2, TRANSPARENT_ETHERNET: 3}


_GRE_FLAGS = st.sampled_from([0] * 9 + [1, 0x4000, 0x0800, 0x0400, 0x0200, 0x0008])


@st.composite
def _tunnel(draw: Any) -> tuple[int, bytes]:
    """What an outer IP header carries: protocol number and payload."""
    kind, inner = draw(_packet(_l4))
    carrier = draw(st.sampled_from([4, 41, 47, 47, 4754, 4789, 4790, 6081]))
    if carrier in (4, 41):
        return carrier, inner
    if draw(st.booleans()):
        kind, inner = TRANSPARENT_ETHERNET, ethernet(kind, inner, draw(_tags))
    kind = draw(st.sampled_from([kind] * 9 + [0x0806]))
    if carrier in (47, 4754):
        checksum, key, sequence = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
        flags = draw(_GRE_FLAGS)
        header = gre(kind, inner, checksum=checksum, key=key, sequence=sequence, flags=flags)
    elif carrier == 4789:
        header = vxlan(inner, flags=draw(st.sampled_from([8, 8, 8, 0, 0xFF])))
    elif carrier == 4790:
        flags = draw(st.sampled_from([12, 8, 4, 13, 44]))
        header = vxlan_gpe(_NEXT_PROTOCOL.get(kind, 4), inner, flags=flags)
    else:
        header = geneve(
            kind,
            inner,
            options=bytes(draw(st.sampled_from([0, 0, 4, 8, 252]))),
            first=draw(st.sampled_from([0] * 9 + [0x40, 0x80])),
            second=draw(st.sampled_from([0, 0, 0, 0x40, 0x80])),
        )
    return (carrier, header) if carrier == 47 else (UDP, udp(draw(_ports), carrier, header))


@st.composite
def _packet(draw: Any, l4: st.SearchStrategy[tuple[int, bytes]]) -> tuple[int, bytes]:
    if draw(st.booleans()):
        protocol, payload = draw(l4)
        packet = ipv4(
            payload,
            protocol,
            source=draw(_addresses4),
            destination=draw(_addresses4),
            options=bytes(4 * draw(st.sampled_from([0, 0, 1, 10]))),
            fragment=draw(st.sampled_from([0, 0, 0x4000, 0x2000, 0x8000, 0x0001, 0x1FFF])),
            length=draw(_lie),
        )
        return 0x0800, packet
    last, payload = draw(l4)
    number, payload = chain(draw(st.lists(_extension, max_size=10)), last, payload)
    packet = ipv6(
        payload,
        number,
        source=draw(_addresses6),
        destination=draw(_addresses6),
        length=draw(_lie),
    )
    return 0x86DD, packet


@st.composite
def frames(draw: Any) -> bytes:
    """A frame of at least 14 bytes: mostly IP, often odd, sometimes broken."""
    ethertype, packet = draw(_packet(_l4 | _tunnel()))
    if draw(st.integers(0, 9)) == 0:
        snap = draw(
            st.sampled_from(["aaaa03000000", "aaaa030000f8", "aaaa02000000", "424203000000"])
        )
        packet = bytes.fromhex(snap) + ethertype.to_bytes(2, "big") + packet
        ethertype = draw(st.sampled_from([60, 1500, 0x5FF, 0x600]))
    ethertype = draw(st.sampled_from([ethertype] * 9 + [0x0806, 0x8864, 60]))
    frame = bytearray(ethernet(ethertype, packet, draw(_tags)))
    if draw(st.integers(0, 3)) == 0:
        del frame[draw(st.integers(14, len(frame))) :]
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        frame[draw(st.integers(12, len(frame) - 1))] = draw(st.integers(0, 255))
    return bytes(frame)
