# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Control commands on the wire: bytes by hand, round trips, and what is refused."""

import contextlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.net_device import COMMANDS, GROUP_MAC, KEY, MAC, OTHER_MAC, rss_config
from vnethash.errors import CommandError, ConfigError
from vnethash.virtio.control import (
    AnnounceAck,
    Class,
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
    parse,
)
from vnethash.virtio.hash_types import TunnelType

KERNEL_HEADER = Path("/usr/include/linux/virtio_net.h")

# Each once, put together by hand from the structures of virtio 1.3, 5.1.6.5 and 5.1.6.4.4.
WIRE: list[tuple[Command, str]] = [
    (RxModeSet(RxMode.PROMISC, True), "0000 01"),
    (RxModeSet(RxMode.ALLMULTI, False), "0001 00"),
    (RxModeSet(RxMode.ALLUNI, True), "0002 01"),
    (RxModeSet(RxMode.NOMULTI, True), "0003 01"),
    (RxModeSet(RxMode.NOUNI, True), "0004 01"),
    (RxModeSet(RxMode.NOBCAST, True), "0005 01"),
    (MacTableSet((), ()), "0100 00000000 00000000"),
    (
        MacTableSet((MAC, OTHER_MAC), (GROUP_MAC,)),
        "0100 02000000 020000000001 020000000002 01000000 01005e000001",
    ),
    (MacAddrSet(MAC), "0101 020000000001"),
    (VlanAdd(0x0123), "0200 2301"),
    (VlanDel(4094), "0201 fe0f"),
    (AnnounceAck(), "0300"),
    (VqPairsSet(0x0102), "0400 0201"),
    (
        rss_config(0x3F, (3, 2, 1, 0), 1, 4, bytes.fromhex("a1a2a3")),
        "0401 3f000000 0300 0100 0300 0200 0100 0000 0400 03 a1a2a3",
    ),
    (rss_config(0, (0,), 0, 1, b""), "0401 00000000 0000 0000 0000 0100 00"),
    (
        HashConfigSet(hash_types=0x1FF, hash_key=b"\xa1\xa2"),
        "0402 ff010000 0000000000000000 02 a1a2",
    ),
    (GuestOffloadsSet(1 << 54 | 1 << 1), "0500 0200000000004000"),
    (HashTunnelSet(0x50), "0700 50000000"),
]


@pytest.mark.parametrize(("command", "wire"), WIRE, ids=[command.name for command, _ in WIRE])
def test_bytes(command: Command, wire: str) -> None:
    data = bytes.fromhex(wire)
    assert command.encode() == data
    assert parse(data) == command


@pytest.mark.parametrize(("command", "wire"), WIRE, ids=[command.name for command, _ in WIRE])
def test_every_prefix_and_every_surplus_is_refused(command: Command, wire: str) -> None:
    data = bytes.fromhex(wire)
    for size in range(len(data)):
        with pytest.raises(CommandError, match=r"truncated|two bytes or more"):
            parse(data[:size])
    with pytest.raises(CommandError, match=f"{command.name} has 1 surplus bytes"):
        parse(data + b"\0")


@pytest.mark.skipif(not KERNEL_HEADER.exists(), reason="needs the kernel's user headers")
def test_numbers_are_those_of_the_kernel() -> None:
    text = KERNEL_HEADER.read_text(encoding="utf-8")
    defined = dict(re.findall(r"#define\s+VIRTIO_NET_CTRL_(\w+)\s+(\d+)\b", text))
    by_name = {kind.name: int(kind) for kind in Class} | {
        command.name: command.key[1] for command, _ in WIRE
    }
    common = {name: int(number) for name, number in defined.items() if name in by_name}
    assert common == {name: by_name[name] for name in common}
    assert {"MQ_RSS_CONFIG", "MAC_TABLE_SET", "MQ", "RX_NOBCAST"} <= common.keys()


@pytest.mark.parametrize(
    ("wire", "refusal"),
    [
        ("", "a command has two bytes or more, not 0"),
        ("04", "a command has two bytes or more, not 1"),
        ("0006 01", "class 0 has no command 6"),
        ("0102 00", "class 1 has no command 2"),
        ("0403 00", "class 4 has no command 3"),
        ("0600 0000000000000000", "class 6 has no command 0"),  # NOTF_COAL is not offered
        ("0701 00000000", "class 7 has no command 1"),
        ("0900", "class 9 has no command 0"),  # RSS contexts (virtio 1.4) are not offered
        ("ff00", "class 255 has no command 0"),
        ("0000 02", r"RX_PROMISC is 2, not 0 \(off\) or 1 \(on\)"),
        ("0005 ff", r"RX_NOBCAST is 255, not 0 \(off\) or 1 \(on\)"),
        # Tables that claim more than there is, up to what would overflow 32 bits.
        ("0100 02000000 020000000001", "MAC_TABLE_SET is truncated: the unicast table needs 12"),
        ("0100 ffffffff 00000000", "MAC_TABLE_SET is truncated: the unicast table needs 2576980"),
        ("0100 00000000 abaaaa2a", "MAC_TABLE_SET is truncated: the multicast table needs"),
        ("0100 01000000 020000000001", "multicast entries needs 4 bytes, 0 are left"),
        # RSS: mask, reserved bits of queues, lengths.
        ("0401 00000000 0200 0000", "MQ_RSS_CONFIG has a mask 0x2, which is not a power of two"),
        ("0401 00000000 feff 0000", "MQ_RSS_CONFIG has a mask 0xfffe"),
        ("0401 00000000 ffff 0000 0000", "indirection_table needs 131072 bytes, 2 are left"),
        ("0401 00000000 0000 0080 0000 0100 00", "has a reserved bit set in unclassified_queue"),
        ("0401 00000000 0100 0000 0000 0180 0100 00", "a reserved bit set in indirection_table"),
        ("0401 00000000 0000 0000 0000 0100 02 a1", "hash_key_data needs 2 bytes, 1 are left"),
        ("0402 00000000 0100000000000000 00", "MQ_HASH_CONFIG has a reserved field that is not"),
        ("0402 00000000 0000000000010000 00", "MQ_HASH_CONFIG has a reserved field that is not"),
    ],
)
def test_refused(wire: str, refusal: str) -> None:
    with pytest.raises(CommandError, match=refusal):
        parse(bytes.fromhex(wire))


