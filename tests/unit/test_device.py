# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The device model: each rule once, with its section of virtio 1.3."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.net_device import (
    COMMANDS,
    FEATURE_SETS,
    GROUP_MAC,
    KEY,
    MAC,
    OTHER_MAC,
    SENSIBLE_COMMANDS,
    a_device,
    an_offer,
    devices,
    rss_config,
)
from vnethash.errors import ConfigError, FeatureError
from vnethash.rss import RssConfig
from vnethash.virtio.config_space import ConfigSpace, LinkStatus
from vnethash.virtio.control import (
    AnnounceAck,
    Command,
    GuestOffloadsSet,
    HashConfigSet,
    HashTunnelSet,
    MacAddrSet,
    MacTableSet,
    RxMode,
    RxModeSet,
    VlanAdd,
    VlanDel,
    VqPairsSet,
)
from vnethash.virtio.device import (
    MODELLED,
    OFFLOADS,
    DeviceState,
    NetDevice,
    Steering,
)
from vnethash.virtio.features import Feature, feature_bits
from vnethash.virtio.hash_types import HashType, TunnelType
from vnethash.virtio.receive_filter import ReceiveFilter

F = Feature
HASHING = {F.CTRL_VQ, F.MQ, F.RSS, F.HASH_REPORT}


def do(device: NetDevice, *commands: Command) -> DeviceState:
    """The device does them all."""
    for command in commands:
        judged = device.judge(command.encode())
        assert (judged.refusal, judged.command) == (None, command)
        assert judged.state is not None
        device.commit(judged.state)
    return device.state


def refused(device: NetDevice, command: Command) -> str:
    """Why the device does not do it; nothing has changed."""
    before = device.state
    judged = device.judge(command.encode())
    assert judged.state is None
    assert judged.command == command
    assert device.state is before
    assert judged.refusal is not None
    assert judged.refusal.startswith(command.name + " ")
    return judged.refusal.removeprefix(command.name + " ")


def config(device: NetDevice) -> ConfigSpace:
    return ConfigSpace.decode(device.config_space(), device.offer.features)


# What is offered


