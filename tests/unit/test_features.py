# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Feature bits against the kernel's header, and the requirements of virtio 5.1.3.1."""

import re
from pathlib import Path

import pytest

from vnethash.virtio.features import REQUIRES, Feature, feature_bits, feature_set, unmet

KERNEL_HEADERS = [
    Path("/usr/include/linux/virtio_net.h"),
    Path("/usr/include/linux/virtio_config.h"),
    Path("/usr/include/linux/virtio_ring.h"),
]

# Linux has other names for these.
KERNEL_NAMES = {
    "VIRTIO_RING_F_INDIRECT_DESC": Feature.INDIRECT_DESC,
    "VIRTIO_RING_F_EVENT_IDX": Feature.EVENT_IDX,
}


@pytest.mark.skipif(not KERNEL_HEADERS[0].exists(), reason="needs the kernel's user headers")
def test_bits_are_those_of_the_kernel() -> None:
    compared = 0
    for header in KERNEL_HEADERS:
        for name, bit in re.findall(
            r"#define\s+(VIRTIO_\w*F_\w+)\s+(\d+)\b", header.read_text(encoding="utf-8")
        ):
            short = re.sub(r"^VIRTIO_(NET_)?F_", "", name)
            feature = KERNEL_NAMES.get(name) or Feature.__members__.get(short)
            if feature is not None:
                assert feature == int(bit), name
                compared += 1
    assert compared >= 35


def test_no_two_features_share_a_bit() -> None:
    assert len(Feature) == len(Feature.__members__)


@pytest.mark.parametrize(
    ("features", "missing"),
    [
        ((Feature.RSS,), {Feature.RSS: [{Feature.CTRL_VQ}]}),
        ((Feature.RSS, Feature.CTRL_VQ), {}),
        ((Feature.HASH_REPORT,), {}),
        (
            (Feature.HASH_TUNNEL,),
            {Feature.HASH_TUNNEL: [{Feature.CTRL_VQ}, {Feature.RSS, Feature.HASH_REPORT}]},
        ),
        ((Feature.HASH_TUNNEL, Feature.CTRL_VQ, Feature.HASH_REPORT), {}),
        ((Feature.HASH_TUNNEL, Feature.CTRL_VQ, Feature.RSS), {}),
        (
            (Feature.GUEST_ECN,),
            {Feature.GUEST_ECN: [{Feature.GUEST_TSO4, Feature.GUEST_TSO6}]},
        ),
        ((Feature.GUEST_ECN, Feature.GUEST_TSO6, Feature.GUEST_CSUM), {}),
        (
            (Feature.RSC_EXT, Feature.HOST_TSO4),
            {Feature.HOST_TSO4: [{Feature.CSUM}]},
        ),
        (
            (Feature.RSS_CONTEXT, Feature.CTRL_VQ),
            {Feature.RSS_CONTEXT: [{Feature.RSS}]},
        ),
        (
            (
                Feature.HOST_UDP_TUNNEL_GSO,
                Feature.HOST_TSO4,
                Feature.HOST_TSO6,
                Feature.CSUM,
            ),
            {Feature.HOST_UDP_TUNNEL_GSO: [{Feature.HOST_USO}]},
        ),
    ],
)
def test_unmet(features: tuple[Feature, ...], missing: dict[Feature, list[set[Feature]]]) -> None:
    assert {name: [set(group) for group in groups] for name, groups in unmet(features).items()} == (
        missing
    )


def test_everything_together_needs_nothing_more() -> None:
    assert unmet(Feature) == {}


@pytest.mark.parametrize("feature", list(REQUIRES))
def test_every_requirement_is_reported_alone(feature: Feature) -> None:
    assert unmet([feature]) == {feature: REQUIRES[feature]}


def test_number_of_the_wire() -> None:
    features = {Feature.CSUM, Feature.VERSION_1, Feature.RSS_CONTEXT}
    bits = feature_bits(features)
    assert bits == 1 | 1 << 32 | 1 << 64
    assert feature_set(bits) == features
    assert feature_set(1 << 6 | 1 << 200) == frozenset()  # no name here for either
    assert feature_set(feature_bits(Feature)) == set(Feature)
