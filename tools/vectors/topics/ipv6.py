# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""IPv6: the header, extension headers, fragments."""

from tools.vectors import headers as h
from tools.vectors.case import Topic
from tools.vectors.topics.configurations import ONLY_STANDARD

_UPPERS = (("tcp", "TCPv6", h.tcp()), ("udp", "UDPv6", h.udp()), ("icmpv6", "IPv6", h.icmpv6()))


def topics() -> list[Topic]:
    return [_headers(), _extensions(), _chains(), _fragments()]


def _headers() -> Topic:
    topic = Topic("ipv6", "IPv6 without extension headers", ONLY_STANDARD)
    demanded, open_ = topic.demanded, topic.open
    f = h.ethernet
    demanded("tcp", "TCPv6", f(h.ipv6(h.tcp())), "TCP over IPv6: addresses, then ports.")
    demanded("udp", "UDPv6", f(h.ipv6(h.udp())), "UDP over IPv6: addresses, then ports.")
    demanded("icmpv6", "IPv6", f(h.ipv6(h.icmpv6())), "ICMPv6 has no ports: addresses alone.")
    demanded(
        "tcp-back",
        "TCPv6",
        f(h.ipv6(h.tcp(h.PORTS[::-1]), source=h.B6, destination=h.A6)),
        "The other direction of the same flow has another hash: the order of the fields counts.",
        hashed=h.B6 + h.A6 + h.ports(h.PORTS[::-1]),
    )
    for name, pair, what in (
        ("ports-zero", (0, 0), "Ports of 0 are ports."),
        ("ports-highest", (0xFFFF, 0xFFFF), "Every bit of the ports set."),
        ("ports-low-bit", (0, 1), "Only the last bit of the longest input set in its ports."),
    ):
        for kind, upper in (("TCPv6", h.tcp(pair)), ("UDPv6", h.udp(pair))):
            demanded(
                f"{name}-{kind[:3].lower()}",
                kind,
                f(h.ipv6(upper)),
                what,
                hashed=h.A6 + h.B6 + h.ports(pair),
            )
    for number, name in (
        (59, "no-next-header"),
        (4, "ipv4"),
        (41, "ipv6"),
        (47, "gre"),
        (89, "ospf"),
        (132, "sctp"),
        (136, "udp-lite"),
        (1, "icmp"),
    ):
        demanded(
            f"next-{name}",
            "IPv6",
            f(h.ipv6(h.other(number))),
            f"Next header {number} is neither TCP nor UDP nor an extension header.",
        )
    open_(
        "next-esp",
        "IPv6",
        f(h.ipv6(h.other(50))),
        "ESP hides what follows. RFC 8200 counts it among the extension headers; "
        "here it counts as what ends them.",
    )
    for number in (253, 254):
        open_(
            f"next-{number}",
            "IPv6",
            f(h.ipv6(h.other(number))),
            f"The experimental value {number} is not taken for an extension header, "
            "as its length cannot be told.",
        )
    demanded(
        "traffic-class",
        "TCPv6",
        f(h.ipv6(h.tcp(), traffic_class=0xFF)),
        "The traffic class, which shares a byte with the version, changes nothing.",
    )
    demanded(
        "flow-label",
        "TCPv6",
        f(h.ipv6(h.tcp(), flow_label=0xFFFFF)),
        "The flow label changes nothing.",
    )
    for kind, report, upper in (
        ("tcp", "TCPv6", h.tcp(data=b"")),
        ("udp", "UDPv6", h.udp(data=b"")),
    ):
        demanded(f"{kind}-no-data", report, f(h.ipv6(upper)), "A header with nothing behind it.")
    demanded(
        "tcp-options",
        "TCPv6",
        f(h.ipv6(h.tcp(options=b"\x01\x01\x08\x0a" + bytes(8)))),
        "TCP options lie behind the ports.",
    )
    demanded(
        "no-payload",
        "IPv6",
        f(h.ipv6(h.Upper(59, b""))),
        "An IPv6 header and nothing else.",
    )
    for name, source, destination, mac in (
        ("multicast", "fe80::1", "ff02::fb", "3333000000fb"),
        ("link-local", "fe80::1", "fe80::2", "020000000002"),
        ("unspecified", "::", "ff02::1:2", "333300010002"),
        ("mapped", "::ffff:192.0.2.1", "::ffff:198.51.100.2", "020000000002"),
    ):
        ends = h.address(source), h.address(destination)
        frame = f(h.ipv6(h.udp((546, 547)), source=ends[0], destination=ends[1]))
        demanded(
            name,
            "UDPv6",
            h.put(frame, 0, bytes.fromhex(mac)),
            f"From {source} to {destination}: all 16 bytes of both are hashed.",
            hashed=b"".join(ends) + h.ports((546, 547)),
        )
    for name, ends in (
        ("addresses-ones", (b"\xff" * 16, b"\xff" * 16)),
        ("addresses-first-bit", (b"\x80" + bytes(15), bytes(16))),
        ("addresses-last-bit", (bytes(16), bytes(15) + b"\1")),
    ):
        demanded(
            name,
            "IPv6",
            f(h.ipv6(h.icmpv6(), source=ends[0], destination=ends[1])),
            "Bits at the ends of the addresses reach their windows of the key.",
            hashed=b"".join(ends),
        )
    frame = f(h.ipv6(h.tcp()))
    open_(
        "version-4",
        "NONE",
        h.put(frame, 14, b"\x45"),
        "Version 4 under the EtherType of IPv6 is no IP packet.",
    )
    open_("version-7", "NONE", h.put(frame, 14, b"\x70"), "Version 7 is no IP packet.")
    return topic


