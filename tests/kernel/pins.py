# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A BPF file system of a test's own for what is attached to taps."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vnethash.kernel import bpffs, pin_root


@contextmanager
def own_bpffs(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Mount one at ``folder`` for this process and its children; no pin may be left in it."""
    folder.mkdir()
    assert bpffs.ensure_mounted(folder)
    patch.setenv(pin_root.VARIABLE, str(folder))
    try:
        yield folder
        left = [str(path) for path in (folder / "vnethash").rglob("*")]
        assert not left, f"left behind: {', '.join(left)}"
    finally:
        bpffs.unmount(folder)
