# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The distribution's kernels, fetched by apt and kept in a cache.

Nothing is installed: of a package we want one file and some modules.
"""

import hashlib
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.guest import cache

CLOUD = "linux-image-cloud-amd64"
"""The distribution's kernel for virtual machines: a quarter of the size of the others."""

SERIES = {
    "6.1": ("linux-image-6.1-amd64", "linux-image-amd64"),
    "6.12": ("linux-image-6.12-amd64", "linux-image-amd64"),
}
"""Packages that may depend on a kernel of a series: another release has another name."""

NETWORK_CARD = ("virtio_pci", "virtio_net")
"""What a guest of `vnethash serve` loads."""

HOST = (
    *("virtio_pci", "9pnet_virtio", "9p"),
    *("tun", "veth", "bridge", "dummy", "8021q", "macvlan", "vhost_net"),
    *("sch_ingress", "cls_bpf", "act_gact", "act_mirred", "act_skbedit"),
)
"""What a machine loads that has its root from elsewhere and runs `vnethash`."""

_ORDER = "modules"


class KernelError(Exception):
    """There is no kernel to be had; says why."""


@dataclass(frozen=True, slots=True)
class DebianKernel:
    """A kernel for QEMU's -kernel; ``modules`` in the order to load them."""

    image: Path
    modules: tuple[Path, ...]


def get(package: str = CLOUD, modules: Sequence[str] = NETWORK_CARD) -> DebianKernel:
    """The newest one in the cache, else the distribution's. Raises KernelError.

    ``package`` is one that depends on that of the kernel; ``modules`` come
    with what they need, and without what is built in.
    """
    return _get(package, modules, r"linux-image-\d\S+")


def of_series(series: str) -> DebianKernel:
    """As get(), of this series, with the modules of HOST. Raises KernelError."""
    reason = KernelError(f"no kernel {series} is known: {', '.join(SERIES)}")
    for package in SERIES.get(series, ()):
        try:
            return _get(package, HOST, rf"linux-image-{re.escape(series)}\.\d\S+")
        except KernelError as error:
            reason = error
    raise reason


def _get(package: str, modules: Sequence[str], pattern: str) -> DebianKernel:
    kept = cache.folder("guest")
    key = hashlib.sha256(" ".join(modules).encode()).hexdigest()[:8]
    prefix = f"{package}_{key}_"
    found = sorted(kept.glob(f"{prefix}*"), key=lambda folder: folder.stat().st_mtime)
    folder = found[-1] if found else _fetch(kept, prefix, package, modules, pattern)
    order = (folder / _ORDER).read_text().split()
    return DebianKernel(folder / "vmlinuz", tuple(folder / name for name in order))


def _fetch(kept: Path, prefix: str, package: str, modules: Sequence[str], pattern: str) -> Path:
    """Download and unpack; what we need of it ends in a folder named by its version."""
    said = _run("apt-cache", "depends", "--no-recommends", package)
    match = re.search(rf"Depends: ({pattern})", said)
    if match is None:
        raise KernelError(f"apt knows no {package} (apt-get update)")
    with tempfile.TemporaryDirectory(prefix=cache.MAKING, dir=kept) as scratch:
        _run("apt-get", "-qq", "download", match[1], cwd=scratch)
        (file,) = Path(scratch).glob("*.deb")
        version = _run("dpkg-deb", "--field", str(file), "Version").strip()
        unpacked, made = Path(scratch, "unpacked"), Path(scratch, "made")
        _run("dpkg-deb", "--extract", str(file), str(unpacked))
        made.mkdir()
        (image,) = unpacked.glob("boot/vmlinuz-*")
        shutil.copy(image, made / "vmlinuz")
        there = {_name(path): path for path in unpacked.rglob("*.ko*")}
        order = _in_order(modules, there)
        for name in order:
            (made / f"{name}.ko").write_bytes(_content(there[name]))
        (made / _ORDER).write_text("".join(f"{name}.ko\n" for name in order))
        return cache.keep(made, kept / f"{prefix}{version}")


def _in_order(wanted: Iterable[str], there: Mapping[str, Path]) -> list[str]:
    """These modules, each behind those it needs. One that is no file is built in."""
    order: list[str] = []
    for name in wanted:
        if name in there and name not in order:
            needs = _run("modinfo", "--field", "depends", str(there[name])).strip()
            before = _in_order(filter(None, needs.replace("-", "_").split(",")), there)
            order += [each for each in [*before, name] if each not in order]
    return order


def _name(module: Path) -> str:
    """As the kernel has it."""
    return module.name.partition(".")[0].replace("-", "_")


def _content(module: Path) -> bytes:
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data


def _run(*command: str, cwd: str | None = None) -> str:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    program = shutil.which(command[0], path=path)
    if program is None:
        raise KernelError(f"{command[0]} is not here to fetch a kernel with")
    try:
        done = subprocess.run(
            [program, *command[1:]], cwd=cwd, capture_output=True, text=True, check=True
        )
    except subprocess.CalledProcessError as error:
        raise KernelError(f"{' '.join(command)}: {error.stderr.strip()}") from error
    return done.stdout
