# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The few rtnetlink questions that must be answered fast (RFC 3549, rtnetlink(7)).

A full netlink library takes a quarter of a second to import, more than a
whole attach may take. What changes links goes through it (kernel/link.py);
what only asks, goes through here.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
_F_REQUEST = 0x001
_F_ACK = 0x004
_F_ECHO = 0x008
_F_DUMP = 0x300
_ERROR = 2
_DONE = 3
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


def request(kind: int, body: bytes, *, dump: bool = False, echo: bool = False) -> list[bytes]:
    """Ask the kernel one question; the bodies of its answers.

    With ``dump`` there are any number, else one. ``echo`` is for what only
    answers listeners unless asked to, and maybe not even then. Raises OSError
    with the kernel's errno.
    """
    flags = _F_REQUEST | (_F_DUMP if dump else 0) | (_F_ECHO | _F_ACK if echo else 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asked:
        asked.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
        answers: list[bytes] = []
        while True:
            for answered, payload in _messages(asked.recv(1 << 16)):
                if answered == _ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return answers
                if answered == _DONE:
                    return answers
                answers.append(payload)
                if not dump:
                    return answers


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            raise OSError(errno.EBADMSG, "netlink message cut short")
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in ``data`` by type; of repeated ones the last."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            raise OSError(errno.EBADMSG, "netlink attribute cut short")
        found[kind & _TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found
