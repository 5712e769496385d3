# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""tcx: BPF links on the egress or ingress hook of a link (Linux 6.6, kernel/bpf/tcx.c)."""

import errno
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Self

from vnethash.errors import BpfError, DeviceError, Unsupported
from vnethash.kernel import libbpf
from vnethash.kernel.bpf_fd import BpfFd, unpin
from vnethash.kernel.caps import Cap


class AttachType(IntEnum):
    """enum bpf_attach_type, include/uapi/linux/bpf.h: those used here."""

    TCX_INGRESS = 46
    TCX_EGRESS = 47


_LINK_TYPE_TCX = 11  # enum bpf_link_type
_MOST = 64  # programs of a hook: BPF_MPROG_MAX, include/linux/bpf_mprog.h
_NEEDS = (Cap.BPF, Cap.NET_ADMIN)


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What the kernel says of a tcx link; ``ifindex`` is 0 once detached."""

    id: int
    prog_id: int
    ifindex: int
    attach_type: AttachType


class Link(BpfFd):
    """A BPF program on a tcx hook, there until the last descriptor or pin goes."""

    kind = "bpf-link"

    def __init__(self, fd: int, *, borrowed: bool = False) -> None:
        super().__init__(fd, borrowed=borrowed)
        self.path: Path | None = None

    def __repr__(self) -> str:
        return f"<Link fd {self._fd}>"

    def pin(self, path: str | Path) -> None:
        """Pin the link: the program stays attached when this process ends."""
        super().pin(path)
        self.path = Path(path)

    @classmethod
    def from_pin(cls, path: str | Path) -> Self:
        """Open the tcx link pinned at ``path``. Raises BpfError for anything else."""
        link = super().from_pin(path)
        try:
            kind = link._info("vnb_tcx_link_info").type
            if kind != _LINK_TYPE_TCX:
                raise BpfError(f"open pin {path}: it is a link of type {kind}, not tcx")
        except BaseException:
            link.close()
            raise
        link.path = Path(path)
        return link

    def unpin(self) -> None:
        """Remove the pin made by pin() or opened by from_pin(), if any."""
        path, self.path = self.path, None
        if path is not None:
            unpin(path)

    def info(self) -> LinkInfo:
        """Where the link is and which program it runs."""
        info = self._info("vnb_tcx_link_info")
        return LinkInfo(info.id, info.prog_id, info.ifindex, AttachType(info.attach_type))

    def update(self, program_fd: int) -> None:
        """Put another program in the place of the present one, without a gap."""
        null = libbpf.load().ffi.NULL
        libbpf.call(
            "replace program of a link",
            "bpf_link_update",
            self.fileno(),
            program_fd,
            null,
            needs=_NEEDS,
        )

    def detach(self) -> None:
        """Take the program off the device now, whatever pins there are.

        No error if the device, or the attachment, is gone already.
        """
        code = libbpf.attempt("bpf_link_detach", self.fileno())
        if code < 0 and -code not in (errno.ENOLINK, errno.ENODEV):
            raise libbpf.failure("detach link", code, needs=_NEEDS, said=libbpf.messages())


def attach_tcx(program_fd: int, ifindex: int, *, egress: bool = True) -> Link:
    """Attach a tc program (BPF_PROG_TYPE_SCHED_CLS) behind those already there.

    Raises Unsupported where the kernel has no tcx, DeviceError if there is no
    such device, NotPermitted, BpfError.
    """
    where = AttachType.TCX_EGRESS if egress else AttachType.TCX_INGRESS
    null = libbpf.load().ffi.NULL
    code = libbpf.attempt("bpf_link_create", program_fd, ifindex, int(where), null)
    if code >= 0:
        return Link(code)
    if code in (-errno.EINVAL, -errno.EOPNOTSUPP):
        raise Unsupported("tcx", "the kernel refuses the attach type", needs="Linux 6.6")
    if code == -errno.ENODEV:
        raise DeviceError(f"attach by tcx: no device with index {ifindex}")
    raise libbpf.failure(
        f"attach by tcx to device {ifindex}", code, needs=_NEEDS, said=libbpf.messages()
    )


def attached_programs(ifindex: int) -> list[int]:
    """Ids of the programs on the tcx egress hook, in the order they run; none without tcx.

    Raises NotPermitted, BpfError.
    """
    ffi = libbpf.load().ffi
    ids, count = ffi.new("uint32_t[]", _MOST), ffi.new("uint32_t *", _MOST)
    where = int(AttachType.TCX_EGRESS)
    code = libbpf.attempt("bpf_prog_query", ifindex, where, 0, ffi.NULL, ids, count)
    if code in (-errno.EINVAL, -errno.EOPNOTSUPP, -errno.ENOENT):
        return []
    if code < 0:
        raise libbpf.failure(f"list programs of device {ifindex}", code, needs=(Cap.NET_ADMIN,))
    return list(ids[0 : count[0]])
