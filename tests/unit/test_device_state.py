# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Export, import, and what another host cannot take over."""

import contextlib
import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.net_device import GROUP_MAC, KEY, MAC, OTHER_MAC, a_device, an_offer, devices, rss_config
from vnethash.errors import ConfigError
from vnethash.virtio.control import (
    Command,
    HashConfigSet,
    HashTunnelSet,
    MacAddrSet,
    MacTableSet,
    RxMode,
    RxModeSet,
    VlanAdd,
    VqPairsSet,
)
from vnethash.virtio.device import MODELLED, NetDevice, Offer
from vnethash.virtio.device_state import check_target, export_state, import_state
from vnethash.virtio.features import Feature, format_features
from vnethash.virtio.hash_types import HashType, TunnelType

F = Feature


def used_device() -> NetDevice:
    """A device whose driver has set something of everything."""
    device = a_device()
    for command in (
        MacAddrSet(OTHER_MAC),
        MacTableSet((MAC,), (GROUP_MAC,)),
        RxModeSet(RxMode.ALLMULTI, True),
        VlanAdd(7),
        VlanAdd(5),
        HashTunnelSet(TunnelType.VXLAN),
        VqPairsSet(3),
        rss_config(HashType.TCPv4 | HashType.UDP_EX, (0, 3), 1, 2, KEY),
    ):
        state = device.judge(command.encode()).state
        assert state is not None
        device.commit(state)
    return device


def test_form() -> None:
    everything = format_features(MODELLED)
    assert export_state(used_device()) == {
        "version": 1,
        "offer": {
            "features": everything,
            "queue_pairs": 4,
            "mac": "02:00:00:00:00:01",
            "mtu": 1500,
            "hash_types": [str(kind.name) for kind in HashType],
            "max_indirection": 128,
            "tunnel_types": ["VXLAN", "GENEVE"],
            "speed": 0xFFFFFFFF,
            "duplex": 255,
        },
        "state": {
            "features": everything,
            "steering": {"indirection_table": [0, 3], "unclassified_queue": 1, "max_tx_vq": 2},
            "queue_pairs": 3,
            "hash_types": ["TCPv4", "UDP_EX"],
            "hash_key": KEY.hex(),
            "tunnel_types": ["VXLAN"],
            "offloads": [
                "guest-csum",
                "guest-tso4",
                "guest-tso6",
                "guest-ecn",
                "guest-ufo",
                "guest-uso4",
                "guest-uso6",
            ],
            "mac": "02:00:00:00:00:02",
            "rx_modes": ["ALLMULTI"],
            "unicast": ["02:00:00:00:00:01"],
            "multicast": ["01:00:5e:00:00:01"],
            "vlans": [5, 7],
            "link_up": True,
            "announce": False,
        },
    }


@given(devices(), st.booleans())
@settings(max_examples=examples(200), deadline=None)
def test_there_and_back(device: NetDevice, link_up: bool) -> None:
    device.commit(replace(device.state, link_up=link_up))
    form = export_state(device)
    for data in (form, json.dumps(form)):
        back = import_state(data)
        assert (back.offer, back.state) == (device.offer, device.state)
    assert check_target(device, device.offer) == []


@pytest.mark.parametrize(
    ("features", "sent"),
    [
        # What is hashed outlives the end of RSS, and then there are other ways to have got it.
        (MODELLED, [rss_config(), VqPairsSet(1)]),
        (MODELLED, [rss_config(), VqPairsSet(3)]),
        (MODELLED, [VqPairsSet(3), rss_config(0, hash_key=b"")]),
        (MODELLED - {F.MQ}, [rss_config()]),
        (MODELLED - {F.RSS}, [HashConfigSet(hash_types=1, hash_key=KEY), VqPairsSet(2)]),
    ],
)
def test_both_kinds_of_steering(features: frozenset[Feature], sent: list[Command]) -> None:
    device = a_device(features)
    for command in sent:
        state = device.judge(command.encode()).state
        assert state is not None
        device.commit(state)
    assert import_state(export_state(device)).state == device.state


def test_before_negotiation() -> None:
    device = NetDevice(an_offer())
    assert import_state(export_state(device)).state == device.state


