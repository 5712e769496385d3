# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Devices, control commands and states to test with, by hand and generated."""

from collections.abc import Iterable

from hypothesis import strategies as st

from vnethash.virtio.control import (
    AnnounceAck,
    Command,
    GuestOffloadsSet,
    HashConfigSet,
    HashTunnelSet,
    MacAddrSet,
    MacTableSet,
    RssConfigSet,
    RxMode,
    RxModeSet,
    VlanAdd,
    VlanDel,
    VqPairsSet,
)
from vnethash.virtio.device import MODELLED, OFFLOADS, NetDevice, Offer
from vnethash.virtio.features import Feature, feature_bits, unmet
from vnethash.virtio.hash_types import HashType, TunnelType

MAC = bytes.fromhex("020000000001")
OTHER_MAC = bytes.fromhex("020000000002")
GROUP_MAC = bytes.fromhex("01005e000001")
KEY = bytes(range(40))


def an_offer(
    features: Iterable[Feature] = MODELLED, *, queue_pairs: int = 4, max_indirection: int = 128
) -> Offer:
    """Everything there is, or only ``features``, and VERSION_1."""
    offered = frozenset(features) | {Feature.VERSION_1}
    return Offer(
        features=offered,
        queue_pairs=queue_pairs,
        mac=MAC,
        mtu=1500 if Feature.MTU in offered else None,
        max_indirection=max_indirection,
        tunnel_types=TunnelType.VXLAN | TunnelType.GENEVE,
    )


def a_device(features: Iterable[Feature] = MODELLED) -> NetDevice:
    """One that offers everything, of which the driver took ``features`` and VERSION_1."""
    device = NetDevice(an_offer())
    device.commit(device.negotiated(feature_bits(features) | feature_bits([Feature.VERSION_1])))
    return device


def rss_config(
    hash_types: int = HashType.TCPv4 | HashType.IPv4,
    indirection_table: tuple[int, ...] = (0, 1, 2, 3),
    unclassified_queue: int = 0,
    max_tx_vq: int = 4,
    hash_key: bytes = KEY,
) -> RssConfigSet:
    return RssConfigSet(
        hash_types=hash_types,
        indirection_table=indirection_table,
        unclassified_queue=unclassified_queue,
        max_tx_vq=max_tx_vq,
        hash_key=hash_key,
    )


def _tables(queue: st.SearchStrategy[int], longest: int) -> st.SearchStrategy[tuple[int, ...]]:
    sizes = st.sampled_from([1 << n for n in range(longest.bit_length())])
    return sizes.flatmap(lambda size: st.tuples(*[queue] * size))


_U16 = st.integers(0, 0xFFFF)
_U32 = st.integers(0, 0xFFFFFFFF)
_SIX = st.binary(min_size=6, max_size=6)

COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(RxModeSet, st.sampled_from(RxMode), st.booleans()),
    st.builds(MacTableSet, *[st.lists(_SIX, max_size=5).map(tuple)] * 2),
    st.builds(MacAddrSet, _SIX),
    st.builds(VlanAdd, _U16),
    st.builds(VlanDel, _U16),
    st.just(AnnounceAck()),
    st.builds(VqPairsSet, _U16),
    st.builds(
        RssConfigSet,
        hash_types=_U32,
        indirection_table=_tables(st.integers(0, 0x7FFF), 16),
        unclassified_queue=st.integers(0, 0x7FFF),
        max_tx_vq=_U16,
        hash_key=st.binary(max_size=255),
    ),
    st.builds(HashConfigSet, hash_types=_U32, hash_key=st.binary(max_size=255)),
    st.builds(GuestOffloadsSet, st.integers(0, (1 << 64) - 1)),
    st.builds(HashTunnelSet, _U32),
)
"""Any command that has a form, whether a device can do it or not."""

_TYPES = st.integers(0, HashType.ALL)
_STATIONS = _SIX.map(lambda mac: bytes([mac[0] & 0xFE | 2]) + mac[1:])
_GROUPS = _SIX.map(lambda mac: bytes([mac[0] | 1]) + mac[1:])

SENSIBLE_COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(RxModeSet, st.sampled_from(RxMode), st.booleans()),
    st.builds(
        MacTableSet, *[st.lists(macs, max_size=5).map(tuple) for macs in (_STATIONS, _GROUPS)]
    ),
    st.builds(MacAddrSet, _STATIONS),
    st.builds(VlanAdd, st.integers(0, 4094)),
    st.builds(VlanDel, st.integers(0, 4094)),
    st.just(AnnounceAck()),
    st.builds(VqPairsSet, st.integers(1, 4)),
    st.builds(
        RssConfigSet,
        hash_types=_TYPES,
        indirection_table=_tables(st.integers(0, 3), 16),
        unclassified_queue=st.integers(0, 3),
        max_tx_vq=st.integers(1, 4),
        hash_key=st.binary(min_size=1, max_size=40),
    ),
    st.builds(HashConfigSet, hash_types=_TYPES, hash_key=st.binary(min_size=1, max_size=40)),
    st.builds(GuestOffloadsSet, st.frozensets(st.sampled_from(sorted(OFFLOADS))).map(feature_bits)),
    st.builds(HashTunnelSet, st.sampled_from([0, TunnelType.VXLAN, TunnelType.GENEVE])),
)
"""Commands that ``a_device`` does if their features were negotiated (offloads: mostly)."""

FEATURE_SETS: st.SearchStrategy[frozenset[Feature]] = st.one_of(
    st.just(frozenset(MODELLED)),
    st.frozensets(st.sampled_from(sorted(MODELLED))).map(lambda features: closed(features)),
)
"""Sets that may be negotiated."""


def closed(features: frozenset[Feature]) -> frozenset[Feature]:
    """``features``, VERSION_1, and the first of each that they need."""
    features |= {Feature.VERSION_1}
    while missing := unmet(features):
        features |= {min(group) for groups in missing.values() for group in groups}
    return features


@st.composite
def devices(draw: st.DrawFn) -> NetDevice:
    """One that took any features and did what it could of any sensible commands."""
    device = a_device(draw(FEATURE_SETS))
    device.commit(device.announced() or device.state)
    for command in draw(st.lists(SENSIBLE_COMMANDS, max_size=12)):
        device.commit(device.judge(command.encode()).state or device.state)
    return device
