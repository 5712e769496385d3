# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What a tap lets a device offer."""

import os

from vnethash.kernel.tun import Offload
from vnethash.vhost_user.host_tap import HostTap
from vnethash.virtio.features import Feature

_ALWAYS = frozenset(
    {
        Feature.VERSION_1,
        Feature.INDIRECT_DESC,
        Feature.EVENT_IDX,
        Feature.MRG_RXBUF,
        Feature.MAC,
        Feature.STATUS,
        Feature.CSUM,
        Feature.HOST_TSO4,
        Feature.HOST_TSO6,
        Feature.HOST_ECN,
        Feature.GUEST_CSUM,
        Feature.GUEST_TSO4,
        Feature.GUEST_TSO6,
        Feature.GUEST_ECN,
        Feature.GUEST_ANNOUNCE,
        Feature.CTRL_VQ,
        Feature.CTRL_RX,
        Feature.CTRL_RX_EXTRA,
        Feature.CTRL_VLAN,
        Feature.CTRL_MAC_ADDR,
        Feature.CTRL_GUEST_OFFLOADS,
        Feature.HASH_REPORT,
        Feature.HASH_TUNNEL,
    }
)
_USO = frozenset({Feature.HOST_USO, Feature.GUEST_USO4, Feature.GUEST_USO6})


def available(tap: HostTap, *, mtu: bool = False) -> frozenset[Feature]:
    """All features that can be offered in front of ``tap``; ``mtu``: one is to be told."""
    features = set(_ALWAYS)
    if tap.queue_pairs > 1:
        features.add(Feature.MQ)
    if tap.steers:
        features.add(Feature.RSS)
    if Offload.USO4 in tap.offloads:
        features |= _USO
    if mtu:
        features.add(Feature.MTU)
    return frozenset(features)


def random_mac() -> bytes:
    """An address for a guest: of a station, locally administered (IEEE 802)."""
    mac = bytearray(os.urandom(6))
    mac[0] = mac[0] & 0xFC | 2
    return bytes(mac)
