# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Inner header hash: each tunnel, what it carries, and what is none."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tools.vectors import headers as h
from tools.vectors.case import Topic
from tools.vectors.topics.configurations import ONLY_STANDARD, STANDARD
from vnethash.virtio.hash_types import HashType, TunnelType

# Of what is inside.
A4, B4 = h.address("203.0.113.5"), h.address("10.20.30.40")
A6, B6 = h.address("2001:db8:aa::5"), h.address("2001:db8:bb::6")
HOME = h.address("2001:db8:cc::7")
PORTS = (34567, 80)
_MAC = bytes.fromhex("020000000012020000000011")

_SOURCE_PORT = 50000


def _v4(upper: h.Upper, fragment: int = 0) -> bytes:
    return h.ipv4(upper, source=A4, destination=B4, fragment=fragment)


def _v6(upper: h.Upper, *extensions: h.Extension) -> bytes:
    return h.ipv6(upper, extensions, source=A6, destination=B6)


def _frame(
    packet: bytes, ethertype: int | None = None, tags: list[tuple[int, int]] | None = None
) -> bytes:
    return h.put(h.ethernet(packet, ethertype, tags or []), 0, _MAC)


@dataclass(frozen=True)
class Inside:
    """An inner packet, and what is reported and hashed of it."""

    name: str
    packet: bytes
    report: str
    hashed: bytes


_INSIDE = (
    Inside("tcpv4", _v4(h.tcp(PORTS)), "TCPv4", A4 + B4 + h.ports(PORTS)),
    Inside("udpv4", _v4(h.udp(PORTS)), "UDPv4", A4 + B4 + h.ports(PORTS)),
    Inside("icmp", _v4(h.icmp()), "IPv4", A4 + B4),
    Inside("tcpv6", _v6(h.tcp(PORTS)), "TCPv6", A6 + B6 + h.ports(PORTS)),
    Inside("udpv6", _v6(h.udp(PORTS)), "UDPv6", A6 + B6 + h.ports(PORTS)),
    Inside(
        "extension",
        h.ipv6(
            h.tcp(PORTS),
            [h.hop_by_hop(), h.mobile_options(HOME)],
            source=A6,
            destination=B6,
            ends=(HOME, B6),
        ),
        "TCPv6_EX",
        HOME + B6 + h.ports(PORTS),
    ),
    Inside("fragment", _v4(h.udp(PORTS), fragment=5), "IPv4", A4 + B4),
)
_TCP4, _UDP6 = _INSIDE[0], _INSIDE[4]

Wrap = Callable[[bytes], h.Upper]


@dataclass(frozen=True)
class Kind:
    """A way of encapsulation."""

    name: str
    types: TunnelType
    """Those that it is of."""
    wrap: Wrap
    """From an inner packet to what the outer IP header is in front of."""
    is_udp: bool = False


def _ethertype(packet: bytes) -> int:
    return 0x0800 if packet[0] >> 4 == 4 else 0x86DD


def _udp_port(kind: Kind) -> int:
    return int.from_bytes(kind.wrap(_TCP4.packet).data[2:4], "big")


