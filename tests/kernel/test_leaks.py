# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The check for leaks finds what it is for."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.leaks import snapshot
from vnethash.kernel.netns import Namespace
from vnethash.kernel.tun import TunDevice


def _file(tmp_path: Path) -> Callable[[], object]:
    return open(tmp_path / "file", "wb").close


def _process(tmp_path: Path) -> Callable[[], object]:
    process = subprocess.Popen(["sleep", "60"])

    def end() -> None:
        process.kill()
        process.wait()

    return end


def _link(tmp_path: Path) -> Callable[[], object]:
    return TunDevice.create("leak", 1).close


def _namespace(tmp_path: Path) -> Callable[[], object]:
    return Namespace.create().close


@pytest.mark.parametrize(
    ("make", "shows"),
    [(_file, "/file"), (_process, "process "), (_link, "link leak"), (_namespace, "net:[")],
)
@pytest.mark.usefixtures("netns")
def test_is_found(make: Callable[[Path], Callable[[], object]], shows: str, tmp_path: Path) -> None:
    before = snapshot()
    undo = make(tmp_path)
    try:
        assert any(shows in item for item in snapshot() - before)
    finally:
        undo()
    assert snapshot() == before


def test_an_unchanged_process_shows_nothing() -> None:
    before = snapshot()
    os.close(os.open(os.devnull, os.O_RDONLY))
    assert snapshot() == before
