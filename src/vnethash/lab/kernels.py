# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The finished kernels in the cache, found by what they were made from."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from vnethash.lab import cache as lab_cache
from vnethash.lab import source as lab_source
from vnethash.lab import tools
from vnethash.lab.errors import LabError
from vnethash.lab.options import Option
from vnethash.lab.source import Source
from vnethash.lab.uml import Kernel

# To be raised with a change of how kernels are built that makes others of them.
_REVISION = 1

BINARY = "linux"
_MANIFEST = "manifest.json"
_CONFIG = "config"


@dataclass(frozen=True, slots=True)
class BuiltKernel:
    """A kernel of the lab, ready to boot.

    folder    of the cache: binary, configuration and manifest
    manifest  what it was made from, and what that took
    """

    option: str
    key: str
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def path(self) -> Path:
        return self.folder / BINARY

    @property
    def config(self) -> Path:
        """The whole configuration it was built with."""
        return self.folder / _CONFIG

    @property
    def kernel(self) -> Kernel:
        """For `vnethash.lab.uml.run`."""
        return Kernel(self.path)

    @property
    def release(self) -> str:
        """As `uname -r` has it there."""
        return str(self.manifest["release"])

    @property
    def size(self) -> int:
        """Of the binary, in bytes."""
        return int(self.manifest["size"])

    @property
    def built_at(self) -> datetime:
        return datetime.fromisoformat(self.manifest["built_at"])

    def to_json(self) -> dict[str, Any]:
        return {"option": self.option, "key": self.key, "path": str(self.path), **self.manifest}


def inputs(option: Option, source: Source) -> dict[str, Any]:
    """All that decides what kernel comes out."""
    return {
        "source": {"version": source.version, "sha256": source.sha256},
        "patches": [
            {"name": f"{patch.parent.name}/{patch.name}", "sha256": _digest(patch)}
            for patch in option.patches()
        ],
        "config_sha256": _digest(option.config),
        "tools": tools.versions(),
        "revision": _REVISION,
    }


def key_of(made_from: Mapping[str, Any]) -> str:
    """The name of these inputs: 12 hexadecimal digits."""
    text = json.dumps(made_from, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def built(option: Option, cache: Path | None = None) -> BuiltKernel | None:
    """The kernel made from what is there now; None if there is none.

    Raises LabError where patches are missing.
    """
    cache = cache or lab_cache.location()
    source = lab_source.find(cache)
    return None if source is None else of_key(option, key_of(inputs(option, source)), cache)


def of_key(option: Option, key: str, cache: Path) -> BuiltKernel | None:
    """The kernel of this option and key, if it is in the cache."""
    folder = cache / "kernels" / f"{option.name}-{key}"
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return BuiltKernel(option.name, key, folder, manifest)


def of_option(option: Option, cache: Path) -> list[BuiltKernel]:
    """All in the cache, the youngest first, also those made from what is there no more."""
    # A key has no hyphen, so `tun-x-*` is not taken for a key of `tun`.
    keys = (path.name.rpartition("-") for path in (cache / "kernels").glob(f"{option.name}-*"))
    found = [of_key(option, key, cache) for name, _, key in keys if name == option.name]
    kernels = [kernel for kernel in found if kernel is not None]
    return sorted(kernels, key=lambda kernel: kernel.built_at, reverse=True)


def keep(
    option: Option, key: str, binary: Path, config: Path, manifest: Mapping[str, Any], cache: Path
) -> BuiltKernel:
    """Move a finished kernel into the cache: all of it, or nothing."""
    kernels = cache / "kernels"
    folder = kernels / f"{option.name}-{key}"
    with tempfile.TemporaryDirectory(prefix=lab_cache.MAKING, dir=kernels) as scratch:
        fresh = Path(scratch) / "kernel"
        fresh.mkdir()
        shutil.copy(binary, fresh / BINARY)
        shutil.copy(config, fresh / _CONFIG)
        (fresh / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        if folder.exists():  # without a manifest that can be read
            folder.rename(Path(scratch) / "old")
        fresh.rename(folder)
    return BuiltKernel(option.name, key, folder, manifest)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise LabError(f"{path} is missing", hint="is the checkout complete?") from error