_T = TunnelType
_GRE = (
    Kind("gre", _T.GRE_2784, lambda p: h.over_gre(h.gre(p))),
    Kind("gre-checksum", _T.GRE_2784, lambda p: h.over_gre(h.gre(p, sum_present=True))),
    Kind("gre-key", _T.GRE_2890, lambda p: h.over_gre(h.gre(p, key=7))),
    Kind("gre-sequence", _T.GRE_2890, lambda p: h.over_gre(h.gre(p, sequence=7))),
    Kind(
        "gre-all-fields",
        _T.GRE_2890,
        lambda p: h.over_gre(h.gre(p, key=7, sequence=9, sum_present=True)),
    ),
)
_NVGRE = Kind(
    "nvgre",
    _T.NVGRE | _T.GRE_2890,
    lambda p: h.over_gre(h.gre(_frame(p), 0x6558, key=0x123400)),
)
_UDP = (
    Kind("gre-in-udp", _T.GRE_UDP, lambda p: h.over_udp(h.gre(p), h.GRE_UDP_PORT), True),
    Kind(
        "gre-in-udp-key",
        _T.GRE_UDP,
        lambda p: h.over_udp(h.gre(p, key=7), h.GRE_UDP_PORT),
        True,
    ),
    Kind("vxlan", _T.VXLAN, lambda p: h.over_udp(h.vxlan(_frame(p)), h.VXLAN_PORT), True),
    Kind(
        "vxlan-gpe",
        _T.VXLAN_GPE,
        lambda p: h.over_udp(h.vxlan_gpe(p, 1 if p[0] >> 4 == 4 else 2), h.VXLAN_GPE_PORT),
        True,
    ),
    Kind(
        "vxlan-gpe-ethernet",
        _T.VXLAN_GPE,
        lambda p: h.over_udp(h.vxlan_gpe(_frame(p), 3), h.VXLAN_GPE_PORT),
        True,
    ),
    Kind("geneve", _T.GENEVE, lambda p: h.over_udp(h.geneve(_frame(p)), h.GENEVE_PORT), True),
    Kind(
        "geneve-options",
        _T.GENEVE,
        lambda p: h.over_udp(
            h.geneve(_frame(p), options=b"\1\2\3\1abcd" * 3, flags=0x7F), h.GENEVE_PORT
        ),
        True,
    ),
    Kind(
        "geneve-option-word",
        _T.GENEVE,
        lambda p: h.over_udp(h.geneve(_frame(p), options=b"\1\2\3\0"), h.GENEVE_PORT),
        True,
    ),
    Kind(
        "vxlan-all-flags",
        _T.VXLAN,
        lambda p: h.over_udp(h.vxlan(_frame(p), flags=0xFF, vni=0xFFFFFF), h.VXLAN_PORT),
        True,
    ),
    Kind(
        "geneve-ip",
        _T.GENEVE,
        lambda p: h.over_udp(h.geneve(p, _ethertype(p)), h.GENEVE_PORT),
        True,
    ),
)
_IPIP = Kind("ipip", _T.IPIP, h.in_ip)


def topics() -> list[Topic]:
    return [_gre(), _udp(), _ipip(), _odd()]


def _name(types: TunnelType) -> str:
    names = [str(member.name).lower().replace("_", "-") for member in _T if member in types]
    return "+".join(names) or "no-tunnels"


def _topic(name: str, title: str) -> Topic:
    configurations = {
        **ONLY_STANDARD,
        "all-tunnels": STANDARD.replace(tunnels=_T.ALL),
        **{_name(t): STANDARD.replace(tunnels=t) for t in _T},
        **{f"not-{_name(t)}": STANDARD.replace(tunnels=_T.ALL & ~t) for t in _T},
        "not-gre-2890-nvgre": STANDARD.replace(tunnels=_T.ALL & ~(_T.GRE_2890 | _T.NVGRE)),
    }
    return Topic(name, title, configurations)


def _carried(topic: Topic, kind: Kind, enabled: TunnelType) -> None:
    """Every inner packet, over IPv4; and over IPv6 where that is the same type."""
    config = _name(enabled)
    for inside in _INSIDE:
        topic.demanded(
            f"{kind.name}/{inside.name}",
            inside.report,
            h.ethernet(h.ipv4(kind.wrap(inside.packet))),
            f"With {enabled.name} enabled the inner packet is hashed as if it had come alone.",
            hashed=inside.hashed,
            config=config,
        )


def _outer(kind: Kind, version: int) -> tuple[str, bytes]:
    """What is reported and hashed of the outer headers."""
    addresses = h.A4 + h.B4 if version == 4 else h.A6 + h.B6
    if not kind.is_udp:
        return f"IPv{version}", addresses
    return f"UDPv{version}", addresses + h.ports((_SOURCE_PORT, _udp_port(kind)))


