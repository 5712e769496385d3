# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The kernel source as the distribution ships it: installed, in the cache, or fetched by apt."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vnethash.errors import DependencyMissing
from vnethash.lab.cache import MAKING
from vnethash.lab.errors import LabError

PACKAGE = "linux-source-6.12"
_TARBALL = f"{PACKAGE}.tar.xz"
INSTALLED = Path("/usr/src") / _TARBALL

_INSTALL_HINT = f"as root: apt update && apt install {PACKAGE} (Debian 12 and 13 have it)"


@dataclass(frozen=True, slots=True)
class Source:
    """A tarball of the kernel.

    version  of the package, such as ``6.12.117-1~deb12u1``
    sha256   of the tarball, in hexadecimal
    """

    tarball: Path
    version: str
    sha256: str


def find(cache: Path) -> Source | None:
    """The installed source, or the newest in the cache; None if there is neither.

    What is in the cache is taken until `vnethash lab clean`, also when the
    distribution has a newer one.
    """
    if INSTALLED.exists() and (version := _installed_version()):
        return Source(INSTALLED, version, _sha256(INSTALLED, cache))
    cached = sorted((cache / "source").glob(f"*/{_TARBALL}"), key=lambda path: path.stat().st_mtime)
    if not cached:
        return None
    return Source(cached[-1], cached[-1].parent.name, _sha256(cached[-1], cache))


def download(cache: Path) -> Source:
    """Fetch the package by apt, which checks it against the distribution's signature.

    No rights are needed. Raises DependencyMissing without apt, LabError when
    apt knows no such package or cannot fetch it.
    """
    if not shutil.which("apt-get"):
        raise DependencyMissing(
            f"{PACKAGE} is fetched by apt-get, which is not here",
            hint="use Debian 12 or 13, or put the tarball of that package at "
            f"{cache / 'source' / 'VERSION' / _TARBALL}",
        )
    with tempfile.TemporaryDirectory(prefix=MAKING, dir=cache / "source") as scratch:
        _run(["apt-get", "-qq", "download", PACKAGE], Path(scratch), "download")
        package = next(Path(scratch).glob("*.deb"))
        version = _run(["dpkg-deb", "-f", package.name, "Version"], Path(scratch), "read").strip()
        _run(["dpkg-deb", "-x", package.name, "."], Path(scratch), "unpack")
        tarball = Path(scratch) / "usr" / "src" / _TARBALL
        if not tarball.exists():
            raise LabError(f"{package.name} has no {_TARBALL}")
        for path in (tarball, tarball.parent):  # its files are as old as the package
            os.utime(path)
        tarball.parent.rename(cache / "source" / version)
    found = cache / "source" / version / _TARBALL
    return Source(found, version, _sha256(found, cache))


def _run(command: Sequence[str], folder: Path, what: str) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or [f"exit status {error.returncode}"]
        raise LabError(f"cannot {what} {PACKAGE}: {said[-1]}", hint=_INSTALL_HINT) from error
    except FileNotFoundError as error:
        raise DependencyMissing(f"{command[0]} is not installed") from error
    return done.stdout


def _installed_version() -> str:
    command = ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    status, _, version = done.stdout.partition(" ")
    return version if status == "ii" else ""


def _sha256(tarball: Path, cache: Path) -> str:
    """Of 150 MB: remembered as long as size and time of the file are the same."""
    stat = tarball.stat()
    now = [str(tarball), stat.st_size, stat.st_mtime_ns]
    memory = cache / "source" / "sha256.json"
    try:
        *seen, known = json.loads(memory.read_text())
        if seen == now and isinstance(known, str):
            return known
    except (OSError, ValueError):
        pass
    with tarball.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if memory.parent.is_dir():
        written = memory.with_suffix(f".{os.getpid()}")
        written.write_text(json.dumps([*now, digest]))
        written.replace(memory)
    return digest