@pytest.mark.parametrize(
    ("changes", "field", "rule"),
    [
        ({"features": {F.VERSION_1, F.NOTF_COAL}}, "features", "notf-coal: not known"),
        ({"features": {F.VERSION_1, F.RING_PACKED}}, "features", "ring-packed: not known"),
        ({"features": {F.VERSION_1, F.RING_RESET}}, "features", "ring-reset: not known"),
        ({"features": HASHING | {F.RSS_CONTEXT}}, "features", "rss-context: not known"),
        ({"features": {F.CSUM}}, "features", "version-1 must be offered"),
        ({"features": {F.VERSION_1, F.RSS}}, "features", "rss needs ctrl-vq"),
        # 5.1.4.1
        ({"features": {F.VERSION_1, F.HASH_REPORT}}, "features", "hash-report needs ctrl-vq"),
        ({"features": {F.VERSION_1, F.CTRL_RX_EXTRA}}, "features", "ctrl-rx-extra needs ctrl-vq"),
        ({"queue_pairs": 0}, "queue_pairs", "must be from 1 to 32768, not 0"),
        ({"queue_pairs": 0x8001}, "queue_pairs", "must be from 1 to 32768"),
        ({"mtu": 67}, "mtu", "must be from 68 to 65535, not 67"),
        ({"mtu": 65536}, "mtu", "must be from 68 to 65535"),
        ({"mtu": None}, "mtu", "is needed with the feature mtu"),
        ({"features": {F.VERSION_1}}, "mtu", "is needed with the feature mtu, and only then"),
        ({"max_indirection": 127}, "max_indirection", "must be from 128 to 32768, not 127"),
        ({"max_indirection": 0x8001}, "max_indirection", "must be from 128 to 32768"),
        ({"mac": b"\0" * 6}, "mac", "00:00:00:00:00:00 is not a station's"),
        ({"mac": GROUP_MAC}, "mac", "01:00:5e:00:00:01 is not a station's"),
        ({"mac": b""}, "mac", "nothing is not a station's"),
        ({"mac": MAC[:5]}, "mac", "02:00:00:00:00 is not a station's"),
        ({"hash_types": HashType(0x200)}, "hash_types", "must be from 0 to 511, not 512"),
        ({"tunnel_types": TunnelType(0x200)}, "tunnel_types", "must be from 0 to 511"),
        ({"speed": 0x80000000}, "speed", "must be from 0 to 2147483647"),
        ({"duplex": 2}, "duplex", "must be 0, 1 or 255, not 2"),
    ],
)
def test_offer_rules(changes: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(an_offer(), **changes)
    assert caught.value.field == field
    assert caught.value.rule.startswith(rule)


def test_offer_at_its_limits() -> None:
    offer = replace(
        an_offer(), queue_pairs=0x8000, mtu=68, max_indirection=0x8000, speed=10_000, duplex=1
    )
    assert offer.virtqueues == 0x10001
    assert replace(offer, features=frozenset({F.VERSION_1}), mtu=None).virtqueues == 0x10000
    space = config(NetDevice(offer))
    assert (space.speed, space.duplex) == (10_000, 1)


# Negotiation: 2.2, 5.1.3.1, 6.1


@given(FEATURE_SETS)
@settings(max_examples=examples(100))
def test_any_valid_subset_is_accepted(features: frozenset[Feature]) -> None:
    device = NetDevice(an_offer())
    before = device.state
    state = device.negotiated(feature_bits(features))
    assert device.state is before
    assert state == DeviceState.initial(device.offer, features)
    assert state.features == features


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (1 << 53, "accepted, but not offered: notf-coal"),
        (1 << 6, "accepted, but not offered: 0x40"),
        (1 << 200, "accepted, but not offered: 0x1000"),
        (0, "version-1 was not accepted"),
        (feature_bits([F.CSUM]), "version-1 was not accepted"),
        (feature_bits([F.VERSION_1, F.MQ]), "without what they need: mq needs ctrl-vq"),
        (
            feature_bits([F.VERSION_1, F.GUEST_ECN, F.HASH_TUNNEL, F.CTRL_VQ]),
            "guest-ecn needs guest-tso4 or guest-tso6; hash-tunnel needs hash-report or rss",
        ),
    ],
)
def test_negotiation_refused(bits: int, message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        NetDevice(an_offer()).negotiated(bits)


def test_a_front_end_may_keep_the_control_queue_to_itself() -> None:
    device = NetDevice(an_offer())
    state = device.negotiated(
        feature_bits([F.VERSION_1, F.MQ, F.CTRL_RX, F.CTRL_VLAN]), control_elsewhere=True
    )
    device.commit(state)
    assert device.control_queue is None
    assert refused(device, VqPairsSet(2)) == "needs ctrl-vq, which was not negotiated"
    # What it does with the filters' commands is not told: nothing may be missed.
    assert state.receive_filter == ReceiveFilter()
    with pytest.raises(FeatureError, match="guest-tso4 needs guest-csum"):
        device.negotiated(feature_bits([F.VERSION_1, F.GUEST_TSO4]), control_elsewhere=True)


def test_only_offered_features_are_accepted() -> None:
    device = NetDevice(an_offer({F.CTRL_VQ, F.MQ}))
    with pytest.raises(FeatureError, match="accepted, but not offered: rss"):
        device.negotiated(feature_bits([F.VERSION_1, F.CTRL_VQ, F.RSS]))


@pytest.mark.parametrize(
    ("features", "index"),
    [
        (set(), None),
        ({F.CTRL_VQ}, 2),
        ({F.CTRL_VQ, F.HASH_REPORT}, 2),
        ({F.CTRL_VQ, F.MQ}, 8),
        ({F.CTRL_VQ, F.RSS}, 8),
    ],
)
def test_index_of_the_control_queue(features: set[Feature], index: int | None) -> None:
    assert a_device(features).control_queue == index  # 5.1.2


# The state after negotiation and reset


def test_after_negotiation() -> None:
    state = a_device().state
    assert state.receive_queues == {0}  # 5.1.6.5.6.2
    assert state.steering is None
    assert state.hash_types == HashType.NONE  # 5.1.6.5.6.4
    assert state.tunnel_types == TunnelType.NONE  # 5.1.6.4.4
    assert state.offloads == OFFLOADS  # 5.1.6.5.8.1
    assert (state.unicast, state.multicast) == (frozenset(), frozenset())  # 5.1.6.5.2.1
    assert state.receive_filter.vlans == frozenset()  # 5.1.6.5.3
    assert a_device({F.GUEST_CSUM, F.GUEST_TSO4}).state.offloads == {F.GUEST_CSUM, F.GUEST_TSO4}


@given(devices())
@settings(max_examples=examples(50))
def test_reset_forgets_everything_but_the_link(device: NetDevice) -> None:
    device.commit(replace(device.state, link_up=False))
    device.reset()
    assert device.state == replace(DeviceState.initial(device.offer), link_up=False)
    assert config(device).mac == MAC
    assert device.control_queue is None
    assert refused(device, AnnounceAck()) == "needs ctrl-vq, which was not negotiated"


@pytest.mark.parametrize(
    ("features", "size"),
    [
        (set(), 12),
        ({F.CTRL_VQ, F.RSS}, 12),
        ({F.CTRL_VQ, F.HASH_REPORT}, 20),
        ({F.CTRL_VQ, F.RSS, F.HASH_REPORT}, 20),
    ],
)
def test_size_of_the_header(features: set[Feature], size: int) -> None:
    state = a_device(features).state
    assert state.header_size == size  # 5.1.6
    assert state.reports == (size == 20)


def test_config_space() -> None:
    assert config(a_device()) == ConfigSpace(
        mac=MAC,
        status=LinkStatus.LINK_UP,
        max_virtqueue_pairs=4,
        mtu=1500,
        speed=0xFFFFFFFF,
        duplex=0xFF,
        rss_max_key_size=40,
        rss_max_indirection_table_length=128,
        supported_hash_types=HashType.ALL,
        supported_tunnel_types=TunnelType.VXLAN | TunnelType.GENEVE,
    )


def test_link_status() -> None:
    device = a_device()
    device.commit(replace(device.state, link_up=False))
    assert config(device).status == 0
    assert not device.negotiated(feature_bits(MODELLED)).link_up


# Commands whose features were not negotiated

NEEDS: list[tuple[Command, set[Feature], str]] = [
    (RxModeSet(RxMode.PROMISC, True), {F.CTRL_RX}, "ctrl-rx"),
    (RxModeSet(RxMode.ALLMULTI, True), {F.CTRL_RX}, "ctrl-rx"),
    (RxModeSet(RxMode.ALLUNI, True), {F.CTRL_RX_EXTRA}, "ctrl-rx-extra"),
    (RxModeSet(RxMode.NOMULTI, True), {F.CTRL_RX_EXTRA}, "ctrl-rx-extra"),
    (RxModeSet(RxMode.NOUNI, True), {F.CTRL_RX_EXTRA}, "ctrl-rx-extra"),
    (RxModeSet(RxMode.NOBCAST, True), {F.CTRL_RX_EXTRA}, "ctrl-rx-extra"),
    (MacTableSet((OTHER_MAC,), ()), {F.CTRL_RX}, "ctrl-rx"),
    (MacAddrSet(OTHER_MAC), {F.CTRL_RX, F.CTRL_MAC_ADDR}, "ctrl-rx or ctrl-mac-addr"),
    (VlanAdd(1), {F.CTRL_VLAN}, "ctrl-vlan"),
    (VlanDel(1), {F.CTRL_VLAN}, "ctrl-vlan"),
    (AnnounceAck(), {F.GUEST_ANNOUNCE}, "guest-announce"),
    (VqPairsSet(2), {F.MQ}, "mq"),
    (rss_config(), {F.RSS}, "rss"),
    (HashConfigSet(hash_types=1, hash_key=KEY), {F.HASH_REPORT}, "hash-report"),
    (GuestOffloadsSet(0), {F.CTRL_GUEST_OFFLOADS}, "ctrl-guest-offloads"),
    (HashTunnelSet(0), {F.HASH_TUNNEL}, "hash-tunnel"),
]


@pytest.mark.parametrize(
    ("command", "features", "named"), NEEDS, ids=[command.name for command, _, _ in NEEDS]
)
def test_a_command_needs_its_feature(command: Command, features: set[Feature], named: str) -> None:
    others = MODELLED - features - {F.HASH_TUNNEL}  # which needs RSS or HASH_REPORT
    if isinstance(command, HashConfigSet):
        others -= {F.RSS}
    assert refused(a_device(others), command) == f"needs {named}, which was not negotiated"
    for feature in features:
        do(a_device(others | {feature}), command)


# Receive filtering: 5.1.6.5.1


@pytest.mark.parametrize(
    ("mode", "field"),
    [
        (RxMode.PROMISC, "promiscuous"),
        (RxMode.ALLMULTI, "allmulti"),
        (RxMode.ALLUNI, "alluni"),
        (RxMode.NOMULTI, "nomulti"),
        (RxMode.NOUNI, "nouni"),
        (RxMode.NOBCAST, "nobcast"),
    ],
)
def test_receive_modes(mode: RxMode, field: str) -> None:
    device = a_device()
    off = device.state.receive_filter
    assert off == ReceiveFilter(alluni=False, allmulti=False, mac=MAC, vlans=frozenset())
    changes: dict[str, Any] = {field: True}
    on = replace(off, **changes)
    assert do(device, RxModeSet(mode, True)).receive_filter == on
    assert do(device, RxModeSet(mode, True)).receive_filter == on
    assert do(device, RxModeSet(mode, False)).receive_filter == off


def test_without_the_commands_everything_is_received() -> None:
    assert a_device({F.CTRL_VQ, F.MAC}).state.receive_filter == ReceiveFilter(mac=MAC)
    # VLAN filtering does not depend on CTRL_RX (5.1.6.5.3).
    vlans = a_device({F.CTRL_VQ, F.CTRL_VLAN}).state.receive_filter
    assert vlans == ReceiveFilter(vlans=frozenset())


# MAC addresses: 5.1.6.5.2


def test_mac_address() -> None:
    device = a_device()
    assert do(device, MacAddrSet(OTHER_MAC)).receive_filter.mac == OTHER_MAC
    assert config(device).mac == OTHER_MAC


def test_mac_address_of_a_driver_that_did_not_take_ours() -> None:
    device = a_device(MODELLED - {F.MAC})
    assert device.state.receive_filter.mac is None
    assert config(device).mac == MAC
    assert do(device, MacAddrSet(OTHER_MAC)).receive_filter.mac == OTHER_MAC
    assert config(device).mac == MAC  # reflected only if MAC was negotiated


@pytest.mark.parametrize("mac", [bytes(6), GROUP_MAC, b"\xff" * 6])
def test_no_mac_address(mac: bytes) -> None:
    assert refused(a_device(), MacAddrSet(mac)) == f"{mac.hex(':')} is not a station's address"


def test_mac_table() -> None:
    device = a_device()
    state = do(device, MacTableSet((OTHER_MAC, OTHER_MAC), (GROUP_MAC,)))
    assert state.unicast == {OTHER_MAC}
    assert state.multicast == {GROUP_MAC}
    state = do(device, MacTableSet((MAC,), ()))  # replaces, does not add
    assert state.unicast == {MAC}
    assert not state.multicast


def test_addresses_in_the_wrong_table() -> None:
    device = a_device()
    wrong = "has 01:00:5e:00:00:01 in the wrong table"
    assert refused(device, MacTableSet((GROUP_MAC,), ())) == wrong
    assert refused(device, MacTableSet((), (MAC,))) == "has 02:00:00:00:00:01 in the wrong table"
    # but for those that Linux puts there
    lldp, beyond = bytes.fromhex("0180c200000e"), bytes.fromhex("0180c2000010")
    assert do(device, MacTableSet((OTHER_MAC, lldp), ())).multicast == {lldp}
    assert device.state.unicast == {OTHER_MAC}
    assert "wrong table" in refused(device, MacTableSet((beyond,), ()))


# VLANs: 5.1.6.5.3


def test_vlans() -> None:
    device = a_device()
    assert do(device, VlanAdd(0), VlanAdd(4094), VlanAdd(4094)).vlans == {0, 4094}
    assert do(device, VlanDel(0), VlanDel(7)).receive_filter.vlans == frozenset({4094})
    for command in (VlanAdd(4095), VlanDel(4096), VlanAdd(0xFFFF)):
        assert refused(device, command) == f"has the VLAN id {command.vlan}, not 0 to 4094"


# Announcement: 5.1.6.5.4


def test_announcement() -> None:
    device = a_device()
    asked = device.announced()
    assert asked is not None
    assert config(device).status == LinkStatus.LINK_UP
    device.commit(asked)
    assert config(device).status == LinkStatus.LINK_UP | LinkStatus.ANNOUNCE
    do(device, AnnounceAck())
    assert config(device).status == LinkStatus.LINK_UP
    do(device, AnnounceAck())


@pytest.mark.parametrize("missing", [F.GUEST_ANNOUNCE, F.STATUS])
def test_nobody_to_announce(missing: Feature) -> None:
    assert a_device(MODELLED - {missing}).announced() is None


# Multiqueue: 5.1.6.5.5 to 5.1.6.5.7


def test_number_of_pairs() -> None:
    device = a_device()
    assert do(device, VqPairsSet(4)).receive_queues == {0, 1, 2, 3}
    assert do(device, VqPairsSet(1)).receive_queues == {0}
    assert refused(device, VqPairsSet(0)) == "asks for 0 pairs, of 4"
    assert refused(device, VqPairsSet(5)) == "asks for 5 pairs, of 4"


def test_rss() -> None:
    state = do(a_device(), rss_config(0x1FF, (3, 1), 2, 4, KEY))
    assert state.steering == Steering(indirection_table=(3, 1), unclassified_queue=2, max_tx_vq=4)
    assert (state.hash_types, state.hash_key) == (HashType.ALL, KEY)
    assert state.receive_queues == {1, 2, 3}


def test_the_last_command_wins() -> None:
    device = a_device()
    assert do(device, VqPairsSet(2), rss_config()).steering is not None
    state = do(device, VqPairsSet(2))
    assert state.steering is None
    assert state.receive_queues == {0, 1}
    assert do(device, rss_config()).receive_queues == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"hash_types": 0x200}, "has hash types that are not supported: 0x200"),
        ({"hash_types": 1 << 31 | 1}, "has hash types that are not supported: 0x80000000"),
        ({"indirection_table": (0,) * 256}, "has 256 entries, more than 128"),
        ({"indirection_table": (0, 4)}, "sends to queue 4, but the last is 3"),
        ({"indirection_table": (0x7FFF,)}, "sends to queue 32767, but the last is 3"),
        ({"unclassified_queue": 4}, "has unclassified_queue 4, but the last is 3"),
        ({"max_tx_vq": 0}, "has max_tx_vq 0, not 1 to 4"),
        ({"max_tx_vq": 5}, "has max_tx_vq 5, not 1 to 4"),
        ({"hash_key": bytes(41)}, "has a key of 41 bytes, more than 40"),
        ({"hash_key": b""}, "has hash types, but no key"),
    ],
)
def test_rss_refused(changes: dict[str, Any], refusal: str) -> None:
    device = a_device()
    do(device, rss_config(0x3F, (1,)))
    assert refused(device, rss_config(**changes)) == refusal


