# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The folder that keeps what the lab made.

source/   the distribution's source package
tree/     the source unpacked, while kernels are built (tree.py)
kernels/  the finished kernels, a folder each (kernels.py)
logs/     what the last build of each said
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vnethash.errors import ConfigError
from vnethash.lab.errors import LabError

VARIABLE = "VNETHASH_LAB_CACHE"

# Marks a folder as a cache, for backups too: https://bford.info/cachedir/
_TAG = "CACHEDIR.TAG"
_TAG_TEXT = """\
Signature: 8a477f597d28d172789f06886806bc55
# Made by `vnethash lab`, which makes it again when it is gone.
"""
_FOLDERS = ("source", "tree", "kernels", "logs")
_LOCK = "lock"

# Folders under way have such names, whoever was killed leaves them behind.
MAKING = ".making-"


def location() -> Path:
    """Where the cache is, or would be. Raises ConfigError for a place make cannot work in."""
    if named := os.environ.get(VARIABLE):
        folder = Path(named).expanduser().absolute()
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        folder = Path(base).expanduser().absolute() / "vnethash" / "lab"
    if any(c.isspace() or c == ":" for c in str(folder)):
        raise ConfigError(
            VARIABLE,
            f"the kernel cannot be built in {str(folder)!r}: it has a space or colon",
            hint=f"set {VARIABLE} to another folder",
        )
    return folder


def _is_ours(cache: Path) -> bool:
    try:
        return (cache / _TAG).read_text() == _TAG_TEXT  # other programs have such tags, too
    except (FileNotFoundError, UnicodeError):
        return False


def prepare(cache: Path) -> None:
    """Make the folder. Raises LabError where it has things that are not ours."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not _is_ours(cache):
            if next(cache.iterdir(), None):
                raise LabError(
                    f"{cache} has files that `vnethash lab` did not make",
                    hint=f"set {VARIABLE} to an empty folder, or one that does not exist",
                )
            (cache / _TAG).write_text(_TAG_TEXT)
        for name in _FOLDERS:
            if name != "tree":
                (cache / name).mkdir(exist_ok=True)
    except OSError as error:
        raise LabError(
            f"{error.filename or cache}: {(error.strerror or str(error)).lower()}",
            hint=f"set {VARIABLE} to a folder that can be written",
        ) from error


@contextmanager
def locked(cache: Path, waiting: Callable[[], object] | None = None) -> Iterator[int]:
    """Nobody else changes the cache during the block; what the killed left is removed.

    ``waiting`` is called once when another process holds it. Yields the
    descriptor of the lock: it is held until the last process that has it ends,
    so a make that outlives us keeps others out.
    """
    lock = os.open(cache / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
            prepare(cache)  # it may have been cleaned meanwhile
        for folder in (cache, *(cache / name for name in _FOLDERS)):
            for left in folder.glob(MAKING + "*"):
                shutil.rmtree(left, ignore_errors=True)  # tar may still be at it
        yield lock
    finally:
        os.close(lock)


def size(folder: Path) -> int:
    """Bytes on the disk, of all below."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # gone meanwhile
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return total


def clean(cache: Path) -> int:
    """Empty the cache, of what is ours alone; return the bytes given back.

    Raises LabError where the folder is not a cache of the lab.
    """
    if not cache.exists():
        return 0
    prepare(cache)  # refuses a folder that is not ours
    with locked(cache):
        freed = size(cache)
        for name in _FOLDERS:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(cache / name)
    # The lock stays: who waits for it has it open.
    return freed
