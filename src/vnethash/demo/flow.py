# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What a packet is, in words."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from vnethash.demo import frames
from vnethash.packet import Packet
from vnethash.rss.dissect import Headers, dissect
from vnethash.virtio.header import GsoType


class Kind(StrEnum):
    """Kinds of traffic that the demonstration must have seen."""

    TCP = "TCP"
    TSO = "TSO"
    UDP = "UDP"
    ICMP = "ICMP"
    IPV6 = "IPv6"
    VLAN = "VLAN"
    FRAGMENT = "fragments"


@dataclass(frozen=True, slots=True)
class Flow:
    """Packets with the same addresses, ports, protocol and VLAN."""

    vlans: tuple[int, ...]
    protocol: str
    source: str
    destination: str
    """With ports where there are any; both empty for what is not IP."""
    is_ipv6: bool = False

    @property
    def label(self) -> str:
        """The protocol, and how many VLAN tags it is behind."""
        return ("", "VLAN ", "QinQ ")[len(self.vlans)] + self.protocol


def describe(packet: Packet) -> tuple[Flow, frozenset[Kind]]:
    """The flow of a packet, and of which kinds it is."""
    frame = packet.frame
    headers = dissect(frame)
    tags = sum(name in ("802.1Q", "802.1ad") for name in headers.seen)
    vlans = tuple(_be16(frame, 14 + 4 * tag) & 0xFFF for tag in range(tags))
    kinds = {Kind.VLAN} if vlans else set()
    if not headers.version:
        return Flow(vlans, _not_ip(frame, 12 + 4 * tags), "", ""), frozenset(kinds)

    protocol = _protocol(frame[14 + 4 * tags :], headers)
    if headers.version == 6:
        kinds.add(Kind.IPV6)
    if headers.l4 is not None:
        kinds.add(Kind[headers.l4.name])
    elif protocol == "fragment":
        kinds.add(Kind.FRAGMENT)
    elif protocol in ("ICMP", "ICMPv6"):
        kinds.add(Kind.ICMP)
    if packet.header.segmentation in (GsoType.TCPV4, GsoType.TCPV6):
        kinds.add(Kind.TSO)
    source = _endpoint(headers.source, headers.ports[0:2])
    destination = _endpoint(headers.destination, headers.ports[2:4])
    return Flow(vlans, protocol, source, destination, headers.version == 6), frozenset(kinds)


def _protocol(packet: bytes, headers: Headers) -> str:
    if headers.version == 4:
        number = packet[9]
        is_fragment = bool(_be16(packet, 6) & 0x3FFF)
    else:
        number = packet[6]
        is_fragment = number == frames.FRAGMENT
    if is_fragment:
        return "fragment"
    if headers.l4 is not None:
        return headers.l4.name
    names = {frames.ICMP: "ICMP", frames.ICMPV6: "ICMPv6"}
    return names.get(number, f"IPv{headers.version}")


def _not_ip(frame: bytes, offset: int) -> str:
    ethertype = _be16(frame, offset)
    return "ARP" if ethertype == frames.ETHERTYPE_ARP else f"EtherType {ethertype:#06x}"


def _endpoint(address: bytes, port: bytes) -> str:
    text = str(ip_address(address))
    if not port:
        return text
    number = int.from_bytes(port, "big")
    return f"[{text}]:{number}" if len(address) == 16 else f"{text}:{number}"


def _be16(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 2], "big")
