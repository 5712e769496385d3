# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A program on a device's egress hook: by tcx where there is tcx, by clsact elsewhere."""

from typing import Protocol

from vnethash.errors import Unsupported
from vnethash.kernel import tc
from vnethash.kernel.tcx import Link, attach_tcx

TCX = "tcx"
CLSACT = "clsact"


class EgressHook(Protocol):
    """An attached program."""

    @property
    def point(self) -> str:
        """TCX or CLSACT."""

    def close(self) -> None:
        """Take the program off the device."""


class TcxHook:
    """Attached by a BPF link."""

    point = TCX

    def __init__(self, link: Link) -> None:
        self.link = link

    def close(self) -> None:
        self.link.detach()
        self.link.close()


class ClsactHook:
    """Attached by a filter of the clsact qdisc."""

    point = CLSACT

    def __init__(self, attachment: tc.Attachment) -> None:
        self.attachment = attachment

    def close(self) -> None:
        tc.detach(self.attachment)


def attach_egress(program_fd: int, ifindex: int) -> TcxHook | ClsactHook:
    """Run a tc program, behind all others, on what the device transmits.

    Raises Unsupported where the kernel has neither hook, DeviceError,
    NotPermitted, BpfError; the device is then as it was.
    """
    try:
        return TcxHook(attach_tcx(program_fd, ifindex))
    except Unsupported:
        return ClsactHook(tc.attach(program_fd, ifindex))
