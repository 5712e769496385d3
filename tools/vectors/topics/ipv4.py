# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""IPv4: headers, options, protocols, fragments."""

from tools.vectors import headers as h
from tools.vectors.case import Topic
from tools.vectors.topics.configurations import ONLY_STANDARD


def topics() -> list[Topic]:
    return [_headers(), _fragments()]


def _headers() -> Topic:
    topic = Topic("ipv4", "IPv4 headers and what follows them", ONLY_STANDARD)
    demanded, open_ = topic.demanded, topic.open
    f = h.ethernet

    demanded("tcp", "TCPv4", f(h.ipv4(h.tcp())), "TCP over IPv4: addresses, then ports.")
    demanded("udp", "UDPv4", f(h.ipv4(h.udp())), "UDP over IPv4: addresses, then ports.")
    demanded("icmp", "IPv4", f(h.ipv4(h.icmp())), "ICMP has no ports: the addresses alone.")

    demanded(
        "tcp-back",
        "TCPv4",
        f(h.ipv4(h.tcp(h.PORTS[::-1]), source=h.B4, destination=h.A4)),
        "The other direction of the same flow has another hash: the order of the fields counts.",
        hashed=h.B4 + h.A4 + h.ports(h.PORTS[::-1]),
    )
    for name, pair, what in (
        ("ports-zero", (0, 0), "Ports of 0 are ports."),
        ("ports-highest", (0xFFFF, 0xFFFF), "Every bit of the ports set."),
        ("ports-low-bit", (0, 1), "Only the last bit of the input's last port set."),
        ("ports-high-bit", (0x8000, 0), "Only the first bit of the ports set."),
    ):
        for kind, upper in (("TCPv4", h.tcp(pair)), ("UDPv4", h.udp(pair))):
            demanded(
                f"{name}-{kind[:3].lower()}",
                kind,
                f(h.ipv4(upper)),
                what,
                hashed=h.A4 + h.B4 + h.ports(pair),
            )
    for name, number in (
        ("igmp", 2),
        ("ip-in-ip", 4),
        ("dccp", 33),
        ("gre", 47),
        ("esp", 50),
        ("ah", 51),
        ("ospf", 89),
        ("sctp", 132),
        ("udp-lite", 136),
        ("experimental", 253),
    ):
        demanded(
            f"protocol-{name}",
            "IPv4",
            f(h.ipv4(h.other(number))),
            f"Protocol {number} is neither TCP nor UDP, though what follows may look like ports.",
        )
    demanded(
        "protocol-icmpv6",
        "IPv4",
        f(h.ipv4(h.other(58))),
        "Numbers of IPv6 mean nothing else over IPv4: the addresses alone.",
    )
    for number, name in ((0, "hop-by-hop"), (43, "routing"), (44, "fragment"), (60, "options")):
        demanded(
            f"protocol-{name}",
            "IPv4",
            f(h.ipv4(h.other(number, bytes([6, 0]) + bytes(6) + h.tcp().data))),
            f"Extension headers are those of IPv6: over IPv4, {number} is a protocol like others, "
            "and what follows is not walked.",
        )

    for words, what in (
        (1, "one word of options (router alert)"),
        (3, "a timestamp option"),
        (10, "as many options as an IPv4 header can have"),
    ):
        options = {
            1: b"\x94\x04\0\0",
            3: b"\x44\x0c\x05\0" + bytes(8),
            10: b"\x07\x27\x04" + bytes(36) + b"\0",
        }[words]
        demanded(
            f"options-{words}-tcp",
            "TCPv4",
            f(h.ipv4(h.tcp(), options=options)),
            f"The TCP header begins where the header length says: {what}.",
        )
        demanded(
            f"options-{words}-udp",
            "UDPv4",
            f(h.ipv4(h.udp(), options=options)),
            f"The UDP header begins where the header length says: {what}.",
        )
    demanded(
        "options-icmp",
        "IPv4",
        f(h.ipv4(h.icmp(), options=b"\x94\x04\0\0")),
        "Options in front of a protocol without ports.",
    )
    demanded(
        "options-source-route",
        "TCPv4",
        f(h.ipv4(h.tcp(), options=b"\x83\x07\x04\xcb\x00\x71\x09\x00")),
        "A source route changes nothing: the destination is that of the fixed header.",
    )

    demanded(
        "tcp-options",
        "TCPv4",
        f(h.ipv4(h.tcp(options=b"\x01\x01\x08\x0a" + bytes(8)))),
        "TCP options lie behind the ports.",
    )
    for name, flags in (("syn", 2), ("fin", 17), ("rst", 4), ("none", 0), ("all", 255)):
        demanded(
            f"tcp-flags-{name}",
            "TCPv4",
            f(h.ipv4(h.tcp(flags=flags, data=b""))),
            "TCP flags change nothing: the whole of a flow goes to one queue.",
        )
    demanded(
        "tcp-no-data", "TCPv4", f(h.ipv4(h.tcp(data=b""))), "A TCP header with nothing behind it."
    )
    demanded(
        "udp-no-data", "UDPv4", f(h.ipv4(h.udp(data=b""))), "A UDP header with nothing behind it."
    )
    demanded(
        "udp-padded",
        "UDPv4",
        f(h.ipv4(h.udp(data=b""))).ljust(60, b"\0"),
        "A short frame, filled up to Ethernet's least length.",
    )
    demanded(
        "udp-no-checksum",
        "UDPv4",
        f(h.ipv4(h.Upper(17, h.udp().data))),
        "UDP over IPv4 may go without a checksum.",
    )
    demanded(
        "tos", "TCPv4", f(h.ipv4(h.tcp(), tos=0xFF)), "Type of service and ECN change nothing."
    )
    demanded("ttl", "TCPv4", f(h.ipv4(h.tcp(), ttl=1)), "The time to live changes nothing.")
    for name, destination, mac in (
        ("multicast", "224.0.0.251", "01005e0000fb"),
        ("broadcast", "255.255.255.255", "ffffffffffff"),
    ):
        to = h.address(destination)
        frame = f(h.ipv4(h.udp((5353, 5353)), destination=to))
        demanded(
            f"{name}",
            "UDPv4",
            h.put(frame, 0, bytes.fromhex(mac)),
            f"A {name} is hashed as any packet.",
            hashed=h.A4 + to + h.ports((5353, 5353)),
        )
    nowhere = h.address("0.0.0.0")
    everywhere = h.address("255.255.255.255")
    demanded(
        "dhcp",
        "UDPv4",
        f(h.ipv4(h.udp((68, 67)), source=nowhere, destination=everywhere)),
        "No source address yet: zeros are hashed as they are.",
        hashed=nowhere + everywhere + h.ports((68, 67)),
    )
    demanded(
        "same-ends",
        "TCPv4",
        f(h.ipv4(h.tcp((80, 80)), source=h.A4, destination=h.A4)),
        "Source and destination alike.",
        hashed=h.A4 + h.A4 + h.ports((80, 80)),
    )

    broken = f(h.ipv4(h.tcp()))
    open_(
        "header-checksum-wrong",
        "TCPv4",
        h.put(broken, 14 + 10, b"\xde\xad"),
        "A device need not check the IPv4 header's sum to hash.",
    )
    open_(
        "tcp-checksum-wrong",
        "TCPv4",
        h.put(broken, 34 + 16, b"\xde\xad"),
        "A checksum that is not there yet, as between guests with offloads, does not matter.",
    )
    open_(
        "tcp-data-offset-short",
        "TCPv4",
        h.put(broken, 34 + 12, b"\x10"),
        "The ports lie before the TCP data offset, which is not looked at.",
    )
    open_(
        "udp-length-zero",
        "UDPv4",
        h.put(f(h.ipv4(h.udp())), 34 + 4, b"\0\0"),
        "The length in the UDP header is not looked at.",
    )
    open_(
        "version-6",
        "NONE",
        h.put(broken, 14, b"\x65"),
        "Version 6 under the EtherType of IPv4 is no IP packet.",
    )
    open_("version-0", "NONE", h.put(broken, 14, b"\x05"), "Version 0 is no IP packet.")
    return topic


