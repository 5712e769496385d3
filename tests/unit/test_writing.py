# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Files that are written whole or not at all."""

import os
import resource
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from vnethash.writing import replacing, write


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """What a full disk is like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_new_file(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        write(tmp_path / "new", "where: π\n")
    finally:
        os.umask(umask)
    assert (tmp_path / "new").read_text(encoding="utf-8") == "where: π\n"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["new"]


def test_a_file_of_before_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")
    (tmp_path / "file").chmod(0o604)
    with (tmp_path / "file").open() as reader:
        write(tmp_path / "file", b"after")
        assert reader.read() == "before"  # who reads it reads on
    assert (tmp_path / "file").read_text() == "after"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o604
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("before", [None, "before"])
def test_nothing_is_lost_where_the_disk_is_full(tmp_path: Path, before: str | None) -> None:
    file = tmp_path / "file"
    if before:
        file.write_text(before)
    with files_up_to(4096), pytest.raises(OSError, match="File too large") as caught:
        write(file, bytes(8192))
    assert caught.value.filename == str(file)
    assert [path.read_text() for path in tmp_path.iterdir()] == [before] * (before is not None)


def test_nor_by_an_interrupt(tmp_path: Path) -> None:
    def interrupted(file: BinaryIO) -> None:
        file.write(bytes(1 << 20))
        raise KeyboardInterrupt

    (tmp_path / "file").write_text("before")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "file") as file:
        interrupted(file)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_stay(tmp_path: Path, link: object) -> None:
    (tmp_path / "file").write_text("before")
    assert callable(link)
    link(tmp_path / "file", tmp_path / "link")
    write(tmp_path / "link", "after")
    assert (tmp_path / "file").read_text() == "after"
    assert (tmp_path / "link").samefile(tmp_path / "file")


def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write(tmp_path / "pipe", "through")
    reader.join()
    assert got == [b"through"]
    assert (tmp_path / "pipe").is_fifo()


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        write(tmp_path / "none" / "file", "")
    assert missing.value.filename == str(tmp_path / "none" / "file")
    with pytest.raises(OSError, match="No space") as full:
        write("/dev/full", "x")
    assert full.value.filename == "/dev/full"
    with pytest.raises(IsADirectoryError) as folder:
        write(tmp_path, "")
    assert folder.value.filename == str(tmp_path)
