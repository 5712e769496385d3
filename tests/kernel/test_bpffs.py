# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
from pathlib import Path

import pytest

from tests.kernel.least_privilege import RefusedError, with_only
from vnethash.errors import BpfError, Unsupported
from vnethash.kernel import bpffs
from vnethash.kernel.caps import Cap


def test_mounts_once(tmp_path: Path) -> None:
    assert not bpffs.is_mounted(tmp_path)
    assert bpffs.ensure_mounted(tmp_path)
    try:
        assert bpffs.is_mounted(tmp_path)
        assert not bpffs.ensure_mounted(tmp_path)
        assert tmp_path.stat().st_mode & 0o777 == 0o700
        (tmp_path / "folder").mkdir()
        with pytest.raises(PermissionError):
            (tmp_path / "file").touch()
    finally:
        bpffs.unmount(tmp_path)
    assert not bpffs.is_mounted(tmp_path)


def test_says_why_not(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"there is no .*/gone"):
        bpffs.ensure_mounted(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(BpfError, match="not a directory"):
        bpffs.ensure_mounted(tmp_path / "file")
    with pytest.raises(BpfError, match="unmount"):
        bpffs.unmount(tmp_path)


def test_needs_sys_admin(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="CAP_SYS_ADMIN") as caught:
        with_only({Cap.BPF, Cap.NET_ADMIN}, lambda: bpffs.ensure_mounted(tmp_path))
    assert caught.value.kind == "NotPermitted"