def test_only_supported_hash_types() -> None:
    device = NetDevice(replace(an_offer(), hash_types=HashType.IPv4 | HashType.TCPv4))
    device.commit(device.negotiated(feature_bits(MODELLED)))
    do(device, rss_config(HashType.TCPv4))
    message = "has hash types that are not supported: UDPv4, IPv6"
    assert refused(device, rss_config(0b1111)) == message


def test_no_types_and_no_key_switch_hashing_off() -> None:
    state = do(a_device(), rss_config(), rss_config(0, hash_key=b"", unclassified_queue=3))
    assert (state.hash_types, state.hash_key) == (HashType.NONE, bytes(40))


def test_a_short_key_has_zeros_behind_it() -> None:
    assert do(a_device(), rss_config(hash_key=b"\xa1" * 16)).hash_key == b"\xa1" * 16 + bytes(24)


def test_what_linux_6_1_sends() -> None:
    """With ``ethtool -X`` and ``-K rxhash off``: all-zero table, max_tx_vq left at 1."""
    device = a_device()
    do(device, VqPairsSet(1), VqPairsSet(4))
    state = do(device, rss_config(0x3F, (0,) * 128, 0, 1))
    assert state.receive_queues == {0}
    assert do(device, rss_config(0, (0, 1, 2, 3) * 32, 0, 1)).hash_types == HashType.NONE


