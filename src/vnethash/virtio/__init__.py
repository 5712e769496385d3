# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What the virtio specification says of a network device. No I/O in here.

The device itself is not imported with the package, because few need it:
``device``, ``control``, ``config_space``, ``receive_filter``, ``device_state``.
"""

from vnethash.virtio.features import (
    REQUIRES,
    Feature,
    feature_bits,
    feature_set,
    format_features,
    parse_features,
    unmet,
)
from vnethash.virtio.hash_types import (
    HashType,
    ReportType,
    TunnelType,
    format_hash_types,
    format_tunnel_types,
    parse_hash_types,
    parse_tunnel_types,
)
from vnethash.virtio.header import GSO_ECN, HASH_SIZE, V1_SIZE, Buffer, GsoType, Header, HeaderFlag

__all__ = [
    "GSO_ECN",
    "HASH_SIZE",
    "REQUIRES",
    "V1_SIZE",
    "Buffer",
    "Feature",
    "GsoType",
    "HashType",
    "Header",
    "HeaderFlag",
    "ReportType",
    "TunnelType",
    "feature_bits",
    "feature_set",
    "format_features",
    "format_hash_types",
    "format_tunnel_types",
    "parse_features",
    "parse_hash_types",
    "parse_tunnel_types",
    "unmet",
]
