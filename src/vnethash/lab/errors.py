# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What can go wrong with kernels of the lab."""

from pathlib import Path

from vnethash.errors import VnethashError


class LabError(VnethashError):
    """A kernel of the lab cannot be made or found."""


class BuildError(LabError):
    """A step of the build failed; ``tail`` is the end of what it said, ``log`` has all."""

    def __init__(self, message: str, *, tail: str, log: Path) -> None:
        super().__init__(message, hint=f"the whole log is {log}")
        self.tail = tail
        self.log = log


class GuestError(VnethashError):
    """A guest did not boot, or died before its command ended; with what it said last."""

    def __init__(self, message: str, *, output: str, console: str) -> None:
        super().__init__(message)
        self.output = output
        self.console = console

    def __str__(self) -> str:
        return (
            f"{self.message}\n--- output ---\n{self.output[-4000:]}\n"
            f"--- console ---\n{self.console[-4000:]}"
        )
