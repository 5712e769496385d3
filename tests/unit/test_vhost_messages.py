# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The syntax of vhost-user messages (QEMU's docs/interop/vhost-user.rst)."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from vnethash.errors import VhostUserError
from vnethash.vhost_user.messages import (
    HEADER_SIZE,
    MAX_PAYLOAD,
    ConfigAccess,
    LogRegion,
    MemoryRegion,
    Message,
    MessageFlag,
    MessageHeader,
    Payload,
    Request,
    RingFlag,
    VringAddress,
    VringFd,
    VringState,
    config_change,
    reply,
)

REGION = MemoryRegion(0x4000_0000, 0x1000_0000, 0x7F00_0000_0000, 0x1000)
STATE = VringState(3, 256)

# One message of each request that is known: payload, its bytes, descriptors.
REQUESTS: list[tuple[Request, Payload, bytes, int]] = [
    (Request.GET_FEATURES, None, b"", 0),
    (Request.SET_FEATURES, 1 << 57, struct.pack("=Q", 1 << 57), 0),
    (Request.SET_OWNER, None, b"", 0),
    (Request.RESET_OWNER, None, b"", 0),
    (
        Request.SET_MEM_TABLE,
        (REGION, REGION),
        struct.pack("=II8Q", 2, 0, *2 * (0x4000_0000, 0x1000_0000, 0x7F00_0000_0000, 0x1000)),
        2,
    ),
    (Request.SET_LOG_BASE, LogRegion(8192, 4096), struct.pack("=QQ", 8192, 4096), 1),
    (Request.SET_LOG_FD, None, b"", 1),
    (Request.SET_VRING_NUM, STATE, struct.pack("=II", 3, 256), 0),
    (
        Request.SET_VRING_ADDR,
        VringAddress(3, RingFlag.LOG, 0x1000, 0x3000, 0x2000, 0x4000),
        struct.pack("=IIQQQQ", 3, 1, 0x1000, 0x3000, 0x2000, 0x4000),
        0,
    ),
    (Request.SET_VRING_BASE, STATE, struct.pack("=II", 3, 256), 0),
    (Request.GET_VRING_BASE, STATE, struct.pack("=II", 3, 256), 0),
    (Request.SET_VRING_KICK, VringFd(3, True), struct.pack("=Q", 3), 1),
    (Request.SET_VRING_CALL, VringFd(255, True), struct.pack("=Q", 255), 1),
    (Request.SET_VRING_ERR, VringFd(3, False), struct.pack("=Q", 0x103), 0),
    (Request.GET_PROTOCOL_FEATURES, None, b"", 0),
    (Request.SET_PROTOCOL_FEATURES, 0x20B, struct.pack("=Q", 0x20B), 0),
    (Request.GET_QUEUE_NUM, None, b"", 0),
    (Request.SET_VRING_ENABLE, VringState(3, 1), struct.pack("=II", 3, 1), 0),
    (Request.SEND_RARP, 0x0605_0403_0201, struct.pack("=Q", 0x0605_0403_0201), 0),
    (Request.NET_SET_MTU, 1500, struct.pack("=Q", 1500), 0),
    (Request.SET_BACKEND_REQ_FD, None, b"", 1),
    (Request.GET_CONFIG, ConfigAccess(4, b"\0\0"), struct.pack("=III2x", 4, 2, 0), 0),
    (Request.SET_CONFIG, ConfigAccess(0, b"mac", 1), struct.pack("=III", 0, 3, 1) + b"mac", 0),
    (Request.RESET_DEVICE, None, b"", 0),
    (Request.GET_MAX_MEM_SLOTS, None, b"", 0),
    (
        Request.ADD_MEM_REG,
        REGION,
        struct.pack("=QQQQQ", 0, 0x4000_0000, 0x1000_0000, 0x7F00_0000_0000, 0x1000),
        1,
    ),
    (
        Request.REM_MEM_REG,
        REGION,
        struct.pack("=QQQQQ", 0, 0x4000_0000, 0x1000_0000, 0x7F00_0000_0000, 0x1000),
        0,
    ),
    (Request.SET_STATUS, 15, struct.pack("=Q", 15), 0),
    (Request.GET_STATUS, None, b"", 0),
]

each_request = pytest.mark.parametrize(
    ("request_", "payload", "wire", "fds"), REQUESTS, ids=[case[0].name for case in REQUESTS]
)


