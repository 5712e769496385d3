# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""From a frame to the headers RSS looks at, slowly and by the book.

Written for the reader, not for speed, and apart from native/dissect.h, so
that the two can be compared. What does not lie wholly in the frame, or
behind the end its IP header declares, is not there.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

from vnethash.rss.tunnels import (
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_TRANSPARENT_ETHERNET,
    Payload,
    find_inner,
)
from vnethash.virtio.hash_types import TunnelType
from vnethash.virtio.header import Buffer

TAGS_MAX = 2
"""In-band VLAN tags that are looked behind."""
EXTENSIONS_MAX = 8
"""IPv6 extension headers that are walked."""
OPTIONS_MAX = 8
"""Options that are read of one destination options header, paddings included."""

ETHERTYPE_MIN = 0x0600
"""Below, the field is a length, and LLC follows (IEEE 802.3, 3.2.6)."""
_TAGS = {0x8100: "802.1Q", 0x88A8: "802.1ad"}
_SNAP = bytes.fromhex("aaaa03000000")
"""LLC and SNAP headers in front of an EtherType (RFC 1042)."""
_NOT_IP = {
    0x0806: "ARP",
    0x8847: "MPLS",
    0x8848: "MPLS",
    0x8863: "PPPoE discovery",
    0x8864: "PPPoE session",
    0x9100: "a tag type that is not 802.1",
}

_HOP_BY_HOP = 0
_ROUTING = 43
_FRAGMENT = 44
_AUTHENTICATION = 51
_DESTINATION_OPTIONS = 60
_EXTENSIONS = {
    _HOP_BY_HOP: "hop-by-hop options",
    _ROUTING: "routing",
    _FRAGMENT: "fragment",
    _AUTHENTICATION: "authentication",
    _DESTINATION_OPTIONS: "destination options",
    135: "mobility",
    139: "host identity",
    140: "shim6",
}
"""Next header values of IPv6 extension headers whose length can be told.

The IANA list without ESP (50), which hides what follows, and the two
experimental values.
"""

_PAD1 = 0
_HOME_ADDRESS = 201


class Protocol(IntEnum):
    """IP protocols with ports that RSS hashes."""

    TCP = 6
    UDP = 17

    @property
    def header_length(self) -> int:
        """Bytes without options (RFC 9293, RFC 768)."""
        return 20 if self is Protocol.TCP else 8


@dataclass(frozen=True, slots=True)
class Headers:
    """What was seen in a packet; addresses and ports in network order."""

    version: int = 0
    """4, 6, or 0: not IP."""
    source: bytes = b""
    destination: bytes = b""
    l4: Protocol | None = None
    """Whose ports are in ``ports``; None if there is no TCP or UDP header to read."""
    ports: bytes = b""
    """Source and destination port, 4 bytes."""
    has_extension: bool = False
    """IPv6 extension headers follow."""
    home_address: bytes | None = None
    """Of the home address option (RFC 6275, 6.3)."""
    routing_address: bytes | None = None
    """Of the type 2 routing header (RFC 6275, 6.4)."""
    seen: tuple[str, ...] = ()
    """Names of the headers, outermost first."""
    why_no_ip: str = ""
    """Why ``version`` is 0; empty if it is not."""
    why_no_l4: str = ""
    """Why ``l4`` is None in an IP packet; empty if it is not."""
    payload: Payload | None = None
    """What the IP packet carries; None of a fragment, or if the headers before it are cut short."""
    tunnel: TunnelType = TunnelType.NONE
    """The encapsulations by which the packet came; NONE if these are its outer headers."""

    def _see(self, *names: str) -> "Headers":
        return replace(self, seen=self.seen + names)

    def _no_ip(self, why: str) -> "Headers":
        return replace(self, why_no_ip=why)

    def _no_l4(self, why: str) -> "Headers":
        return replace(self, why_no_l4=why)