def _not_enabled(topic: Topic, kind: Kind, others: str) -> None:
    """Hashed by the outer headers without any tunnel type, and with every other."""
    for config, why in (
        ("standard", "No tunnel type is enabled: the outer headers are hashed."),
        (others, "Every tunnel type but its own is enabled: the outer headers are hashed."),
    ):
        report, hashed = _outer(kind, 4)
        topic.demanded(
            f"{kind.name}/{'off' if config == 'standard' else 'others'}",
            report,
            h.ethernet(h.ipv4(kind.wrap(_TCP4.packet))),
            why,
            hashed=hashed,
            config=config,
        )


def _gre() -> Topic:
    topic = _topic("tunnel-gre", "Inner header hash: GRE (RFC 2784, 2890, 7676), NVGRE")
    for kind in _GRE:
        _carried_v4(topic, kind)
        _not_enabled(topic, kind, f"not-{_name(kind.types)}")
    _carried(topic, _NVGRE, _T.NVGRE)
    _not_enabled(topic, _NVGRE, "not-gre-2890-nvgre")

    v6 = _UDP6
    topic.demanded(
        "gre-7676/payload",
        v6.report,
        h.ethernet(h.ipv4(h.over_gre(h.gre(v6.packet)))),
        "IPv6 in GRE over IPv4 is what RFC 7676 is about.",
        hashed=v6.hashed,
        config="gre-7676",
    )
    for name, inside in (("tcpv4", _TCP4), ("udpv6", v6)):
        topic.demanded(
            f"gre-7676/over-ipv6-{name}",
            inside.report,
            h.ethernet(h.ipv6(h.over_gre(h.gre(inside.packet)))),
            "GRE over IPv6 is what RFC 7676 is about.",
            hashed=inside.hashed,
            config="gre-7676",
        )
    topic.open(
        "gre-7676/over-ipv6-key",
        _TCP4.report,
        h.ethernet(h.ipv6(h.over_gre(h.gre(_TCP4.packet, key=7)))),
        "GRE over IPv6 with a key: RFC 7676, not RFC 2890, which knows IPv4 only.",
        hashed=_TCP4.hashed,
        config="gre-7676",
    )
    topic.open(
        "gre-7676/others",
        "IPv6",
        h.ethernet(h.ipv6(h.over_gre(h.gre(_TCP4.packet)))),
        "GRE over IPv6 is of no other type than GRE_7676.",
        config="not-gre-7676",
    )
    topic.demanded(
        "gre-7676/ipv4-in-ipv4",
        "IPv4",
        h.ethernet(h.ipv4(h.over_gre(h.gre(_TCP4.packet)))),
        "GRE of IPv4 over IPv4 has nothing of RFC 7676: the outer headers are hashed.",
        config="gre-7676",
    )
    for name, key, config in (("2784", None, "gre-2784"), ("2890", 7, "gre-2890")):
        topic.open(
            f"gre-{name}/udpv6",
            v6.report,
            h.ethernet(h.ipv4(h.over_gre(h.gre(v6.packet, key=key)))),
            f"IPv6 in GRE over IPv4 is of the type GRE_{name} too.",
            hashed=v6.hashed,
            config=config,
        )
    topic.open(
        "nvgre/as-gre-2890",
        _TCP4.report,
        h.ethernet(h.ipv4(_NVGRE.wrap(_TCP4.packet))),
        "NVGRE is GRE with a key: the type GRE_2890 alone catches it.",
        hashed=_TCP4.hashed,
        config="gre-2890",
    )
    for name, tunnel, what in (
        ("no-key", h.gre(_frame(_TCP4.packet), 0x6558), "without a key"),
        (
            "checksum",
            h.gre(_frame(_TCP4.packet), 0x6558, key=1, sum_present=True),
            "with a checksum",
        ),
        (
            "sequence",
            h.gre(_frame(_TCP4.packet), 0x6558, key=1, sequence=1),
            "with a sequence number",
        ),
        ("ipv4", h.gre(_TCP4.packet, key=1), "with IPv4 instead of Ethernet inside"),
    ):
        topic.demanded(
            f"nvgre/not-{name}",
            "IPv4",
            h.ethernet(h.ipv4(h.over_gre(tunnel))),
            f"GRE {what} is not NVGRE (RFC 7637, 3.2): the outer headers are hashed.",
            config="nvgre",
        )
    topic.open(
        "gre-ethernet",
        _TCP4.report,
        h.ethernet(h.ipv4(h.over_gre(h.gre(_frame(_TCP4.packet), 0x6558)))),
        "An Ethernet frame in GRE without a key.",
        hashed=_TCP4.hashed,
        config="gre-2784",
    )
    for name, tunnel, what in (
        ("version-1", h.gre(_TCP4.packet, version=1), "Version 1 (PPTP)"),
        ("version-7", h.gre(_TCP4.packet, version=7), "Version 7"),
        ("routing", h.put(h.gre(_TCP4.packet), 0, b"\x40"), "GRE with the routing bit of RFC 1701"),
        ("strict", h.put(h.gre(_TCP4.packet), 0, b"\x08"), "GRE with a bit that must be 0"),
        ("recursion", h.put(h.gre(_TCP4.packet), 0, b"\x04"), "GRE with a bit that must be 0"),
    ):
        topic.open(
            f"gre-{name}",
            "IPv4",
            h.ethernet(h.ipv4(h.over_gre(tunnel))),
            f"{what} is no tunnel to look into: the outer headers are hashed.",
            config="all-tunnels",
        )
    return topic


