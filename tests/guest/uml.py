# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Runs a command on another kernel: Debian's user-mode-linux, a process like any other.

The guest's root is the host's, read-only, so that all the host has runs there;
only the kernel is another. Writable are /run, /dev and what TMPDIR and HOME
name. No rights are needed on the host, inside the command is root.

By hand: `python -m tests.guest.uml uname -r`.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

KERNEL = "linux.uml"
MODULES = Path("/usr/lib/uml/modules")
ROOT = Path(__file__).resolve().parents[2]

# Loaded at boot: what is not asked for by name when it is first used.
AT_BOOT = ("tun", "ipv6", "sch_ingress", "cls_bpf")

ENVIRONMENT = {
    "HOME": "/run/home",
    "HYPOTHESIS_STORAGE_DIRECTORY": "/run/tmp/hypothesis",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "TMPDIR": "/run/tmp",
}

# Seconds the guest may take to boot and to stop, on top of the command.
_BOOT_GRACE = 60

# {share} is a folder of the host, the only one the guest can write to.
# The kernel loads a module by the program that kernel.modprobe names: ours
# looks where the guest's modules are, which is not /lib/modules.
# Written data goes to the host within a second, for the sake of a guest that
# is killed. There is no init to stop the machine: sysrq does.
_INIT = """\
#!/bin/sh
export PATH={path}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /run
mkdir -p /run/home /run/tmp /run/share /run/kmod/lib /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
ln -s /proc/self/fd /dev/fd
mount -t hostfs -o {share} none /run/share
echo 50 >/proc/sys/vm/dirty_writeback_centisecs
echo 50 >/proc/sys/vm/dirty_expire_centisecs
ln -s {modules} /run/kmod/lib/modules
printf '#!/bin/sh\\nexec modprobe -d /run/kmod "$@"\\n' >/run/modprobe
chmod +x /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
/run/modprobe -a {at_boot}
ip link set lo up
cd {cwd}
env -i {environment} timeout -k 5 {timeout} {command} </dev/null >/run/share/output 2>&1
echo $? >/run/share/status
sync
echo o >/proc/sysrq-trigger
sleep 60
"""


@dataclass(frozen=True, slots=True)
class GuestResult:
    """What became of a command in the guest.

    exit_status  as the shell has it; 124 when the command took too long
    output       standard output and standard error together
    seconds      from boot to power off
    """

    exit_status: int
    output: str
    seconds: float


class GuestError(Exception):
    """The guest did not boot, or died before the command ended."""


def missing() -> str | None:
    """Why no guest can run here, with what to install; None if one can."""
    if shutil.which(KERNEL) is None or not MODULES.is_dir():
        return "user-mode-linux is not installed (apt install user-mode-linux)"
    if shutil.which("modprobe", path=ENVIRONMENT["PATH"]) is None:
        return "modprobe is not installed (apt install kmod)"
    return None


def run_in_uml(
    command: Sequence[str],
    *,
    timeout: float,
    mem: str = "512M",
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> GuestResult:
    """Boot a guest, run `command` in it as root, power it off.

    `timeout` in seconds is for the command alone; `env` is added to ENVIRONMENT;
    `cwd` is a folder of the host. Raises GuestError, with the guest's console,
    when there is no exit status to return.
    """
    with tempfile.TemporaryDirectory(prefix="vnethash-uml-") as scratch:
        folder = Path(scratch)
        share = folder / "share"
        share.mkdir()
        init = folder / "init"
        init.write_text(
            _INIT.format(
                path=ENVIRONMENT["PATH"],
                share=shlex.quote(str(share)),
                modules=MODULES,
                at_boot=" ".join(AT_BOOT),
                cwd=shlex.quote(str(cwd)),
                environment=shlex.join(
                    f"{name}={value}" for name, value in {**ENVIRONMENT, **(env or {})}.items()
                ),
                timeout=timeout,
                command=shlex.join(command),
            )
        )
        init.chmod(0o755)
        started = time.monotonic()
        console = _boot(folder, init, mem, timeout + _BOOT_GRACE)
        seconds = time.monotonic() - started
        output = share / "output"
        text = output.read_text(errors="replace") if output.exists() else ""
        try:
            status = int((share / "status").read_text())
        except (OSError, ValueError):
            raise GuestError(
                f"the guest ended after {seconds:.0f} s without an exit status\n"
                f"--- output ---\n{text[-4000:]}\n--- console ---\n{console[-4000:]}"
            ) from None
        return GuestResult(status, text, seconds)


def _boot(folder: Path, init: Path, mem: str, timeout: float) -> str:
    """Run the kernel until it ends by itself or `timeout` seconds passed; return its console."""
    arguments = [
        KERNEL,
        *[f"mem={mem}", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}"],
        *["con=null", "con0=null,fd:1", "noreboot", "panic=-1"],
        *[f"uml_dir={folder}", "umid=guest"],  # else ~/.uml
    ]
    console = folder / "console"
    with console.open("wb") as log:
        # A session of its own: the kernel is many processes, all in one group.
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            ended = os.pidfd_open(process.pid)
            try:
                select.select([ended], [], [], timeout)
            finally:
                os.close(ended)
        finally:
            # Before wait(): until then the number cannot be another group's.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return console.read_text(errors="replace")


def main(command: Sequence[str]) -> int:
    if reason := missing():
        print(reason, file=sys.stderr)
        return 1
    result = run_in_uml(command, timeout=600)
    print(result.output, end="")
    print(f"exit status {result.exit_status} after {result.seconds:.1f} s", file=sys.stderr)
    return result.exit_status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
