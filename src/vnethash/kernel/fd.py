# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""One object owns one file descriptor."""

import os
import warnings

from vnethash.closing import Closing
from vnethash.errors import VnethashError


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

    def __del__(self) -> None:
        if self._fd >= 0 and not self._borrowed:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)
            self.close()
