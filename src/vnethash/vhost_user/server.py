# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Listens on a Unix socket and serves one front end after the other."""

import os
import selectors
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from vnethash.closing import Closing
from vnethash.errors import ConfigError, DeviceError, VhostUserError
from vnethash.vhost_user.backend import Backend
from vnethash.vhost_user.channel import Channel
from vnethash.vhost_user.journal import Journal
from vnethash.vhost_user.session import Session

_PATH_MAX = 107  # sizeof(sockaddr_un.sun_path), less the final zero


class Server(Closing):
    """A socket, the backend behind it, and the loop that serves them.

    All but stop() belongs to the thread that calls run(). A second front end
    waits until the first is gone.
    """

    def __init__(
        self,
        path: Path,
        backend: Callable[[selectors.BaseSelector, Journal], Backend],
        journal: Journal,
    ) -> None:
        """Listen on ``path``, which must be free: what a dead process left there goes.

        Raises ConfigError for a path no socket can have, DeviceError if it is
        in use, and as ``backend`` does.
        """
        self._journal = journal
        self._stopping = False
        with ExitStack() as resources:
            self._selector = selectors.DefaultSelector()
            resources.callback(self._selector.close)
            self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            resources.callback(os.close, self._stop_fd)
            self._backend = backend(self._selector, journal)
            resources.callback(self._backend.close)
            self._socket = resources.enter_context(_listen(path))
            resources.callback(_unlink, path, path.stat().st_ino)
            self._connection: _Connection | None = None
            resources.callback(self._hang_up)
            self._selector.register(self._stop_fd, selectors.EVENT_READ, self._on_stop)
            self._selector.register(self._socket, selectors.EVENT_READ, self._on_connect)
            self._resources = resources.pop_all()

    @property
    def backend(self) -> Backend:
        return self._backend

    @property
    def connected(self) -> bool:
        """Whether there is a front end."""
        return self._connection is not None

    def run(self, tick: Callable[[], object] | None = None, interval: float | None = None) -> None:
        """Serve until stop(). ``tick`` is called every ``interval`` seconds or sooner."""
        while not self._stopping:
            for key, _ in self._selector.select(interval):
                # One before it may have ended what this one was for, or begun another.
                present = self._selector.get_map().get(key.fd)
                if present is not None and present.data == key.data:
                    key.data()
            if tick:
                tick()

    def stop(self) -> None:
        """Have run() return; may be called by any thread and by a signal's handler."""
        self._stopping = True
        os.eventfd_write(self._stop_fd, 1)

    def close(self) -> None:
        """Hang up, stop the data path, free the tap, remove the socket."""
        self._resources.close()

    def _on_stop(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._stop_fd)

    def _on_connect(self) -> None:
        with suppress(BlockingIOError):
            peer, _ = self._socket.accept()
            self._selector.unregister(self._socket)
            self._connection = _Connection(peer, self._backend)
            self._selector.register(peer, selectors.EVENT_READ, self._on_message)
            self._journal("connected", {"pid": _pid_of(peer)})

    def _on_message(self) -> None:
        connection = self._connection
        if connection is None:
            return
        reason = "the front end hung up"
        try:
            if connection.serve(self._journal):
                events = selectors.EVENT_READ | selectors.EVENT_WRITE * connection.wants_write
                self._selector.modify(connection.socket, events, self._on_message)
                return
        except VhostUserError as error:
            reason = error.message
        except OSError as error:  # descriptors or memory ran out, and it may have them
            reason = os.strerror(error.errno or 0).lower()
        self._hang_up(reason)

    def _hang_up(self, reason: str = "the backend stops") -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._selector.unregister(connection.socket)
        connection.close()
        self._backend.forget()
        self._journal("disconnected", {"reason": reason})
        self._selector.register(self._socket, selectors.EVENT_READ, self._on_connect)


class _Connection:
    """One front end."""

    def __init__(self, peer: socket.socket, backend: Backend) -> None:
        self.socket = peer
        self._channel = Channel(peer)
        self._session = Session(backend)
        backend.config_changed = self._session.notify_config_change

    @property
    def wants_write(self) -> bool:
        """Whether answers wait until the front end reads."""
        return self._channel.wants_write

    def serve(self, journal: Journal) -> bool:
        """Answer what has come; False at the end. Raises VhostUserError."""
        self._channel.flush()
        for message in self._channel.receive():
            answer = self._session.receive(message)
            if self._session.refused:
                journal("refused", {"reason": self._session.refused.message})
            if answer is not None:
                self._channel.send(answer)
        return not self._channel.ended

    def close(self) -> None:
        self._session.close()
        self._channel.close()


def _listen(path: Path) -> socket.socket:
    if not str(path) or len(os.fsencode(path)) > _PATH_MAX:
        raise ConfigError("socket", f"the path must have 1 to {_PATH_MAX} bytes")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _clear(path)
        listening.bind(os.fspath(path))
        listening.listen()
    except OSError as error:
        listening.close()
        reason = os.strerror(error.errno or 0).lower()
        raise DeviceError(f"listen on {path}: {reason}") from error
    except BaseException:
        listening.close()
        raise
    return listening


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise DeviceError(f"{path} exists and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        try:
            caller.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise DeviceError(
        f"{path} is in use by another process", hint="stop it, or choose another path"
    )


def _unlink(path: Path, inode: int) -> None:
    """Remove the socket unless somebody put another there."""
    with suppress(OSError):
        if path.stat().st_ino == inode:
            path.unlink()


def _pid_of(peer: socket.socket) -> int:
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], "little")
