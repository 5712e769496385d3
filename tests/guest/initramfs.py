# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""An initial file system for a guest: a cpio archive in the "newc" format.

Source: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

_DIRECTORY, _REGULAR, _CHARACTER = 0o40755, 0o100755, 0o20600

_MAGIC, _END = b"070701", "TRAILER!!!"

# /dev/console: the kernel opens it before there is a /dev.
_CONSOLE = (5, 1)


def archive(files: Mapping[str, bytes]) -> bytes:
    """The archive with these files, all executable, and /dev/console.

    Paths have no leading slash; folders on the way are made.
    """
    out = bytearray()
    number = 0

    def add(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        nonlocal number
        number += 1
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
        for part in (_MAGIC + b"".join(b"%08X" % field for field in fields) + path, data):
            out.extend(part)
            out.extend(bytes(-len(out) % 4))

    folders = {str(parent) for name in [*files, "dev/console"] for parent in Path(name).parents}
    for folder in sorted(folders - {"."}):  # a folder sorts before what is in it
        add(folder, _DIRECTORY)
    add("dev/console", _CHARACTER, device=_CONSOLE)
    for name, data in files.items():
        add(name, _REGULAR, data)
    add(_END, 0)
    return bytes(out)


def program(name: str) -> dict[str, bytes]:
    """A program of this machine and the shared libraries it needs, each at its own path.

    Raises FileNotFoundError where the program is not installed.
    """
    path = shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if path is None:
        raise FileNotFoundError(name)
    needed = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    return _contents([path, *re.findall(r"(?:=>\s*|^\s*)(/\S+) \(", needed, re.MULTILINE)])


def _contents(paths: Iterable[str]) -> dict[str, bytes]:
    return {path.lstrip("/"): Path(path).read_bytes() for path in paths}