def _carried_v4(topic: Topic, kind: Kind) -> None:
    """As ``_carried``, less inner IPv6, which GRE over IPv4 has in cases of their own."""
    config = _name(kind.types)
    for inside in (i for i in _INSIDE if i.packet[0] >> 4 == 4):
        if kind.name != "gre" and inside is not _TCP4:
            continue
        topic.demanded(
            f"{kind.name}/{inside.name}",
            inside.report,
            h.ethernet(h.ipv4(kind.wrap(inside.packet))),
            f"With {kind.types.name} enabled the inner packet is hashed as if it had come alone.",
            hashed=inside.hashed,
            config=config,
        )


def _udp() -> Topic:
    topic = _topic("tunnel-udp", "Inner header hash: GRE-in-UDP, VXLAN, VXLAN-GPE, Geneve")
    for kind in _UDP:
        if kind.name in ("gre-in-udp", "vxlan", "vxlan-gpe", "geneve"):
            _carried(topic, kind, kind.types)
            _not_enabled(topic, kind, f"not-{_name(kind.types)}")
        else:
            for inside in (_TCP4, _UDP6):
                topic.demanded(
                    f"{kind.name}/{inside.name}",
                    inside.report,
                    h.ethernet(h.ipv4(kind.wrap(inside.packet))),
                    "The inner packet begins where the tunnel's header says.",
                    hashed=inside.hashed,
                    config=_name(kind.types),
                )
        for inside in (_TCP4, _UDP6):
            topic.demanded(
                f"{kind.name}/over-ipv6-{inside.name}",
                inside.report,
                h.ethernet(h.ipv6(kind.wrap(inside.packet))),
                "The same over IPv6.",
                hashed=inside.hashed,
                config=_name(kind.types),
            )
    topic.open(
        "vxlan-gpe/no-protocol",
        _TCP4.report,
        h.ethernet(
            h.ipv4(h.over_udp(h.vxlan_gpe(_frame(_TCP4.packet), 0, flags=8), h.VXLAN_GPE_PORT))
        ),
        "Without the P bit VXLAN-GPE carries Ethernet, as VXLAN does.",
        hashed=_TCP4.hashed,
        config="vxlan-gpe",
    )
    vxlan, gpe, geneve = h.VXLAN_PORT, h.VXLAN_GPE_PORT, h.GENEVE_PORT
    inner = _frame(_TCP4.packet)
    for name, tunnel, port, what in (
        (
            "vxlan/other-flags",
            h.vxlan(inner, flags=0xF7),
            vxlan,
            "VXLAN with every flag but the I flag",
        ),
        ("vxlan/no-identifier", h.vxlan(inner, flags=0), vxlan, "VXLAN without the I flag"),
        ("vxlan/no-header", b"\x08\0\0\0\0\x12\x34", vxlan, "A VXLAN header cut short"),
        ("vxlan/empty", b"", vxlan, "A UDP header with nothing behind it"),
        (
            "vxlan-gpe/version-1",
            h.vxlan_gpe(_TCP4.packet, 1, flags=0x1C),
            gpe,
            "VXLAN-GPE of version 1",
        ),
        (
            "vxlan-gpe/version-2",
            h.vxlan_gpe(_TCP4.packet, 1, flags=0x2C),
            gpe,
            "VXLAN-GPE of version 2",
        ),
        (
            "vxlan-gpe/oam",
            h.vxlan_gpe(_TCP4.packet, 1, flags=0x0D),
            gpe,
            "VXLAN-GPE with the O bit",
        ),
        ("geneve/version-1", h.geneve(inner, first=0x40), geneve, "Geneve of version 1"),
        ("geneve/version-2", h.geneve(inner, first=0x80), geneve, "Geneve of version 2"),
        ("geneve/control", h.geneve(inner, flags=0x80), geneve, "A Geneve control packet"),
        (
            "geneve/options-beyond",
            h.geneve(inner[:20], first=63),
            geneve,
            "Geneve whose options would end behind the packet",
        ),
        ("geneve/no-header", bytes(7), geneve, "A Geneve header cut short"),
        (
            "gre-in-udp/version-1",
            h.gre(_TCP4.packet, version=1),
            h.GRE_UDP_PORT,
            "GRE-in-UDP of version 1",
        ),
        (
            "gre-in-udp/routing",
            h.put(h.gre(_TCP4.packet), 0, b"\x40"),
            h.GRE_UDP_PORT,
            "GRE-in-UDP with the routing bit of RFC 1701",
        ),
        ("gre-in-udp/no-header", b"\0\0\x08", h.GRE_UDP_PORT, "A GRE header cut short"),
        (
            "gre-in-udp/key-missing",
            b"\x20\0\x08\0\0\0",
            h.GRE_UDP_PORT,
            "GRE whose key is not there",
        ),
    ):
        topic.open(
            name,
            "UDPv4",
            h.ethernet(h.ipv4(h.over_udp(tunnel, port))),
            f"{what} is no tunnel to look into: the outer headers are hashed.",
            hashed=h.A4 + h.B4 + h.ports((_SOURCE_PORT, port)),
            config="all-tunnels",
        )
    for name, port, what in (
        ("source-port", _SOURCE_PORT, "as source port"),
        ("other-port", 8472, "replaced by another, as Linux first used it,"),
    ):
        source = h.VXLAN_PORT if name == "source-port" else _SOURCE_PORT
        topic.open(
            f"vxlan/{name}",
            "UDPv4",
            h.ethernet(h.ipv4(h.over_udp(h.vxlan(inner), port, source))),
            f"VXLAN's port {what} makes no tunnel: the destination port counts.",
            hashed=h.A4 + h.B4 + h.ports((source, port)),
            config="all-tunnels",
        )
    topic.open(
        "vxlan/tcp",
        "TCPv4",
        h.ethernet(h.ipv4(h.tcp((_SOURCE_PORT, h.VXLAN_PORT), h.vxlan(inner)))),
        "TCP to VXLAN's port is no tunnel.",
        hashed=h.A4 + h.B4 + h.ports((_SOURCE_PORT, h.VXLAN_PORT)),
        config="all-tunnels",
    )
    return topic


