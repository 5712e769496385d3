# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Network namespaces without a name (namespaces(7), setns(2))."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from vnethash.errors import VnethashError
from vnethash.kernel.fd import OwnedFd
from vnethash.kernel.libc import check, libc

_CLONE_NEWNET = 0x40000000
_CURRENT = "/proc/thread-self/ns/net"


class Namespace(OwnedFd):
    """A network namespace. The ``with`` block runs the calling thread in it.

    Leaving the block returns the thread to where it was; blocks may nest,
    and threads and processes started inside begin there. The descriptor
    stays open until close(). With nothing else in it the namespace, and
    every link in it, then ends.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._before: list[int] = []

    def __repr__(self) -> str:
        return f"<Namespace fd {self._fd}>"

    @classmethod
    def create(cls) -> Self:
        """A fresh namespace, its loopback down. NotPermitted without CAP_SYS_ADMIN."""
        # unshare() moves the thread that calls it, so a short-lived one does.
        result: list[int | BaseException] = []

        def unshare() -> None:
            try:
                check(libc().unshare(_CLONE_NEWNET), "make a network namespace", "CAP_SYS_ADMIN")
                result.append(os.open(_CURRENT, os.O_RDONLY | os.O_CLOEXEC))
            except BaseException as error:
                result.append(error)

        helper = threading.Thread(target=unshare, name="vnethash-netns")
        helper.start()
        helper.join()
        if isinstance(result[0], BaseException):
            raise result[0]
        return cls(result[0])

    @classmethod
    def current(cls) -> Self:
        """The namespace the calling thread is in."""
        return cls(os.open(_CURRENT, os.O_RDONLY | os.O_CLOEXEC))

    @classmethod
    def open(cls, path: str) -> Self:
        """The namespace a file stands for: /run/netns/NAME, /proc/PID/ns/net."""
        try:
            return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise VnethashError(f"open network namespace {path}: {error.strerror}") from error

    @property
    def inode(self) -> int:
        """The number that tells namespaces apart."""
        return os.fstat(self.fileno()).st_ino

    def __enter__(self) -> Self:
        before = os.open(_CURRENT, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _set_namespace(self.fileno())
        except BaseException:
            os.close(before)
            raise
        self._before.append(before)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        before = self._before.pop()
        try:
            _set_namespace(before)
        finally:
            os.close(before)


@contextmanager
def fresh() -> Iterator[Namespace]:
    """Run the block in a new namespace that ends with it. NotPermitted without CAP_SYS_ADMIN."""
    namespace = Namespace.create()
    try:
        with namespace:
            yield namespace
    finally:
        namespace.close()


def current_inode() -> int:
    """The number of the calling thread's network namespace."""
    return os.stat(_CURRENT).st_ino


def _set_namespace(fd: int) -> None:
    check(libc().setns(fd, _CLONE_NEWNET), "enter a network namespace", "CAP_SYS_ADMIN")
