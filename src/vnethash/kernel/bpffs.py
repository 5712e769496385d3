# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The BPF file system, where pins live (kernel/bpf/inode.c)."""

import ctypes
import errno
import os
from pathlib import Path

from vnethash.errors import BpfError, NotPermitted, Unsupported
from vnethash.kernel.libc import libc

MOUNT_POINT = Path("/sys/fs/bpf")
# MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_RELATIME: as the distributions mount it
_FLAGS = 0x2 | 0x4 | 0x8 | 0x200000
_OPTIONS = b"mode=0700"


def is_mounted(path: Path = MOUNT_POINT) -> bool:
    """Whether a BPF file system is mounted at ``path``, in this mount namespace."""
    kind = ""
    for line in Path("/proc/thread-self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[4] == str(path):
            kind = after.split()[0]  # of mounts on top of each other the last is seen
    return kind == "bpf"


def ensure_mounted(path: Path = MOUNT_POINT) -> bool:
    """Mount a BPF file system at ``path`` unless there is one; whether it was mounted now.

    Raises NotPermitted without CAP_SYS_ADMIN, Unsupported if the kernel has
    no BPF file system, BpfError.
    """
    if is_mounted(path):
        return False
    if libc().mount(b"bpf", os.fsencode(path), b"bpf", _FLAGS, _OPTIONS) == 0:
        return True
    code = ctypes.get_errno()
    if code == errno.EPERM:
        raise NotPermitted(f"mount a BPF file system at {path}", "CAP_SYS_ADMIN")
    if code in (errno.ENODEV, errno.ENOENT):
        reason = f"there is no {path}" if code == errno.ENOENT else "the kernel does not know it"
        raise Unsupported("BPF file system", reason, needs="CONFIG_BPF_SYSCALL")
    raise BpfError(f"mount a BPF file system at {path}: {os.strerror(code).lower()}")


def unmount(path: Path) -> None:
    """Unmount what is mounted at ``path``; its pins go with the last mount of it."""
    if libc().umount2(os.fsencode(path), 0) != 0:
        code = ctypes.get_errno()
        if code == errno.EPERM:
            raise NotPermitted(f"unmount {path}", "CAP_SYS_ADMIN")
        raise BpfError(f"unmount {path}: {os.strerror(code).lower()}")
