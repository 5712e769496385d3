# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What there is that a test could leave behind."""

import os
import socket
from pathlib import Path

from vnethash.kernel import bpffs

_PIN_FOLDER = bpffs.MOUNT_POINT / "vnethash"


def _descriptors() -> set[str]:
    """Open descriptors as "number target"."""
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        try:
            found.add(f"fd {entry} {os.readlink(f'/proc/self/fd/{entry}')}")
        except FileNotFoundError:
            continue  # the one that listed them
    return found


def _children() -> set[str]:
    """Child processes, ended ones nobody waited for included."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (comm) state ppid ...; comm may hold anything
            before, _, after = stat.read_text().rpartition(") ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(after.split()[1]) == os.getpid():
            found.add(f"process {before})")
    return found


def _names(kind: str, folder: Path) -> set[str]:
    """Files in and below a folder."""
    return {f"{kind} {path}" for path in folder.rglob("*")} if folder.is_dir() else set()


def snapshot() -> set[str]:
    """What a test may leave behind: descriptors, processes, links, namespaces, pins."""
    return (
        _descriptors()
        | _children()
        | {f"link {name}" for _, name in socket.if_nameindex()}
        | _names("namespace", Path("/run/netns"))
        | _names("pin", _PIN_FOLDER)
    )
