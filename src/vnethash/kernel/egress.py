# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A program on a device's egress hook: by tcx where there is tcx, by clsact elsewhere."""

from contextlib import suppress
from typing import Protocol

from vnethash.errors import BpfError, DeviceError, NotPermitted, Unsupported
from vnethash.kernel import tc
from vnethash.kernel.bpf import Program
from vnethash.kernel.tcx import Link, attach_tcx, attached_programs

TCX = "tcx"
CLSACT = "clsact"

_ALIKE = {"hash_stage", "hash_stage_adap"}
"""The two hash stages of native/vnet_hash.h, as far as the kernel keeps their names."""


class EgressHook(Protocol):
    """An attached program."""

    @property
    def point(self) -> str:
        """TCX or CLSACT."""

    def replace(self, program_fd: int) -> None:
        """Put another program in the place of this one, with no packet between them."""

    def close(self) -> None:
        """Take the program off the device."""


class TcxHook:
    """Attached by a BPF link."""

    point = TCX

    def __init__(self, link: Link) -> None:
        self.link = link

    def replace(self, program_fd: int) -> None:
        self.link.update(program_fd)

    def close(self) -> None:
        self.link.detach()
        self.link.close()


class ClsactHook:
    """Attached by a filter of the clsact qdisc."""

    point = CLSACT

    def __init__(self, attachment: tc.Attachment) -> None:
        self.attachment = attachment

    def replace(self, program_fd: int) -> None:
        tc.replace(self.attachment, program_fd)

    def close(self) -> None:
        tc.detach(self.attachment)


def attach_egress(program_fd: int, ifindex: int) -> TcxHook | ClsactHook:
    """Run a tc program, behind all others, on what the device transmits.

    Raises Unsupported where the kernel has neither hook, DeviceError,
    NotPermitted, BpfError; the device is then as it was.
    """
    with Program(program_fd, borrowed=True) as program:
        _refuse_twice(program.name, ifindex)
    try:
        return TcxHook(attach_tcx(program_fd, ifindex))
    except Unsupported:
        return ClsactHook(tc.attach(program_fd, ifindex))


def _refuse_twice(name: str, ifindex: int) -> None:
    """DeviceError if a program of that name is there: two hash stages would make two records.

    Who may not look (CAP_SYS_ADMIN) has to know for himself.
    """
    present = attached_programs(ifindex)
    with suppress(BpfError):  # a kernel may have tcx and no qdiscs at all
        present += [item.prog_id for item in tc.filters(ifindex)]
    for number in filter(None, present):
        try:
            with Program.from_id(number) as other:
                twice = other.name == name or {other.name, name} == _ALIKE
        except (NotPermitted, BpfError):
            continue
        if twice:
            raise DeviceError(
                f"the device {ifindex} has a {name} already",
                hint="one process steers a tap: close it there, or vnethash detach it first",
            )
