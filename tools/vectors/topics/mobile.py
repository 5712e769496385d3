# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Mobile IPv6: addresses of extension headers in the place of the header's own."""

from tools.vectors import headers as h
from tools.vectors.case import Topic
from tools.vectors.topics.configurations import ONLY_STANDARD, STANDARD
from vnethash.virtio.hash_types import HashType

HOME = h.address("2001:db8:a::a")
ROUTE = h.address("2001:db8:b::b")
OTHER = h.address("2001:db8:c::c")

_UPPERS = (("tcp", "TCPv6", h.tcp()), ("udp", "UDPv6", h.udp()), ("icmpv6", "IPv6", h.icmpv6()))


def topics() -> list[Topic]:
    topic = Topic(
        "mobile",
        "Home address option and routing header type 2",
        {
            **ONLY_STANDARD,
            "no-ex": STANDARD.replace(hash_types=HashType.IPv6 | HashType.TCPv6 | HashType.UDPv6),
            "only-ip-ex": STANDARD.replace(hash_types=HashType.IP_EX),
        },
    )
    _home(topic)
    _route(topic)
    _both(topic)
    return [topic]


def _ports(kind: str) -> bytes:
    return b"" if kind == "icmpv6" else h.ports()


def _home(topic: Topic) -> None:
    from_home = (HOME, h.B6)
    for kind, report, upper in _UPPERS:
        topic.demanded(
            f"home-{kind}",
            f"{report}_EX",
            h.ethernet(h.ipv6(upper, [h.mobile_options(HOME)], ends=from_home)),
            "The home address is hashed in the place of the source address.",
            hashed=HOME + h.B6 + _ports(kind),
        )
        topic.demanded(
            f"home-without-ex-{kind}",
            report,
            h.ethernet(h.ipv6(upper, [h.mobile_options(HOME)], ends=from_home)),
            "Without a type .._EX the headers are skipped, and the address of the IPv6 header "
            "is hashed.",
            config="no-ex",
        )
    topic.demanded(
        "home-only-ip-ex-tcp",
        "IPv6_EX",
        h.ethernet(h.ipv6(h.tcp(), [h.mobile_options(HOME)], ends=from_home)),
        "IP_EX alone is enabled: home and destination address without the ports.",
        hashed=HOME + h.B6,
        config="only-ip-ex",
    )
    option = h.home_address(HOME)
    for name, options, what in (
        ("first", option, "The option at the very start of its header."),
        ("pad1", b"\0" + option, "Behind a Pad1, which has no length."),
        ("pad1-three", b"\0\0\0" + option, "Behind three Pad1."),
        ("padn-empty", h.padding(2) + option, "Behind a PadN of length 0."),
        ("padn-long", h.padding(18) + option, "Behind a long PadN."),
        ("other-option", b"\x04\x01\x05" + option, "Behind another option."),
        ("unknown-option", b"\x1e\x04abcd" + option, "Behind an option nobody knows."),
        ("last-of-eight", b"\0" * 7 + option, "The eighth option of its header."),
        ("something-behind", option + h.padding(14), "More options behind it."),
    ):
        topic.demanded(
            f"home-{name}",
            "TCPv6_EX",
            h.ethernet(h.ipv6(h.tcp(), [h.destination_options(options)], ends=from_home)),
            what,
            hashed=HOME + h.B6 + h.ports(),
        )
    for name, chain, what in (
        ("behind-hop-by-hop", [h.hop_by_hop(), h.mobile_options(HOME)], "a hop-by-hop header"),
        ("behind-routing", [h.routing(0, bytes(4)), h.mobile_options(HOME)], "a routing header"),
        ("behind-atomic", [h.fragment(), h.mobile_options(HOME)], "an atomic fragment header"),
        (
            "second-options",
            [h.destination_options(), h.mobile_options(HOME)],
            "other destination options",
        ),
        (
            "in-front-of-authentication",
            [h.hop_by_hop(), h.mobile_options(HOME), h.authentication()],
            "a hop-by-hop header, and in front of an authentication header",
        ),
        (
            "eighth-header",
            [h.destination_options()] * 7 + [h.mobile_options(HOME)],
            "seven other headers",
        ),
    ):
        topic.demanded(
            f"home-{name}",
            "TCPv6_EX",
            h.ethernet(h.ipv6(h.tcp(), chain, ends=from_home)),
            f"The home address behind {what}.",
            hashed=HOME + h.B6 + h.ports(),
        )
    topic.demanded(
        "home-in-hop-by-hop",
        "TCPv6_EX",
        h.ethernet(h.ipv6(h.tcp(), [h.hop_by_hop(h.padding(4) + option)])),
        "Only in destination options it is a home address, not in a hop-by-hop header.",
    )
    for length in (15, 17, 0):
        topic.open(
            f"home-of-{length}-bytes",
            "TCPv6_EX",
            h.ethernet(
                h.ipv6(h.tcp(), [h.destination_options(bytes([201, length]) + bytes(length))])
            ),
            f"A home address of {length} bytes is none.",
        )
    topic.open(
        "home-ninth-option",
        "TCPv6_EX",
        h.ethernet(h.ipv6(h.tcp(), [h.destination_options(b"\0" * 8 + option)])),
        "Eight options of a header are looked at, paddings included; this is the ninth.",
    )
    topic.open(
        "home-twice-in-one",
        "TCPv6_EX",
        h.ethernet(
            h.ipv6(h.tcp(), [h.destination_options(option + h.home_address(OTHER))], ends=from_home)
        ),
        "Two in one header, which no sender may send: the first counts.",
        hashed=HOME + h.B6 + h.ports(),
    )
    topic.open(
        "home-twice",
        "TCPv6_EX",
        h.ethernet(
            h.ipv6(h.tcp(), [h.mobile_options(OTHER), h.mobile_options(HOME)], ends=from_home)
        ),
        "Two in two headers, which no sender may send: the last counts.",
        hashed=HOME + h.B6 + h.ports(),
    )
    topic.open(
        "home-then-options-without",
        "TCPv6_EX",
        h.ethernet(
            h.ipv6(h.tcp(), [h.mobile_options(HOME), h.destination_options()], ends=from_home)
        ),
        "A second destination options header without a home address takes nothing back.",
        hashed=HOME + h.B6 + h.ports(),
    )
    topic.open(
        "home-behind-overrun",
        "TCPv6_EX",
        h.ethernet(h.ipv6(h.tcp(), [h.destination_options(b"\x1e\x40" + option)])),
        "An option that overruns its header ends the options, but not the walk.",
    )
    topic.open(
        "home-overruns",
        "TCPv6_EX",
        h.ethernet(h.ipv6(h.tcp(), [h.Extension(60, b"\0\x01\x02\0\0\xc9\x10")])),
        "A home address option whose address would lie behind its header is none.",
    )
    topic.open(
        "home-option-without-length",
        "TCPv6_EX",
        h.ethernet(h.ipv6(h.tcp(), [h.Extension(60, b"\0\x01\x03\0\0\0\x1e")])),
        "A last option without room for its length ends the options, but not the walk.",
    )
    topic.open(
        "home-in-first-fragment",
        "IPv6_EX",
        h.ethernet(
            h.ipv6(h.tcp(), [h.mobile_options(HOME), h.fragment(more=True)], ends=from_home)
        ),
        "A home address in front of the fragment header counts; the ports do not.",
        hashed=HOME + h.B6,
    )
    topic.demanded(
        "home-behind-last-fragment",
        "IPv6_EX",
        h.ethernet(h.ipv6(h.tcp(), [h.fragment(9), h.mobile_options(HOME)])),
        "What follows the fragment header of a last fragment is no header.",
    )
    topic.open(
        "home-behind-first-fragment",
        "IPv6_EX",
        h.ethernet(h.ipv6(h.tcp(), [h.fragment(more=True), h.mobile_options(HOME)])),
        "Behind the fragment header of a first fragment nothing is looked for.",
    )
    topic.open(
        "home-ninth-header",
        "IPv6_EX",
        h.ethernet(h.ipv6(h.tcp(), [h.destination_options()] * 8 + [h.mobile_options(HOME)])),
        "Eight extension headers are walked; this is in the ninth.",
    )


