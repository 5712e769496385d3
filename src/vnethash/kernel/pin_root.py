# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The BPF file system whose pins outlive a command.

A mount ends with its mount namespace, and the pins in it with the mount.
``ip netns exec`` gives each command a mount namespace of its own, without
/sys/fs/bpf: there the one of the process that started it serves instead.
"""

import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from vnethash.errors import ConfigError, VnethashError
from vnethash.kernel import bpffs
from vnethash.kernel.libc import check, libc

VARIABLE = "VNETHASH_BPFFS"
"""Environment variable that names the BPF file system to use instead."""

_MAGIC = 0xCAFE4A11  # BPF_FS_MAGIC, include/uapi/linux/magic.h
_CLONE_FS = 0x200
_CLONE_NEWNS = 0x20000


def find() -> Path | None:
    """Where pins are, None if no BPF file system is mounted.

    Raises ConfigError if what VNETHASH_BPFFS names is none.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        if not _is_bpffs(Path(named)):
            raise ConfigError(
                VARIABLE,
                f"{named!r} is not in a BPF file system",
                hint=f"mount -t bpf bpf {named or bpffs.MOUNT_POINT}",
            )
        return Path(named)
    if _is_bpffs(bpffs.MOUNT_POINT):
        return bpffs.MOUNT_POINT
    return next((path for pid in _ancestors() if _is_ours(path := _seen_by(pid))), None)


def ensure() -> Path:
    """As ``find``; where nothing is mounted, mount one that stays.

    Raises ConfigError, NotPermitted without CAP_SYS_ADMIN, Unsupported, BpfError.
    """
    found = find()
    if found is not None:
        return found
    here = os.stat("/proc/thread-self/ns/mnt").st_ino
    for pid in _ancestors():
        try:
            namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # not ours to look into
        try:
            if os.fstat(namespace).st_ino == here:
                break
            _mount_in(namespace)
            return _seen_by(pid)
        finally:
            os.close(namespace)
    bpffs.ensure_mounted()
    return bpffs.MOUNT_POINT


def _seen_by(pid: int) -> Path:
    return Path(f"/proc/{pid}/root{bpffs.MOUNT_POINT}")


def _is_bpffs(path: Path) -> bool:
    status = ctypes.create_string_buffer(256)  # struct statfs, f_type first
    if libc().statfs(os.fsencode(path), status) != 0:
        return False
    return ctypes.c_ulong.from_buffer(status).value & 0xFFFFFFFF == _MAGIC


def _is_ours(path: Path) -> bool:
    """Whether it is a BPF file system that no less privileged user has mounted."""
    return _is_bpffs(path) and path.stat().st_uid == os.geteuid()


def _ancestors() -> Iterator[int]:
    """The processes this one descends from, the first of them (init) first."""
    line = []
    pid = os.getppid()
    while pid > 0:
        line.append(pid)
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(status.rpartition(") ")[2].split()[1])
    return reversed(line)


def _mount_in(namespace: int) -> None:
    """Mount a BPF file system at the usual place of another mount namespace."""
    failures: list[BaseException] = []

    def mount() -> None:
        # Only a thread with a root and working directory of its own may go there.
        try:
            check(libc().unshare(_CLONE_FS), "leave the mount namespace", "CAP_SYS_ADMIN")
            action = "mount a BPF file system outside this mount namespace"
            check(libc().setns(namespace, _CLONE_NEWNS), action, "CAP_SYS_ADMIN")
            bpffs.ensure_mounted()
        except BaseException as error:
            failures.append(error)

    helper = threading.Thread(target=mount, name="vnethash-mount")
    helper.start()
    helper.join()
    if failures:
        failure = failures[0]
        if isinstance(failure, VnethashError):
            failure.hint = f"mount it yourself: mount -t bpf bpf {bpffs.MOUNT_POINT}"
        raise failure