# Which command sets what is hashed: 5.1.6.4.3 and 5.1.6.5.6.4

HASH_CONFIG = HashConfigSet(hash_types=HashType.UDPv4, hash_key=KEY[::-1])


def test_neither_rss_nor_report() -> None:
    device = a_device({F.CTRL_VQ, F.MQ})
    assert "needs rss" in refused(device, rss_config())
    assert "needs hash-report" in refused(device, HASH_CONFIG)
    assert do(device, VqPairsSet(3)).hash_types == HashType.NONE


def test_report_without_rss() -> None:
    device = a_device({F.CTRL_VQ, F.MQ, F.HASH_REPORT})
    state = do(device, VqPairsSet(3), HASH_CONFIG)
    assert (state.hash_types, state.hash_key) == (HashType.UDPv4, KEY[::-1])
    assert state.steering is None
    assert state.receive_queues == {0, 1, 2}
    assert do(device, VqPairsSet(2)).hash_types == HashType.UDPv4
    too_long = HashConfigSet(hash_types=1, hash_key=bytes(41))
    assert refused(device, too_long) == "has a key of 41 bytes, more than 40"
    unknown = HashConfigSet(hash_types=0x400, hash_key=KEY)
    assert refused(device, unknown) == "has hash types that are not supported: 0x400"


