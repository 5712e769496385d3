# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What a link is: its index, its kind, and what a tap says of itself."""

import errno
import os
import socket
import struct
from dataclasses import dataclass

from vnethash.errors import DeviceError
from vnethash.kernel import netlink

# include/uapi/linux/rtnetlink.h, if_link.h
_RTM_GETLINK = 18
_IFINFOMSG = struct.Struct("=BxHiII")
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINKINFO = 18
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_IFLA_TUN_TYPE = 3
_IFLA_TUN_VNET_HDR = 5
_IFLA_TUN_PERSIST = 6
_IFLA_TUN_MULTI_QUEUE = 7
_IFLA_TUN_NUM_QUEUES = 8
_IFLA_TUN_NUM_DISABLED_QUEUES = 9
_IFF_UP = 1
_IFF_TAP = 2


@dataclass(frozen=True, slots=True)
class TunInfo:
    """IFLA_TUN_*: what the tun driver says of a device (drivers/net/tun.c, tun_fill_info())."""

    l3: bool
    vnet_header: bool
    persist: bool
    multi_queue: bool
    queues: int
    disabled_queues: int


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A link; ``tun`` is None for a device of any other driver."""

    name: str
    ifindex: int
    up: bool
    mtu: int
    kind: str
    tun: TunInfo | None


def link_info(link: str | int) -> LinkInfo:
    """The link of that name or index in the current network namespace.

    Raises DeviceError if there is none.
    """
    try:
        ifindex = link if isinstance(link, int) else socket.if_nametoindex(link)
        (answer,) = netlink.request(_RTM_GETLINK, _IFINFOMSG.pack(0, 0, ifindex, 0, 0))
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENXIO, None):
            raise DeviceError(
                f"there is no link {link}",
                hint="ip link shows those of this network namespace",
            ) from error
        raise DeviceError(f"read link {link}: {os.strerror(error.errno or 0).lower()}") from error
    _, _, index, flags, _ = _IFINFOMSG.unpack_from(answer)
    attributes = netlink.attributes(answer[_IFINFOMSG.size :])
    details = netlink.attributes(attributes.get(_IFLA_LINKINFO, b""))
    kind = _text(details.get(_IFLA_INFO_KIND, b""))
    return LinkInfo(
        name=_text(attributes[_IFLA_IFNAME]),
        ifindex=index,
        up=bool(flags & _IFF_UP),
        mtu=_number(attributes.get(_IFLA_MTU, b"")),
        kind=kind,
        tun=_tun_info(details.get(_IFLA_INFO_DATA, b"")) if kind == "tun" else None,
    )


def _tun_info(data: bytes) -> TunInfo:
    fields = netlink.attributes(data)

    def field(kind: int) -> int:
        return _number(fields.get(kind, b""))

    return TunInfo(
        l3=field(_IFLA_TUN_TYPE) != _IFF_TAP,
        vnet_header=bool(field(_IFLA_TUN_VNET_HDR)),
        persist=bool(field(_IFLA_TUN_PERSIST)),
        multi_queue=bool(field(_IFLA_TUN_MULTI_QUEUE)),
        # The driver leaves both counts out for a device with one queue.
        queues=field(_IFLA_TUN_NUM_QUEUES),
        disabled_queues=field(_IFLA_TUN_NUM_DISABLED_QUEUES),
    )


def _text(data: bytes) -> str:
    return os.fsdecode(data.rstrip(b"\0"))


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
