# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What BPF maps, programs and links share: a descriptor that can be pinned."""

import errno
import os
from pathlib import Path
from typing import Any, ClassVar, Self

from vnethash.errors import BpfError
from vnethash.kernel import libbpf
from vnethash.kernel.fd import OwnedFd


class BpfFd(OwnedFd):
    """A descriptor of a BPF map, program or link."""

    kind: ClassVar[str]  # what /proc/self/fd calls it: bpf-map, bpf-prog or bpf-link

    def pin(self, path: str | Path) -> None:
        """Give it a name in a BPF file system, where it outlives the process.

        Raises BpfError if ``path`` exists or is in no BPF file system.
        """
        action = f"pin {path}"
        try:
            libbpf.call(action, "bpf_obj_pin", self.fileno(), os.fsencode(path))
        except BpfError as error:
            if Path(path).exists():
                raise BpfError(f"{action}: already there") from error
            error.hint = "the folder must be there and lie in a mounted bpffs (/sys/fs/bpf)"
            raise

    @classmethod
    def from_pin(cls, path: str | Path) -> Self:
        """Open what is pinned at ``path``.

        Raises BpfError if there is nothing, or something of another kind.
        """
        action = f"open pin {path}"
        fd = libbpf.call(action, "bpf_obj_get", os.fsencode(path))
        try:
            target = os.readlink(f"/proc/self/fd/{fd}").removeprefix("anon_inode:").strip("[]")
            found = target.replace("_", "-")  # older kernels say bpf_link
            if found != cls.kind:
                raise BpfError(f"{action}: it is a {found}, not a {cls.kind}")
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    def _info(self, layout: str) -> Any:
        """What the kernel says of it, as the structure ``layout``."""
        ffi = libbpf.load().ffi
        info = ffi.new(f"struct {layout} *")
        size = ffi.new("uint32_t *", ffi.sizeof(info[0]))
        libbpf.call(
            f"read information of {self.kind}",
            "bpf_obj_get_info_by_fd",
            self.fileno(),
            info,
            size,
        )
        return info


def unpin(path: str | Path) -> None:
    """Remove a pin; no error if it is gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, "unknown error")
        raise BpfError(f"remove pin {path}: {reason}") from error
