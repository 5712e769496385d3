# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Capabilities of the calling thread (linux/capability.h, capabilities(7))."""

import struct
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path

from vnethash.kernel.libc import check, libc

_VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3


class Cap(IntEnum):
    """The capabilities vnethash has to do with, by bit number."""

    NET_ADMIN = 12
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    PERFMON = 38
    BPF = 39

    @property
    def title(self) -> str:
        """As the manual writes it: ``CAP_NET_ADMIN``."""
        return f"CAP_{self.name}"


# What CAP_SYS_ADMIN still stands for since Linux 5.8 split these off.
_PART_OF_SYS_ADMIN = {Cap.BPF, Cap.PERFMON}


def effective() -> frozenset[int]:
    """Bit numbers of the calling thread's effective set."""
    status = Path("/proc/thread-self/status").read_text()
    field = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    bits = int(field.split()[1], 16)
    return frozenset(bit for bit in range(bits.bit_length()) if bits >> bit & 1)


def has(cap: Cap) -> bool:
    """Whether the thread has ``cap``, or CAP_SYS_ADMIN where that implies it."""
    caps = effective()
    return cap in caps or (cap in _PART_OF_SYS_ADMIN and Cap.SYS_ADMIN in caps)


def restrict_to(caps: Iterable[Cap]) -> None:
    """Give up for good every capability of the calling thread but ``caps``.

    Other threads keep theirs. Capabilities the thread lacks are not gained;
    asking for one raises NotPermitted.
    """
    bits = sum(1 << cap for cap in set(caps))
    low, high = bits & 0xFFFFFFFF, bits >> 32
    header = struct.pack("=Ii", _VERSION_3, 0)
    data = struct.pack("=6I", low, low, 0, high, high, 0)
    check(libc().capset(header, data), "restrict capabilities", "the capabilities asked for")