def test_report_without_rss_and_multiqueue() -> None:
    state = do(a_device({F.CTRL_VQ, F.HASH_REPORT}), HASH_CONFIG)
    assert state.hash_types == HashType.UDPv4
    assert state.receive_queues == {0}


@pytest.mark.parametrize(
    ("features", "command"),
    [
        ({F.CTRL_VQ, F.RSS, F.HASH_REPORT}, rss_config(HashType.UDPv4, (0, 0), 0, 1)),
        ({F.CTRL_VQ, F.HASH_REPORT}, HASH_CONFIG),
    ],
    ids=["RSS_CONFIG", "HASH_CONFIG"],
)
def test_one_pair_is_told_what_to_hash(features: set[Feature], command: Command) -> None:
    """With or without RSS there is a command for it (5.1.6.4.3)."""
    device = NetDevice(an_offer(features, queue_pairs=1))
    device.commit(device.negotiated(feature_bits(features | {F.VERSION_1})))
    state = do(device, command)
    assert (state.hash_types, state.reports) == (HashType.UDPv4, True)
    assert state.receive_queues == {0}


@pytest.mark.parametrize("features", [HASHING - {F.HASH_REPORT}, HASHING])
def test_with_rss_only_its_own_command_counts(features: set[Feature]) -> None:
    device = a_device(features)
    assert device.state.hash_types == HashType.NONE  # no RSS_CONFIG yet: nothing is hashed
    reason = "sets nothing: rss was" if F.HASH_REPORT in features else "needs hash-report"
    assert refused(device, HASH_CONFIG).startswith(reason)
    do(device, rss_config())
    # Automatic steering comes back, what is hashed and reported stays.
    state = do(device, VqPairsSet(2))
    assert state.steering is None
    assert (state.hash_types, state.hash_key) == (HashType.TCPv4 | HashType.IPv4, KEY)


