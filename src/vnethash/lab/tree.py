# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""One unpacked kernel source, which becomes one option after the other.

linux/      the source, and what make made of it
originals/  each file that was ever changed, as it was: present/ or, empty, absent/
making      there while make runs: what is newer than it may be half written
holds       the option it was last built as, and the source
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vnethash.lab.cache import MAKING
from vnethash.lab.errors import LabError
from vnethash.lab.source import Source

# Bytes that unpacking and one build need.
ROOM = 4 << 30

_NAMED = re.compile(r"^(?:(?:---|\+\+\+) [ab]/|rename (?:from|to) )([^\t\n]+)", re.MULTILINE)


class Tree:
    """The tree in the folder `folder`, used under the lock of the cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.linux = folder / "linux"
        self._present = folder / "originals" / "present"
        self._absent = folder / "originals" / "absent"
        self._making = folder / "making"
        self._holds = folder / "holds"

    @classmethod
    def unpack(cls, folder: Path, source: Source) -> "Tree":
        """The tree of this source: the one that is there, mended, or a new one.

        Raises LabError where the disk is too full or tar fails.
        """
        tree = cls(folder)
        if tree._state().get("sha256") == source.sha256:
            tree._mend()
            return tree
        tree.remove()
        free = shutil.disk_usage(folder.parent).free
        if free < ROOM:
            raise LabError(
                f"a kernel needs {ROOM >> 30} GiB, {folder.parent} has {free / (1 << 30):.1f}",
                hint="free some, or set VNETHASH_LAB_CACHE to a folder with room",
            )
        with tempfile.TemporaryDirectory(prefix=MAKING, dir=folder.parent) as scratch:
            fresh = Path(scratch) / "tree"
            (fresh / "linux").mkdir(parents=True)
            options = ("--no-same-owner", "--strip-components=1")
            command = ["tar", "-x", "-J", "-f", str(source.tarball), *options]
            _run(command, fresh / "linux", f"unpack {source.tarball}")
            (fresh / "holds").write_text(json.dumps({"sha256": source.sha256}))
            fresh.rename(folder)
        return tree

    @property
    def option(self) -> str | None:
        """What it was last built as; None when nothing was."""
        return self._state().get("option")

    def become(self, patches: Sequence[Path]) -> None:
        """Make the source the original with these patches, in this order.

        Only files whose content changes are written, so that make compiles
        only what depends on them. Where this was cut short, the next call
        sets it right. Raises LabError when a patch does not apply; then the
        source is as it was.
        """
        for patch in patches:
            self._remember(patch)
        with tempfile.TemporaryDirectory(prefix=MAKING, dir=self.folder.parent) as scratch:
            wanted = Path(scratch) / "source"
            if self._present.exists():
                shutil.copytree(self._present, wanted)
            wanted.mkdir(exist_ok=True)
            for patch in patches:
                options = ("--batch", "--forward", "--no-backup-if-mismatch", "--fuzz=0")
                command = ["patch", "-p1", *options, "-i", str(patch.resolve())]
                _run(command, wanted, f"apply {patch.parent.name}/{patch.name}")
            for path in self._changed():
                _write(wanted / path, self.linux / path)

    def start(self) -> None:
        """Say that make runs from now on."""
        self._making.touch()

    def finish(self, option: str | None) -> None:
        """Say that make ended by itself or on request, so that all files are whole.

        `option` is what was built, None if that was not finished.
        """
        if option is not None:
            written = self._holds.with_suffix(".new")
            written.write_text(json.dumps({**self._state(), "option": option}))
            written.replace(self._holds)
        self._making.unlink()

    def remove(self) -> None:
        """Delete it; a half deleted one is not taken for a tree."""
        if self.folder.exists():
            with tempfile.TemporaryDirectory(prefix=MAKING, dir=self.folder.parent) as gone:
                self.folder.rename(Path(gone) / "tree")

    def _state(self) -> dict[str, str]:
        try:
            state = json.loads(self._holds.read_text())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def _mend(self) -> None:
        """After a make that was killed: delete what it wrote, which may be half of a file."""
        if not self._making.exists():
            return
        begun = self._making.stat().st_mtime_ns
        for parent, _, names in os.walk(self.linux):
            for name in names:
                path = os.path.join(parent, name)
                if os.lstat(path).st_mtime_ns >= begun:
                    os.unlink(path)
        self._making.unlink()

    def _remember(self, patch: Path) -> None:
        """Keep the originals of the files a patch names, before they are changed."""
        for path in _NAMED.findall(patch.read_text()):
            original, absent = self._present / path, self._absent / path
            if original.exists() or absent.exists():
                continue
            current = self.linux / path
            kept = original if current.exists() else absent
            kept.parent.mkdir(parents=True, exist_ok=True)
            if current.exists():
                copy = self.folder / "copy"
                shutil.copy2(current, copy)
                copy.replace(kept)
            else:
                kept.touch()

    def _changed(self) -> list[Path]:
        """All files that were ever changed, below the source."""
        return sorted(
            path.relative_to(folder)
            for folder in (self._present, self._absent)
            for path in folder.rglob("*")
            if path.is_file()
        )


def _write(wanted: Path, current: Path) -> None:
    """Give `current` the content of `wanted`, or remove it, if that is a change."""
    if not wanted.exists():
        current.unlink(missing_ok=True)
        return
    content = wanted.read_bytes()
    with contextlib.suppress(FileNotFoundError):
        if current.read_bytes() == content:
            return
    current.parent.mkdir(parents=True, exist_ok=True)
    fresh = current.with_name(current.name + ".new")
    fresh.write_bytes(content)
    fresh.chmod(wanted.stat().st_mode)
    fresh.replace(current)


def _run(command: Sequence[str], folder: Path, what: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or [f"exit {done.returncode}"]
        raise LabError(f"cannot {what}: {'; '.join(said[-4:])}")
