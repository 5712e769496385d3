# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What lies under IP, and frames without IP."""

from tools.vectors import headers as h
from tools.vectors.case import Topic
from tools.vectors.topics.configurations import ONLY_STANDARD

_Q, _AD = 0x8100, 0x88A8
_TCP4, _UDP6 = h.ipv4(h.tcp()), h.ipv6(h.udp())


def topics() -> list[Topic]:
    return [_tags(), _snap(), _raw(), _not_hashed()]


def _tags() -> Topic:
    topic = Topic("vlan", "VLAN tags in the frame", ONLY_STANDARD)
    for name, tags, what in (
        ("8021q", [(_Q, 5)], "One 802.1Q tag."),
        ("8021ad", [(_AD, 5)], "One 802.1ad tag."),
        ("priority", [(_Q, 0xE000)], "A priority tag, whose VLAN number is 0."),
        ("drop-eligible", [(_Q, 0x1005)], "A tag with the drop eligible bit."),
        ("all-bits", [(_Q, 0xFFFF)], "A tag with every bit set."),
        ("looks-like-ipv4", [(_Q, 0x0800)], "A tag whose content is the EtherType of IPv4."),
        ("8021q-twice", [(_Q, 5), (_Q, 6)], "Two 802.1Q tags."),
        ("8021ad-8021q", [(_AD, 5), (_Q, 6)], "A service tag, then a customer tag."),
        ("8021q-8021ad", [(_Q, 5), (_AD, 6)], "The two in the order nobody should send."),
        ("8021ad-twice", [(_AD, 5), (_AD, 6)], "Two service tags."),
    ):
        topic.open(f"{name}-tcpv4", "TCPv4", h.ethernet(_TCP4, tags=tags), what)
        topic.open(f"{name}-udpv6", "UDPv6", h.ethernet(_UDP6, tags=tags), what)
    topic.open(
        "8021q-icmp", "IPv4", h.ethernet(h.ipv4(h.icmp()), tags=[(_Q, 5)]), "ICMP behind a tag."
    )
    topic.open(
        "8021q-extension",
        "TCPv6_EX",
        h.ethernet(h.ipv6(h.tcp(), [h.hop_by_hop()]), tags=[(_Q, 5)]),
        "Extension headers behind a tag.",
    )
    topic.open(
        "8021ad-8021q-fragment",
        "IPv4",
        h.ethernet(h.ipv4(h.udp(), fragment=5), tags=[(_AD, 5), (_Q, 6)]),
        "A fragment behind two tags.",
    )
    topic.open(
        "three",
        "NONE",
        h.ethernet(_TCP4, tags=[(_AD, 5), (_Q, 6), (_Q, 7)]),
        "Nothing is looked for behind a third tag.",
    )
    topic.open(
        "8021q-arp",
        "NONE",
        h.ethernet(bytes.fromhex("0001080006040001") + bytes(20), 0x0806, tags=[(_Q, 5)]),
        "ARP behind a tag is not IP.",
    )
    for tpid in (0x9100, 0x9200, 0x88E7):
        topic.open(
            f"tpid-{tpid:04x}",
            "NONE",
            h.ethernet(_TCP4, tags=[(tpid, 5)]),
            f"EtherType {tpid:#06x}, which some take for a tag, is none here.",
        )
    return topic


def _snap() -> Topic:
    topic = Topic("snap", "802.3 with LLC and SNAP", ONLY_STANDARD)
    behind = "An EtherType behind SNAP (RFC 1042) says what follows, as one in front would."
    for name, report, packet in (
        ("tcpv4", "TCPv4", _TCP4),
        ("udpv6", "UDPv6", _UDP6),
        ("icmp", "IPv4", h.ipv4(h.icmp())),
        ("extension", "TCPv6_EX", h.ipv6(h.tcp(), [h.hop_by_hop()])),
    ):
        ethertype = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
        topic.open(name, report, h.snap(packet, ethertype), behind)
    snap = h.snap(_TCP4, 0x0800)
    topic.open(
        "tagged",
        "TCPv4",
        snap[:12] + b"\x81\0\0\5" + snap[12:],
        "A VLAN tag in front of the length: SNAP is looked behind all the same.",
    )
    topic.open("length-0", "TCPv4", h.put(snap, 12, b"\0\0"), "The length is not looked at.")
    topic.open(
        "length-highest",
        "TCPv4",
        h.put(snap, 12, b"\x05\xff"),
        "0x5ff is the highest number that is taken for a length.",
    )
    for name, at, new, what in (
        ("ethertype-0600", 12, b"\x06\0", "0x600 is an EtherType, which says that SNAP is none."),
        ("other-dsap", 14, b"\x42", "Another DSAP than SNAP's: no IP packet."),
        ("other-ssap", 15, b"\x42", "Another SSAP than SNAP's: no IP packet."),
        ("other-control", 16, b"\x7f", "A frame that is no unnumbered information."),
        ("bridged", 17, b"\0\0\xf8", "RFC 1042's organisation for bridges has its own types."),
        ("organisation-1", 17, b"\1", "Each byte of the organisation has to be 0."),
        ("organisation-2", 18, b"\1", "Each byte of the organisation has to be 0."),
        ("organisation-3", 19, b"\1", "Each byte of the organisation has to be 0."),
        ("arp", 20, b"\x08\x06", "ARP behind SNAP is not IP."),
        ("tag-inside", 20, b"\x81\0", "A VLAN tag behind SNAP is not looked behind."),
    ):
        topic.open(name, "NONE", h.put(snap, at, new), what)
    for length in (14, 21, 22, 41):
        topic.open(
            f"cut-{length}",
            "NONE",
            h.cut(snap, length),
            f"The first {length} bytes: a header is cut.",
        )
    llc = h.MAC + (len(_TCP4) + 3).to_bytes(2, "big") + b"\x06\x06\x03" + _TCP4
    topic.open("llc-ip", "NONE", llc, "IP by its LSAP (6) instead of SNAP is not looked for.")
    return topic