_EXTENSIONS: tuple[tuple[str, h.Extension, bool, str], ...] = (
    ("hop-by-hop", h.hop_by_hop(), True, "a hop-by-hop options header"),
    ("hop-by-hop-long", h.hop_by_hop(h.padding(30)), True, "a hop-by-hop header of 32 bytes"),
    ("router-alert", h.hop_by_hop(b"\5\2\0\0\1\0"), True, "a router alert"),
    ("destination-options", h.destination_options(), True, "destination options of padding only"),
    (
        "destination-options-long",
        h.destination_options(h.padding(254)),
        True,
        "a destination options header of 256 bytes",
    ),
    (
        "routing-0",
        h.routing(0, bytes(4) + h.address("2001:db8:9::9")),
        True,
        "a routing header of type 0, whose address is not hashed",
    ),
    (
        "routing-3",
        h.routing(3, bytes(4) + h.address("2001:db8:9::9")),
        True,
        "a routing header of type 3, whose address is not hashed",
    ),
    (
        "routing-4",
        h.routing(4, bytes(4) + h.address("2001:db8:9::9")),
        True,
        "a segment routing header, whose address is not hashed",
    ),
    ("routing-short", h.routing(253, bytes(4), 0), True, "a routing header of 8 bytes"),
    ("authentication", h.authentication(), True, "an authentication header of 24 bytes"),
    (
        "authentication-16",
        h.authentication(1),
        True,
        "an authentication header of 16 bytes, whose length is told in units of 4, less two",
    ),
    (
        "authentication-20",
        h.authentication(2),
        True,
        "an authentication header of 20 bytes, no multiple of 8",
    ),
    (
        "authentication-44",
        h.authentication(8),
        True,
        "an authentication header with a long integrity check value",
    ),
    (
        "fragment-atomic",
        h.fragment(),
        True,
        "an atomic fragment (offset 0, no more of them), which is a whole packet",
    ),
    (
        "fragment-atomic-reserved",
        h.fragment(reserved=3),
        False,
        "an atomic fragment whose reserved bits are set",
    ),
    ("mobility", h.mobility(), False, "a mobility header"),
    ("host-identity", h.host_identity(), False, "a host identity header"),
    ("shim6", h.shim6(), False, "a shim6 header"),
)


def _extensions() -> Topic:
    topic = Topic(
        "ipv6-extension-headers",
        "IPv6 with one extension header of each kind",
        ONLY_STANDARD,
    )
    for name, extension, is_demanded, what in _EXTENSIONS:
        put = topic.demanded if is_demanded else topic.open
        for kind, report, upper in _UPPERS:
            put(
                f"{name}-{kind}",
                f"{report}_EX",
                h.ethernet(h.ipv6(upper, [extension])),
                f"Behind {what}: "
                + {
                    "tcp": "the TCP header is found.",
                    "udp": "the UDP header is found.",
                    "icmpv6": "no ports; the report type tells of the extension header.",
                }[kind],
            )
    topic.demanded(
        "no-next-header",
        "IPv6_EX",
        h.ethernet(h.ipv6(h.other(59), [h.destination_options()])),
        "No next header behind an extension header.",
    )
    topic.demanded(
        "sctp",
        "IPv6_EX",
        h.ethernet(h.ipv6(h.other(132), [h.hop_by_hop()])),
        "A protocol without ports that RSS hashes, behind an extension header.",
    )
    topic.open(
        "esp",
        "IPv6_EX",
        h.ethernet(h.ipv6(h.other(50), [h.destination_options()])),
        "ESP ends the walk: nothing behind it can be told.",
    )
    topic.demanded(
        "nothing-behind",
        "IPv6_EX",
        h.ethernet(h.ipv6(h.Upper(59, b""), [h.destination_options()])),
        "An extension header and nothing else.",
    )
    return topic