def _ipip() -> Topic:
    topic = _topic("tunnel-ipip", "Inner header hash: IP in IP")
    _carried(topic, _IPIP, _T.IPIP)
    _not_enabled(topic, _IPIP, "not-ipip")
    for inside in (_TCP4, _UDP6):
        version = inside.packet[0] >> 4
        packet = h.ipv6(_IPIP.wrap(inside.packet))
        topic.demanded(
            f"ipip/over-ipv6-{inside.name}",
            inside.report,
            h.ethernet(packet),
            f"IPv{version} over IPv6 (RFC 2473).",
            hashed=inside.hashed,
            config="ipip",
        )
        topic.demanded(
            f"ipip/over-ipv6-{inside.name}-off",
            "IPv6",
            h.ethernet(packet),
            f"IPv{version} over IPv6 with no tunnel type enabled: the outer headers are hashed.",
        )
    limit = h.destination_options(b"\4\1\4" + h.padding(3))
    topic.demanded(
        "ipip/encapsulation-limit",
        _TCP4.report,
        h.ethernet(h.ipv6(_IPIP.wrap(_TCP4.packet), [limit])),
        "Outer extension headers, here a tunnel encapsulation limit, are skipped and told nowhere.",
        hashed=_TCP4.hashed,
        config="ipip",
    )
    topic.demanded(
        "ipip/outer-options",
        _TCP4.report,
        h.ethernet(h.ipv4(_IPIP.wrap(_TCP4.packet), options=b"\x94\x04\0\0")),
        "Outer IPv4 options are skipped.",
        hashed=_TCP4.hashed,
        config="ipip",
    )
    for name, number, packet, what in (
        ("4-carries-6", 4, _UDP6.packet, "IPv6 behind protocol 4"),
        ("41-carries-4", 41, _TCP4.packet, "IPv4 behind protocol 41"),
        ("empty", 4, b"", "Nothing behind protocol 4"),
        ("cut", 4, _TCP4.packet[:19], "A cut IPv4 header behind protocol 4"),
    ):
        topic.open(
            f"ipip/{name}",
            "NONE",
            h.ethernet(h.ipv4(h.Upper(number, packet))),
            f"{what} is a tunnel without an inner packet: no hash.",
            config="ipip",
        )
    return topic


