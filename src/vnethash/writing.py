# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Files that are written whole or not at all."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of ``path`` when the block ends well.

    When it does not (a full disk, an interrupt) the file of before is still
    there. It keeps its mode; a new one has what the umask leaves. Written to
    where it is, and so perhaps in part: a link, a pipe, a device, a file of
    somebody else or in a folder that takes no new ones.

    Raises OSError, which names ``path``.
    """
    target = Path(path)
    beside: Path | None = None
    try:
        before = os.lstat(target) if os.path.lexists(target) else None
        if _replaceable(target, before):
            beside = target.with_name(f".vnethash-{secrets.token_hex(8)}")
        with open(beside or target, "xb" if beside else "wb") as file:
            if beside and before:
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            yield file
        if beside:
            beside.replace(target)
    except BaseException as error:
        if beside:
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, os.fspath(beside or target)):
            error.filename = os.fspath(target)  # of a full disk the system names none
        raise


def write(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Have ``content``, text as UTF-8, in the file, as `replacing`. Raises OSError."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def _replaceable(target: Path, before: os.stat_result | None) -> bool:
    """Whether nobody would miss the file itself, but for what is in it."""
    if not os.access(target.parent, os.W_OK | os.X_OK):
        return False
    if before is None:
        return True
    ours = before.st_uid == os.geteuid() and os.access(target, os.W_OK)
    return ours and stat.S_ISREG(before.st_mode) and before.st_nlink == 1
