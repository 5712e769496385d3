# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Terminals that programs write to."""

import os
import pty
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminal:
    """``fd`` is for the program; ``text`` what it has shown, once the terminal is closed.

    It is read all the time: a program that shows much does not wait for us.
    """

    def __init__(self) -> None:
        self._controller, self.fd = pty.openpty()
        self._shown = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            while shown := os.read(self._controller, 1 << 16):
                self._shown += shown
        except OSError:
            pass  # nobody has the other end any more, and all was read

    @property
    def text(self) -> str:
        return self._shown.decode()

    def close(self) -> None:
        os.close(self.fd)
        self._reader.join()
        os.close(self._controller)


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal; the programs that have it must have ended by the end of the block."""
    opened = Terminal()
    try:
        yield opened
    finally:
        opened.close()