def _chains() -> Topic:
    topic = Topic("ipv6-chains", "IPv6 with several extension headers", ONLY_STANDARD)
    order = [
        h.hop_by_hop(),
        h.destination_options(),
        h.routing(0, bytes(4)),
        h.fragment(),
        h.authentication(),
        h.destination_options(),
    ]
    for kind, report, upper in _UPPERS:
        topic.demanded(
            f"recommended-order-{kind}",
            f"{report}_EX",
            h.ethernet(h.ipv6(upper, order)),
            "All extension headers in the order that RFC 8200 recommends.",
        )
        topic.demanded(
            f"any-order-{kind}",
            f"{report}_EX",
            h.ethernet(h.ipv6(upper, order[:0:-1])),
            "A receiver has to take extension headers in any order (RFC 8200, 4.1).",
        )
    for number in (2, 3, 7, 8):
        topic.demanded(
            f"{number}-headers-tcp",
            "TCPv6_EX",
            h.ethernet(h.ipv6(h.tcp(), [h.destination_options()] * number)),
            f"{number} extension headers in front of TCP.",
        )
    for number in (9, 12):
        for kind, _, upper in _UPPERS[:2]:
            topic.open(
                f"{number}-headers-{kind}",
                "IPv6_EX",
                h.ethernet(h.ipv6(upper, [h.destination_options()] * number)),
                "No ports are looked for behind more than eight extension headers.",
            )
    topic.open(
        "8-headers-cut-ninth",
        "IPv6_EX",
        h.cut(h.ethernet(h.ipv6(h.tcp(), [h.destination_options()] * 9)), 14 + 40 + 64),
        "A ninth header is announced, but the frame ends.",
    )
    topic.demanded(
        "hop-by-hop-later",
        "UDPv6_EX",
        h.ethernet(h.ipv6(h.udp(), [h.destination_options(), h.hop_by_hop()])),
        "A hop-by-hop header that is not the first, which no sender should send.",
    )
    topic.demanded(
        "atomic-authentication",
        "TCPv6_EX",
        h.ethernet(h.ipv6(h.tcp(), [h.fragment(), h.authentication(2), h.hop_by_hop()])),
        "Lengths in three different units one after the other.",
    )
    return topic


def _fragments() -> Topic:
    topic = Topic("ipv6-fragments", "IPv6 fragments", ONLY_STANDARD)
    first = "A first fragment has ports, the others have not: all go by their addresses."
    for kind, _, upper in _UPPERS:
        whole = h.Upper(upper.number, upper.between(h.A6, h.B6))
        put = topic.demanded if kind == "icmpv6" else topic.open
        put(f"first-{kind}", "IPv6_EX", h.ethernet(h.ipv6(whole, [h.fragment(more=True)])), first)
        topic.demanded(
            f"middle-{kind}",
            "IPv6_EX",
            h.ethernet(h.ipv6(whole, [h.fragment(9, more=True)])),
            "A fragment from the middle has no transport header, though it may look like it.",
        )
        topic.demanded(
            f"last-{kind}",
            "IPv6_EX",
            h.ethernet(h.ipv6(whole, [h.fragment(9)])),
            "The last fragment has no transport header, though it may look like it.",
        )
    whole = h.Upper(6, h.tcp().between(h.A6, h.B6))
    for name, offset in (("lowest", 1), ("highest", 0x1000), ("all", 0x1FFF)):
        topic.demanded(
            f"offset-{name}-tcp",
            "IPv6_EX",
            h.ethernet(h.ipv6(whole, [h.fragment(offset)])),
            "Each bit of the offset makes a fragment.",
        )
    topic.open(
        "first-behind-hop-by-hop-udp",
        "IPv6_EX",
        h.ethernet(h.ipv6(h.udp(), [h.hop_by_hop(), h.fragment(more=True)])),
        "A first fragment whose fragment header is not the first header.",
    )
    topic.demanded(
        "last-with-options-tcp",
        "IPv6_EX",
        h.ethernet(h.ipv6(h.tcp(), [h.fragment(9), h.destination_options()])),
        "What follows the fragment header of a last fragment is no header.",
    )
    return topic
