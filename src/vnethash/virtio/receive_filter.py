# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which frames a device hands to its driver (virtio 1.3, 5.1.6.5.1 to 5.1.6.5.3)."""

from dataclasses import dataclass, replace

ETHERNET_HEADER = 14
"""Bytes."""

VLAN_MASK = 0xFFF
"""A VLAN id is the last 12 bits of the tag."""

BROADCAST = b"\xff" * 6

TAGGED_HEADER = 18
"""Bytes of one with a VLAN tag (IEEE 802.1Q)."""

_TPID = b"\x81\x00"


def is_group(mac: bytes) -> bool:
    """Whether the address is of a group, multicast or broadcast (IEEE 802)."""
    return bool(mac[0] & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveFilter:
    """What the driver wants to receive. By default that is everything."""

    promiscuous: bool = False
    """Everything, whatever the rest says."""
    allmulti: bool = True
    alluni: bool = True
    nomulti: bool = False
    """No multicast, even with ``allmulti``; broadcast is not meant."""
    nouni: bool = False
    """No unicast, even with ``alluni``."""
    nobcast: bool = False
    mac: bytes | None = None
    """The device's own address; None if the driver made one up and did not say."""
    unicast: frozenset[bytes] = frozenset()
    multicast: frozenset[bytes] = frozenset()
    vlans: frozenset[int] | None = None
    """VLANs of tagged frames; None: all."""

    def accepts(self, frame: bytes) -> bool:
        """Whether this frame, from its destination address on, goes to the driver.

        The reference that the data path is compared with. A tag is one of
        IEEE 802.1Q, 8100, behind the addresses and whole; with VLAN 0 it only
        carries a priority. What is shorter than an Ethernet header is
        accepted if everything is.
        """
        if self.promiscuous:
            return True
        if len(frame) < ETHERNET_HEADER:
            return False
        tagged = len(frame) >= TAGGED_HEADER and frame[12:14] == _TPID
        vlan = int.from_bytes(frame[14:16], "big") & VLAN_MASK if tagged else 0
        if vlan and self.vlans is not None and vlan not in self.vlans:
            return False
        destination = frame[:6]
        if destination == BROADCAST:
            return not self.nobcast
        if is_group(destination):
            return not self.nomulti and (self.allmulti or destination in self.multicast)
        return not self.nouni and (
            self.alluni
            or self.mac is None
            or destination == self.mac
            or destination in self.unicast
        )

    def limited(self, addresses: int) -> "ReceiveFilter":
        """One with at most so many addresses a table: a larger one becomes all of its kind.

        The specification allows it: filtering is best effort (5.1.6.5.2, footnote).
        """
        limited = self
        if len(self.unicast) > addresses:
            limited = replace(limited, alluni=True, unicast=frozenset())
        if len(self.multicast) > addresses:
            limited = replace(limited, allmulti=True, multicast=frozenset())
        return limited
