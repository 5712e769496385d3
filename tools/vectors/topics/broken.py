# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Frames that end early, and headers that lie about lengths."""

from tools.vectors import headers as h
from tools.vectors.case import Topic
from tools.vectors.topics.configurations import ONLY_STANDARD
from tools.vectors.topics.mobile import HOME, ROUTE


def topics() -> list[Topic]:
    return [_truncation(), _lengths()]


def _truncation() -> Topic:
    topic = Topic(
        "truncation",
        "Frames that end in the middle of a header",
        ONLY_STANDARD,
    )
    f = h.ethernet
    home, route = HOME + h.B6, h.A6 + ROUTE
    # Name, frame, and where it is cut: length, what is reported then, what is hashed.
    cuts: tuple[tuple[str, bytes, list[tuple[int, str] | tuple[int, str, bytes]]], ...] = (
        (
            "tcpv4",
            f(h.ipv4(h.tcp(data=b""))),
            [
                *[(0, "NONE"), (1, "NONE"), (12, "NONE"), (13, "NONE"), (14, "NONE")],
                *[(15, "NONE"), (23, "NONE"), (33, "NONE"), (34, "IPv4"), (36, "IPv4")],
                *[(38, "IPv4"), (52, "IPv4"), (53, "IPv4")],
            ],
        ),
        (
            "udpv4",
            f(h.ipv4(h.udp(data=b"data"))),
            [(34, "IPv4"), (38, "IPv4"), (41, "IPv4"), (42, "UDPv4"), (43, "UDPv4")],
        ),
        (
            "ipv4-options",
            f(h.ipv4(h.tcp(data=b""), options=bytes(40))),
            [(34, "IPv4"), (54, "IPv4"), (73, "IPv4"), (74, "IPv4"), (93, "IPv4")],
        ),
        (
            "tcpv6",
            f(h.ipv6(h.tcp(data=b""))),
            [
                *[(14, "NONE"), (15, "NONE"), (34, "NONE"), (53, "NONE"), (54, "IPv6")],
                *[(58, "IPv6"), (73, "IPv6")],
            ],
        ),
        (
            "udpv6",
            f(h.ipv6(h.udp(data=b"data"))),
            [(54, "IPv6"), (61, "IPv6"), (62, "UDPv6"), (63, "UDPv6")],
        ),
        (
            "hop-by-hop",
            f(h.ipv6(h.udp(data=b""), [h.hop_by_hop(h.padding(14))])),
            [
                *[(54, "IPv6_EX"), (55, "IPv6_EX"), (61, "IPv6_EX"), (62, "IPv6_EX")],
                *[(69, "IPv6_EX"), (70, "IPv6_EX"), (77, "IPv6_EX")],
            ],
        ),
        (
            "fragment",
            f(h.ipv6(h.udp(data=b""), [h.fragment()])),
            [(54, "IPv6_EX"), (57, "IPv6_EX"), (61, "IPv6_EX"), (62, "IPv6_EX"), (69, "IPv6_EX")],
        ),
        (
            "authentication",
            f(h.ipv6(h.udp(data=b""), [h.authentication(2)])),
            [(61, "IPv6_EX"), (62, "IPv6_EX"), (73, "IPv6_EX"), (74, "IPv6_EX"), (81, "IPv6_EX")],
        ),
        (
            "home-address",
            f(h.ipv6(h.tcp(data=b""), [h.mobile_options(HOME)], ends=(HOME, h.B6))),
            [
                *[(54, "IPv6_EX"), (61, "IPv6_EX"), (62, "IPv6_EX"), (77, "IPv6_EX")],
                *[(78, "IPv6_EX", home), (82, "IPv6_EX", home), (97, "IPv6_EX", home)],
            ],
        ),
        (
            "routing-2",
            f(h.ipv6(h.tcp(data=b""), [h.mobile_routing(ROUTE)], ends=(h.A6, ROUTE))),
            [(62, "IPv6_EX"), (77, "IPv6_EX"), (78, "IPv6_EX", route), (97, "IPv6_EX", route)],
        ),
        (
            "vlan",
            f(h.ipv4(h.udp(data=b"")), tags=[(0x8100, 5)]),
            [(14, "NONE"), (17, "NONE"), (18, "NONE"), (37, "NONE"), (38, "IPv4"), (45, "IPv4")],
        ),
        (
            "vlan-twice",
            f(h.ipv6(h.udp(data=b"")), tags=[(0x88A8, 5), (0x8100, 6)]),
            [(18, "NONE"), (21, "NONE"), (22, "NONE"), (61, "NONE"), (62, "IPv6"), (69, "IPv6")],
        ),
    )
    for name, frame, lengths in cuts:
        for length, report, *hashed in lengths:
            topic.open(
                f"{name}-{length}",
                report,
                h.cut(frame, length),
                f"The first {length} of {len(frame)} bytes: what does not lie whole in the frame "
                "is not there.",
                hashed=hashed[0] if hashed else None,
            )
    return topic


