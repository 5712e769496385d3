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
"""Depends on the distribution's kernel for virtual machines, which is smaller than the others."""

SERIES = {
    "6.1": ("linux-image-6.1-amd64", "linux-image-amd64"),
    "6.12": ("linux-image-6.12-amd64", "linux-image-amd64"),
}
"""Packages of which one depends on the kernel of a series; which, is up to the release."""

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


def get() -> DebianKernel:
    """CLOUD, for a guest of `vnethash serve`. Raises KernelError."""
    return _get(CLOUD, [CLOUD], NETWORK_CARD, r"\d")


def of_series(series: str) -> DebianKernel:
    """The kernel of a series, with the modules of HOST. Raises KernelError."""
    if series not in SERIES:
        raise KernelError(f"no kernel {series} is known: {', '.join(SERIES)}")
    return _get(f"linux-{series}-amd64", SERIES[series], HOST, rf"{re.escape(series)}\.\d")


def _get(name: str, packages: Sequence[str], modules: Sequence[str], version: str) -> DebianKernel:
    """The newest of this name in the cache, else of the first package that depends on one."""
    kept = cache.folder("guest")
    key = hashlib.sha256(" ".join(modules).encode()).hexdigest()[:8]
    prefix = f"{name}_{key}_"
    found = sorted(kept.glob(f"{prefix}*"), key=lambda folder: folder.stat().st_mtime)
    folder = found[-1] if found else _fetch(kept, prefix, _package(packages, version), modules)
    order = (folder / _ORDER).read_text().split()
    return DebianKernel(folder / "vmlinuz", tuple(folder / name for name in order))


def _package(packages: Sequence[str], version: str) -> str:
    """The kernel of such a version that one of them depends on."""
    reason = ""
    for package in packages:
        try:
            said = _run("apt-cache", "depends", "--no-recommends", package)
        except KernelError as error:
            reason = f": {error}"
            continue
        if match := re.search(rf"Depends: (linux-image-{version}\S+)", said):
            return match[1]
    raise KernelError(f"apt knows none of {', '.join(packages)} (apt-get update){reason}")


def _fetch(kept: Path, prefix: str, package: str, modules: Sequence[str]) -> Path:
    """Download and unpack; what we need of it ends in a folder named by its version."""
    with tempfile.TemporaryDirectory(prefix=cache.MAKING, dir=kept) as scratch:
        _run("apt-get", "-qq", "download", package, cwd=scratch)
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
