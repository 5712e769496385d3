# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Boots user-mode-linux: a kernel that is a process like any other."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from vnethash.lab.guest import BOOT_GRACE as BOOT_GRACE
from vnethash.lab.guest import ENVIRONMENT as ENVIRONMENT
from vnethash.lab.guest import Guest as Guest
from vnethash.lab.guest import GuestResult as GuestResult
from vnethash.lab.guest import run as run

# Written data goes to the host within 0.2 s, for the sake of who watches, and of
# a guest that is killed.
_MOUNT_SHARE = """\
mount -t hostfs -o {share} none /run/share
echo 10 >/proc/sys/vm/dirty_writeback_centisecs
echo 10 >/proc/sys/vm/dirty_expire_centisecs
"""

# The kernel loads a module by the program that kernel.modprobe names: ours
# looks where the guest's modules are, which is not /lib/modules.
_LOAD_MODULES = """\
mkdir -p /run/kmod/lib
ln -s {modules} /run/kmod/lib/modules
printf '#!/bin/sh\\nexec modprobe -d /run/kmod "$@"\\n' >/run/modprobe
chmod +x /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
/run/modprobe -a {at_boot}
"""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A user-mode-linux binary.

    modules  the folder with a folder for each release, if it has modules
    at_boot  modules to load first: what is not asked for by name when it is used
    """

    path: Path
    modules: Path | None = None
    at_boot: tuple[str, ...] = ()

    def boot(self, folder: Path, mem: str) -> list[str]:
        """As `Machine` has it."""
        return [
            *[str(self.path), f"mem={mem}", "rootfstype=hostfs", "rootflags=/", "ro"],
            *[f"init={folder / 'init'}", "con=null", "con0=null,fd:1", "noreboot", "panic=-1"],
            *[f"uml_dir={folder}", "umid=guest"],  # else ~/.uml
        ]

    def setup(self, folder: Path) -> str:
        """As `Machine` has it."""
        script = _MOUNT_SHARE.format(share=shlex.quote(str(folder / "share")))
        if self.modules:
            script += _LOAD_MODULES.format(
                modules=shlex.quote(str(self.modules)), at_boot=" ".join(self.at_boot)
            )
        return script
