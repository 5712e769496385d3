# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import errno
import socket
import struct

import pytest

from vnethash.errors import DeviceError
from vnethash.kernel import netlink
from vnethash.kernel.link_info import link_info


def attribute(kind: int, data: bytes) -> bytes:
    padding = bytes(-len(data) % 4)
    return struct.pack("=HH", 4 + len(data), kind) + data + padding


def test_attributes_are_padded_and_flagged() -> None:
    data = attribute(3, b"lo\0") + attribute(0x8000 | 18, attribute(1, b"tun\0"))
    found = netlink.attributes(data)
    assert found == {3: b"lo\0", 18: attribute(1, b"tun\0")}
    assert netlink.attributes(found[18]) == {1: b"tun\0"}


@pytest.mark.parametrize("length", [0, 3, 9])
def test_attributes_cut_short(length: int) -> None:
    with pytest.raises(OSError, match="cut short") as caught:
        netlink.attributes(struct.pack("=HH", length, 1) + bytes(4))
    assert caught.value.errno == errno.EBADMSG


def test_asks_the_kernel() -> None:
    info = link_info("lo")
    assert (info.name, info.ifindex, info.tun) == ("lo", socket.if_nametoindex("lo"), None)
    assert info.mtu > 0


def test_passes_on_the_kernels_error() -> None:
    with pytest.raises(OSError, match=r"\[Errno 19\]"):
        netlink.request(18, struct.pack("=BxHiII", 0, 0, 0x7FFFFFFF, 0, 0))
    with pytest.raises(DeviceError, match="there is no link nope"):
        link_info("nope")
