# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Settings of one link, by the ioctls of netdevice(7) and by /proc/sys.

All act in the current network namespace. Making links and addresses is in
``links``.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from vnethash.errors import ConfigError, DeviceError, NotPermitted, Unsupported
from vnethash.kernel.link_info import LinkInfo, TunInfo, link_info

__all__ = [
    "LinkInfo",
    "TunInfo",
    "features",
    "ifindex_of",
    "link_info",
    "mac_of",
    "parse_mac",
    "quiet",
    "set_down",
    "set_features",
    "set_mac",
    "set_mtu",
    "set_up",
]

# include/uapi/linux/sockios.h
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCSIFMTU = 0x8922
_SIOCSIFHWADDR = 0x8924
_SIOCGIFHWADDR = 0x8927
_SIOCETHTOOL = 0x8946
_IFF_UP = 1
_ARPHRD_ETHER = 1
# include/uapi/linux/ethtool.h
_GSTRINGS = 0x1B
_GSSET_INFO = 0x37
_GFEATURES = 0x3A
_SFEATURES = 0x3B
_SS_FEATURES = 4
_STRING_LEN = 32


def ifindex_of(name: str) -> int:
    """Index of the link; DeviceError if there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise DeviceError(f"there is no link {name}") from error


def set_up(name: str) -> None:
    """Bring the link up. Raises DeviceError, NotPermitted."""
    _change_flags(name, _IFF_UP, 0)


def set_down(name: str) -> None:
    """Take the link down. Raises DeviceError, NotPermitted."""
    _change_flags(name, 0, _IFF_UP)


def set_mtu(name: str, mtu: int) -> None:
    """Set the MTU, in bytes. Raises DeviceError, NotPermitted."""
    _ioctl(name, _SIOCSIFMTU, struct.pack("i20x", mtu), f"set the MTU of {name} to {mtu}")


def set_mac(name: str, mac: str) -> None:
    """Set the Ethernet address. Raises ConfigError, DeviceError, NotPermitted."""
    data = struct.pack("H6s16x", _ARPHRD_ETHER, parse_mac(mac))
    _ioctl(name, _SIOCSIFHWADDR, data, f"set the address of {name}")


def mac_of(name: str) -> str:
    """The Ethernet address of the link."""
    answer = _ioctl(name, _SIOCGIFHWADDR, bytes(24), f"read the address of {name}")
    return answer[2:8].hex(":")


def parse_mac(mac: str) -> bytes:
    """The six bytes of ``02:00:00:00:00:01``; ConfigError for anything else."""
    try:
        data = bytes.fromhex(mac.replace(":", ""))
    except ValueError:
        data = b""
    if len(data) != 6:
        raise ConfigError("mac", f"{mac!r} is no Ethernet address")
    return data


def quiet(name: str, *, ipv6: bool = False) -> None:
    """Keep the kernel from sending frames of its own on the link.

    Without ``ipv6`` the protocol is off there; with it only router
    solicitation, duplicate address detection and automatic addresses are.
    """
    _sysctl(name, "ipv4", "arp_notify", 0)
    if not Path("/proc/sys/net/ipv6").exists():
        return
    for key in ("accept_ra", "accept_dad", "dad_transmits", "router_solicitations", "autoconf"):
        _sysctl(name, "ipv6", key, 0)
    _sysctl(name, "ipv6", "addr_gen_mode", 1)  # IN6_ADDR_GEN_MODE_NONE
    _sysctl(name, "ipv6", "disable_ipv6", 0 if ipv6 else 1)


def features(name: str) -> dict[str, bool]:
    """What the link offloads, by the names of ``ethtool -k`` ("tx-udp-segmentation")."""
    names = _feature_names(name)
    words = (len(names) + 31) // 32
    answer = _ethtool(name, struct.pack("=II", _GFEATURES, words) + bytes(16 * words))
    active = [struct.unpack_from("=4I", answer, 8 + 16 * word)[2] for word in range(words)]
    return {
        feature: bool(active[i // 32] >> i % 32 & 1) for i, feature in enumerate(names) if feature
    }


def set_features(name: str, wanted: Mapping[str, bool]) -> None:
    """Switch offloads on or off. Raises ConfigError for a name the kernel does not know,
    Unsupported if the device does not let it be changed.
    """
    names = _feature_names(name)
    words = (len(names) + 31) // 32
    blocks = [[0, 0] for _ in range(words)]
    for feature, on in wanted.items():
        if feature not in names:
            raise ConfigError("feature", f"the kernel knows no {feature}")
        bit = names.index(feature)
        blocks[bit // 32][0] |= 1 << bit % 32
        blocks[bit // 32][1] |= int(on) << bit % 32
    body = b"".join(struct.pack("=II", valid, requested) for valid, requested in blocks)
    _ethtool(name, struct.pack("=II", _SFEATURES, words) + body)
    now = features(name)
    refused = [feature for feature, on in wanted.items() if now[feature] != on]
    if refused:
        raise Unsupported(f"changing {', '.join(refused)}", f"{name} keeps its setting")


def _feature_names(name: str) -> list[str]:
    """Names by bit number; empty for bits without one."""
    answer = _ethtool(name, struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _SS_FEATURES, 0))
    count = struct.unpack_from("=I", answer, 16)[0]
    request = struct.pack("=III", _GSTRINGS, _SS_FEATURES, count) + bytes(_STRING_LEN * count)
    answer = _ethtool(name, request)
    strings = (answer[12 + _STRING_LEN * i : 12 + _STRING_LEN * (i + 1)] for i in range(count))
    return [text.partition(b"\0")[0].decode() for text in strings]


def _ethtool(name: str, request: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(request, len(request))
    pointer = struct.pack("P", ctypes.addressof(buffer)).ljust(24, b"\0")
    _ioctl(name, _SIOCETHTOOL, pointer, f"read or set the features of {name}")
    return buffer.raw


def _change_flags(name: str, on: int, off: int) -> None:
    answer = _ioctl(name, _SIOCGIFFLAGS, bytes(24), f"read the flags of {name}")
    flags = struct.unpack_from("H", answer)[0]
    wanted = (flags | on) & ~off
    if wanted == flags:
        return  # which needs no rights
    data = struct.pack("H22x", wanted)
    _ioctl(name, _SIOCSIFFLAGS, data, f"bring {name} {'up' if on else 'down'}")


def _ioctl(name: str, request: int, data: bytes, action: str) -> bytes:
    """One ioctl on struct ifreq; ``data`` and the answer are its union of 24 bytes."""
    ifreq = os.fsencode(name).ljust(16, b"\0") + data
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            return fcntl.ioctl(any_socket, request, ifreq)[16:]
    except OSError as error:
        _fail(name, action, error)


def _sysctl(name: str, family: str, key: str, value: int) -> None:
    path = Path("/proc/sys/net", family, "conf", name, key)
    action = f"set {key} of {name}"
    try:
        path.write_text(f"{value}\n")
    except FileNotFoundError as error:
        raise DeviceError(f"{action}: there is no such link or setting") from error
    except OSError as error:
        _fail(name, action, error)


def _fail(name: str, action: str, error: OSError) -> NoReturn:
    if error.errno in (errno.EPERM, errno.EACCES):
        raise NotPermitted(action, "CAP_NET_ADMIN") from error
    if error.errno == errno.ENODEV:
        raise DeviceError(f"there is no link {name}") from error
    raise DeviceError(f"{action}: {os.strerror(error.errno or 0).lower()}") from error