def test_linux_before_6_6_leaves_max_tx_vq_in_the_last_reserved_word() -> None:
    assert parse(bytes.fromhex("0402 3f000000 0000 0000 0000 0100 01 a1")) == HashConfigSet(
        hash_types=0x3F, hash_key=b"\xa1"
    )


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (MacTableSet((b"12345",), ()), "mac"),
        (MacAddrSet(b"1234567"), "mac"),
        (VlanAdd(0x10000), "vlan"),
        (VlanDel(-1), "vlan"),
        (VqPairsSet(0x10000), "virtqueue_pairs"),
        (rss_config(1 << 32), "hash_types"),
        (rss_config(indirection_table=()), "indirection_table_mask"),
        (rss_config(indirection_table=(0x10000,)), "indirection_table"),
        (rss_config(unclassified_queue=-1), "unclassified_queue"),
        (rss_config(max_tx_vq=0x10000), "max_tx_vq"),
        (rss_config(hash_key=bytes(256)), "hash_key_length"),
        (HashConfigSet(hash_types=-1, hash_key=KEY), "hash_types"),
        (GuestOffloadsSet(1 << 64), "offloads"),
        (HashTunnelSet(1 << 32), "enabled_tunnel_types"),
    ],
)
def test_what_no_field_can_hold_is_not_encoded(command: Command, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        command.encode()
    assert caught.value.field == field


@given(COMMANDS)
@settings(max_examples=examples(300))
def test_round_trip(command: Command) -> None:
    assert parse(command.encode()) == command
    shown = json.loads(json.dumps(command.to_json()))
    assert shown.pop("command") == command.name


@given(st.binary(max_size=80) | st.builds(bytes.__add__, st.binary(max_size=2), st.binary()))
@settings(max_examples=examples(500))
def test_any_bytes_are_a_command_or_refused(data: bytes) -> None:
    with contextlib.suppress(CommandError):
        parsed = parse(data)
        again = parsed.encode()
        if isinstance(parsed, HashConfigSet):  # its last reserved word is not kept
            again = again[:12] + data[12:14] + again[14:]
        assert again == data


@given(COMMANDS, st.data())
@settings(max_examples=examples(300))
def test_a_command_with_a_byte_changed_is_another_or_refused(
    command: Command, data: st.DataObject
) -> None:
    wire = bytearray(command.encode())
    place = data.draw(st.integers(0, len(wire) - 1))
    wire[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(CommandError):
        changed = parse(bytes(wire))
        ignored = isinstance(command, HashConfigSet) and place in (12, 13)
        assert (changed == command) == ignored


def test_json() -> None:
    assert rss_config(0x201, (1, 0)).to_json() == {
        "command": "MQ_RSS_CONFIG",
        "hash_types": ["IPv4", "0x200"],
        "indirection_table": [1, 0],
        "unclassified_queue": 0,
        "max_tx_vq": 4,
        "hash_key": KEY.hex(),
    }
    assert MacTableSet((MAC,), (GROUP_MAC,)).to_json() == {
        "command": "MAC_TABLE_SET",
        "unicast": ["02:00:00:00:00:01"],
        "multicast": ["01:00:5e:00:00:01"],
    }
    many = MacTableSet((MAC,) * 40000, ()).to_json()
    assert many["unicast"] == ["02:00:00:00:00:01"] * 64
    assert (many["unicast_more"], many["multicast"]) == (40000 - 64, [])
    assert MacAddrSet(MAC).to_json() == {"command": "MAC_ADDR_SET", "mac": "02:00:00:00:00:01"}
    assert AnnounceAck().to_json() == {"command": "ANNOUNCE_ACK"}
    assert GuestOffloadsSet(1 << 1 | 1 << 6).to_json()["offloads"] == ["guest-csum", "0x40"]
    assert HashTunnelSet(TunnelType.VXLAN | 1 << 9).to_json()["tunnel_types"] == ["VXLAN", "0x200"]