def _fragments() -> Topic:
    topic = Topic(
        "ipv4-fragments",
        "IPv4 fragments, and what only looks like one",
        ONLY_STANDARD,
    )
    f = h.ethernet
    for name, flags, what in (
        ("dont-fragment", 0x4000, "Don't fragment is set, as on most packets: no fragment."),
        ("reserved-bit", 0x8000, "The reserved bit makes no fragment."),
        ("dont-fragment-reserved", 0xC000, "Neither of the two bits makes a fragment."),
    ):
        demand = topic.open if flags & 0x8000 else topic.demanded
        demand(f"{name}-tcp", "TCPv4", f(h.ipv4(h.tcp(), fragment=flags)), what)
        demand(f"{name}-udp", "UDPv4", f(h.ipv4(h.udp(), fragment=flags)), what)
        demand(f"{name}-icmp", "IPv4", f(h.ipv4(h.icmp(), fragment=flags)), what)
    first = "A first fragment has ports, the others have not: all go by their addresses."
    for kind, upper in (("tcp", h.tcp()), ("udp", h.udp()), ("icmp", h.icmp())):
        whole = upper.between(h.A4, h.B4)
        demand = topic.demanded if kind == "icmp" else topic.open
        demand(
            f"first-{kind}", "IPv4", f(h.ipv4(h.Upper(upper.number, whole), fragment=0x2000)), first
        )
        for name, field, what in (
            ("middle", 0x2005, "A fragment from the middle has no transport header: addresses."),
            ("last", 0x0005, "The last fragment has no transport header: addresses."),
            ("offset-lowest", 0x0001, "The lowest bit of the offset alone makes a fragment."),
            ("offset-highest", 0x1000, "The highest bit of the offset alone makes a fragment."),
            ("offset-all", 0x1FFF, "The largest offset."),
            ("last-dont-fragment", 0x4005, "Don't fragment beside an offset: still a fragment."),
        ):
            if kind != "tcp" and name.startswith("offset"):
                continue
            topic.demanded(
                f"{name}-{kind}",
                "IPv4",
                f(h.ipv4(h.Upper(upper.number, whole), fragment=field)),
                what + " The payload is made to look like one.",
            )
    topic.open(
        "first-all-bits-tcp",
        "IPv4",
        f(h.ipv4(h.tcp(), fragment=0xE000)),
        "More fragments beside the two other bits.",
    )
    topic.open(
        "first-options-udp",
        "IPv4",
        f(h.ipv4(h.udp(), fragment=0x2000, options=b"\x94\x04\0\0")),
        "A first fragment with IPv4 options.",
    )
    return topic
