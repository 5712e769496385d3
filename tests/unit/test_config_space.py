# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The configuration space against virtio 1.3, 5.1.4, and the kernel's structure."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.net_device import MAC, an_offer
from vnethash.errors import ConfigError
from vnethash.virtio.config_space import DUPLEX_FULL, ConfigSpace, LinkStatus
from vnethash.virtio.device import MODELLED, NetDevice
from vnethash.virtio.features import Feature

KERNEL_HEADER = Path("/usr/include/linux/virtio_net.h")

FULL = ConfigSpace(
    mac=MAC,
    status=LinkStatus.LINK_UP | LinkStatus.ANNOUNCE,
    max_virtqueue_pairs=0x0102,
    mtu=0x0304,
    speed=0x05060708,
    duplex=DUPLEX_FULL,
    rss_max_key_size=40,
    rss_max_indirection_table_length=0x0A0B,
    supported_hash_types=0x1FF,
    supported_tunnel_types=0x0C,
)
BYTES = bytes.fromhex("020000000001 0300 0201 0403 08070605 01 28 0b0a ff010000 0c000000")


def test_all_fields() -> None:
    assert FULL.encode() == BYTES
    assert ConfigSpace.decode(BYTES, MODELLED) == FULL
    assert ConfigSpace.decode(BYTES + bytes(200), MODELLED) == FULL


@pytest.mark.skipif(not KERNEL_HEADER.exists(), reason="needs the kernel's user headers")
def test_order_is_that_of_the_kernel() -> None:
    text = KERNEL_HEADER.read_text(encoding="utf-8")
    body = text.partition("struct virtio_net_config {")[2].partition("}")[0]
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
    names = re.findall(r"(\w+)(?:\[\w+\])?;", body)
    ours = [field.name for field in fields(ConfigSpace)]
    # Linux took another name for supported_tunnel_types, or has none.
    assert names[: len(ours) - 1] == ours[:-1]


@pytest.mark.parametrize(
    ("features", "there"),
    [
        ([], {}),
        ([Feature.STATUS], {"status"}),
        ([Feature.MQ, Feature.CTRL_VQ], {"max_virtqueue_pairs"}),
        (
            [Feature.RSS, Feature.CTRL_VQ],
            {
                "max_virtqueue_pairs",
                "rss_max_key_size",
                "rss_max_indirection_table_length",
                "supported_hash_types",
            },
        ),
        ([Feature.HASH_REPORT, Feature.CTRL_VQ], {"rss_max_key_size", "supported_hash_types"}),
        (
            [Feature.HASH_TUNNEL, Feature.HASH_REPORT, Feature.CTRL_VQ],
            {"rss_max_key_size", "supported_hash_types", "supported_tunnel_types"},
        ),
        ([Feature.MTU], {"mtu"}),
        ([Feature.SPEED_DUPLEX], {"speed", "duplex"}),
        ([Feature.CSUM, Feature.MAC], {}),
    ],
)
def test_fields_exist_with_their_features(features: list[Feature], there: set[str]) -> None:
    offer = an_offer(features)
    data = NetDevice(offer).config_space()
    space = ConfigSpace.decode(data, offer.features)
    absent = {field.name for field in fields(ConfigSpace) if getattr(space, field.name) is None}
    assert {field.name for field in fields(ConfigSpace)} - absent == {"mac", *there}
    assert space.encode() == data
    # No more than a driver that knows these features can ask for.
    with pytest.raises(ConfigError, match=f"config: must have {len(data)} bytes or more"):
        ConfigSpace.decode(data[:-1], offer.features)


@given(st.frozensets(st.sampled_from([field.name for field in fields(ConfigSpace)][1:])))
def test_gaps_are_zero(absent: frozenset[str]) -> None:
    no_value: dict[str, Any] = dict.fromkeys(absent)
    zero: dict[str, Any] = dict.fromkeys(absent, 0)
    data = replace(FULL, **no_value).encode()
    whole = ConfigSpace.decode(data.ljust(len(BYTES), b"\0"), MODELLED)
    assert whole == replace(FULL, **zero)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"mac": b"12345"}, "mac"),
        ({"mtu": 0x10000}, "mtu"),
        ({"duplex": 256}, "duplex"),
        ({"supported_hash_types": -1}, "supported_hash_types"),
    ],
)
def test_what_no_field_can_hold_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(FULL, **changes).encode()
    assert caught.value.field == field
