# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What is counted by number, in words."""

from collections.abc import Mapping
from typing import Final

from vnethash.analysis.result import Reason

REASONS: Final[Mapping[Reason, str]] = {
    Reason.NOT_IP: "not IP",
    Reason.BROKEN_IP: "IP header cut short or malformed",
    Reason.TYPE_OFF: "hash type not enabled",
    Reason.LINK_TYPE: "link type that is not read",
}

_ETHER_TYPES: Final = {
    0x0806: "ARP",
    0x22F0: "AVTP",
    0x8035: "RARP",
    0x809B: "AppleTalk",
    0x8137: "IPX",
    0x8808: "flow control",
    0x8809: "LACP",
    0x8847: "MPLS",
    0x8848: "MPLS multicast",
    0x8863: "PPPoE discovery",
    0x8864: "PPPoE session",
    0x888E: "EAPOL",
    0x88CC: "LLDP",
    0x88E5: "MACsec",
    0x88F7: "PTP",
}


def ether_type(number: int) -> str:
    """``ARP``, ``EtherType 0x1234``; 0 stands for none (`Analysis.ether_types`)."""
    if number == 0:
        return "LLC or none"
    return _ETHER_TYPES.get(number, f"EtherType {number:#06x}")
