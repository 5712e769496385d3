# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Terminals that programs write to."""

import os
import pty
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Terminal:
    """``fd`` is for the program; ``text`` what it has shown: all, once the terminal is closed.

    It is read all the time: a program that shows much does not wait for us.
    """

    def __init__(self) -> None:
        self._controller, self.fd = pty.openpty()
        self._shown = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while shown := os.read(self._controller, 1 << 16):
                self._shown += shown
        except OSError:
            pass  # nobody has the other end any more, and all was read

    @property
    def text(self) -> str:
        return self._shown.decode(errors="replace")

    def wait(self, *words: str, times: int = 1, patience: float = 30) -> None:
        """Until all the words have been shown, so many times."""
        deadline = time.monotonic() + patience
        while not all(self.text.count(word) >= times for word in words):
            assert time.monotonic() < deadline, self.text
            time.sleep(0.01)

    def close(self) -> None:
        os.close(self.fd)
        self._reader.join(10)
        os.close(self._controller)
        assert not self._reader.is_alive(), "a program has the terminal still"


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal; the programs that have it must have ended by the end of the block."""
    opened = Terminal()
    try:
        yield opened
    finally:
        opened.close()
