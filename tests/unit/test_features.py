# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Feature bits against the kernel's header, and the requirements of virtio 5.1.3.1."""

import re
from pathlib import Path

import pytest

from vnethash.errors import ConfigError
from vnethash.virtio.features import (
    OFFER_REQUIRES,
    REQUIRES,
    Feature,
    feature_bits,
    feature_set,
    format_features,
    parse_features,
    unmet,
)

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


def test_what_no_device_should_offer_alone() -> None:
    assert unmet([Feature.HASH_REPORT], OFFER_REQUIRES) == {
        Feature.HASH_REPORT: (frozenset({Feature.CTRL_VQ}),)
    }
    assert OFFER_REQUIRES.items() >= REQUIRES.items()


AVAILABLE = frozenset(
    {
        Feature.CTRL_VQ,
        Feature.RSS,
        Feature.HASH_REPORT,
        Feature.MRG_RXBUF,
        Feature.VERSION_1,
    }
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("all", ["mrg-rxbuf", "ctrl-vq", "version-1", "hash-report", "rss"]),
        ("ALL", ["mrg-rxbuf", "ctrl-vq", "version-1", "hash-report", "rss"]),
        ("all,-rss", ["mrg-rxbuf", "ctrl-vq", "version-1", "hash-report"]),
        ("-rss, -mrg_rxbuf", ["ctrl-vq", "version-1", "hash-report"]),
        ("all,-ctrl-vq,-rss,-hash-report", ["mrg-rxbuf", "version-1"]),
        ("-all,MRG_RXBUF", ["mrg-rxbuf", "version-1"]),
        ("Rss,ctrl-VQ", ["ctrl-vq", "version-1", "rss"]),
        ("rss,-rss", ["version-1"]),
        ("-version-1", ["mrg-rxbuf", "ctrl-vq", "version-1", "hash-report", "rss"]),
    ],
)
def test_features_by_name(text: str, names: list[str]) -> None:
    features = parse_features(text, AVAILABLE)
    assert format_features(features) == names
    assert parse_features(",".join(names), AVAILABLE) == features


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("rss,hsah-report", "'hsah-report' is not a feature"),
        ("", "a name is missing"),
        ("all,", "a name is missing"),
        ("-", "a name is missing"),
        ("all,--rss", "'-rss' is not a feature"),
        ("mq", "mq is not available here"),
        ("-mq", "mq is not available here"),
        ("rss", "rss needs ctrl-vq"),
        ("-ctrl-vq", "hash-report needs ctrl-vq; rss needs ctrl-vq"),
    ],
)
def test_no_features(text: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_features(text, AVAILABLE)
    assert (caught.value.field, caught.value.rule) == ("features", rule)
    assert caught.value.hint