def _route(topic: Topic) -> None:
    to_home = (h.A6, ROUTE)
    for kind, report, upper in _UPPERS:
        topic.demanded(
            f"routing-{kind}",
            f"{report}_EX",
            h.ethernet(h.ipv6(upper, [h.mobile_routing(ROUTE)], ends=to_home)),
            "The address in a type 2 routing header is hashed in the place of the destination.",
            hashed=h.A6 + ROUTE + _ports(kind),
        )
        topic.demanded(
            f"routing-without-ex-{kind}",
            report,
            h.ethernet(h.ipv6(upper, [h.mobile_routing(ROUTE)], ends=to_home)),
            "Without a type .._EX the headers are skipped, and the address of the IPv6 header "
            "is hashed.",
            config="no-ex",
        )
    topic.demanded(
        "routing-only-ip-ex-udp",
        "IPv6_EX",
        h.ethernet(h.ipv6(h.udp(), [h.mobile_routing(ROUTE)], ends=to_home)),
        "IP_EX alone is enabled: source and routing header address without the ports.",
        hashed=h.A6 + ROUTE,
        config="only-ip-ex",
    )
    for name, chain, what in (
        ("behind-hop-by-hop", [h.hop_by_hop(), h.mobile_routing(ROUTE)], "a hop-by-hop header"),
        (
            "behind-options",
            [h.destination_options(), h.mobile_routing(ROUTE)],
            "destination options",
        ),
        (
            "behind-another",
            [h.routing(0, bytes(4) + OTHER), h.mobile_routing(ROUTE)],
            "a routing header of another type",
        ),
    ):
        topic.demanded(
            f"routing-{name}",
            "UDPv6_EX",
            h.ethernet(h.ipv6(h.udp(), chain, ends=to_home)),
            f"A type 2 routing header behind {what}.",
            hashed=h.A6 + ROUTE + h.ports(),
        )
    topic.demanded(
        "routing-in-front-of-another",
        "UDPv6_EX",
        h.ethernet(
            h.ipv6(h.udp(), [h.mobile_routing(ROUTE), h.routing(0, bytes(4) + OTHER)], ends=to_home)
        ),
        "A routing header of another type behind it changes nothing.",
        hashed=h.A6 + ROUTE + h.ports(),
    )
    topic.open(
        "routing-no-segments-left",
        "UDPv6_EX",
        h.ethernet(h.ipv6(h.udp(), [h.mobile_routing(ROUTE, 0)], ends=to_home)),
        "The number of segments left is not looked at.",
        hashed=h.A6 + ROUTE + h.ports(),
    )
    topic.open(
        "routing-8-bytes",
        "UDPv6_EX",
        h.ethernet(h.ipv6(h.udp(), [h.routing(2, bytes(4))])),
        "A type 2 routing header has 24 bytes; one of 8 has no address.",
    )
    topic.open(
        "routing-40-bytes",
        "UDPv6_EX",
        h.ethernet(h.ipv6(h.udp(), [h.routing(2, bytes(4) + ROUTE + OTHER)])),
        "A type 2 routing header has 24 bytes; one with two addresses is none.",
    )
    topic.open(
        "routing-twice",
        "UDPv6_EX",
        h.ethernet(
            h.ipv6(h.udp(), [h.mobile_routing(OTHER), h.mobile_routing(ROUTE)], ends=to_home)
        ),
        "Two of them, which no sender may send: the last counts.",
        hashed=h.A6 + ROUTE + h.ports(),
    )
    topic.open(
        "routing-in-first-fragment",
        "IPv6_EX",
        h.ethernet(h.ipv6(h.udp(), [h.mobile_routing(ROUTE), h.fragment(more=True)], ends=to_home)),
        "A routing header in front of the fragment header counts; the ports do not.",
        hashed=h.A6 + ROUTE,
    )


def _both(topic: Topic) -> None:
    ends = (HOME, ROUTE)
    for kind, report, upper in _UPPERS:
        topic.demanded(
            f"both-{kind}",
            f"{report}_EX",
            h.ethernet(h.ipv6(upper, [h.mobile_routing(ROUTE), h.mobile_options(HOME)], ends=ends)),
            "Between two mobile nodes both addresses are replaced.",
            hashed=HOME + ROUTE + _ports(kind),
        )
    topic.demanded(
        "both-other-order",
        "TCPv6_EX",
        h.ethernet(h.ipv6(h.tcp(), [h.mobile_options(HOME), h.mobile_routing(ROUTE)], ends=ends)),
        "The order of the two headers does not change the order of the input.",
        hashed=HOME + ROUTE + h.ports(),
    )
    topic.open(
        "both-then-cut",
        "IPv6_EX",
        h.cut(
            h.ethernet(
                h.ipv6(h.tcp(), [h.mobile_routing(ROUTE), h.mobile_options(HOME)], ends=ends)
            ),
            14 + 40 + 24 + 24 + 19,
        ),
        "Addresses found before the frame ends count; the cut TCP header does not.",
        hashed=HOME + ROUTE,
    )
