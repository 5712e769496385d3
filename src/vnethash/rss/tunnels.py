# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which tunnel a packet is of, and what is inside, by the book (virtio 1.3, 5.1.6.4.4).

Apart from native/tunnel.h, as ``dissect`` is apart from native/dissect.h. The
outer headers, up to the tunnel's own, say whether a packet is of a tunnel;
what it carries does not matter for that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vnethash.virtio.hash_types import TunnelType

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPE_TRANSPARENT_ETHERNET = 0x6558
"""The payload is an Ethernet frame (RFC 1701, RFC 7637, RFC 8926)."""

_IPV4_IN_IP = 4
_UDP = 17
_IPV6_IN_IP = 41
_GRE = 47

_GRE_IN_UDP_PORT = 4754
_VXLAN_PORT = 4789
_VXLAN_GPE_PORT = 4790
_GENEVE_PORT = 6081

UDP_TUNNELS: Final[Mapping[int, TunnelType]] = {
    _GRE_IN_UDP_PORT: TunnelType.GRE_UDP,
    _VXLAN_PORT: TunnelType.VXLAN,
    _VXLAN_GPE_PORT: TunnelType.VXLAN_GPE,
    _GENEVE_PORT: TunnelType.GENEVE,
}
"""What comes to a UDP destination port."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What an IP packet carries, behind all headers of IP."""

    protocol: int
    """Protocol number, or next header of the last header."""
    offset: int
    """Where in the frame it starts."""
    end: int
    """Where in the frame the packet ends."""


@dataclass(frozen=True, slots=True)
class Inner:
    """What a tunnel carries."""

    types: TunnelType
    """The encapsulations that the packet is of: more than one with some GRE."""
    name: str
    """Of the tunnel's header."""
    ethertype: int | None
    """Of what is inside; None if its kind has none."""
    offset: int
    """Where in the frame it starts."""


def find_inner(frame: bytes, payload: Payload, *, is_over_ipv6: bool) -> Inner | None:
    """What ``payload`` carries if it is a tunnel; None if it is none."""
    frame, offset = frame[: payload.end], payload.offset
    if payload.protocol == _IPV4_IN_IP:  # RFC 2003; over IPv6: RFC 2473
        return Inner(TunnelType.IPIP, "IPIP", ETHERTYPE_IPV4, offset)
    if payload.protocol == _IPV6_IN_IP:  # RFC 4213; over IPv6: RFC 2473
        return Inner(TunnelType.IPIP, "IPIP", ETHERTYPE_IPV6, offset)
    if payload.protocol == _GRE:
        return _gre(frame, offset, is_over_ipv6=is_over_ipv6)
    if payload.protocol == _UDP and len(frame) >= offset + 8:
        return _in_udp(frame, offset + 8, int.from_bytes(frame[offset + 2 : offset + 4], "big"))
    return None


def _gre(frame: bytes, offset: int, *, is_over_ipv6: bool) -> Inner | None:
    """RFC 2784, RFC 2890 (key, sequence number), RFC 7676 (IPv6), RFC 7637 (NVGRE)."""
    if len(frame) < offset + 4:
        return None
    flags = int.from_bytes(frame[offset : offset + 2], "big")
    ethertype = int.from_bytes(frame[offset + 2 : offset + 4], "big")
    checksum, routing, key, sequence = (bool(flags & 0x8000 >> bit) for bit in range(4))
    refused = flags & 0x0C00  # of bits 1 to 5, what neither RFC has a use for: RFC 2784, 2.3
    version = flags & 0x0007
    if routing or refused or version != 0:
        return None
    inside = offset + 4 + 4 * (checksum + key + sequence)
    if inside > len(frame):
        return None

    if is_over_ipv6:
        types = TunnelType.GRE_7676
    else:
        types = TunnelType.GRE_2890 if key or sequence else TunnelType.GRE_2784
        if ethertype == ETHERTYPE_IPV6:
            types |= TunnelType.GRE_7676
    if ethertype == ETHERTYPE_TRANSPARENT_ETHERNET and key and not checksum and not sequence:
        types |= TunnelType.NVGRE
    return Inner(types, "GRE", ethertype, inside)


def _in_udp(frame: bytes, offset: int, port: int) -> Inner | None:
    """The header at ``offset``, behind a UDP header with that destination port."""
    if port == _GRE_IN_UDP_PORT:
        gre = _gre(frame, offset, is_over_ipv6=False)
        return gre and Inner(TunnelType.GRE_UDP, "GRE-in-UDP", gre.ethertype, gre.offset)
    if len(frame) < offset + 8:
        return None
    header = frame[offset : offset + 8]
    if port == _VXLAN_PORT:
        return _vxlan(header, offset)
    if port == _VXLAN_GPE_PORT:
        return _vxlan_gpe(header, offset)
    if port == _GENEVE_PORT:
        return _geneve(header, offset, len(frame))
    return None


def _vxlan(header: bytes, offset: int) -> Inner | None:
    """RFC 7348, 5: only with the I flag it has a network identifier."""
    if not header[0] & 0x08:
        return None
    return Inner(TunnelType.VXLAN, "VXLAN", ETHERTYPE_TRANSPARENT_ETHERNET, offset + 8)


def _vxlan_gpe(header: bytes, offset: int) -> Inner | None:
    """draft-ietf-nvo3-vxlan-gpe, 3: version 0; with the O bit there is no packet inside."""
    version, has_protocol, is_oam = header[0] >> 4 & 3, header[0] & 0x04, header[0] & 0x01
    if version != 0 or is_oam:
        return None
    ethertype: int | None = ETHERTYPE_TRANSPARENT_ETHERNET
    if has_protocol:
        ethertype = {
            1: ETHERTYPE_IPV4,
            2: ETHERTYPE_IPV6,
            3: ETHERTYPE_TRANSPARENT_ETHERNET,
        }.get(header[3])
    return Inner(TunnelType.VXLAN_GPE, "VXLAN-GPE", ethertype, offset + 8)


def _geneve(header: bytes, offset: int, end: int) -> Inner | None:
    """RFC 8926, 3.4: version 0; a control packet (O) has no packet of the network inside."""
    version, options, is_control = header[0] >> 6, 4 * (header[0] & 0x3F), header[1] & 0x80
    inside = offset + 8 + options
    if version != 0 or is_control or inside > end:
        return None
    return Inner(TunnelType.GENEVE, "Geneve", int.from_bytes(header[2:4], "big"), inside)
