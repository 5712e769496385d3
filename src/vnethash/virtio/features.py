# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Feature bits of a network device and which of them need others.

virtio 1.3, 5.1.3 (network), 5.1.3.1 (requirements) and 6 (reserved bits).
"""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from types import MappingProxyType

from vnethash.errors import ConfigError


class Feature(IntEnum):
    """Bit numbers, named without the prefix (virtio 1.3, 5.1.3 and 6)."""

    # VIRTIO_NET_F_*, virtio 1.3, 5.1.3
    CSUM = 0
    GUEST_CSUM = 1
    CTRL_GUEST_OFFLOADS = 2
    MTU = 3
    MAC = 5
    GUEST_TSO4 = 7
    GUEST_TSO6 = 8
    GUEST_ECN = 9
    GUEST_UFO = 10
    HOST_TSO4 = 11
    HOST_TSO6 = 12
    HOST_ECN = 13
    HOST_UFO = 14
    MRG_RXBUF = 15
    STATUS = 16
    CTRL_VQ = 17
    CTRL_RX = 18
    CTRL_VLAN = 19
    CTRL_RX_EXTRA = 20
    GUEST_ANNOUNCE = 21
    MQ = 22
    CTRL_MAC_ADDR = 23
    HASH_TUNNEL = 51
    VQ_NOTF_COAL = 52
    NOTF_COAL = 53
    GUEST_USO4 = 54
    GUEST_USO6 = 55
    HOST_USO = 56
    HASH_REPORT = 57
    GUEST_HDRLEN = 59
    RSS = 60
    RSC_EXT = 61
    STANDBY = 62
    SPEED_DUPLEX = 63

    # Added by virtio 1.4, same section
    DEVICE_STATS = 50
    RSS_CONTEXT = 64
    GUEST_UDP_TUNNEL_GSO = 65
    GUEST_UDP_TUNNEL_GSO_CSUM = 66
    HOST_UDP_TUNNEL_GSO = 67
    HOST_UDP_TUNNEL_GSO_CSUM = 68
    OUT_NET_HEADER = 69
    IPSEC = 70

    # VIRTIO_F_*, virtio 1.3, 6: those that change how a ring is read
    INDIRECT_DESC = 28
    EVENT_IDX = 29
    VERSION_1 = 32
    ACCESS_PLATFORM = 33
    RING_PACKED = 34
    IN_ORDER = 35
    RING_RESET = 40


Requirement = tuple[frozenset[Feature], ...]
"""All of these groups are needed, and any one feature of a group meets it."""


def _all_of(*features: Feature) -> Requirement:
    return tuple(frozenset({feature}) for feature in features)


def _any_of(*features: Feature) -> Requirement:
    return (frozenset(features),)


REQUIRES: Mapping[Feature, Requirement] = MappingProxyType(
    {
        Feature.GUEST_TSO4: _all_of(Feature.GUEST_CSUM),
        Feature.GUEST_TSO6: _all_of(Feature.GUEST_CSUM),
        Feature.GUEST_ECN: _any_of(Feature.GUEST_TSO4, Feature.GUEST_TSO6),
        Feature.GUEST_UFO: _all_of(Feature.GUEST_CSUM),
        Feature.GUEST_USO4: _all_of(Feature.GUEST_CSUM),
        Feature.GUEST_USO6: _all_of(Feature.GUEST_CSUM),
        Feature.GUEST_UDP_TUNNEL_GSO: _all_of(
            Feature.GUEST_TSO4, Feature.GUEST_TSO6, Feature.GUEST_USO4, Feature.GUEST_USO6
        ),
        Feature.GUEST_UDP_TUNNEL_GSO_CSUM: _all_of(Feature.GUEST_UDP_TUNNEL_GSO),
        Feature.HOST_TSO4: _all_of(Feature.CSUM),
        Feature.HOST_TSO6: _all_of(Feature.CSUM),
        Feature.HOST_ECN: _any_of(Feature.HOST_TSO4, Feature.HOST_TSO6),
        Feature.HOST_UFO: _all_of(Feature.CSUM),
        Feature.HOST_USO: _all_of(Feature.CSUM),
        Feature.HOST_UDP_TUNNEL_GSO: _all_of(
            Feature.HOST_TSO4, Feature.HOST_TSO6, Feature.HOST_USO
        ),
        Feature.HOST_UDP_TUNNEL_GSO_CSUM: _all_of(Feature.HOST_UDP_TUNNEL_GSO),
        Feature.CTRL_RX: _all_of(Feature.CTRL_VQ),
        Feature.CTRL_VLAN: _all_of(Feature.CTRL_VQ),
        Feature.GUEST_ANNOUNCE: _all_of(Feature.CTRL_VQ),
        Feature.MQ: _all_of(Feature.CTRL_VQ),
        Feature.CTRL_MAC_ADDR: _all_of(Feature.CTRL_VQ),
        Feature.NOTF_COAL: _all_of(Feature.CTRL_VQ),
        Feature.RSC_EXT: _any_of(Feature.HOST_TSO4, Feature.HOST_TSO6),
        Feature.RSS: _all_of(Feature.CTRL_VQ),
        Feature.VQ_NOTF_COAL: _all_of(Feature.CTRL_VQ),
        Feature.HASH_TUNNEL: _all_of(Feature.CTRL_VQ) + _any_of(Feature.RSS, Feature.HASH_REPORT),
        Feature.RSS_CONTEXT: _all_of(Feature.CTRL_VQ, Feature.RSS),
    }
)
"""Virtio 1.3, 5.1.3.1, and 1.4 for the features it added."""


OFFER_REQUIRES: Mapping[Feature, Requirement] = MappingProxyType(
    {
        **REQUIRES,
        Feature.CTRL_GUEST_OFFLOADS: _all_of(Feature.CTRL_VQ),
        Feature.CTRL_RX_EXTRA: _all_of(Feature.CTRL_VQ),
        Feature.HASH_REPORT: _all_of(Feature.CTRL_VQ),
    }
)
"""REQUIRES, and what no device should offer alone (virtio 1.3, 5.1.4.1) or could not be told."""


def unmet(
    features: Iterable[Feature], requires: Mapping[Feature, Requirement] = REQUIRES
) -> dict[Feature, Requirement]:
    """Which of ``features`` lack others, each with the groups nothing in the set meets.

    Empty if the set may be offered or accepted as it is.
    """
    present = frozenset(features)
    missing = {
        feature: tuple(group for group in requires.get(feature, ()) if not group & present)
        for feature in sorted(present)
    }
    return {feature: groups for feature, groups in missing.items() if groups}


def feature_bits(features: Iterable[Feature]) -> int:
    """The set as the number that goes over the wire, bit ``n`` for feature ``n``."""
    bits = 0
    for feature in features:
        bits |= 1 << feature
    return bits


def feature_set(bits: int) -> frozenset[Feature]:
    """The features of a number from the wire; bits without a name here are left out."""
    return frozenset(feature for feature in Feature if bits >> feature & 1)


def format_features(features: Iterable[Feature]) -> list[str]:
    """``["ctrl-vq", "rss"]``: names as ``parse_features`` takes them, in the order of the bits."""
    return [_name(feature) for feature in sorted(features)]


def format_unmet(missing: Mapping[Feature, Requirement]) -> str:
    """What ``unmet`` found, in words; ``missing`` is not empty."""
    return "; ".join(
        f"{_name(feature)} needs {' and '.join(' or '.join(format_features(g)) for g in groups)}"
        for feature, groups in missing.items()
    )


def parse_features(text: str, available: Iterable[Feature]) -> frozenset[Feature]:
    """``"ctrl-vq,rss,hash-report"``, ``"all"`` or ``"all,-rss"``, in any case, as a set.

    The words are taken from left to right: ``all`` adds everything
    ``available``, ``-name`` takes one away, and a list that begins with one
    begins with all. VERSION_1 is always there. ConfigError names a word that
    is no feature or not available, and features without those they need.
    """
    choice = frozenset(available)
    words = [word.strip().lower().replace("_", "-") for word in text.split(",")]
    features = choice if words[0].startswith("-") else frozenset[Feature]()
    for word in words:
        name = word.removeprefix("-")
        if name == "all":
            named = choice
        elif name in _BY_NAME:
            named = frozenset({_BY_NAME[name]})
        else:
            raise ConfigError(
                "features",
                f"{name!r} is not a feature" if name else "a name is missing",
                hint=f"use all, or names of: {','.join(format_features(choice))}",
            )
        if not named <= choice:
            raise ConfigError(
                "features",
                f"{name} is not available here",
                hint=f"available: {','.join(format_features(choice))}",
            )
        features = features - named if word.startswith("-") else features | named
    features |= {Feature.VERSION_1}
    missing = unmet(features, OFFER_REQUIRES)
    if missing:
        raise ConfigError(
            "features", format_unmet(missing), hint="add what is needed, or leave both out"
        )
    return features


def _name(feature: Feature) -> str:
    return feature.name.lower().replace("_", "-")


_BY_NAME: Mapping[str, Feature] = MappingProxyType({_name(feature): feature for feature in Feature})