def test_control_queue_elsewhere() -> None:
    device = NetDevice(an_offer())
    bits = 1 << F.VERSION_1 | 1 << F.MQ
    device.commit(device.negotiated(bits, control_elsewhere=True))
    assert import_state(export_state(device)).state == device.state


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "nul", '{"version": 1e999999}'])
def test_no_json(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        import_state(text)
    assert caught.value.field in ("json", "version")


@pytest.mark.parametrize(
    ("path", "value", "field", "rule"),
    [
        ("version", 2, "version", "is 2, but only 1 is known here"),
        ("version", True, "version", "must be an integer"),
        ("offer", [], "offer", "must be an object"),
        ("offer.queue_pairs", "4", "offer.queue_pairs", "must be an integer"),
        ("offer.queue_pairs", 0, "queue_pairs", "must be from 1 to 32768, not 0"),
        ("offer.mac", "02:00", "offer.mac", "must be an address like"),
        ("offer.mac", 2, "offer.mac", "must be a string"),
        ("offer.features", "all", "offer.features", "must be a list"),
        ("offer.features", ["rss", "x"], "offer.features[1]", "'x' is not known"),
        ("offer.hash_types", ["SCTP"], "offer.hash_types[0]", "'SCTP' is not known"),
        ("offer.mtu", 1.5, "offer.mtu", "must be an integer"),
        ("state", None, "state", "must be an object"),
        ("state.features", ["version-1", "rss"], "state", "MAC_ADDR_SET needs ctrl-vq"),
        ("state.features", ["rss"], "state.features", "version-1 was not accepted"),
        ("state.features", ["version-1", "notf-coal"], "state.features", "accepted, but not"),
        ("state.steering.indirection_table", [0, 9], "state", "MQ_RSS_CONFIG sends to queue 9"),
        ("state.steering.indirection_table", [0, 0, 0], "state", "MQ_RSS_CONFIG has a mask 0x2"),
        ("state.steering.indirection_table", [], "indirection_table_mask", "-1 does not fit"),
        ("state.steering.indirection_table", [0, None], "state.steering.indirection_table[1]", ""),
        ("state.steering.max_tx_vq", -1, "max_tx_vq", "-1 does not fit into 2 bytes"),
        ("state.queue_pairs", 5, "state", "MQ_VQ_PAIRS_SET asks for 5 pairs, of 4"),
        ("state.hash_key", "xy", "state.hash_key", "must be hexadecimal digits"),
        ("state.hash_key", "00", "state.hash_key", "cannot have come about"),
        ("state.hash_key", "", "state", "MQ_RSS_CONFIG has hash types, but no key"),
        ("state.hash_key", "00" * 41, "state", "MQ_RSS_CONFIG has a key of 41 bytes"),
        ("state.tunnel_types", ["IPIP"], "state", "HASH_TUNNEL_SET has tunnel types that are"),
        ("state.offloads", ["guest-tso4"], "state", "GUEST_OFFLOADS_SET has offloads without"),
        ("state.offloads", ["rss"], "state", "GUEST_OFFLOADS_SET has offloads that were not"),
        ("state.mac", None, "state.mac", "cannot have come about"),
        ("state.mac", "01:00:00:00:00:00", "state", "MAC_ADDR_SET 01:00:00:00:00:00 is not"),
        ("state.rx_modes", ["ALL"], "state.rx_modes[0]", "'ALL' is not known"),
        ("state.unicast", ["01:00:5e:00:00:01"], "state", "MAC_TABLE_SET has 01:00:5e:00:00:01"),
        ("state.multicast", ["02:00:00:00:00:01"], "state", "MAC_TABLE_SET has 02:00:00:00:00:01"),
        ("state.vlans", [4095], "state", "VLAN_ADD has the VLAN id 4095"),
        ("state.vlans", [-1], "vlan", "-1 does not fit into 2 bytes"),
        ("state.link_up", 1, "state.link_up", "must be true or false"),
    ],
)
def test_refused(path: str, value: Any, field: str, rule: str) -> None:
    form = export_state(used_device())
    *way, name = path.split(".")
    place = form
    for step in way:
        place = place[step]
    place[name] = value
    with pytest.raises(ConfigError) as caught:
        import_state(json.dumps(form))
    assert caught.value.field == field
    assert caught.value.rule.startswith(rule)


def test_nobody_to_announce() -> None:
    form = export_state(a_device({F.CTRL_VQ}))
    form["state"]["announce"] = True
    with pytest.raises(ConfigError, match=r"state\.announce: cannot have come about"):
        import_state(form)


def test_hashing_that_was_not_negotiated() -> None:
    form = export_state(a_device({F.CTRL_VQ}))
    form["state"] |= {"hash_types": ["IPv4"]}
    with pytest.raises(ConfigError, match="MQ_HASH_CONFIG needs hash-report"):
        import_state(form)


@pytest.mark.parametrize("path", ["", "offer", "state"])
def test_every_field_is_needed_and_no_other_is_known(path: str) -> None:
    whole = export_state(used_device())
    prefix = f"{path}." if path else ""
    for name in [*(whole[path] if path else whole)]:
        form = copy.deepcopy(whole)
        del (form[path] if path else form)[name]
        with pytest.raises(ConfigError) as caught:
            import_state(form)
        assert (caught.value.field, caught.value.rule) == (prefix + name, "is missing")
    (whole[path] if path else whole)["new"] = 1
    with pytest.raises(ConfigError) as caught:
        import_state(whole)
    assert (caught.value.field, caught.value.rule) == (f"{prefix}new", "is not known")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON)