def _raw() -> Topic:
    topic = Topic(
        "raw-ip",
        "Packets without Ethernet header",
        ONLY_STANDARD,
    )
    for name, report, packet in (
        ("tcpv4", "TCPv4", _TCP4),
        ("udpv4", "UDPv4", h.ipv4(h.udp())),
        ("icmp", "IPv4", h.ipv4(h.icmp())),
        ("tcpv6", "TCPv6", h.ipv6(h.tcp())),
        ("udpv6", "UDPv6", _UDP6),
        ("icmpv6", "IPv6", h.ipv6(h.icmpv6())),
        ("extension-udp", "UDPv6_EX", h.ipv6(h.udp(), [h.hop_by_hop()])),
        ("fragment", "IPv4", h.ipv4(h.tcp(), fragment=5)),
    ):
        topic.open(name, report, packet, "The version of the first byte says what it is.", raw=True)
    topic.open("version-5", "NONE", h.put(_TCP4, 0, b"\x55"), "Version 5 is not IP.", raw=True)
    topic.open("version-0", "NONE", h.put(_TCP4, 0, b"\x05"), "Version 0 is not IP.", raw=True)
    topic.open(
        "ethernet",
        "NONE",
        h.ethernet(_TCP4),
        "An Ethernet header where none should be: its first byte is no IP version.",
        raw=True,
    )
    topic.open("empty", "NONE", b"", "A packet without a byte.", raw=True)
    topic.open("cut-ipv4", "NONE", h.cut(_TCP4, 19), "A cut IPv4 header is none.", raw=True)
    topic.open("cut-ipv6", "NONE", h.cut(_UDP6, 39), "A cut IPv6 header is none.", raw=True)
    return topic


def _not_hashed() -> Topic:
    topic = Topic("not-hashed", "What is not IP: no hash, the unclassified queue", ONLY_STANDARD)
    arp = bytes.fromhex("0001080006040001") + h.MAC[6:] + h.A4 + bytes(6) + h.B4
    none = "no hash is calculated, and the packet goes to the unclassified queue."
    for name, ethertype, payload, what in (
        ("arp", 0x0806, arp, "ARP"),
        ("rarp", 0x8035, arp, "Reverse ARP"),
        ("lldp", 0x88CC, bytes.fromhex("0207040200000000010403020000010602007800000000"), "LLDP"),
        ("eapol", 0x888E, bytes.fromhex("02000004") + bytes(42), "802.1X"),
        ("ptp", 0x88F7, bytes(44), "PTP over Ethernet"),
        ("wake-on-lan", 0x0842, b"\xff" * 6 + h.MAC[:6] * 16, "Wake-on-LAN"),
        ("loopback", 0x9000, bytes(46), "Ethernet configuration testing"),
        ("slow", 0x8809, bytes(46), "LACP"),
        ("unknown", 0xFFFF, bytes(46), "An EtherType nobody has"),
    ):
        topic.demanded(name, "NONE", h.ethernet(payload, ethertype), f"{what} is not IP: {none}")
    bpdu = h.MAC + (38).to_bytes(2, "big") + b"\x42\x42\x03" + bytes(43)
    topic.demanded("802.3-spanning-tree", "NONE", bpdu, f"An 802.3 frame of LLC: {none}")
    ipx = h.MAC + (30).to_bytes(2, "big") + b"\xff\xff" + bytes(44)
    topic.demanded("802.3-raw-ipx", "NONE", ipx, f"An 802.3 frame without LLC: {none}")
    inside = "is not looked into, though an IP packet is there: no hash."
    for name, ethertype, payload, what in (
        (
            "pppoe-session",
            0x8864,
            b"\x11\0\0\1" + (len(_TCP4) + 2).to_bytes(2, "big") + b"\0\x21" + _TCP4,
            "A PPPoE session",
        ),
        ("pppoe-discovery", 0x8863, b"\x11\x09\0\0\0\4\1\1\0\0" + bytes(36), "PPPoE discovery"),
        ("mpls", 0x8847, b"\0\1\1\x40" + _TCP4, "An MPLS label"),
        ("mpls-two-labels", 0x8847, b"\0\1\0\x40\0\2\1\x40" + _UDP6, "A stack of MPLS labels"),
        ("mpls-multicast", 0x8848, b"\0\1\1\x40" + _TCP4, "MPLS multicast"),
        ("macsec", 0x88E5, b"\x2c\0\0\0\0\1" + bytes(8) + _TCP4, "MACsec"),
        ("nsh", 0x894F, b"\x0f\xc2\1\1\0\0\1\xff" + _TCP4, "A network service header"),
        ("provider-backbone", 0x88E7, bytes(4) + h.ethernet(_TCP4), "Provider backbone bridging"),
        ("trill", 0x22F3, bytes(6) + h.ethernet(_TCP4), "TRILL"),
        ("ethertype-0801", 0x0801, _TCP4, "An EtherType next to that of IPv4"),
    ):
        topic.open(name, "NONE", h.ethernet(payload, ethertype), f"{what} {inside}")
    return topic