def dissect(frame: Buffer, *, l3: bool = False, tunnels: TunnelType = TunnelType.NONE) -> Headers:
    """The headers of ``frame``; ``l3`` says that it has no Ethernet header (IFF_TUN).

    If it is of one of ``tunnels``, the headers of what is inside, for one
    level (virtio 1.3, 5.1.6.4.4).
    """
    frame = bytes(frame)
    outer = _dissect_l3(frame) if l3 else _dissect_ethernet(frame, 0, Headers())
    if not tunnels or outer.payload is None:
        return outer
    inner = find_inner(frame, outer.payload, is_over_ipv6=outer.version == 6)
    if inner is None or not inner.types & tunnels:
        return outer
    headers = Headers(seen=(*outer.seen, inner.name), tunnel=inner.types)
    # What is inside ends where the outer packet does.
    frame = frame[: outer.payload.end]
    if inner.ethertype is None:
        return headers._no_ip("no packet that has an EtherType")
    if inner.ethertype == ETHERTYPE_TRANSPARENT_ETHERNET:
        return _dissect_ethernet(frame, inner.offset, headers)
    return _dissect_ethertype(frame, inner.offset, inner.ethertype, headers)


def _dissect_l3(frame: bytes) -> Headers:
    if not frame:
        return Headers()._no_ip("the frame is empty")
    version = frame[0] >> 4
    if version == 4:
        return _dissect_ipv4(frame, 0, Headers())
    if version == 6:
        return _dissect_ipv6(frame, 0, Headers())
    return Headers()._no_ip(f"IP version {version}")


def _dissect_ethernet(frame: bytes, offset: int, headers: Headers) -> Headers:
    if len(frame) < offset + 14:
        return headers._no_ip("the Ethernet header is cut short")
    headers = headers._see("Ethernet")
    ethertype = _be16(frame, offset + 12)
    offset += 14
    for _ in range(TAGS_MAX):
        if ethertype not in _TAGS:
            break
        if len(frame) < offset + 4:
            return headers._no_ip("the VLAN tag is cut short")
        headers = headers._see(_TAGS[ethertype])
        ethertype = _be16(frame, offset + 2)
        offset += 4
    if ethertype in _TAGS:
        return headers._no_ip(f"more than {TAGS_MAX} VLAN tags")

    if ethertype < ETHERTYPE_MIN:
        if len(frame) < offset + 8:
            return headers._no_ip("the LLC header is cut short")
        if frame[offset : offset + 6] != _SNAP:
            return headers._no_ip("LLC without an EtherType")
        headers = headers._see("SNAP")
        ethertype = _be16(frame, offset + 6)
        offset += 8
    return _dissect_ethertype(frame, offset, ethertype, headers)


def _dissect_ethertype(frame: bytes, offset: int, ethertype: int, headers: Headers) -> Headers:
    if ethertype == ETHERTYPE_IPV4:
        return _dissect_ipv4(frame, offset, headers)
    if ethertype == ETHERTYPE_IPV6:
        return _dissect_ipv6(frame, offset, headers)
    name = f" ({_NOT_IP[ethertype]})" if ethertype in _NOT_IP else ""
    return headers._no_ip(f"EtherType {ethertype:#06x}{name}")


def _dissect_ipv4(frame: bytes, offset: int, headers: Headers) -> Headers:
    """RFC 791, 3.1."""
    if len(frame) < offset + 20:
        return headers._no_ip("the IPv4 header is cut short")
    ip = frame[offset:]
    version, header_length = ip[0] >> 4, (ip[0] & 15) * 4
    if version != 4:
        return headers._no_ip(f"IP version {version} under the EtherType of IPv4")
    if header_length < 20:
        return headers._no_ip(f"an IPv4 header of {header_length} bytes")
    headers = replace(headers._see("IPv4"), version=4, source=ip[12:16], destination=ip[16:20])

    fragment = _be16(ip, 6)
    more_fragments, fragment_offset = fragment & 0x2000, fragment & 0x1FFF
    if more_fragments or fragment_offset:
        return headers._no_l4("a fragment")

    end = _packet_end(frame, offset, _be16(ip, 2))
    return _dissect_l4(frame, offset + header_length, end, ip[9], headers)