# Offloads: 5.1.6.5.8


def test_offloads() -> None:
    device = a_device()
    assert do(device, GuestOffloadsSet(0)).offloads == frozenset()
    wanted = {F.GUEST_CSUM, F.GUEST_TSO6, F.GUEST_ECN}
    assert do(device, GuestOffloadsSet(feature_bits(wanted))).offloads == wanted
    assert do(device, GuestOffloadsSet(feature_bits(OFFLOADS))).offloads == OFFLOADS


@pytest.mark.parametrize(
    ("offloads", "refusal"),
    [
        ([F.GUEST_UFO], "has offloads that were not negotiated: guest-ufo"),
        ([F.CSUM, F.GUEST_CSUM], "has offloads that were not negotiated: csum"),
        ([F.GUEST_TSO4], "has offloads without what they need: guest-tso4 needs guest-csum"),
        (
            [F.GUEST_CSUM, F.GUEST_ECN],
            "has offloads without what they need: guest-ecn needs guest-tso4 or guest-tso6",
        ),
    ],
)
def test_offloads_refused(offloads: list[Feature], refusal: str) -> None:
    device = a_device(MODELLED - {F.GUEST_UFO})
    assert refused(device, GuestOffloadsSet(feature_bits(offloads))) == refusal


def test_tunnel_offloads_have_bits_of_their_own() -> None:
    assert refused(a_device(), GuestOffloadsSet(1 << 46 | 1 << 6)) == (
        "has offloads that were not negotiated: 0x400000000040"
    )


