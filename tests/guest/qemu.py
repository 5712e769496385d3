# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A Linux guest in QEMU, in software emulation, whose network device is a vhost-user one.

The guest is Debian's kernel with busybox in an initial file system of ours.
Its first serial port is the kernel's console; over the second we give commands
to a shell. No disk, no image, no rights on the host, up in 3 to 4 s.

By hand: `python -m tests.guest.qemu /run/vnethash.sock [QUEUE PAIRS]`.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.guest import debian_kernel, initramfs
from vnethash.virtio.features import Feature

PROGRAM = "qemu-system-x86_64"
ADDRESS, MAC = "10.0.0.2", "02:00:00:00:00:02"

# Seconds until the shell answers; an emulated CPU on a loaded machine is slow.
BOOT = 45.0

# Seconds until QEMU itself answers.
_PATIENCE = 20.0

# KiB of memory beyond the MiB asked for. Of memory in whole units of 64 pages QEMU 7.2
# fetches the dirty bitmap by a short cut, cpu_physical_memory_sync_dirty_bitmap() in
# include/exec/ram_addr.h, which leaves the emulated CPUs as they are: what they go on to
# write to the same pages is lost in a migration.
_ODD = 8

# Of the first process. After each command a line with the mark and its exit status.
_INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /bin /sbin /proc /sys /tmp
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in {modules}; do insmod /$module; done
ip link set lo up
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
exec </dev/ttyS1 >/dev/ttyS1 2>&1
stty raw -echo
echo {mark} 0
while read -r line; do
    eval "$line"
    echo "{mark} $?"
done
"""
_MARK = "@@ask@@"


def missing() -> str | None:
    """Why no guest can run here, with what to install; None if one can."""
    for program, package in ((PROGRAM, "qemu-system-x86"), ("busybox", "busybox-static")):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt install {package})"
    try:
        debian_kernel.get()
    except debian_kernel.KernelError as error:
        return str(error)
    return None


class QemuError(Exception):
    """QEMU or the guest did not do what was asked; has what they said."""


class Guest:
    """A running guest. Made by `boot`; `ask` runs a command in it, `qmp` one of QEMU's."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        shell: socket.socket,
        monitor: socket.socket,
        log: Path,
    ) -> None:
        self._process = process
        self._shell = shell
        self._monitor = monitor
        self._log = log
        self._said = b""

    @property
    def console(self) -> str:
        """What the kernel and QEMU said."""
        return self._log.read_text(errors="replace")

    def ask(self, command: str, *, timeout: float = 15.0) -> str:
        """Run a line of shell, return what it printed. QemuError if it failed or took too long."""
        self._shell.sendall(command.encode() + b"\n")
        return self.wait(timeout)

    def wait(self, timeout: float) -> str:
        """Wait for the end of the command that runs, or of booting; as ``ask``."""
        mark = _MARK.encode() + b" "
        until = time.monotonic() + timeout
        while not (mark in self._said and self._said.endswith(b"\n")):
            self._shell.settimeout(max(until - time.monotonic(), 0.001))
            try:
                part = self._shell.recv(65536)
            except TimeoutError:
                part = b""
            if not part:
                raise self._broken(f"no end of\n{self._said.decode(errors='replace')}")
            self._said += part
        output, _, status = self._said.decode().partition(mark.decode())
        self._said = b""
        if int(status):
            raise QemuError(f"exit status {int(status)} in the guest\n{output}")
        return output

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Execute one of QEMU's own commands; returns its result. QemuError if it refuses."""
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        said = b""
        with contextlib.suppress(ConnectionError):
            self._monitor.sendall(json.dumps(request).encode() + b"\n")
        while True:
            part = b""
            with contextlib.suppress(ConnectionError, TimeoutError):
                part = self._monitor.recv(65536)
            if not part:
                raise self._broken(f"no answer to {command}")
            said += part
            *lines, said = said.split(b"\n")
            for message in map(json.loads, lines):
                if "error" in message:
                    raise QemuError(f"{command}: {message['error']['desc']}")
                if "return" in message:
                    return message["return"]
                # else an event, or the greeting

    def _broken(self, what: str) -> QemuError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            what += f" (QEMU's exit status is {self._process.wait(0.5)})"
        return QemuError(f"{what}\nconsole:\n{self.console}")

    def features(self) -> frozenset[Feature]:
        """What the guest's driver and the device agreed on, of the features we know."""
        bits = self.ask("cat /sys/bus/virtio/devices/virtio0/features").strip()
        return frozenset(feature for feature in Feature if bits[feature : feature + 1] == "1")