def _odd_insides() -> Iterator[tuple[str, bytes, str]]:
    """Frames inside VXLAN that have no IP header to hash."""
    yield "arp", _frame(bytes.fromhex("0001080006040001") + bytes(20), 0x0806), "ARP"
    yield "mpls", _frame(b"\0\1\1\x40" + _TCP4.packet, 0x8847), "MPLS"
    yield "three-tags", _frame(_TCP4.packet, tags=[(0x8100, n) for n in (1, 2, 3)]), "Three tags"
    yield "cut-ethernet", _frame(_TCP4.packet)[:13], "A cut Ethernet header"
    yield "cut-ipv4", _frame(_TCP4.packet)[:33], "A cut IPv4 header"
    yield "nothing", b"", "Nothing"


def _odd() -> Topic:
    topic = _topic("tunnel-inside", "Inner header hash: what tunnels carry, and where they end")
    topic.configurations |= {
        "only-ipv4-types": STANDARD.replace(
            tunnels=_T.ALL, hash_types=HashType.IPv4 | HashType.TCPv4 | HashType.UDPv4
        ),
        "only-addresses": STANDARD.replace(
            tunnels=_T.ALL, hash_types=HashType.IPv4 | HashType.IPv6
        ),
    }

    def vxlan(inner: bytes, fragment: int = 0) -> bytes:
        return h.ethernet(h.ipv4(h.over_udp(h.vxlan(inner), h.VXLAN_PORT), fragment=fragment))

    config = "all-tunnels"
    for name, inner, what in _odd_insides():
        topic.open(
            f"vxlan-{name}",
            "NONE",
            vxlan(inner),
            f"{what} inside VXLAN: no hash, not even of the outer headers.",
            config=config,
        )
    for protocol, what in ((0, "No next protocol"), (4, "NSH"), (5, "MPLS")):
        topic.open(
            f"vxlan-gpe-protocol-{protocol}",
            "NONE",
            h.ethernet(h.ipv4(h.over_udp(h.vxlan_gpe(_TCP4.packet, protocol), h.VXLAN_GPE_PORT))),
            f"{what} inside VXLAN-GPE: no hash.",
            config=config,
        )
    for name, ethertype in (("gre-arp", 0x0806), ("gre-wccp", 0x883E), ("gre-zero", 0)):
        topic.open(
            name,
            "NONE",
            h.ethernet(h.ipv4(h.over_gre(h.gre(bytes(28), ethertype)))),
            f"EtherType {ethertype:#06x} inside GRE: no hash.",
            config=config,
        )
    topic.open(
        "geneve-arp",
        "NONE",
        h.ethernet(h.ipv4(h.over_udp(h.geneve(bytes(28), 0x0806), h.GENEVE_PORT))),
        "ARP inside Geneve: no hash.",
        config=config,
    )
    for name, tags in (("tag", [(0x8100, 5)]), ("two-tags", [(0x88A8, 5), (0x8100, 6)])):
        topic.open(
            f"vxlan-inner-{name}",
            _TCP4.report,
            vxlan(_frame(_TCP4.packet, tags=tags)),
            "VLAN tags of the inner frame are looked behind.",
            hashed=_TCP4.hashed,
            config=config,
        )
    topic.open(
        "vxlan-inner-snap",
        _TCP4.report,
        vxlan(h.snap(_TCP4.packet, 0x0800)),
        "SNAP in the inner frame is looked behind.",
        hashed=_TCP4.hashed,
        config=config,
    )
    outer = h.ipv4(h.over_udp(h.vxlan(_frame(_TCP4.packet)), h.VXLAN_PORT))
    topic.open(
        "vxlan-outer-tag",
        _TCP4.report,
        h.ethernet(outer, tags=[(0x8100, 5)]),
        "VLAN tags of the outer frame are looked behind.",
        hashed=_TCP4.hashed,
        config=config,
    )
    topic.open(
        "vxlan-raw",
        _TCP4.report,
        outer,
        "A tunnel on a device without Ethernet headers.",
        hashed=_TCP4.hashed,
        config=config,
        raw=True,
    )
    topic.demanded(
        "inner-type-not-enabled",
        "NONE",
        vxlan(_frame(_UDP6.packet)),
        "Hash types are asked of the inner packet: IPv6 inside, types of IPv4 only.",
        config="only-ipv4-types",
    )
    topic.demanded(
        "inner-type-fallback",
        "IPv6",
        vxlan(_frame(_UDP6.packet)),
        "Hash types are asked of the inner packet: only those of addresses are enabled.",
        hashed=A6 + B6,
        config="only-addresses",
    )
    for name, field, what in (("first", 0x2000, "first"), ("last", 0x0005, "last")):
        topic.open(
            f"outer-{name}-fragment",
            "IPv4",
            vxlan(_frame(_TCP4.packet), fragment=field),
            f"The {what} fragment of an outer packet is no tunnel: its addresses are hashed.",
            config=config,
        )
    topic.open(
        "outer-ipv6-fragment",
        "IPv6_EX",
        h.ethernet(
            h.ipv6(h.over_udp(h.vxlan(_frame(_TCP4.packet)), h.VXLAN_PORT), [h.fragment(more=True)])
        ),
        "The first fragment of an outer IPv6 packet is no tunnel: its addresses are hashed.",
        config=config,
    )
    topic.open(
        "inner-fragment-of-udp",
        "IPv4",
        vxlan(_frame(_v4(h.udp(PORTS), fragment=0x2000))),
        "A first fragment inside a tunnel goes by its addresses, as any.",
        hashed=A4 + B4,
        config=config,
    )
    nested = _frame(
        h.ipv4(
            h.over_udp(h.vxlan(_frame(_v4(h.tcp((1, 2))))), h.VXLAN_PORT), source=A4, destination=B4
        )
    )
    topic.demanded(
        "nested-vxlan",
        "UDPv4",
        vxlan(nested),
        "A tunnel in a tunnel: one level is looked into.",
        hashed=A4 + B4 + h.ports((_SOURCE_PORT, h.VXLAN_PORT)),
        config=config,
    )
    topic.demanded(
        "nested-ipip",
        "IPv4",
        h.ethernet(h.ipv4(h.in_ip(h.ipv4(h.in_ip(_v6(h.tcp())), source=A4, destination=B4)))),
        "IP in IP in IP: one level is looked into.",
        hashed=A4 + B4,
        config=config,
    )
    topic.demanded(
        "many-types-one-packet",
        _UDP6.report,
        h.ethernet(h.ipv4(h.over_gre(h.gre(_UDP6.packet)))),
        "A packet of several types that are enabled: hashed once, by its inner headers.",
        hashed=_UDP6.hashed,
        config=config,
    )
    topic.demanded(
        "no-tunnel-tcpv4",
        "TCPv4",
        h.ethernet(h.ipv4(h.tcp())),
        "With every tunnel type enabled, what is no tunnel is hashed as ever.",
        config=config,
    )
    topic.demanded(
        "no-tunnel-udpv6",
        "UDPv6",
        h.ethernet(h.ipv6(h.udp())),
        "With every tunnel type enabled, what is no tunnel is hashed as ever.",
        config=config,
    )
    frame = vxlan(_frame(_TCP4.packet))
    start = 14 + 20 + 8 + 8 + 14
    for length, report, hashed in (
        (start - 15, "UDPv4", h.A4 + h.B4 + h.ports((_SOURCE_PORT, h.VXLAN_PORT))),
        (start - 14, "NONE", b""),
        (start - 1, "NONE", b""),
        (start + 19, "NONE", b""),
        (start + 20, "IPv4", A4 + B4),
        (start + 39, "IPv4", A4 + B4),
        (start + 40, "TCPv4", _TCP4.hashed),
    ):
        topic.open(
            f"vxlan-cut-{length}",
            report,
            h.cut(frame, length),
            f"The first {length} of {len(frame)} bytes: what does not lie whole in the frame "
            "is not there.",
            hashed=hashed,
            config=config,
        )
    for length in (35, 37, 41):
        topic.open(
            f"outer-udp-cut-{length}",
            "IPv4",
            h.cut(frame, length),
            f"The first {length} bytes of a VXLAN packet: without a whole UDP header no tunnel.",
            config=config,
        )
    gre_udp = h.ethernet(h.ipv4(h.over_udp(h.gre(_TCP4.packet), h.GRE_UDP_PORT)))
    topic.open(
        "outer-gre-udp-cut-41",
        "IPv4",
        h.cut(gre_udp, 41),
        "The first 41 bytes of a GRE-in-UDP packet: without a whole UDP header no tunnel.",
        config=config,
    )
    gre = h.ethernet(h.ipv4(h.over_gre(h.gre(_TCP4.packet, key=7))))
    for length in (34, 37, 38, 41):
        topic.open(
            f"outer-gre-cut-{length}",
            "IPv4",
            h.cut(gre, length),
            f"The first {length} bytes of GRE with a key: without a whole GRE header no tunnel.",
            config=config,
        )
    topic.open(
        "outer-gre-cut-42",
        "NONE",
        h.cut(gre, 42),
        "GRE with a key and nothing behind it: a tunnel without an inner packet, so no hash.",
        config=config,
    )
    declared = h.over_udp(h.vxlan(_frame(_TCP4.packet)), h.VXLAN_PORT)
    topic.open(
        "outer-length-ends-inside",
        "IPv4",
        h.ethernet(h.ipv4(declared, length=start - 14 + 30)),
        "What is inside ends where the outer length says, here in the inner TCP header.",
        hashed=A4 + B4,
        config=config,
    )
    topic.open(
        "inner-length-beyond",
        "TCPv4",
        vxlan(_frame(h.ipv4(h.tcp(PORTS), source=A4, destination=B4, length=2000))),
        "An inner length that lies behind the outer packet: the outer end counts.",
        hashed=_TCP4.hashed,
        config=config,
    )
    return topic
