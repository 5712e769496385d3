# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A connected Unix socket and the messages that pass over it, with their descriptors.

Nothing here blocks: the event loop asks for a message when the socket is
readable, and for a flush when it is writable and something waits.
"""

import array
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress

from vnethash.closing import Closing
from vnethash.errors import VhostUserError
from vnethash.vhost_user.messages import HEADER_SIZE, MAX_FDS, Message, MessageHeader, request_name

MAX_WAITING = 1 << 16
"""Bytes of replies that a front end may leave unread."""

BATCH = 16
"""Messages taken before others of the event loop have their turn."""

_INT_SIZE = array.array("i").itemsize
_ANCILLARY = socket.CMSG_SPACE(MAX_FDS * _INT_SIZE)
_GONE = (BrokenPipeError, ConnectionResetError)


class Channel(Closing):
    """Owns a stream socket, and the descriptors of a message that is not complete yet."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._socket.setblocking(False)
        self._header: MessageHeader | None = None
        self._data = bytearray()
        self._fds: list[int] = []
        self._waiting = bytearray()
        self.ended = False
        """The front end has closed its side: there will be no more messages."""

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether replies wait until the socket is writable."""
        return bool(self._waiting)

    def receive(self) -> Iterator[Message]:
        """The messages that are there, a few at a time: the socket stays readable for the rest.

        The descriptors of each belong to the caller, who so must take one after
        the other. VhostUserError if what came is no message; the channel is of
        no use then.
        """
        for _ in range(BATCH):
            message = self._next()
            if message is None:
                return
            yield message

    def _next(self) -> Message | None:
        while True:
            size = self._header.size if self._header else HEADER_SIZE
            while len(self._data) < size:
                if not self._read(size - len(self._data)):
                    return None
            data = bytes(self._data)
            self._data.clear()
            if self._header is None:
                self._header = MessageHeader.decode(data)
                continue
            message = Message.decode(self._header, data, self._fds)
            self._header, self._fds = None, []
            return message

    def send(self, data: bytes) -> None:
        """Send ``data``, what does not fit later. VhostUserError if too much waits."""
        self._waiting += data
        self.flush()
        if len(self._waiting) > MAX_WAITING:
            raise VhostUserError("reply", f"{len(self._waiting)} bytes of replies are not read")

    def flush(self) -> None:
        """Send of what waits as much as fits."""
        try:
            while self._waiting:
                del self._waiting[: self._socket.send(self._waiting)]
        except BlockingIOError:
            pass
        except _GONE:
            # What it sent before may still be read.
            self._waiting.clear()

    def close(self) -> None:
        """Close the socket and what came with an unfinished message."""
        _close(self._fds)
        self._fds = []
        self._socket.close()

    def _read(self, size: int) -> bool:
        """Up to ``size`` more bytes; False if there are none.

        Never more than this message has: descriptors come with the bytes they
        were sent with, and so belong to it.
        """
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                size, _ANCILLARY, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data, ancillary, flags = b"", [], 0
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % _INT_SIZE])
                self._fds += fds
                for fd in fds:
                    _close_at_once(fd)
        if flags & socket.MSG_CTRUNC or len(self._fds) > MAX_FDS:
            raise VhostUserError(
                self._name, f"more than {MAX_FDS} file descriptors, or none left to this process"
            )
        if not data:
            self.ended = True
            if self._header or self._data:
                raise VhostUserError(self._name, "it ends in the middle")
        self._data += data
        return bool(data)

    @property
    def _name(self) -> str:
        return request_name(self._header.request) if self._header else "message"


def notify(fd: int, data: bytes) -> bool:
    """Write a request to a backend channel, a socket or a pipe, without waiting.

    False if it is full, its other end is gone or it cannot be written. A front
    end that misses the news has more of them waiting, or needs none.
    """
    try:
        os.set_blocking(fd, False)
        return os.write(fd, data) == len(data)
    except OSError:
        return False


def _close_at_once(fd: int) -> None:
    """A socket with SO_LINGER would have whoever closes it last wait."""
    with suppress(OSError):  # it is no socket
        given = socket.socket(fileno=fd)
        try:
            given.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        finally:
            given.detach()


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
