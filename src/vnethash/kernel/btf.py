# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which functions the kernel describes in its BTF: its kfuncs are among them."""

import mmap
import os
import struct
from contextlib import closing
from pathlib import Path

from vnethash.errors import BpfError, Unsupported

FOLDER = Path("/sys/kernel/btf")

_MAGIC = 0xEB9F
# struct btf_header, Documentation/bpf/btf.rst
_HEADER = struct.Struct("<HBBI8xII")
_PAGE = 4096  # as much as sysfs gives in one read


def has_name(name: str, module: str = "vmlinux") -> bool:
    """Whether a function, type or member of ``module`` has this name.

    Looks at the names alone, which is as quick as that can be: 1 to 3 ms.
    Raises Unsupported if there is no BTF, BpfError if it cannot be read.
    """
    path = FOLDER / module
    wanted = b"\0" + name.encode() + b"\0"
    try:
        with closing(_Btf(path)) as btf:
            return btf.contains(wanted)
    except FileNotFoundError as error:
        raise Unsupported(
            f"BTF of {module}", f"there is no {path}", needs="CONFIG_DEBUG_INFO_BTF"
        ) from error
    except (OSError, struct.error) as error:
        raise BpfError(f"read {path}: {error}") from error


class _Btf:
    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            magic, _, _, header, start, length = _HEADER.unpack(os.pread(self._fd, 24, 0))
            if magic != _MAGIC:
                raise OSError(0, "it is no BTF")
        except BaseException:
            self.close()
            raise
        self._start: int = header + start
        self._end: int = self._start + length

    def close(self) -> None:
        os.close(self._fd)

    def contains(self, wanted: bytes) -> bool:
        try:
            mapped = mmap.mmap(self._fd, 0, prot=mmap.PROT_READ)
        except (OSError, ValueError):  # before Linux 6.16
            return self._read_through(wanted)
        with mapped:
            return mapped.find(wanted, self._start, self._end) >= 0

    def _read_through(self, wanted: bytes) -> bool:
        os.lseek(self._fd, self._start, os.SEEK_SET)
        kept = b""
        while data := os.read(self._fd, _PAGE):
            if wanted in kept + data:
                return True
            kept = data[1 - len(wanted) :]
        return False