def network(
    path: str | Path,
    *,
    queue_pairs: int = 1,
    mac: str = MAC,
    device: str = "",
    chardev: str = "",
) -> list[str]:
    """Arguments that connect to a vhost-user backend; more properties as ",name=value".

    Without MSI-X: QEMU 7.2 has it with KVM only where the other end is vhost-user, else
    virtio_pci_one_vector_unmask() (hw/virtio/virtio-pci.c) goes through a null pointer.
    """
    device += ",mq=on" if queue_pairs > 1 else ""
    return [
        *["-chardev", f"socket,id=backend,path={path}{chardev}"],
        *["-netdev", f"vhost-user,id=net,chardev=backend,queues={queue_pairs}"],
        *["-device", f"virtio-net-pci,netdev=net,mac={mac},romfile=,vectors=0{device}"],
    ]


@contextmanager
def boot(
    arguments: Sequence[str], *, cpus: int = 2, memory: int = 160, started: bool = True
) -> Iterator[Guest]:
    """A guest with these arguments of QEMU's added; stopped by force at the end.

    ``memory`` in MiB. With ``started`` false it is not waited for. Raises
    QemuError when it does not come up.
    """
    kernel = debian_kernel.get()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vnethash-qemu-")))
        initrd = folder / "initrd"
        initrd.write_bytes(_initrd(kernel))
        shell, shell_end = (stack.enter_context(end) for end in socket.socketpair())
        monitor, monitor_end = (stack.enter_context(end) for end in socket.socketpair())
        monitor.settimeout(_PATIENCE)
        size = f"{memory * 1024 + _ODD}K"
        command = [
            *[PROGRAM, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(cpus)],
            *["-machine", "q35,graphics=off,usb=off,sata=off,memory-backend=ram"],
            *["-m", size, "-object", f"memory-backend-memfd,id=ram,size={size},share=on"],
            *["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"],
            *["-kernel", str(kernel.image), "-initrd", str(initrd)],
            *["-append", "console=ttyS0 quiet panic=-1 nokaslr mitigations=off"],
            *["-serial", "stdio"],
            *["-chardev", f"socket,id=shell,fd={shell_end.fileno()}", "-serial", "chardev:shell"],
            *["-chardev", f"socket,id=monitor,fd={monitor_end.fileno()}"],
            *["-mon", "chardev=monitor,mode=control"],
            *arguments,
        ]
        log = folder / "log"
        process = stack.enter_context(_running(command, log, (shell_end, monitor_end)))
        shell_end.close()
        monitor_end.close()
        guest = Guest(process, shell, monitor, log)
        guest.qmp("qmp_capabilities")
        if started:
            guest.wait(BOOT)
        yield guest


@contextmanager
def _running(
    command: Sequence[str], log: Path, ends: Sequence[socket.socket]
) -> Iterator["subprocess.Popen[bytes]"]:
    """The process, in a session of its own; killed at the end."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[end.fileno() for end in ends],
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@cache
def _initrd(kernel: debian_kernel.DebianKernel) -> bytes:
    modules = {f"modules/{path.name}": path.read_bytes() for path in kernel.modules}
    init = _INIT.format(modules=" ".join(modules), mark=_MARK)
    busybox = initramfs.program("busybox")
    busybox["bin/busybox"] = next(iter(busybox.values()))
    return initramfs.archive(
        {"init": init.encode(), **busybox, **initramfs.program("ethtool"), **modules}
    )


def main(path: str, queue_pairs: str = "1") -> int:
    with boot(network(path, queue_pairs=int(queue_pairs)), cpus=int(queue_pairs)) as guest:
        guest.ask(f"ip addr add {ADDRESS}/24 dev eth0 && ip link set eth0 up")
        for line in sys.stdin:
            try:
                print(guest.ask(line.rstrip("\n"), timeout=600), end="")
            except QemuError as error:
                print(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