def header(request: int, size: int, flags: int = 1) -> bytes:
    return struct.pack("=III", request, flags, size)


def decode(request: int, wire: bytes, fds: int = 0, flags: int = 1) -> Message:
    return Message.decode(
        MessageHeader.decode(header(request, len(wire), flags)), wire, range(100, 100 + fds)
    )


@each_request
def test_both_ways(request_: Request, payload: Payload, wire: bytes, fds: int) -> None:
    message = decode(request_, wire, fds)
    assert message == Message(request_, payload, tuple(range(100, 100 + fds)))
    assert message.encode() == header(request_, len(wire)) + wire


@each_request
def test_another_size_is_refused(
    request_: Request, payload: Payload, wire: bytes, fds: int
) -> None:
    shorter = {wire[:-cut] for cut in (1, 4, 8)} if wire else set()
    for other in shorter | {wire + bytes(more) for more in (1, 4, 8)}:
        with pytest.raises(VhostUserError, match=f"^vhost-user {request_.name}: "):
            decode(request_, other, fds)


@each_request
def test_another_number_of_descriptors_is_refused(
    request_: Request, payload: Payload, wire: bytes, fds: int
) -> None:
    allowed = {fds, 1} if request_ is Request.REM_MEM_REG else {fds}
    for count in set(range(9)) - allowed:
        with pytest.raises(VhostUserError, match=f"{count} file descriptors where {fds} belong"):
            decode(request_, wire, count)


def test_a_region_may_be_removed_with_its_descriptor() -> None:
    # QEMU 5.1 to 6.2
    message = Message(Request.REM_MEM_REG, REGION)
    assert decode(Request.REM_MEM_REG, message.encode()[HEADER_SIZE:], 1).fds == (100,)


def test_the_table_may_have_room_behind_its_regions() -> None:
    # Linux's virtio_uml: one region, the places of two.
    wire = struct.pack("=II4Q32x", 1, 0, 0x200000, 0x800000, 0x200000, 0x1000)
    message = decode(Request.SET_MEM_TABLE, wire, 1)
    assert message.payload == (MemoryRegion(0x200000, 0x800000, 0x200000, 0x1000),)


@pytest.mark.parametrize(
    ("count", "places"), [(3, 2), (9, 9), (1, 9), (1 << 31, 1), (0xFFFFFFFF, 8), (1, 0)]
)
def test_a_table_that_does_not_hold_its_regions(count: int, places: int) -> None:
    wire = struct.pack("=II", count, 0) + places * struct.pack("=4Q", 4096, 4096, 4096, 0)
    with pytest.raises(VhostUserError, match="regions in a payload"):
        decode(Request.SET_MEM_TABLE, wire, min(count, 8))


TOP = (1 << 64) - 4096


@pytest.mark.parametrize(
    ("region", "wrong"),
    [
        ((0, 0, 0, 0), "no bytes"),
        ((TOP, 8192, 0, 0), "guest address"),
        ((0, 8192, TOP, 0), "user address"),
        ((0, 8192, 0, TOP), "mmap offset"),
        ((0, 8192, 0, (1 << 63) - 4096), "mmap offset"),
        ((1, (1 << 64) - 1, 1, 1), "mmap offset"),
    ],
)
@pytest.mark.parametrize("request_", [Request.SET_MEM_TABLE, Request.ADD_MEM_REG])
def test_a_region_that_wraps_around(
    request_: Request, region: tuple[int, int, int, int], wrong: str
) -> None:
    before = struct.pack("=II", 1, 0) if request_ is Request.SET_MEM_TABLE else bytes(8)
    with pytest.raises(VhostUserError, match=wrong):
        decode(request_, before + struct.pack("=4Q", *region), 1)


def test_a_region_may_reach_the_end_of_all_addresses() -> None:
    region = MemoryRegion(TOP, 4096, TOP, (1 << 63) - 4096)
    wire = Message(Request.ADD_MEM_REG, region).encode()[HEADER_SIZE:]
    assert decode(Request.ADD_MEM_REG, wire, 1).payload == region


@pytest.mark.parametrize(("size", "offset"), [(0, 0), (1 << 63, 1), (1, (1 << 64) - 1)])
def test_a_log_that_cannot_be(size: int, offset: int) -> None:
    with pytest.raises(VhostUserError, match="log offset"):
        decode(Request.SET_LOG_BASE, struct.pack("=QQ", size, offset), 1)


