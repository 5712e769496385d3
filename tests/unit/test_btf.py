# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import mmap
import struct
from pathlib import Path

import pytest

from vnethash.errors import BpfError, Unsupported
from vnethash.kernel import btf

NAMES = b"\0" + b"\0".join(b"function_%04d" % number for number in range(1000)) + b"\0"


@pytest.fixture(params=["mapped", "read"], autouse=True)
def _folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A kernel's BTF of 1000 names, behind types that look like one more."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("sysfs before Linux 6.16")

    if request.param == "read":
        monkeypatch.setattr(mmap, "mmap", refuse)
    monkeypatch.setattr(btf, "FOLDER", tmp_path)
    types = b"\0in_types\0\0\0\0"
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(NAMES))
    (tmp_path / "vmlinux").write_bytes(header + types + NAMES)
    return tmp_path


def test_finds_every_name() -> None:
    assert all(btf.has_name(f"function_{number:04}") for number in range(1000))


@pytest.mark.parametrize("name", ["function", "function_00000", "unction_0001", "in_types"])
def test_parts_of_names_are_none(name: str) -> None:
    assert not btf.has_name(name)


def test_without_btf() -> None:
    with pytest.raises(Unsupported, match="BTF of tun not supported"):
        btf.has_name("anything", "tun")


@pytest.mark.parametrize("content", [b"", b"\x7fELF" * 10])
def test_what_is_no_btf(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(content)
    with pytest.raises(BpfError, match="vmlinux"):
        btf.has_name("anything")
