# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Runs a command on one of Debian's kernels, in QEMU's software emulation.

The guest's root is the host's, or another folder, by 9p and read-only.

By hand: `python -m tests.guest.qemu_kernel 6.12 uname -r`.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.guest import debian_kernel, initramfs, uml
from tests.guest.debian_kernel import DebianKernel
from tests.guest.uml import ROOT
from vnethash.lab import guest
from vnethash.lab.guest import Guest, GuestResult

PROGRAM = "qemu-system-x86_64"

# Seconds the guest may take to boot and to stop, on top of the command.
BOOT_GRACE = 120.0

# Of the file system in memory: gets at the real root, and leaves the rest to the
# script that is /init there. cache=loose, for nothing changes under a root that is
# only read; 512000 is the most that virtio takes at once.
_FIRST = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /root
for module in {modules}; do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t 9p -o {options},ro,cache=loose root /root &&
/bin/busybox mount -t devtmpfs dev /root/dev &&
/bin/busybox mount -t tmpfs tmpfs /root/run &&
/bin/busybox cp /script /root/run/script &&
exec /bin/busybox switch_root /root /run/script
"""
_OPTIONS = "trans=virtio,version=9p2000.L,msize=512000"

# Nothing is kept back there: who waits outside sees at once what is written.
_MOUNT_SHARE = f"mount -t 9p -o {_OPTIONS} share /run/share\n"


@dataclass(frozen=True, slots=True)
class Machine:
    """QEMU with a kernel of Debian's, and the folder that is its root."""

    kernel: DebianKernel
    root: Path = Path("/")
    cpus: int = 2

    def boot(self, folder: Path, mem: str) -> list[str]:
        """As `vnethash.lab.guest.Machine` has it."""
        initrd = folder / "initrd"
        initrd.write_bytes(self._initrd((folder / "init").read_bytes()))
        return [
            *[PROGRAM, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(self.cpus)],
            *["-machine", "q35,graphics=off,usb=off,sata=off", "-m", mem],
            *["-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio"],
            *["-kernel", str(self.kernel.image), "-initrd", str(initrd)],
            *["-append", "console=ttyS0 quiet panic=-1 nokaslr mitigations=off"],
            *_share("root", self.root, ",readonly=on"),
            *_share("share", folder / "share"),
        ]

    def setup(self, folder: Path) -> str:
        """As `vnethash.lab.guest.Machine` has it."""
        return _MOUNT_SHARE

    def _initrd(self, script: bytes) -> bytes:
        modules = {f"modules/{path.name}": path.read_bytes() for path in self.kernel.modules}
        names = " ".join(path.name for path in self.kernel.modules)
        first = _FIRST.format(modules=names, options=_OPTIONS)
        busybox = initramfs.program("busybox")
        busybox["bin/busybox"] = next(iter(busybox.values()))
        files = {"init": first.encode(), "script": script, **busybox, **modules}
        return initramfs.archive(files)


def _share(name: str, folder: Path, more: str = "") -> list[str]:
    """A folder of the host's that the guest mounts by this name."""
    where = str(folder).replace(",", ",,")
    return [
        *["-fsdev", f"local,id={name},path={where},security_model=none,multidevs=remap{more}"],
        *["-device", f"virtio-9p-pci,fsdev={name},mount_tag={name}"],
    ]


def missing() -> str | None:
    """Why no guest can run here, with what to install; None if one can."""
    for program, package in ((PROGRAM, "qemu-system-x86"), ("busybox", "busybox-static")):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt install {package})"
    return None


def start(
    series: str,
    command: Sequence[str],
    *,
    timeout: float,
    mem: str = "1G",
    cpus: int = 2,
    env: Mapping[str, str] | None = None,
    root: Path = Path("/"),
    cwd: Path = ROOT,
) -> Guest:
    """Boot a guest that runs the command and powers itself off. KernelError, GuestError."""
    machine = Machine(debian_kernel.of_series(series), root, cpus)
    return Guest(machine, command, timeout=timeout, mem=mem, env=env, cwd=cwd)


def run(
    series: str,
    command: Sequence[str],
    *,
    timeout: float,
    mem: str = "1G",
    cpus: int = 2,
    env: Mapping[str, str] | None = None,
    root: Path = Path("/"),
    cwd: Path = ROOT,
) -> GuestResult:
    """As start(), and wait for it."""
    with start(
        series, command, timeout=timeout, mem=mem, cpus=cpus, env=env, root=root, cwd=cwd
    ) as booted:
        booted.wait(timeout + BOOT_GRACE)
        return booted.result()


def main(series: str, *command: str) -> int:
    if reason := missing():
        print(reason, file=sys.stderr)
        return 1
    try:
        machine = Machine(debian_kernel.of_series(series))
    except debian_kernel.KernelError as error:
        print(error, file=sys.stderr)
        return 1
    result = guest.run(machine, command, timeout=None, mem="1G", cwd=Path.cwd(), show=uml.show)
    print(f"exit status {result.exit_status} after {result.seconds:.1f} s", file=sys.stderr)
    return result.exit_status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
