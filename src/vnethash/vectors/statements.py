# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The statements that vectors test: rows of docs/conformance.md, in short."""

from typing import NamedTuple

from vnethash.virtio.hash_types import ReportType


class Statement(NamedTuple):
    """One demand of virtio 1.3, or one rule of vnethash where virtio is silent."""

    section: str
    text: str


STATEMENTS = {
    "HASH-7": Statement("5.1.3", "the hash is Toeplitz's, with the key that was set"),
    "IP4-1": Statement("5.1.6.4.3.2", "TCPv4: addresses, then TCP ports"),
    "IP4-2": Statement("5.1.6.4.3.2", "else UDPv4: addresses, then UDP ports"),
    "IP4-3": Statement("5.1.6.4.3.2", "else IPv4: addresses, whatever follows"),
    "IP4-4": Statement("5.1.6.4.3.2", "else no hash"),
    "IP6-1": Statement("5.1.6.4.3.3", "TCPv6: addresses, then TCP ports"),
    "IP6-2": Statement("5.1.6.4.3.3", "else UDPv6: addresses, then UDP ports"),
    "IP6-3": Statement("5.1.6.4.3.3", "else IPv6: addresses, whatever follows"),
    "IP6-4": Statement("5.1.6.4.3.3", "else no hash"),
    "EXT-2": Statement("5.1.6.4.3.4", "extension headers, TCP_EX: addresses, then TCP ports"),
    "EXT-3": Statement("5.1.6.4.3.4", "else UDP_EX: addresses, then UDP ports"),
    "EXT-4": Statement("5.1.6.4.3.4", "else IP_EX: addresses"),
    "EXT-5": Statement("5.1.6.4.3.4", "else as without extension headers"),
    "EXT-6": Statement("5.1.6.4.3.4", "home address in the place of the source"),
    "EXT-7": Statement("5.1.6.4.3.4", "type 2 routing address in the place of the destination"),
    "TUN-6": Statement("5.1.6.4.4.1", "enabled tunnel: the inner headers"),
    "TUN-7": Statement("5.1.6.4.4.1", "any other packet: the outer headers"),
    "TUN-8": Statement("5.1.6.4.4.1", "one level of tunnels"),
    "REP-2": Statement("5.1.6.4.5", "no hash: report type NONE"),
    "REP-6": Statement("5.1.6.4.5", "a hash of 0 is a hash"),
    "STEER-2": Statement("5.1.6.5.7.3", "no hash: the unclassified queue"),
    "STEER-3": Statement("5.1.6.5.7.3", "the queue in the table at the masked hash"),
    "OPEN-1": Statement("5.1.6.4.3", "packets cut short"),
    "OPEN-2": Statement("5.1.6.4.3", "where a packet ends"),
    "OPEN-3": Statement("5.1.6.4.3", "what a TCP or UDP header is"),
    "OPEN-4": Statement("5.1.6.4.3", "VLAN tags"),
    "OPEN-5": Statement("5.1.6.4.3", "802.3 with LLC"),
    "OPEN-6": Statement("5.1.6.4.3", "PPPoE, MPLS, other tags"),
    "OPEN-7": Statement("5.1.6.4.3", "no Ethernet header"),
    "OPEN-8": Statement("5.1.6.4.3", "versions, the IPv4 header"),
    "OPEN-9": Statement("5.1.6.4.3.2", "IPv4 fragments"),
    "OPEN-10": Statement("5.1.6.4.3.4", "which headers are extension headers"),
    "OPEN-11": Statement("5.1.6.4.3.4", "extension headers cut short"),
    "OPEN-12": Statement("5.1.6.4.3.4", "how many extension headers"),
    "OPEN-13": Statement("5.1.6.4.3.4", "IPv6 fragments"),
    "OPEN-14": Statement("5.1.6.4.3.4", "addresses in front of a fragment or cut"),
    "OPEN-15": Statement("5.1.6.4.3.4", "which type 2 routing header counts"),
    "OPEN-16": Statement("5.1.6.4.3.4", "which home address counts"),
    "OPEN-17": Statement("5.1.6.4.3.4", "options that overrun their header"),
    "OPEN-21": Statement("5.1.6.4.4", "what makes a tunnel"),
    "OPEN-22": Statement("5.1.6.4.4", "what is inside"),
    "OPEN-23": Statement("5.1.6.4.4", "IP in IP"),
    "OPEN-24": Statement("5.1.6.4.4", "GRE"),
    "OPEN-25": Statement("5.1.6.4.4", "tunnels in UDP"),
    "OPEN-26": Statement("5.1.6.4.4", "VXLAN-GPE"),
    "OPEN-27": Statement("5.1.6.4.4", "packets of several tunnel types"),
}
"""By the id of the row."""

_BY_REPORT = {
    ReportType.TCPv4: "IP4-1",
    ReportType.UDPv4: "IP4-2",
    ReportType.IPv4: "IP4-3",
    ReportType.TCPv6: "IP6-1",
    ReportType.UDPv6: "IP6-2",
    ReportType.IPv6: "IP6-3",
    ReportType.TCPv6_EX: "EXT-2",
    ReportType.UDPv6_EX: "EXT-3",
    ReportType.IPv6_EX: "EXT-4",
}


def of_report(report: ReportType, *, has_extension: bool) -> str:
    """The statement by which a packet that is hashed gets this report type."""
    if has_extension and not report.name.endswith("_EX"):
        return "EXT-5"
    return _BY_REPORT[report]
