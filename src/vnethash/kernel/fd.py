# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""One object owns one file descriptor."""

import errno
import fcntl
import os
import warnings

from vnethash.closing import Closing
from vnethash.errors import VnethashError

OPEN_FILES = "this process has as many files open as it may: raise ulimit -n (LimitNOFILE=)"


class OwnedFd(Closing):
    """A file descriptor that close(), or leaving the ``with`` block, closes.

    An object that is collected while still open closes it too, with a
    ResourceWarning, as Python's own files do.
    """

    _fd: int = -1
    _borrowed: bool = False

    def __init__(self, fd: int, *, borrowed: bool = False) -> None:
        self._fd = fd
        self._borrowed = borrowed

    def fileno(self) -> int:
        """The descriptor; VnethashError once closed."""
        if self._fd < 0:
            raise VnethashError(f"{type(self).__name__} is closed")
        return self._fd

    @property
    def fd(self) -> int:
        return self.fileno()

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def close(self) -> None:
        """Close the descriptor; no error if it is closed already."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and not self._borrowed:
            os.close(fd)

    def own(self) -> None:
        """Take a descriptor of its own for what was borrowed."""
        if self._borrowed and self._fd >= 0:
            self._fd = duplicate(self._fd)
            self._borrowed = False

    def __del__(self) -> None:
        if self._fd >= 0 and not self._borrowed:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)
            self.close()


def duplicate(fd: int) -> int:
    """Another descriptor for the same. Raises VnethashError if the limit is reached."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
    except OSError as error:
        hint = OPEN_FILES if error.errno == errno.EMFILE else None
        reason = os.strerror(error.errno or 0).lower()
        raise VnethashError(f"duplicate descriptor {fd}: {reason}", hint=hint) from error
