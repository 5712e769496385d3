# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The distribution's kernel for virtual machines, fetched by apt and kept in a cache.

Nothing is installed: of the package we want one file and a few modules.
"""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "linux-image-cloud-amd64"

# In the order in which they can be loaded.
_MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
)


class KernelError(Exception):
    """There is no kernel to be had; says why."""


@dataclass(frozen=True, slots=True)
class DebianKernel:
    """A kernel for QEMU's -kernel; ``modules`` in the order to load them, virtio-net last."""

    image: Path
    modules: tuple[Path, ...]


def get() -> DebianKernel:
    """The newest one in the cache, else the distribution's. Raises KernelError."""
    cache = _cache()
    found = sorted(cache.glob(f"{PACKAGE}_*"), key=lambda folder: folder.stat().st_mtime)
    folder = found[-1] if found else _fetch(cache)
    return DebianKernel(folder / "vmlinuz", tuple(folder / f"{name}.ko" for name in _MODULES))


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "vnethash" / "guest"


def _fetch(cache: Path) -> Path:
    """Download and unpack; what we need of it ends in a folder named by its version."""
    said = _run("apt-cache", "depends", "--no-recommends", PACKAGE)
    match = re.search(r"Depends: (linux-image-\S+)", said)
    if match is None:
        raise KernelError(f"apt knows no {PACKAGE} (apt-get update)")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=cache) as scratch:
        _run("apt-get", "-qq", "download", match[1], cwd=scratch)
        (package,) = Path(scratch).glob("*.deb")
        version = _run("dpkg-deb", "--field", str(package), "Version").strip()
        unpacked, kept = Path(scratch, "unpacked"), Path(scratch, "kept")
        _run("dpkg-deb", "--extract", str(package), str(unpacked))
        kept.mkdir()
        (image,) = unpacked.glob("boot/vmlinuz-*")
        shutil.copy(image, kept / "vmlinuz")
        for name in _MODULES:
            (module,) = unpacked.rglob(f"{name}.ko")
            shutil.copy(module, kept)
        folder = cache / f"{PACKAGE}_{version}"
        if not folder.exists():  # another may have been faster
            kept.rename(folder)
    return folder


def _run(*command: str, cwd: str | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise KernelError(f"{command[0]} is not here to fetch {PACKAGE} with") from None
    except subprocess.CalledProcessError as error:
        raise KernelError(f"{' '.join(command)}: {error.stderr.strip()}") from error
    return done.stdout
