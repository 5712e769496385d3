# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What a kernel is built with, and which of it is missing here.

`python -m vnethash.lab.tools` prints the missing packages, one a line.
"""

import shutil
import subprocess
from functools import cache

from vnethash.errors import DependencyMissing

# Debian package: the program or header that is asked for.
PROGRAMS = {
    "bc": "bc",
    "binutils": "strip",
    "bison": "bison",
    "dpkg": "dpkg-deb",
    "flex": "flex",
    "gcc": "gcc",
    "make": "make",
    "pahole": "pahole",
    "patch": "patch",
    "perl": "perl",
    "tar": "tar",
    "util-linux": "setpriv",
    "xz-utils": "xz",
}
HEADERS = {
    "libc6-dev": "stdio.h",
    "libelf-dev": "libelf.h",
    "zlib1g-dev": "zlib.h",
}

# Whose version is part of what a kernel is made from.
_COMPILERS = ("gcc", "pahole")


def missing() -> list[str]:
    """The packages to install, in the order of the alphabet."""
    lacking = [package for package, program in PROGRAMS.items() if not shutil.which(program)]
    if "gcc" in lacking:
        lacking += HEADERS  # nothing to ask
    else:
        lacking += [package for package, header in HEADERS.items() if not _has_header(header)]
    return sorted(lacking)


def check() -> None:
    """Raise DependencyMissing, which names all that is missing at once."""
    if lacking := missing():
        raise DependencyMissing(
            f"building a kernel needs what is not installed: {', '.join(lacking)}",
            hint=f"as root: apt install {' '.join(lacking)}",
        )


@cache
def versions() -> dict[str, str]:
    """What compiler and BTF writer call themselves; empty where there is none."""
    return {program: _first_line(program) for program in _COMPILERS}


def _first_line(program: str) -> str:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.partition("\n")[0].strip()


def _has_header(name: str) -> bool:
    command = ["gcc", "-E", "-include", name, "-x", "c", "/dev/null"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    print("".join(f"{package}\n" for package in missing()), end="")
