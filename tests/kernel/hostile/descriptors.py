# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""File descriptors of all kinds, as a front end may send them where another kind belongs."""

import fcntl
import os
import select
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress

from vnethash.kernel.tun import TunDevice

FULL = 0xFFFFFFFFFFFFFFFE
"""What an eventfd holds at most: one more and the writer waits (eventfd(2))."""

_F_SEAL_FUTURE_WRITE = 0x10  # fcntl.h; Python has no name for it

Maker = Callable[[ExitStack], int]


def owned(left: ExitStack, fd: int) -> int:
    left.callback(os.close, fd)
    return fd


def fill(fd: int) -> None:
    """Write into a pipe or an eventfd that does not block until it would."""
    chunk = bytes(4096)
    if "eventfd" in os.readlink(f"/proc/self/fd/{fd}"):
        chunk = FULL.to_bytes(8, sys.byteorder)
    with suppress(BlockingIOError):
        while True:
            os.write(fd, chunk)


def _eventfd(flags: int = 0, *, full: bool = False) -> Maker:
    def make(left: ExitStack) -> int:
        fd = owned(left, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | flags))
        if full:
            fill(fd)
        os.set_blocking(fd, not flags & os.EFD_NONBLOCK)
        return fd

    return make


def _pipe(end: int, *, alone: bool, full: bool = False) -> Maker:
    def make(left: ExitStack) -> int:
        ends = os.pipe()
        if full:
            os.set_blocking(ends[1], False)
            fill(ends[1])
            os.set_blocking(ends[1], True)
        if alone:
            os.close(ends[1 - end])
        else:
            owned(left, ends[1 - end])
        return owned(left, ends[end])

    return make


def _pair(kind: socket.SocketKind = socket.SOCK_STREAM, *, dead: bool = False) -> Maker:
    def make(left: ExitStack) -> int:
        ours, theirs = (left.enter_context(end) for end in socket.socketpair(type=kind))
        ours.send(b"x")
        theirs.send(b"x" * 100)
        if dead:  # with something unread: reading then fails
            theirs.close()
        return ours.fileno()

    return make


def _socket(family: int, kind: int, protocol: int = 0, *, listens: bool = False) -> Maker:
    def make(left: ExitStack) -> int:
        made = left.enter_context(socket.socket(family, kind, protocol))
        if listens:
            if family == socket.AF_UNIX:
                made.bind("")  # to a name the kernel chooses
            made.listen()
        return made.fileno()

    return make


def _opened(path: str, flags: int) -> Maker:
    return lambda left: owned(left, os.open(path, flags | os.O_CLOEXEC))


def _file(size: int) -> Maker:
    def make(left: ExitStack) -> int:
        fd = owned(left, os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC))
        os.ftruncate(fd, size)
        return fd

    return make


def _memfd(size: int, seals: int = 0) -> Maker:
    def make(left: ExitStack) -> int:
        fd = owned(left, os.memfd_create("hostile", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        os.ftruncate(fd, size)
        if seals:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        return fd

    return make


def _path_of_pipe(left: ExitStack) -> int:
    return _opened(f"/proc/self/fd/{_pipe(0, alone=False)(left)}", os.O_PATH)(left)


def _tap(left: ExitStack) -> int:
    return left.enter_context(TunDevice.create(None, 1)).fds[0]


def _epoll(left: ExitStack) -> int:
    return left.enter_context(select.epoll()).fileno()


def _pidfd(left: ExitStack) -> int:
    return owned(left, os.pidfd_open(os.getpid()))


KINDS: Mapping[str, Maker] = {
    "eventfd": _eventfd(os.EFD_NONBLOCK),
    "blocking eventfd": _eventfd(),
    "semaphore": _eventfd(os.EFD_SEMAPHORE),
    "full eventfd": _eventfd(full=True),
    "pipe to read": _pipe(0, alone=False),
    "pipe to write": _pipe(1, alone=False),
    "pipe nobody writes": _pipe(0, alone=True),
    "pipe nobody reads": _pipe(1, alone=True),
    "full pipe to read": _pipe(0, alone=False, full=True),
    "full pipe to write": _pipe(1, alone=False, full=True),
    "path of a pipe": _path_of_pipe,
    "socket": _pair(),
    "datagram socket": _pair(socket.SOCK_DGRAM),
    "packet socket pair": _pair(socket.SOCK_SEQPACKET),
    "dead socket": _pair(dead=True),
    "listening socket": _socket(socket.AF_UNIX, socket.SOCK_STREAM, listens=True),
    "unconnected socket": _socket(socket.AF_INET, socket.SOCK_STREAM),
    "listening tcp socket": _socket(socket.AF_INET, socket.SOCK_STREAM, listens=True),
    "udp socket": _socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "netlink socket": _socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "raw packet socket": _socket(socket.AF_PACKET, socket.SOCK_RAW),
    "file": _file(1 << 20),
    "empty file": _file(0),
    "directory": _opened("/", os.O_RDONLY),
    "path": _opened("/etc/passwd", os.O_PATH),
    "/dev/null": _opened("/dev/null", os.O_RDWR),
    "/dev/zero": _opened("/dev/zero", os.O_RDWR),
    "/dev/net/tun": _opened("/dev/net/tun", os.O_RDWR),
    "/proc/self/mem": _opened("/proc/self/mem", os.O_RDWR),
    "tap": _tap,
    "epoll": _epoll,
    "pidfd": _pidfd,
    "memfd": _memfd(1 << 20),
    "empty memfd": _memfd(0),
    "memfd not to write": _memfd(1 << 20, fcntl.F_SEAL_WRITE),
    "memfd not to map": _memfd(1 << 20, _F_SEAL_FUTURE_WRITE),
}
"""By name, ways to make one that closes with the stack; some are well-formed."""