def _lengths() -> Topic:
    topic = Topic("lengths", "Lengths that lie, and padding", ONLY_STANDARD)
    open_ = topic.open
    f = h.ethernet
    for kind, upper in (("tcp", h.tcp(data=b"")), ("udp", h.udp(data=b""))):
        size = len(upper.data)
        report = kind.upper()
        for name, length, kept, what in (
            ("exact", 20 + size, True, "ends with the transport header"),
            ("one-less", 19 + size, False, "ends one byte before the transport header does"),
            ("header-only", 20, False, "ends with the IPv4 header; what follows is padding"),
            ("in-header", 10, False, "is less than the header's: no room for a transport header"),
            ("one", 1, False, "is 1"),
            ("zero", 0, True, "is 0, as of segments not cut yet: the frame's end counts"),
            ("beyond", 2000, True, "lies behind the frame: the frame's end counts"),
            ("highest", 0xFFFF, True, "is the highest: the frame's end counts"),
        ):
            open_(
                f"ipv4-{name}-{kind}",
                f"{report}v4" if kept else "IPv4",
                f(h.ipv4(upper, length=length)) + bytes(6),
                f"The total length of IPv4 {what}.",
            )
        for name, length, kept, what in (
            ("exact", size, True, "ends with the transport header"),
            ("one-less", size - 1, False, "ends one byte before the transport header does"),
            ("one", 1, False, "is 1: what follows is padding"),
            ("zero", 0, True, "is 0, as in a jumbogram: the frame's end counts"),
            ("beyond", 2000, True, "lies behind the frame: the frame's end counts"),
            ("highest", 0xFFFF, True, "is the highest: the frame's end counts"),
        ):
            open_(
                f"ipv6-{name}-{kind}",
                f"{report}v6" if kept else "IPv6",
                f(h.ipv6(upper, length=length)) + bytes(6),
                f"The payload length of IPv6 {what}.",
            )
    tcp4 = f(h.ipv4(h.tcp()))
    for words in (0, 1, 4):
        open_(
            f"ipv4-header-{words}-words",
            "NONE",
            h.put(tcp4, 14, bytes([0x40 | words])),
            f"An IPv4 header of {4 * words} bytes is none.",
        )
    open_(
        "ipv4-header-beyond",
        "IPv4",
        h.put(f(h.ipv4(h.tcp(data=b""))), 14, b"\x4f"),
        "An IPv4 header of 60 bytes that would end behind the frame: the addresses are there.",
    )
    open_(
        "ipv4-header-beyond-length",
        "IPv4",
        h.put(f(h.ipv4(h.tcp(data=bytes(60)), length=54)), 14, b"\x4f"),
        "An IPv4 header of 60 bytes in a packet of 54.",
    )
    jumbo = h.hop_by_hop(b"\xc2\x04\0\1\0\0")
    for kind, report, upper in (("tcp", "TCPv6_EX", h.tcp()), ("udp", "UDPv6_EX", h.udp())):
        open_(
            f"jumbo-{kind}",
            report,
            f(h.ipv6(upper, [jumbo], length=0)),
            "A jumbogram: payload length 0 and the option in a hop-by-hop header (RFC 2675).",
        )
    frame = f(h.ipv6(h.tcp(data=b""), [h.hop_by_hop()]))
    for name, units in (("beyond", 40), ("highest", 255), ("to-the-end", 3)):
        open_(
            f"extension-{name}",
            "IPv6_EX",
            h.put(frame, 55, bytes([units])),
            f"An extension header of {8 * units + 8} bytes leaves no room for a TCP header.",
        )
    open_(
        "extension-length-declared",
        "IPv6_EX",
        f(h.ipv6(h.tcp(), [h.hop_by_hop()], length=7)),
        "The payload length ends inside an extension header.",
    )
    open_(
        "extension-only-declared",
        "IPv6_EX",
        f(h.ipv6(h.tcp(), [h.hop_by_hop()], length=8)),
        "The payload length ends with the extension header; what follows is padding.",
    )
    open_(
        "authentication-beyond",
        "IPv6_EX",
        h.put(f(h.ipv6(h.tcp(data=b""), [h.authentication()])), 55, b"\xff"),
        "An authentication header of 1028 bytes that would end behind the frame.",
    )
    short = h.Extension(h.AUTHENTICATION, bytes([0]) + bytes(6))
    open_(
        "authentication-8-bytes",
        "TCPv6_EX",
        f(h.ipv6(h.tcp(), [short])),
        "An authentication header of 8 bytes, less than its fixed part: its length is believed.",
    )
    open_(
        "home-length-declared",
        "IPv6_EX",
        f(h.ipv6(h.tcp(), [h.mobile_options(HOME)], length=20)),
        "The payload length ends inside the header that has the home address.",
    )
    open_(
        "home-header-declared",
        "IPv6_EX",
        f(h.ipv6(h.tcp(), [h.mobile_options(HOME)], length=24)),
        "The payload length ends with the header that has the home address.",
        hashed=HOME + h.B6,
    )
    return topic
