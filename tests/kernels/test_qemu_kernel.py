# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What boots Debian's kernels with a root of ours: one boot a test, so few of them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest import debian_kernel, other_root, qemu_kernel, uml
from tests.guest.test_lab import processes_with
from vnethash.lab.errors import GuestError

SERIES = "6.12"


@pytest.fixture(name="temporary")
def _temporary(booting: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where guests keep their files; fail if one leaves a file or a process."""
    if reason := qemu_kernel.missing():
        if os.environ.get("VNETHASH_REQUIRE_KERNEL"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []
    assert processes_with(str(folder)) == []


def test_runs_on_another_kernel(temporary: Path) -> None:
    script = (
        'uname -r; id -u; echo "$GREETING"; pwd; touch "$1/written" || echo refused; '
        "touch $TMPDIR/mine && exit 7"
    )
    with qemu_kernel.start(
        SERIES,
        ["sh", "-c", script, "sh", str(temporary)],
        timeout=60,
        mem="256M",
        env={"GREETING": "it's me"},
    ) as guest:
        guest.wait(180)
        result = guest.result()
    release, *rest = result.output.splitlines()
    assert release.startswith(f"{SERIES}.")
    assert release != os.uname().release
    assert rest[:3] == ["0", "it's me", str(uml.ROOT)]
    assert "Read-only file system" in rest[3]
    assert rest[4:] == ["refused"]
    assert result.exit_status == 7


def test_root_without_what_it_takes(temporary: Path, tmp_path: Path) -> None:
    """A guest that cannot start its first program says so and is gone."""
    empty = tmp_path / "root"
    for name in ("dev", "run"):
        (empty / name).mkdir(parents=True)
    with pytest.raises(GuestError, match="without an exit status") as caught:
        qemu_kernel.run(SERIES, ["true"], timeout=20, mem="256M", root=empty, cwd=Path("/"))
    assert "Kernel panic" in caught.value.console


def test_kernel_nobody_has() -> None:
    with pytest.raises(debian_kernel.KernelError, match=r"no kernel 2\.4 is known: 6\.1, 6\.12"):
        debian_kernel.of_series("2.4")


def test_series_is_not_taken_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a release whose kernel is 6.12, and which has no other package for 6.1."""

    def run(*command: str, cwd: str | None = None) -> str:
        if command == ("apt-cache", "depends", "--no-recommends", "linux-image-amd64"):
            return "linux-image-amd64\n  Depends: linux-image-6.12.48+deb13-amd64\n"
        raise debian_kernel.KernelError(" ".join(command))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(debian_kernel, "_run", run)
    with pytest.raises(debian_kernel.KernelError, match="apt knows none of linux-image-6"):
        debian_kernel.of_series("6.1")
    with pytest.raises(debian_kernel.KernelError, match=r"download linux-image-6\.12\.48"):
        debian_kernel.of_series("6.12")


def test_modules_come_behind_those_they_need(booting: None) -> None:
    names = [path.stem for path in debian_kernel.of_series(SERIES).modules]
    assert names.index("9pnet") < names.index("9p")
    assert names.index("vhost") < names.index("vhost_net")
    assert len(set(names)) == len(names)


def test_other_root_is_of_another_release(monkeypatch: pytest.MonkeyPatch) -> None:
    for here, there in (("bookworm", "trixie"), ("trixie", "bookworm"), ("noble", "trixie")):
        told = {"VERSION_CODENAME": here}
        monkeypatch.setattr("platform.freedesktop_os_release", lambda told=told: told)
        assert other_root.release() == there


def test_other_root_needs_its_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "apt install debootstrap" in (other_root.missing() or "")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "needs root" in (other_root.missing() or "")
