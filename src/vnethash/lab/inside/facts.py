# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which kernel this is, and what it has of what the ways stand on."""

import hashlib
import platform
from pathlib import Path
from typing import Any

from vnethash.engines.select import LAB
from vnethash.errors import VerifierError, VnethashError
from vnethash.kernel.bpf import Program, ProgramType
from vnethash.kernel.probe import probe
from vnethash.lab.inside.task import Task
from vnethash.lab.options import STOCK
from vnethash.native import BUILT

_UNPRIVILEGED = Path("/proc/sys/kernel/unprivileged_bpf_disabled")


def measure(task: Task) -> dict[str, Any]:
    return {
        "release": _release(platform.release()),
        "jit": bool(probe("BPF JIT")),
        "btf": Path("/sys/kernel/btf/vmlinux").exists(),
        "tcx": bool(probe("tcx")),
        "uso": bool(probe("USO offloads")),
        "libbpf": probe("libbpf").reason,
        "unprivileged_bpf_disabled": _read(_UNPRIVILEGED),
        "kfunc": _kfunc(),
        "objects": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(BUILT.glob("*.bpf.o"))
        },
    }


def _release(release: str) -> str:
    """``6.12.117-tun-cb``; what others call their builds tells nobody anything."""
    version, _, local = release.partition("-")
    return release if local in (*LAB, STOCK) else version


def _read(path: Path) -> str | None:
    return path.read_text().strip() if path.exists() else None


def _kfunc() -> str:
    """What the verifier says to a program that calls some function of the kernel."""
    code = [(0x85, 0x20, 0, 1), (0x95, 0, 0, 0)]  # call the type 1 of its BTF; exit
    try:
        Program.from_instructions(ProgramType.SOCKET_FILTER, "kfunc", code).close()
    except VerifierError as error:
        return next(iter(error.log.splitlines()), error.message)
    except VnethashError as error:
        return error.message
    return "loads"
