# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A number that no other network namespace has, or ever had, since boot (net_namespaces.c)."""

import socket
import struct

_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h
_COOKIE = struct.Struct("=Q")


def netns_cookie() -> int:
    """The cookie of the calling thread's network namespace; 0 before Linux 5.14.

    Inode numbers of namespaces (netns.current_inode()) come back once the
    namespace has ended; cookies do not.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            answer = asked.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, _COOKIE.size)
        except OSError:
            return 0
    cookie: int = _COOKIE.unpack(answer)[0]
    return cookie