# Inner header hash: 5.1.6.4.4


def test_tunnels() -> None:
    device = a_device()
    assert do(device, HashTunnelSet(TunnelType.VXLAN)).tunnel_types == TunnelType.VXLAN
    message = "has tunnel types that are not supported: IPIP, 0x200"
    assert refused(device, HashTunnelSet(TunnelType.IPIP | 0x200)) == message
    assert do(device, HashTunnelSet(0)).tunnel_types == TunnelType.NONE


# Whatever comes


@given(devices(), st.binary(max_size=100) | COMMANDS.map(lambda command: command.encode()))
@settings(max_examples=examples(500), deadline=None)
def test_any_bytes_are_judged(device: NetDevice, data: bytes) -> None:
    before = device.state
    judged = device.judge(data)
    assert (judged.state is None) != (judged.refusal is None)
    assert judged.command is not None or judged.refusal
    assert device.state is before


@given(FEATURE_SETS, st.lists(SENSIBLE_COMMANDS, max_size=10), st.data())
@settings(max_examples=examples(200), deadline=None)
def test_every_state_can_be_put_into_force(
    features: frozenset[Feature], commands: list[Command], data: st.DataObject
) -> None:
    device = a_device(features)
    for command in commands:
        wire = bytearray(command.encode())
        if data.draw(st.booleans()):
            wire[data.draw(st.integers(0, len(wire) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        device.commit(device.judge(bytes(wire)).state or device.state)
    state = device.state
    assert state.features == features
    assert state.receive_queues <= frozenset(range(4))
    assert state.receive_queues
    assert state.offloads <= features & OFFLOADS
    assert state.hash_types == HashType.NONE or features & {F.RSS, F.HASH_REPORT}
    assert state.steering is None or F.RSS in features
    assert len(device.config_space()) == 28
    assert state.receive_filter.accepts(b"\xff" * 6 + MAC + bytes(48)) or (
        RxMode.NOBCAST in state.rx_modes
    )
    if state.steering:
        made = RssConfig(
            device.offer.queue_pairs,
            hash_types=state.hash_types,
            key=state.hash_key,
            indirection_table=state.steering.indirection_table,
            unclassified_queue=state.steering.unclassified_queue,
        )
        assert made.key == state.hash_key
