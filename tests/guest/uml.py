# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Runs a command on Linux 6.1: Debian's user-mode-linux, booted as the lab boots its kernels.

By hand: `python -m tests.guest.uml uname -r`.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from vnethash.lab import uml
from vnethash.lab.errors import GuestError as GuestError
from vnethash.lab.uml import ENVIRONMENT as ENVIRONMENT
from vnethash.lab.uml import GuestResult as GuestResult
from vnethash.lab.uml import Kernel

KERNEL = "linux.uml"
MODULES = Path("/usr/lib/uml/modules")
ROOT = Path(__file__).resolve().parents[2]

# Loaded at boot: what is not asked for by name when it is first used.
AT_BOOT = ("tun", "ipv6", "sch_ingress", "cls_bpf")

# Seconds the guest may take to boot and to stop, on top of the command.
_BOOT_GRACE = uml.BOOT_GRACE


def missing() -> str | None:
    """Why no guest can run here, with what to install; None if one can."""
    if shutil.which(KERNEL) is None or not MODULES.is_dir():
        return "user-mode-linux is not installed (apt install user-mode-linux)"
    if shutil.which("modprobe", path=ENVIRONMENT["PATH"]) is None:
        return "modprobe is not installed (apt install kmod)"
    return None


def kernel() -> Kernel:
    """Debian's, with its modules; where `missing` has nothing to say."""
    return Kernel(Path(shutil.which(KERNEL) or KERNEL), MODULES, AT_BOOT)


def run_in_uml(
    command: Sequence[str],
    *,
    timeout: float,
    mem: str = "512M",
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> GuestResult:
    """`vnethash.lab.uml.run` with this kernel, from the root of the checkout."""
    return uml.run(
        kernel(), command, timeout=timeout, mem=mem, env=env, cwd=cwd, boot_grace=_BOOT_GRACE
    )


def main(command: Sequence[str]) -> int:
    if reason := missing():
        print(reason, file=sys.stderr)
        return 1
    result = uml.run(kernel(), command, timeout=600, cwd=ROOT, show=show)
    print(f"exit status {result.exit_status} after {result.seconds:.1f} s", file=sys.stderr)
    return result.exit_status


def show(part: bytes) -> None:
    sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
