# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A descriptor of a tap queue that another process holds.

Settings of a tap can be changed through any of its queues, but opening one
more would take packets. So a descriptor of a queue there already is borrowed
by pidfd_getfd(2) (Linux 5.6): no queue is added, and nothing is read from it.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from vnethash.errors import DeviceError, NotPermitted, Unsupported
from vnethash.kernel import caps, tun_ioctl
from vnethash.kernel.caps import Cap
from vnethash.kernel.libc import libc
from vnethash.kernel.netns import current_inode

_SYS_PIDFD_GETFD = 438  # the same on all architectures
_DEVICE = os.makedev(10, 200)  # /dev/net/tun, Documentation/admin-guide/devices.txt


def borrow_queue(name: str) -> int:
    """A descriptor of a queue of the tap ``name`` in this network namespace.

    The caller closes it; while it is open the queue stays. Raises DeviceError
    if no process holds a queue, NotPermitted if one may (CAP_SYS_PTRACE) but
    cannot be looked into.
    """
    tun_ioctl.check_name(name)
    namespace = current_inode()
    denied = False
    for process in _processes():
        try:
            numbers = _queues(process, name)
        except PermissionError:
            denied = True
            continue
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        for number in numbers:
            try:
                fd = take_fd(int(process.name), number)
            except PermissionError:
                denied = True
                break
            except OSError as error:
                if error.errno == errno.ENOSYS:
                    raise Unsupported(
                        "borrowing a queue", "no pidfd_getfd", needs="Linux 5.6"
                    ) from error
                continue
            try:
                if _is_queue_of(fd, name, namespace):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
    if denied and not caps.has(Cap.SYS_PTRACE):
        raise NotPermitted(
            f"find who holds the tap {name}",
            "CAP_SYS_PTRACE",
            hint="run as root, or as the user that runs the process with the tap",
        )
    raise DeviceError(
        f"no process here holds a queue of {name}",
        hint="start what reads the tap first; in a container share its process namespace"
        + ("; some processes could not be looked into" if denied else ""),
    )


def take_fd(pid: int, number: int) -> int:
    """A duplicate of descriptor ``number`` of process ``pid``. Raises OSError as it comes."""
    pidfd = os.pidfd_open(pid)
    try:
        fd: int = libc().syscall(_SYS_PIDFD_GETFD, pidfd, number, 0)
        if fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return fd
    finally:
        os.close(pidfd)


def _processes() -> Iterator[Path]:
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _queues(process: Path, name: str) -> list[int]:
    """Descriptors of the process that are queues of a device called ``name``."""
    found = []
    for link in (process / "fd").iterdir():
        try:
            status = link.stat()
            if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _DEVICE:
                continue
            fields = (process / "fdinfo" / link.name).read_text().splitlines()
        except FileNotFoundError:
            continue  # closed meanwhile
        if f"iff:\t{name}" in fields:
            found.append(int(link.name))
    return found


def _is_queue_of(fd: int, name: str, namespace: int) -> bool:
    """Whether it still is, and in the given network namespace."""
    try:
        if tun_ioctl.read_interface(fd)[0] != name:
            return False
        namespace_fd = tun_ioctl.open_namespace(fd)
    except DeviceError:
        return False
    try:
        return os.fstat(namespace_fd).st_ino == namespace
    finally:
        os.close(namespace_fd)