@settings(max_examples=examples(200))
def test_any_json_is_refused_or_a_device(data: Any) -> None:
    with contextlib.suppress(ConfigError):
        import_state(json.dumps(data))


@given(devices(), JSON, st.data())
@settings(max_examples=examples(300), deadline=None)
def test_any_value_anywhere_is_refused_or_a_device(
    device: NetDevice, value: Any, data: st.DataObject
) -> None:
    form = export_state(device)
    part = form[data.draw(st.sampled_from(["offer", "state"]))]
    part[data.draw(st.sampled_from(sorted(part)))] = value
    with contextlib.suppress(ConfigError):
        taken = import_state(json.dumps(form))
        assert import_state(export_state(taken)).state == taken.state


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"queue_pairs": 2}, ["queue_pairs is 2, but 4 is needed"]),
        ({"queue_pairs": 8}, ["queue_pairs is 8, but 4 is needed"]),
        ({"mtu": 9000}, ["mtu is 9000, but 1500 is needed"]),
        ({"mac": OTHER_MAC}, ["mac is 02:00:00:00:00:02, but 02:00:00:00:00:01 is needed"]),
        ({"max_indirection": 256}, []),
        (
            {"hash_types": HashType.ALL & ~HashType.UDPv4 & ~HashType.TCPv6},
            ["does not support the hash type UDPv4", "does not support the hash type TCPv6"],
        ),
        ({"tunnel_types": TunnelType.VXLAN}, ["does not support the tunnel type GENEVE"]),
        (
            {"features": frozenset(MODELLED) - {F.RSS, F.MTU}, "mtu": None},
            ["does not offer mtu", "does not offer rss", "mtu is None, but 1500 is needed"],
        ),
    ],
)
def test_what_a_target_cannot_take_over(changes: dict[str, Any], reasons: list[str]) -> None:
    assert check_target(used_device(), replace(an_offer(), **changes)) == reasons


def test_a_shorter_table_at_the_target() -> None:
    source = NetDevice(an_offer(max_indirection=512), a_device().state)
    reasons = check_target(source, an_offer())
    assert reasons == ["max_indirection is 128, but 512 is needed"]


def test_what_was_not_negotiated_need_not_be_there() -> None:
    poor = Offer(
        features=frozenset({F.VERSION_1, F.CTRL_VQ, F.HASH_REPORT}),
        queue_pairs=1,
        mac=OTHER_MAC,
        hash_types=HashType.ALL,
    )
    source = a_device({F.CTRL_VQ, F.HASH_REPORT})
    taken = source.judge(HashConfigSet(hash_types=1, hash_key=KEY).encode()).state
    assert taken is not None
    source.commit(taken)
    assert check_target(source, poor) == []
    assert check_target(source, replace(poor, hash_types=HashType.IPv4)) != []
    assert check_target(a_device(set()), replace(poor, hash_types=HashType.NONE)) == []
