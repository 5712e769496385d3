# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The reference: published vectors, every rule of the specification, every limit of the dissector.

Frames come from scapy, which shares nothing with the code under test, or
are written out byte by byte where the limits are.
"""

import struct
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import (
    HAO,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Pad1,
    PadN,
    RouterAlert,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from tests import vectors
from tests.vectors import VECTORS, Vector
from vnethash.errors import ConfigError
from vnethash.rss import Classified, RssConfig
from vnethash.rss.dissect import Protocol
from vnethash.rss.native import Hasher
from vnethash.rss.reference import (
    classify,
    classify_tuple,
    dissect,
    explain,
    explain_tuple,
    toeplitz,
)
from vnethash.virtio.hash_types import HashType, ReportType

CONFIG = RssConfig.default(4).replace(unclassified_queue=3)
UNCLASSIFIED = Classified(0, ReportType.NONE, None, 3)

V4 = st.ip_addresses(v=4).map(str)
V6 = st.ip_addresses(v=6).map(str)
PORT = st.integers(0, 0xFFFF)


def packed(*addresses: str) -> bytes:
    return b"".join(ip_address(address).packed for address in addresses)


def ports(source: int, destination: int) -> bytes:
    return struct.pack("!HH", source, destination)


def hashed(data: bytes, report: ReportType, config: RssConfig = CONFIG) -> Classified:
    value = toeplitz(config.key, data)
    index = value % len(config.indirection_table)
    return Classified(value, report, index, config.indirection_table[index])


# Toeplitz


@pytest.mark.parametrize("vector", VECTORS)
def test_vectors(vector: Vector) -> None:
    addresses = packed(vector.source, vector.destination)
    assert toeplitz(vectors.KEY, addresses) == vector.address_hash
    with_ports = addresses + ports(vector.source_port, vector.destination_port)
    assert toeplitz(vectors.KEY, with_ports) == vector.tcp_hash


def test_one_bit_takes_its_window_of_the_key() -> None:
    assert toeplitz(vectors.KEY, b"\x80") == 0x6D5A56DA
    assert toeplitz(vectors.KEY, b"\x01" + bytes(3)) == 0x6D5A56DA255B0EC2 >> 25 & 0xFFFFFFFF
    assert toeplitz(vectors.KEY, bytes(35) + b"\x01") == 0xBEAC01FA >> 1 | (0x6A42B73B & 1) << 31


@given(st.binary(min_size=40, max_size=40), st.binary(min_size=36, max_size=36), st.data())
@settings(max_examples=40)
def test_linear(key: bytes, left: bytes, data: st.DataObject) -> None:
    right = data.draw(st.binary(min_size=36, max_size=36))
    both = bytes(a ^ b for a, b in zip(left, right, strict=True))
    assert toeplitz(key, both) == toeplitz(key, left) ^ toeplitz(key, right)


def test_input_longer_than_the_key_reaches() -> None:
    toeplitz(bytes(40), bytes(36))
    with pytest.raises(ConfigError, match="must have 41 bytes for 37 bytes of input, not 40"):
        toeplitz(bytes(40), bytes(37))


# Vectors as packets


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("transport", [TCP, UDP])
def test_vectors_as_frames(vector: Vector, transport: Callable[..., Any]) -> None:
    version = ip_address(vector.source).version
    network = IP if version == 4 else IPv6
    frame = bytes(
        Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
        / network(src=vector.source, dst=vector.destination)
        / transport(sport=vector.source_port, dport=vector.destination_port)
    )
    report = ReportType[f"{'TCP' if transport is TCP else 'UDP'}v{version}"]
    index = vector.tcp_hash & 127
    assert classify(frame, CONFIG) == Classified(vector.tcp_hash, report, index, index % 4)

    no_ports = CONFIG.replace(hash_types=HashType.IPv4 | HashType.IPv6)
    index = vector.address_hash & 127
    assert classify(frame, no_ports) == Classified(
        vector.address_hash, ReportType[f"IPv{version}"], index, index % 4
    )


@pytest.mark.parametrize("vector", VECTORS)
def test_vectors_as_tuples(vector: Vector) -> None:
    version = ip_address(vector.source).version
    for protocol in Protocol:
        got = classify_tuple(
            CONFIG,
            vector.source,
            vector.destination,
            protocol,
            vector.source_port,
            vector.destination_port,
        )
        assert got.hash_value == vector.tcp_hash
        assert got.hash_report == ReportType[f"{protocol.name}v{version}"]
    got = classify_tuple(CONFIG, ip_address(vector.source), ip_address(vector.destination))
    assert (got.hash_value, got.hash_report.name) == (vector.address_hash, f"IPv{version}")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("1.2.3", "1.2.3.4"), "source"),
        (("1.2.3.4", "host"), "destination"),
        (("1.2.3.4", "::1"), "destination"),
        (("1.2.3.4", "1.2.3.4", Protocol.TCP), "source port"),
        (("1.2.3.4", "1.2.3.4", Protocol.TCP, 1), "destination port"),
        (("1.2.3.4", "1.2.3.4", Protocol.UDP, 1, 65536), "destination port"),
        (("1.2.3.4", "1.2.3.4", Protocol.UDP, -1, 1), "source port"),
    ],
)
def test_bad_tuples(arguments: tuple[Any, ...], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        classify_tuple(CONFIG, *arguments)
    assert caught.value.field == field


# Frames that scapy makes


class Made(NamedTuple):
    """A packet from the network header on, and what a reader of it ought to see."""

    packet: Any
    version: int
    addresses: tuple[str, str]
    extended: tuple[str, str]
    """The addresses that count with the extension headers."""
    has_extension: bool
    l4: Protocol | None
    ports: bytes


@st.composite
def transports(draw: st.DrawFn, version: int) -> tuple[Any, Protocol | None, bytes]:
    source, destination = draw(PORT), draw(PORT)
    payload = Raw(draw(st.binary(max_size=20)))
    kind = draw(st.sampled_from(["tcp", "udp", "icmp"]))
    if kind == "tcp":
        options = draw(st.sampled_from([[], [("MSS", 1460), ("NOP", None), ("WScale", 7)]]))
        tcp = TCP(sport=source, dport=destination, options=options)
        return tcp / payload, Protocol.TCP, ports(source, destination)
    if kind == "udp":
        udp = UDP(sport=source, dport=destination)
        return udp / payload, Protocol.UDP, ports(source, destination)
    return (ICMP() if version == 4 else ICMPv6EchoRequest()) / payload, None, b""


@st.composite
def ipv4_packets(draw: st.DrawFn) -> Made:
    source, destination = draw(V4), draw(V4)
    transport, l4, port_bytes = draw(transports(4))
    options = draw(st.sampled_from([[], [IPOption_NOP()] * 4, [IPOption_RR(length=39)]]))
    ip = IP(src=source, dst=destination, options=options)
    fragment = draw(st.sampled_from(["no", "no", "DF", "MF", "offset"]))
    if fragment in ("DF", "MF"):
        ip.flags = fragment
    if fragment == "offset":
        ip.frag = draw(st.integers(1, 0x1FFF))
    if fragment in ("MF", "offset"):
        # Checksums over a fragment are scapy's to skip: payload as bytes.
        ip.proto = l4 or 1
        transport, l4, port_bytes = Raw(bytes(transport)), None, b""
    addresses = (source, destination)
    return Made(ip / transport, 4, addresses, addresses, False, l4, port_bytes)


@st.composite
def ipv6_packets(draw: st.DrawFn) -> Made:
    source, destination = draw(V6), draw(V6)
    home: str | None = None
    route: str | None = None
    packet: Any = IPv6(src=source, dst=destination)
    kinds = draw(
        st.lists(
            st.sampled_from(["hop", "home", "options", "route2", "route0", "atomic"]), max_size=5
        )
    )
    for kind in kinds:
        if kind == "hop":
            packet /= IPv6ExtHdrHopByHop(options=[RouterAlert(), PadN(optdata=b"\0" * 2)])
        elif kind == "home":
            address = draw(V6)
            padding = draw(st.sampled_from([[], [Pad1()], [PadN(optdata=b"abc")]]))
            packet /= IPv6ExtHdrDestOpt(options=[*padding, HAO(hoa=address)])
            home = address
        elif kind == "options":
            packet /= IPv6ExtHdrDestOpt(options=[PadN(optdata=b"12")])
        elif kind == "route2":
            address = draw(V6)
            packet /= IPv6ExtHdrRouting(type=2, addresses=[address])
            route = address
        elif kind == "route0":
            packet /= IPv6ExtHdrRouting(type=0, addresses=[draw(V6)])
        else:
            packet /= IPv6ExtHdrFragment(offset=0, m=0)
    transport, l4, port_bytes = draw(transports(6))
    if draw(st.integers(0, 4)) == 0:
        offset = draw(st.sampled_from([0, 1, 0x1FFF]))
        last = IPv6ExtHdrFragment(offset=offset, m=int(not offset), nh=l4 or 58)
        packet /= last / Raw(bytes(transport))
        kinds.append("fragment")
        l4, port_bytes = None, b""
    else:
        packet /= transport
    return Made(
        packet,
        6,
        (source, destination),
        (home or source, route or destination),
        bool(kinds),
        l4,
        port_bytes,
    )


def wanted(made: Made, config: RssConfig) -> Classified:
    """The specification once more, from what the packet was made of."""
    types = config.hash_types
    plain, extended = packed(*made.addresses), packed(*made.extended)
    v = made.version
    ranks: list[tuple[str, Protocol | None, bytes, str]] = []
    if made.has_extension:
        ranks += [
            ("TCP_EX", Protocol.TCP, extended, "TCPv6_EX"),
            ("UDP_EX", Protocol.UDP, extended, "UDPv6_EX"),
            ("IP_EX", None, extended, "IPv6_EX"),
        ]
    ranks += [
        (f"TCPv{v}", Protocol.TCP, plain, f"TCPv{v}"),
        (f"UDPv{v}", Protocol.UDP, plain, f"UDPv{v}"),
        (f"IPv{v}", None, plain, f"IPv{v}"),
    ]
    for name, l4, addresses, report in ranks:
        if HashType[name] in types and l4 in (None, made.l4):
            data = addresses + made.ports if l4 else addresses
            return hashed(data, ReportType[report], config)
    return UNCLASSIFIED


def ethernet(tags: Sequence[str]) -> Any:
    frame: Any = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
    for tag in tags:
        frame /= Dot1Q(vlan=5) if tag == "q" else Dot1AD(vlan=6)
    return frame


HASH_TYPES = st.one_of(st.just(HashType.ALL), st.integers(0, HashType.ALL).map(HashType))


@given(
    st.one_of(ipv4_packets(), ipv6_packets()),
    HASH_TYPES,
    st.lists(st.sampled_from("qa"), max_size=3),
    st.binary(max_size=12),
)
@settings(max_examples=300, deadline=None)
def test_frames_of_scapy(made: Made, types: HashType, tags: list[str], trailer: bytes) -> None:
    config = CONFIG.replace(hash_types=types)
    frame = bytes(ethernet(tags) / made.packet) + trailer
    expected = wanted(made, config) if len(tags) <= 2 else UNCLASSIFIED
    assert classify(frame, config) == expected
    assert classify(bytes(made.packet) + trailer, config, l3=True) == wanted(made, config)


@given(st.one_of(ipv4_packets(), ipv6_packets()), st.data())
@settings(max_examples=150, deadline=None)
def test_mutilated_frames(made: Made, data: st.DataObject) -> None:
    frame = bytearray(bytes(ethernet([]) / made.packet))
    for _ in range(data.draw(st.integers(0, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    del frame[data.draw(st.integers(0, len(frame))) :]
    for l3 in (False, True):
        got = explain(frame, CONFIG, l3=l3)
        assert (got.rule is None) == (got.classified == UNCLASSIFIED)
        # What is hashed is in the frame, whole.
        assert all(field.data in bytes(frame) for field in got.fields)
        assert (got.headers.version == 0) == bool(got.headers.why_no_ip)
        if got.headers.version:
            assert (got.headers.l4 is None) == bool(got.headers.why_no_l4)


@given(st.binary(max_size=120))
@example(b"")
@example(b"\x45")
@settings(max_examples=100)
def test_any_bytes(frame: bytes) -> None:
    for l3 in (False, True):
        got = classify(frame, CONFIG, l3=l3)
        assert 0 <= got.queue < 4


@pytest.mark.parametrize(
    "packet",
    [
        ethernet([]) / ARP(),
        ethernet([]) / Raw(bytes(60)),  # 802.3 length field
        Ether(type=0x8847) / Raw(bytes(IP() / TCP())),
        Ether(type=0x9100) / Raw(bytes(IP() / TCP())),
    ],
)
def test_not_ip(packet: Any) -> None:
    assert classify(bytes(packet), CONFIG) == UNCLASSIFIED


# Limits of the dissector, byte by byte

ETHERNET = bytes(12)
V4_SOURCE, V4_DESTINATION = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
V6_SOURCE, V6_DESTINATION = bytes(range(16)), bytes(range(16, 32))
PORTS = b"\x12\x34\x56\x78"
L4 = PORTS + bytes(16)
TCP_NUMBER, UDP_NUMBER, NO_NEXT_HEADER = 6, 17, 59


def ipv4(
    payload: bytes = L4,
    *,
    protocol: int = TCP_NUMBER,
    first: int = 0x45,
    fragment: int = 0,
    total: int | None = None,
) -> bytes:
    length = 20 + len(payload) if total is None else total
    header = struct.pack("!BBHHHBBH", first, 0, length, 0, fragment, 64, protocol, 0)
    return header + V4_SOURCE + V4_DESTINATION + payload


def ipv6(payload: bytes = L4, *, next_header: int = TCP_NUMBER, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return (
        struct.pack("!IHBB", 6 << 28, size, next_header, 64) + V6_SOURCE + V6_DESTINATION + payload
    )


def extension(next_header: int, body: bytes = bytes(6), *, length: int | None = None) -> bytes:
    """Of any kind that counts in 8 bytes without the first; ``body`` follows the length byte."""
    assert (2 + len(body)) % 8 == 0
    return bytes([next_header, (2 + len(body)) // 8 - 1 if length is None else length]) + body


def options(next_header: int, *values: bytes) -> bytes:
    body = b"".join(values)
    return extension(next_header, body + bytes(-(2 + len(body)) % 8))


def home(address: bytes) -> bytes:
    return bytes([201, 16]) + address


def routing(next_header: int, address: bytes, kind: int = 2, left: int = 1) -> bytes:
    return extension(next_header, bytes([kind, left, 0, 0, 0, 0]) + address)


def fragment(next_header: int, value: int) -> bytes:
    return struct.pack("!BBHI", next_header, 0, value, 0x01020304)


HOME, ROUTE = b"H" * 16, b"R" * 16


def report(packet: bytes) -> ReportType:
    """Of a packet without Ethernet header; behind one it has to be the same."""
    ethertype = b"\x08\x00" if packet[:1] and packet[0] >> 4 == 4 else b"\x86\xdd"
    framed = classify(ETHERNET + ethertype + packet, CONFIG)
    assert framed == classify(packet, CONFIG, l3=True)
    return framed.hash_report


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (ipv4(), ReportType.TCPv4),
        (ipv4(L4[:19]), ReportType.IPv4),
        (ipv4(L4[:8], protocol=UDP_NUMBER), ReportType.UDPv4),
        (ipv4(L4[:7], protocol=UDP_NUMBER), ReportType.IPv4),
        (ipv4(protocol=132), ReportType.IPv4),
        (ipv4(b""), ReportType.IPv4),
        (ipv4()[:19], ReportType.NONE),
        # Header length
        (ipv4(first=0x44), ReportType.NONE),
        (ipv4(first=0x46), ReportType.IPv4),  # 4 bytes of options leave 16 for TCP
        (ipv4(bytes(4) + L4, first=0x46), ReportType.TCPv4),
        (ipv4(bytes(40) + L4, first=0x4F), ReportType.TCPv4),
        (ipv4(first=0x4F), ReportType.IPv4),
        # Fragments
        (ipv4(fragment=0x4000), ReportType.TCPv4),  # DF
        (ipv4(fragment=0x8000), ReportType.TCPv4),  # reserved
        (ipv4(fragment=0x2000), ReportType.IPv4),
        (ipv4(fragment=0x0001), ReportType.IPv4),
        (ipv4(fragment=0x1FFF), ReportType.IPv4),
        # Total length
        (ipv4(total=0), ReportType.TCPv4),
        (ipv4(total=39), ReportType.IPv4),
        (ipv4(total=10), ReportType.IPv4),
        (ipv4(total=41), ReportType.TCPv4),  # says more than there is: the frame counts
        (ipv4(L4[:19], total=60), ReportType.IPv4),
        (ipv4(b"", total=20) + L4, ReportType.IPv4),  # padding of Ethernet is no header
    ],
)
def test_ipv4_limits(packet: bytes, expected: ReportType) -> None:
    assert report(packet) is expected


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (ipv6(), ReportType.TCPv6),
        (ipv6()[:39], ReportType.NONE),
        (ipv6(b""), ReportType.IPv6),
        (ipv6(L4[:19]), ReportType.IPv6),
        (ipv6(L4[:8], next_header=UDP_NUMBER), ReportType.UDPv6),
        (ipv6(L4[:7], next_header=UDP_NUMBER), ReportType.IPv6),
        (ipv6(next_header=58), ReportType.IPv6),
        (ipv6(next_header=NO_NEXT_HEADER), ReportType.IPv6),
        (ipv6(next_header=50), ReportType.IPv6),  # ESP is not walked
        # Payload length
        (ipv6(length=0), ReportType.TCPv6),
        (ipv6(length=19), ReportType.IPv6),
        (ipv6(length=21), ReportType.TCPv6),
        # Each extension header, whole and cut
        *(
            (ipv6(extension(TCP_NUMBER) + L4, next_header=kind), ReportType.TCPv6_EX)
            for kind in (0, 43, 60, 135, 139, 140)
        ),
        *(
            (ipv6(extension(TCP_NUMBER)[:7], next_header=kind), ReportType.IPv6_EX)
            for kind in (0, 43, 44, 51, 60, 135, 139, 140)
        ),
        *(
            (ipv6(b"", next_header=kind), ReportType.IPv6_EX)
            for kind in (0, 43, 44, 51, 60, 135, 139, 140)
        ),
        (ipv6(extension(UDP_NUMBER) + L4), ReportType.TCPv6),
        # Lengths: authentication counts words of 4 bytes, less 2; fragment has none
        (ipv6(bytes([6, 4]) + bytes(22) + L4, next_header=51), ReportType.TCPv6_EX),
        (ipv6(bytes([6, 5]) + bytes(22) + L4, next_header=51), ReportType.IPv6_EX),
        (ipv6(bytes([6, 9]) + bytes(6) + L4, next_header=44), ReportType.TCPv6_EX),
        (ipv6(extension(6, length=1) + L4, next_header=0), ReportType.IPv6_EX),
        (ipv6(extension(6, length=255) + L4, next_header=0), ReportType.IPv6_EX),
        # Fragments
        (ipv6(fragment(6, 0) + L4, next_header=44), ReportType.TCPv6_EX),
        (ipv6(fragment(6, 6) + L4, next_header=44), ReportType.TCPv6_EX),  # reserved bits
        (ipv6(fragment(6, 1) + L4, next_header=44), ReportType.IPv6_EX),
        (ipv6(fragment(6, 8) + L4, next_header=44), ReportType.IPv6_EX),
        # Number of headers
        (ipv6(extension(0) * 7 + extension(6) + L4, next_header=0), ReportType.TCPv6_EX),
        (ipv6(extension(0) * 8 + extension(6) + L4, next_header=0), ReportType.IPv6_EX),
        # No L4 behind extension headers
        (ipv6(extension(NO_NEXT_HEADER), next_header=0), ReportType.IPv6_EX),
        (ipv6(extension(6) + L4[:19], next_header=0), ReportType.IPv6_EX),
        (ipv6(extension(6) + L4, next_header=0, length=27), ReportType.IPv6_EX),
        (ipv6(extension(6) + L4, next_header=0, length=7), ReportType.IPv6_EX),
    ],
)
def test_ipv6_limits(packet: bytes, expected: ReportType) -> None:
    assert report(packet) is expected


PAD1, PADN = b"\0", b"\x01\x00"


@pytest.mark.parametrize(
    ("packet", "source"),
    [
        (ipv6(options(6, home(HOME)) + L4, next_header=60), HOME),
        (ipv6(options(6, PADN, home(HOME)) + L4, next_header=60), HOME),
        # The eighth option is read, the ninth is not
        (ipv6(options(6, PAD1 * 7, home(HOME)) + L4, next_header=60), HOME),
        (ipv6(options(6, PAD1 * 8, home(HOME)) + L4, next_header=60), V6_SOURCE),
        (ipv6(options(6, PADN * 7, home(HOME)) + L4, next_header=60), HOME),
        (ipv6(options(6, PADN * 8, home(HOME)) + L4, next_header=60), V6_SOURCE),
        # Another length is another option
        (ipv6(options(6, b"\xc9\x0f" + HOME[:15]) + L4, next_header=60), V6_SOURCE),
        (ipv6(options(6, b"\xc9\x0f" + b"x" * 15, home(HOME)) + L4, next_header=60), HOME),
        # Only in destination options
        (ipv6(options(6, home(HOME)) + L4, next_header=0), V6_SOURCE),
        # An option that overruns its header hides the rest, not what follows the header
        (ipv6(options(6, b"\x01\x17", home(HOME)) + L4, next_header=60), V6_SOURCE),
        (ipv6(extension(6, bytes([1, 2, 0, 0, 201, 16])) + HOME + L4, next_header=60), V6_SOURCE),
        (ipv6(extension(60, b"\xc9\x10" * 3) + options(6, home(HOME)) + L4, next_header=60), HOME),
        (
            ipv6(extension(60, bytes(5) + b"\xc9") + options(6, home(HOME)) + L4, next_header=60),
            HOME,
        ),
        # Of several headers the last one that has it counts, within a header the first option
        (
            ipv6(options(60, home(b"2" * 16)) + options(6, home(HOME)) + L4, next_header=60),
            HOME,
        ),
        (ipv6(options(6, home(HOME), home(b"2" * 16)) + L4, next_header=60), HOME),
    ],
)
def test_home_address(packet: bytes, source: bytes) -> None:
    got = explain(packet, CONFIG, l3=True)
    assert got.headers.l4 is not None or packet[-36:-20] == HOME
    assert got.data.startswith(source + V6_DESTINATION)


@pytest.mark.parametrize(
    ("packet", "destination"),
    [
        (ipv6(routing(6, ROUTE) + L4, next_header=43), ROUTE),
        (ipv6(routing(6, ROUTE, left=0) + L4, next_header=43), ROUTE),
        (ipv6(routing(6, ROUTE, kind=0) + L4, next_header=43), V6_DESTINATION),
        (ipv6(routing(6, ROUTE, kind=4) + L4, next_header=43), V6_DESTINATION),
        (ipv6(routing(6, ROUTE + bytes(8)) + L4, next_header=43), V6_DESTINATION),
        (ipv6(extension(6, b"\x02" + bytes(5)) + L4, next_header=43), V6_DESTINATION),
        (ipv6(routing(43, b"2" * 16) + routing(6, ROUTE) + L4, next_header=43), ROUTE),
        (ipv6(routing(43, b"0" * 16, kind=0) + routing(6, ROUTE) + L4, next_header=43), ROUTE),
    ],
)
def test_routing_header(packet: bytes, destination: bytes) -> None:
    got = explain(packet, CONFIG, l3=True)
    assert got.data == V6_SOURCE + destination + PORTS
    assert got.classified.hash_report is ReportType.TCPv6_EX


@pytest.mark.parametrize(
    "rest",
    [
        (44, fragment(6, 1) + L4),
        (60, b"\x06"),
        (43, bytes([6, 2, 2, 1])),
        (60, extension(0) + extension(0) * 6 + L4),
        (NO_NEXT_HEADER, b""),
    ],
)
def test_addresses_found_before_the_end_of_the_walk_count(rest: tuple[int, bytes]) -> None:
    kind, after = rest
    packet = ipv6(options(43, home(HOME)) + routing(kind, ROUTE) + after, next_header=60)
    got = explain(packet, CONFIG, l3=True)
    assert got.data == HOME + ROUTE
    assert got.classified.hash_report is ReportType.IPv6_EX


def test_nothing_of_a_cut_header_is_used() -> None:
    whole = ipv6(options(6, home(HOME)), next_header=60)
    assert explain(whole, CONFIG, l3=True).data == HOME + V6_DESTINATION
    assert explain(whole[:-1], CONFIG, l3=True).data == V6_SOURCE + V6_DESTINATION
    whole = ipv6(routing(6, ROUTE), next_header=43)
    assert explain(whole, CONFIG, l3=True).data == V6_SOURCE + ROUTE
    assert explain(whole[:-1], CONFIG, l3=True).data == V6_SOURCE + V6_DESTINATION


@pytest.mark.parametrize(
    ("types", "expected", "data"),
    [
        (HashType.ALL, ReportType.TCPv6_EX, HOME + ROUTE + PORTS),
        (HashType.ALL & ~HashType.TCP_EX, ReportType.IPv6_EX, HOME + ROUTE),
        (HashType.UDP_EX | HashType.TCPv6, ReportType.TCPv6, V6_SOURCE + V6_DESTINATION + PORTS),
        (HashType.UDP_EX | HashType.IPv6, ReportType.IPv6, V6_SOURCE + V6_DESTINATION),
        (HashType.UDPv6 | HashType.IPv4, ReportType.NONE, b""),
        (HashType.NONE, ReportType.NONE, b""),
    ],
)
def test_order_with_extension_headers(types: HashType, expected: ReportType, data: bytes) -> None:
    packet = ipv6(options(43, home(HOME)) + routing(6, ROUTE) + L4, next_header=60)
    got = explain(packet, CONFIG.replace(hash_types=types), l3=True)
    assert (got.classified.hash_report, got.data) == (expected, data)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (b"", ReportType.NONE),
        (ETHERNET + b"\x08", ReportType.NONE),
        (ETHERNET + b"\x08\x00", ReportType.NONE),
        (ETHERNET + b"\x86\xdd" + ipv4(), ReportType.NONE),
        (ETHERNET + b"\x08\x00" + ipv6(), ReportType.NONE),
        (ETHERNET + b"\x81\x00\x00\x05\x08\x00" + ipv4(), ReportType.TCPv4),
        (ETHERNET + b"\x88\xa8\x00\x05\x81\x00\x00\x05\x86\xdd" + ipv6(), ReportType.TCPv6),
        (ETHERNET + b"\x81\x00\x00\x05\x88\xa8\x00\x05\x86\xdd" + ipv6(), ReportType.TCPv6),
        (ETHERNET + b"\x81\x00\x00\x05" * 3 + b"\x08\x00" + ipv4(), ReportType.NONE),
        (ETHERNET + b"\x81\x00\x00\x05", ReportType.NONE),
        (ETHERNET + b"\x88\x64" + ipv4(), ReportType.NONE),
    ],
)
def test_ethernet_limits(frame: bytes, expected: ReportType) -> None:
    assert classify(frame, CONFIG).hash_report is expected


LLC, SNAP = b"\xaa\xaa\x03", b"\0\0\0"


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        (b"\0\x3c" + LLC + SNAP + b"\x08\x00" + ipv4(), ReportType.TCPv4),
        (b"\x05\xff" + LLC + SNAP + b"\x86\xdd" + ipv6(), ReportType.TCPv6),  # the largest
        (b"\x06\x00" + LLC + SNAP + b"\x08\x00" + ipv4(), ReportType.NONE),  # a type
        (b"\0\0" + LLC + SNAP + b"\x08\x00" + ipv4(), ReportType.TCPv4),
        (b"\x81\x00\x00\x05" * 2 + b"\0\x3c" + LLC + SNAP + b"\x08\x00" + ipv4(), ReportType.TCPv4),
        # No tag, no second LLC behind it
        (b"\0\x3c" + LLC + SNAP + b"\x81\x00\x00\x05\x08\x00" + ipv4(), ReportType.NONE),
        (b"\0\x3c" + (LLC + SNAP + b"\0\x3c") * 2 + ipv4(), ReportType.NONE),
        # Another protocol's number (RFC 1042 has 0 only), other LLC
        (b"\0\x3c" + LLC + b"\0\0\xf8" + b"\x08\x00" + ipv4(), ReportType.NONE),
        (b"\0\x3c" + LLC + b"\1\0\0" + b"\x08\x00" + ipv4(), ReportType.NONE),
        (b"\0\x3c" + b"\xaa\xaa\x02" + SNAP + b"\x08\x00" + ipv4(), ReportType.NONE),
        (b"\0\x3c" + b"\x06\x06\x03" + ipv4(), ReportType.NONE),
        # Cut
        (b"\0\x3c" + LLC + SNAP + b"\x08", ReportType.NONE),
        (b"\0\x3c" + LLC, ReportType.NONE),
    ],
)
def test_snap(behind: bytes, expected: ReportType) -> None:
    """802.3 with LLC and an EtherType: RFC 1042."""
    frame = ETHERNET + behind
    assert classify(frame, CONFIG).hash_report is expected
    assert Hasher(CONFIG).classify(frame) == classify(frame, CONFIG)


@pytest.mark.parametrize("first", [0x00, 0x15, 0x50, 0x70, 0xF5])
def test_other_ip_versions(first: int) -> None:
    packet = bytes([first]) + ipv4()[1:]
    assert classify(packet, CONFIG, l3=True) == UNCLASSIFIED
    assert dissect(packet, l3=True).why_no_ip == f"IP version {first >> 4}"


# Explanations


def test_explanation_of_a_chosen_rule() -> None:
    packet = ETHERNET + b"\x81\x00\x00\x05\x08\x00" + ipv4(L4[:8], protocol=UDP_NUMBER)
    got = explain(packet, CONFIG)
    assert got.to_json() == {
        "headers": ["Ethernet", "802.1Q", "IPv4", "UDP"],
        "tunnel": [],
        "passed_over": [{"hash_type": "TCPv4", "why": "no TCP header, but UDP"}],
        "hash_type": "UDPv4",
        "section": "5.1.6.4.3.2",
        "reason": "UDPv4 is enabled and the packet has a UDP header",
        "fields": [
            {"name": "source address", "bytes": "0a000001"},
            {"name": "destination address", "bytes": "0a000002"},
            {"name": "source UDP port", "bytes": "1234"},
            {"name": "destination UDP port", "bytes": "5678"},
        ],
        "input": "0a0000010a00000212345678",
    }


def test_explanation_names_the_substitute_addresses() -> None:
    packet = ipv6(options(43, home(HOME)) + routing(6, ROUTE) + L4, next_header=60)
    got = explain(packet, CONFIG, l3=True)
    assert got.headers.seen == ("IPv6", "destination options", "routing", "TCP")
    assert [field.name for field in got.fields] == [
        "home address",
        "routing header address",
        "source TCP port",
        "destination TCP port",
    ]
    assert got.rule is not None
    assert got.rule.section == "5.1.6.4.3.4"


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (ipv4(fragment=0x2000), "no TCP header (a fragment)"),
        (ipv4(L4[:19]), "no TCP header (the TCP header is cut short)"),
        (ipv4(protocol=1), "no TCP header (protocol 1 is neither TCP nor UDP)"),
    ],
)
def test_explanation_of_missing_ports(packet: bytes, why: str) -> None:
    assert explain(packet, CONFIG, l3=True).passed_over[0].why == why


def test_explanation_of_no_hash() -> None:
    got = explain_tuple(CONFIG.replace(hash_types=HashType.TCPv4), "1.2.3.4", "5.6.7.8")
    assert (got.rule, got.fields, got.classified) == (None, (), UNCLASSIFIED)
    assert [passed.rule.hash_type.name for passed in got.passed_over] == ["TCPv4", "UDPv4", "IPv4"]
    assert got.reason == "no enabled type applies"
    assert explain(ETHERNET + b"\x08\x06", CONFIG).reason == "not IP: EtherType 0x0806 (ARP)"


def test_json_of_a_result() -> None:
    assert UNCLASSIFIED.to_json() == {
        "hash_value": 0,
        "hash_report": "NONE",
        "index": None,
        "queue": 3,
    }