def test_numbers_that_are_not_known() -> None:
    with pytest.raises(VhostUserError, match="ring flags 0x2"):
        decode(Request.SET_VRING_ADDR, struct.pack("=IIQQQQ", 0, 2, 0, 0, 0, 0))
    with pytest.raises(VhostUserError, match="0x203 is no ring index"):
        decode(Request.SET_VRING_KICK, struct.pack("=Q", 0x203), 1)
    with pytest.raises(VhostUserError, match="configuration flags 0x4"):
        decode(Request.SET_CONFIG, struct.pack("=IIIx", 0, 1, 4))


@pytest.mark.parametrize("flags", [0, 2, 3, 0x11, 0x80000001])
def test_flags_that_are_not_known(flags: int) -> None:
    with pytest.raises(VhostUserError, match=r"SET_OWNER: (version|flags)"):
        MessageHeader.decode(header(Request.SET_OWNER, 0, flags))


def test_a_reply_is_no_request() -> None:
    with pytest.raises(VhostUserError, match="a reply to nothing"):
        decode(Request.SET_OWNER, b"", flags=5)


def test_more_than_any_message_has() -> None:
    with pytest.raises(VhostUserError, match="4097 bytes is above 4096"):
        MessageHeader.decode(header(Request.SET_OWNER, MAX_PAYLOAD + 1))


def test_a_request_nobody_knows_keeps_its_bytes() -> None:
    message = decode(99, b"whatever", 3)
    assert (message.name, message.payload, len(message.fds)) == ("request 99", b"whatever", 3)
    assert decode(Request.SET_INFLIGHT_FD, b"", 1).name == "SET_INFLIGHT_FD"


def test_need_reply() -> None:
    assert decode(Request.SET_OWNER, b"", flags=9).need_reply
    assert not decode(Request.SET_OWNER, b"").need_reply


@pytest.mark.parametrize(
    ("request_", "payload"),
    [
        (Request.GET_FEATURES, 7),
        (Request.SET_MEM_TABLE, 0),
        (Request.GET_VRING_BASE, VringState(2, 77)),
        (Request.GET_CONFIG, ConfigAccess(0, b"abc")),
        (Request.GET_CONFIG, None),
    ],
)
def test_replies(request_: Request, payload: Payload) -> None:
    wire = reply(Message(request_), payload)
    # Linux's virtio_uml wants exactly these flags.
    assert wire[4:8] == struct.pack("=I", 5)
    answer = Message.decode_reply(MessageHeader.decode(wire[:HEADER_SIZE]), wire[HEADER_SIZE:])
    assert (answer.request, answer.payload, answer.flags) == (request_, payload, MessageFlag.REPLY)


def test_a_request_is_no_reply() -> None:
    with pytest.raises(VhostUserError, match="not those of a reply"):
        Message.decode_reply(MessageHeader.decode(header(Request.GET_FEATURES, 8)), bytes(8))


def test_config_change_asks_for_no_answer() -> None:
    assert config_change() == struct.pack("=III", 2, 1, 0)


def test_a_number_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="SET_FEATURES"):
        Message(Request.SET_FEATURES, 1 << 64).encode()


@settings(max_examples=examples(500))
@given(
    st.integers(0, 50) | st.integers(0, (1 << 32) - 1),
    st.sampled_from([1, 9]),
    st.binary(max_size=600),
    st.integers(0, 9),
)
def test_any_bytes_are_a_message_or_refused(
    request_: int, flags: int, wire: bytes, fds: int
) -> None:
    try:
        message = decode(request_, wire, fds, flags)
    except VhostUserError:
        return
    again = message.encode()
    # What was read is what is written: all but padding and room.
    assert decode(request_, again[HEADER_SIZE:], fds, flags) == message
    assert again[:8] == header(request_, 0, flags)[:8]


@settings(max_examples=examples(300))
@given(st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE), st.binary(max_size=64))
def test_any_bytes_are_a_reply_or_refused(head: bytes, wire: bytes) -> None:
    try:
        Message.decode_reply(MessageHeader.decode(head), wire)
    except VhostUserError:
        return
    assert head[4:8] == struct.pack("=I", 5)
