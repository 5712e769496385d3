# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The root file system of another Debian release: nothing of this one, and no compiler.

Made once by debootstrap, from the mirror that apt uses, and kept as an archive.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.guest import cache

PACKAGES = ("python3", "python3-venv", "libbpf1", "iproute2")
"""What is in it besides the least that Debian can be: what README asks for."""

ENVIRONMENT_FOLDER = "opt/vnethash"

# Of it, left out: half of its files.
_NOT_NEEDED = (
    *("var/cache/apt", "var/lib/apt/lists"),
    *(f"usr/share/{name}" for name in ("doc", "info", "locale", "man", "zoneinfo")),
)

# The other one than this machine's.
_RELEASES = ("trixie", "bookworm")

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Mounts of a namespace end with its last process.
_ENTER = """\
mount --rbind /dev "$0/dev"
mount --rbind /sys "$0/sys"
mount -t proc proc "$0/proc"
exec chroot "$0" "$@"
"""


class RootError(Exception):
    """There is no such root to be had; says why."""


def missing() -> str | None:
    """Why none can be made or entered here, with what to install; None if it can."""
    if os.geteuid() != 0:
        return "this needs root, for debootstrap and chroot"
    for program, package in (("debootstrap", "debootstrap"), ("unshare", "util-linux")):
        if shutil.which(program, path=_PATH) is None:
            return f"{program} is not installed (apt install {package})"
    return None


def release() -> str:
    """Of the other root."""
    here = platform.freedesktop_os_release().get("VERSION_CODENAME")
    return next(name for name in _RELEASES if name != here)


def get() -> Path:
    """The archive: from the cache, else made. Raises RootError.

    Its name is of all that decides what it holds, but for the state of the mirror.
    """
    if reason := missing():
        raise RootError(reason)
    kept = cache.folder("guest")
    key = hashlib.sha256(
        " ".join([platform.machine(), *PACKAGES, *_NOT_NEEDED]).encode()
    ).hexdigest()[:8]
    place = kept / f"root-{release()}-{key}.tar.gz"
    if not place.exists():
        with tempfile.TemporaryDirectory(prefix=cache.MAKING, dir=kept) as scratch:
            made = Path(scratch, "archive")
            _make(Path(scratch, "root"), made)
            made.rename(place)
    return place


@contextmanager
def unpacked() -> Iterator[Path]:
    """A fresh copy, gone after the block. Raises RootError."""
    archive = get()
    with tempfile.TemporaryDirectory(prefix="vnethash-root-") as scratch:
        root = Path(scratch)
        root.chmod(0o755)
        with tarfile.open(archive) as file:
            file.extractall(root, filter="fully_trusted")
        yield root


def run(
    root: Path, command: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command in it, on the running kernel, as root; what it printed, errors apart.

    In namespaces of its own for mounts and processes, which end with it.
    """
    return subprocess.run(
        [
            *["unshare", "--mount", "--pid", "--fork", "--kill-child"],
            *["sh", "-ec", _ENTER, str(root), *command],
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", **(env or {})},
        check=False,
    )


def install(root: Path, wheel: Path) -> None:
    """Install a wheel there as its user does: by that root's pip. Raises RootError.

    What it depends on is fetched out here, as wheels for that root's Python.
    """
    version = 'import sys; print("%d.%d" % sys.version_info[:2])'
    python = run(root, ["python3", "-c", version], timeout=60).stdout.strip()
    machine = platform.machine()
    platforms = [f"linux_{machine}", *(f"manylinux_2_{minor}_{machine}" for minor in range(17, 37))]
    wheels = root / "wheels"
    _run(
        *[sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(wheels)],
        *["--disable-pip-version-check", "--only-binary=:all:", f"--python-version={python}"],
        *[f"--platform={each}" for each in [*platforms, f"manylinux2014_{machine}"]],
        str(wheel),
    )
    folder = f"/{ENVIRONMENT_FOLDER}"
    pip = [f"{folder}/bin/pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    for command in (
        ["python3", "-m", "venv", folder],
        [*pip, "--find-links", "/wheels", "vnethash"],
    ):
        done = run(root, command, timeout=300)
        if done.returncode:
            raise RootError(f"{' '.join(command)}: {done.stderr.strip()}")


def _make(root: Path, archive: Path) -> None:
    packages = ",".join(PACKAGES)
    options = ["--variant=minbase", f"--include={packages}"]
    _run("debootstrap", *options, release(), str(root), _mirror())
    for name in _NOT_NEEDED:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(root / name)
    with tarfile.open(archive, "w:gz", compresslevel=1) as file:
        for path in sorted(root.iterdir()):
            if path.name not in ("dev", "proc", "sys"):
                file.add(path, path.name)
        for name in ("dev", "proc", "sys"):  # of a kernel, whichever it will be
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            file.addfile(folder)


def _mirror() -> str:
    """Where apt has this release from."""
    here = platform.freedesktop_os_release().get("VERSION_CODENAME")
    format_ = "$(CODENAME) $(COMPONENT) $(LABEL) $(REPO_URI)"
    said = _run("apt-get", "indextargets", "--format", format_, "Created-By: Packages")
    for line in said.splitlines():
        codename, component, label, address = line.split(maxsplit=3)
        if (codename, component, label) == (here, "main", "Debian"):
            return address
    raise RootError("apt has no mirror of Debian from which to make another release")


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_PATH}", "LC_ALL": "C"},
        )
    except OSError as error:
        raise RootError(f"{command[0]}: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise RootError(
            f"{' '.join(command)}:\n{error.stdout[-2000:]}{error.stderr[-2000:]}"
        ) from error
    return done.stdout
