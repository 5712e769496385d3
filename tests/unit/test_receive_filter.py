# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Receive filtering, rule by rule (virtio 1.3, 5.1.6.5.1 to 5.1.6.5.3)."""

from typing import Any

import pytest

from tests.net_device import GROUP_MAC, MAC, OTHER_MAC
from vnethash.virtio.receive_filter import BROADCAST, ReceiveFilter

SOURCE = bytes.fromhex("020000000099")
OTHER_GROUP = bytes.fromhex("333300000001")

OWN: dict[str, Any] = {"mac": MAC, "alluni": False, "allmulti": False}
"""A driver that negotiated CTRL_RX and has sent nothing."""


def frame(destination: bytes, vlan: int | None = None, tpid: int = 0x8100) -> bytes:
    tag = b"" if vlan is None else tpid.to_bytes(2, "big") + vlan.to_bytes(2, "big")
    return destination + SOURCE + tag + b"\x08\x00" + bytes(46)


@pytest.mark.parametrize(
    ("settings", "received"),
    [
        # by default everything
        ({}, {MAC, OTHER_MAC, BROADCAST, GROUP_MAC, OTHER_GROUP}),
        # 5.1.6.5.2: the address, and the table
        (OWN, {MAC, BROADCAST}),
        (OWN | {"mac": None}, {MAC, OTHER_MAC, BROADCAST}),
        (OWN | {"unicast": frozenset({OTHER_MAC})}, {MAC, OTHER_MAC, BROADCAST}),
        (OWN | {"multicast": frozenset({GROUP_MAC})}, {MAC, GROUP_MAC, BROADCAST}),
        # an address counts in its own table only
        (OWN | {"unicast": frozenset({GROUP_MAC})}, {MAC, BROADCAST}),
        (OWN | {"multicast": frozenset({OTHER_MAC})}, {MAC, BROADCAST}),
        # 5.1.6.5.1: the modes
        (OWN | {"promiscuous": True}, {MAC, OTHER_MAC, BROADCAST, GROUP_MAC, OTHER_GROUP}),
        (OWN | {"allmulti": True}, {MAC, BROADCAST, GROUP_MAC, OTHER_GROUP}),
        (OWN | {"alluni": True}, {MAC, OTHER_MAC, BROADCAST}),
        # nomulti is above allmulti and the table, and is not about broadcast
        (OWN | {"allmulti": True, "nomulti": True}, {MAC, BROADCAST}),
        (OWN | {"multicast": frozenset({GROUP_MAC}), "nomulti": True}, {MAC, BROADCAST}),
        # nouni is above alluni and the own address
        (OWN | {"alluni": True, "nouni": True}, {BROADCAST}),
        # nobcast is above allmulti
        (OWN | {"allmulti": True, "nobcast": True}, {MAC, GROUP_MAC, OTHER_GROUP}),
        # promiscuous is above all of these
        (
            OWN | {"promiscuous": True, "nomulti": True, "nouni": True, "nobcast": True},
            {MAC, OTHER_MAC, BROADCAST, GROUP_MAC, OTHER_GROUP},
        ),
    ],
)
def test_destinations(settings: dict[str, Any], received: set[bytes]) -> None:
    wanted = ReceiveFilter(**settings)
    destinations = {MAC, OTHER_MAC, BROADCAST, GROUP_MAC, OTHER_GROUP}
    assert {address for address in destinations if wanted.accepts(frame(address))} == received


@pytest.mark.parametrize(
    ("vlans", "tag", "received"),
    [
        (None, 5, True),
        (frozenset(), None, True),  # the table is for tagged packets only
        (frozenset(), 5, False),
        (frozenset({5}), 5, True),
        (frozenset({5}), 6, False),
        (frozenset({5}), 5 | 0xE000, True),  # priority bits are no part of the id
        (frozenset({5}), 0xE000, True),  # a priority, but of no VLAN
        (frozenset({4094}), 4094, True),
    ],
)
def test_vlans(vlans: frozenset[int] | None, tag: int | None, received: bool) -> None:
    assert ReceiveFilter(vlans=vlans).accepts(frame(MAC, tag)) == received


def test_vlan_and_address_both_have_to_fit() -> None:
    wanted = ReceiveFilter(**OWN, vlans=frozenset({5}))
    assert wanted.accepts(frame(MAC, 5))
    assert not wanted.accepts(frame(MAC, 6))
    assert not wanted.accepts(frame(OTHER_MAC, 5))
    assert ReceiveFilter(promiscuous=True, vlans=frozenset()).accepts(frame(MAC, 6))


def test_only_whole_tags_of_802_1q_are_looked_at() -> None:
    wanted = ReceiveFilter(vlans=frozenset())
    assert wanted.accepts(frame(MAC, 5, tpid=0x88A8))
    tagged = frame(MAC, 5)
    assert wanted.accepts(tagged[:17])
    assert not wanted.accepts(tagged[:18])


def test_shorter_than_an_ethernet_header() -> None:
    runt = frame(MAC)[:13]
    assert not ReceiveFilter().accepts(runt)
    assert not ReceiveFilter().accepts(b"")
    assert ReceiveFilter().accepts(frame(MAC)[:14])
    assert ReceiveFilter(promiscuous=True).accepts(runt)


def test_too_many_addresses_become_all_of_their_kind() -> None:
    wanted = ReceiveFilter(
        **OWN, unicast=frozenset({OTHER_MAC}), multicast=frozenset({GROUP_MAC, OTHER_GROUP})
    )
    assert wanted.limited(2) == wanted
    some = wanted.limited(1)
    assert (some.unicast, some.alluni) == (wanted.unicast, False)
    assert (some.multicast, some.allmulti) == (frozenset(), True)
    none = wanted.limited(0)
    assert (none.unicast, none.alluni) == (frozenset(), True)