def _dissect_ipv6(frame: bytes, offset: int, headers: Headers) -> Headers:
    """RFC 8200, 3 and 4."""
    if len(frame) < offset + 40:
        return headers._no_ip("the IPv6 header is cut short")
    ip = frame[offset:]
    version = ip[0] >> 4
    if version != 6:
        return headers._no_ip(f"IP version {version} under the EtherType of IPv6")
    headers = replace(headers._see("IPv6"), version=6, source=ip[8:24], destination=ip[24:40])

    next_header = ip[6]
    offset += 40
    end = _packet_end(frame, offset, _be16(ip, 4))

    walked = 0
    while next_header in _EXTENSIONS:
        name = _EXTENSIONS[next_header]
        headers = replace(headers, has_extension=True)
        if walked == EXTENSIONS_MAX:
            return headers._no_l4(f"more than {EXTENSIONS_MAX} extension headers")
        walked += 1

        length = _extension_length(frame, offset, end, next_header)
        if length is None:
            return headers._no_l4(f"the {name} header is cut short")
        headers = headers._see(name)
        extension = frame[offset : offset + length]

        if next_header == _FRAGMENT:
            fragment = _be16(extension, 2)
            fragment_offset, more_fragments = fragment & 0xFFF8, fragment & 1
            if fragment_offset or more_fragments:
                return headers._no_l4("a fragment")
        # Of several headers with an address, which no sender may send, the last one counts.
        if next_header == _ROUTING and (address := _routing_address(extension)):
            headers = replace(headers, routing_address=address)
        if next_header == _DESTINATION_OPTIONS and (address := _home_address(extension)):
            headers = replace(headers, home_address=address)

        next_header = extension[0]
        offset += length

    return _dissect_l4(frame, offset, end, next_header, headers)


def _extension_length(frame: bytes, offset: int, end: int, kind: int) -> int | None:
    """Bytes of the extension header at ``offset``; None if it does not lie before ``end``."""
    if offset + 8 > end:  # the least any of them has
        return None
    if kind == _FRAGMENT:
        length = 8
    elif kind == _AUTHENTICATION:
        length = (frame[offset + 1] + 2) * 4  # RFC 4302, 2.2
    else:
        length = (frame[offset + 1] + 1) * 8
    return length if offset + length <= end else None


def _routing_address(extension: bytes) -> bytes | None:
    """The address in a type 2 routing header, which always has 24 bytes (RFC 6275, 6.4)."""
    if extension[2] == 2 and len(extension) == 24:
        return extension[8:24]
    return None


def _home_address(extension: bytes) -> bytes | None:
    """The address in the home address option, if it is among the first options (RFC 6275, 6.3)."""
    options = extension[2:]
    for _ in range(OPTIONS_MAX):
        if not options:
            return None
        if options[0] == _PAD1:
            options = options[1:]
            continue
        if len(options) < 2 or len(options) < 2 + options[1]:
            return None  # it overruns the header
        kind, value = options[0], options[2 : 2 + options[1]]
        if kind == _HOME_ADDRESS and len(value) == 16:
            return value
        options = options[2 + len(value) :]
    return None


def _dissect_l4(frame: bytes, offset: int, end: int, number: int, headers: Headers) -> Headers:
    headers = replace(headers, payload=Payload(number, offset, end))
    if number not in (Protocol.TCP, Protocol.UDP):
        return headers._no_l4(f"protocol {number} is neither TCP nor UDP")
    protocol = Protocol(number)
    if offset + protocol.header_length > end:
        return headers._no_l4(f"the {protocol.name} header is cut short")
    return replace(headers._see(protocol.name), l4=protocol, ports=frame[offset : offset + 4])


def _packet_end(frame: bytes, start: int, declared: int) -> int:
    """Where the packet ends: as declared, unless that is 0 (jumbo) or lies behind the frame."""
    if declared != 0 and start + declared <= len(frame):
        return start + declared
    return len(frame)


def _be16(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 2], "big")
