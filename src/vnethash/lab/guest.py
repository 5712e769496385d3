# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Runs a command on another kernel, whatever machine that boots on.

The guest's root is the host's, read-only, so that all the host has runs there;
only the kernel is another. Writable are /run, /dev and what TMPDIR and HOME
name. No rights are needed on the host, inside the command is root.
"""

import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vnethash.closing import Closing
from vnethash.lab.errors import GuestError

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

ENVIRONMENT = {
    "HOME": "/run/home",
    "HYPOTHESIS_STORAGE_DIRECTORY": "/run/tmp/hypothesis",
    "LANG": "C.UTF-8",
    # What is installed beside this interpreter first, `vnethash` among it.
    "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
    "PYTHONDONTWRITEBYTECODE": "1",
    "TMPDIR": "/run/tmp",
}

# As timeout(1) has it.
TIMED_OUT = 124

# Seconds the guest may take to boot and to stop, on top of the command.
BOOT_GRACE = 60.0

# How often, in seconds, output is looked for.
_LOOK_EVERY = 0.1

# There is no init to stop the machine: sysrq does.
_INIT = """\
#!/bin/sh
export PATH={path}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir -p /run/home /run/tmp /run/share /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
ln -s /proc/self/fd /dev/fd
{setup}\
ip link set lo up
{{
cd {cwd} &&
env -i {environment} timeout -k 5 {timeout} {command}
}} </dev/null >/run/share/output 2>&1
echo $? >/run/share/status
sync
echo o >/proc/sysrq-trigger
sleep 60
"""


class Machine(Protocol):
    """A kernel, and what it boots on."""

    def boot(self, folder: Path, mem: str) -> list[str]:
        """The command that boots it; its first process is to be the script ``folder``/init."""

    def setup(self, folder: Path) -> str:
        """Shell for that script: mounts ``folder``/share on /run/share, loads modules."""


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


class Guest(Closing):
    """A guest that boots, runs `command` as root and powers itself off.

    `timeout` in seconds is for the command alone, None for no limit; `env` is
    added to ENVIRONMENT; `cwd` (default: the current one) is a folder of the
    host; `arguments` are for the kernel, which inherits `descriptors`. ``show``
    is called with what the command prints, while wait() waits. close() ends
    the guest, whatever it is doing. GuestError if the kernel cannot be started.
    """

    def __init__(
        self,
        kernel: Machine,
        command: Sequence[str],
        *,
        timeout: float | None = None,
        mem: str = "512M",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        arguments: Sequence[str] = (),
        descriptors: Sequence[int] = (),
        show: Callable[[bytes], object] | None = None,
    ) -> None:
        self._show = show
        self._parts: list[bytes] = []
        with ExitStack() as stack:
            prefix = "vnethash-guest-"
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix)))
            share = self._folder / "share"
            share.mkdir()
            (share / "output").touch()
            init = self._folder / "init"
            setup = kernel.setup(self._folder)
            init.write_text(_init(setup, command, timeout, env or {}, cwd or Path.cwd()))
            init.chmod(0o755)
            boot = [*kernel.boot(self._folder, mem), *arguments]
            self._output = stack.enter_context((share / "output").open("rb"))
            self._started = time.monotonic()
            self._process = _start(boot, self._folder / "console", descriptors)
            stack.callback(self._kill)
            self._ended = os.pidfd_open(self._process.pid)
            stack.callback(os.close, self._ended)
            self._held = stack.pop_all()

    @property
    def console(self) -> str:
        """What its kernel has said."""
        return (self._folder / "console").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The process that is its kernel; those of its programs are others."""
        return self._process.pid

    def wait(self, limit: float | None) -> bool:
        """Whether it ended by itself within `limit` seconds, None for no limit."""
        until = None if limit is None else time.monotonic() + limit
        while not select.select([self._ended], [], [], _LOOK_EVERY)[0]:
            self._look()
            if until is not None and time.monotonic() > until:
                return False
        return True

    def result(self) -> GuestResult:
        """What became of the command; ends the guest. GuestError if it has no exit status."""
        self._kill()
        seconds = time.monotonic() - self._started
        self._look()
        text = b"".join(self._parts).decode(errors="replace")
        try:
            status = int((self._folder / "share/status").read_text())
        except (OSError, ValueError):
            raise GuestError(
                f"the guest ended after {seconds:.0f} s without an exit status",
                output=text,
                console=self.console,
            ) from None
        return GuestResult(status, text, seconds)

    def close(self) -> None:
        self._held.close()

    def _look(self) -> None:
        if part := self._output.read():
            self._parts.append(part)
            if self._show:
                self._show(part)

    def _kill(self) -> None:
        if self._process.returncode is None:
            # Before wait(): until then the number cannot be another group's.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def run(
    kernel: Machine,
    command: Sequence[str],
    *,
    timeout: float | None,
    mem: str = "512M",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    arguments: Sequence[str] = (),
    show: Callable[[bytes], object] | None = None,
    boot_grace: float = BOOT_GRACE,
) -> GuestResult:
    """Boot a guest, run `command` in it as root, power it off; arguments as for Guest.

    Raises GuestError when there is no exit status to return. Whatever ends this
    call also ends the guest.
    """
    with Guest(
        kernel,
        command,
        timeout=timeout,
        mem=mem,
        env=env,
        cwd=cwd,
        arguments=arguments,
        show=show,
    ) as guest:
        guest.wait(None if timeout is None else timeout + boot_grace)
        return guest.result()


def _init(
    setup: str,
    command: Sequence[str],
    timeout: float | None,
    env: Mapping[str, str],
    cwd: Path,
) -> str:
    """The script that is the guest's first process."""
    return _INIT.format(
        path=SYSTEM_PATH,
        setup=setup,
        cwd=shlex.quote(str(cwd)),
        environment=shlex.join(f"{name}={value}" for name, value in {**ENVIRONMENT, **env}.items()),
        timeout=timeout or 0,  # to timeout(1): none
        command=shlex.join(command),
    )


def _start(
    command: Sequence[str], console: Path, descriptors: Sequence[int]
) -> subprocess.Popen[bytes]:
    """Start the kernel; what it prints goes to `console`."""
    with console.open("wb") as log:
        # A session of its own: the kernel is many processes, all in one group.
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=descriptors,
            )
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise GuestError(
                f"cannot start {command[0]}: {reason}", output="", console=""
            ) from None
