# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A wheel built here works in the root of another release, on this kernel and on another.

There is no compiler in that root: what hashes is the object that was built here.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guest import debian_kernel, other_root, qemu_kernel
from vnethash.native import STAGES_OBJECT

pytestmark = pytest.mark.usefixtures("booting")

SERIES = "6.12"
COMPILERS = ("cc", "gcc", "clang", "zig", "tcc", "as", "ld", "make")
VNETHASH = f"/{other_root.ENVIRONMENT_FOLDER}/bin/vnethash"
PYTHON = f"/{other_root.ENVIRONMENT_FOLDER}/bin/python"

# The first vector of Microsoft's verification suite for RSS.
_HASH = ["hash", "66.9.149.187:2794", "161.142.100.80:1766", "--proto", "tcp", "--json"]
_VECTOR = (0x51CCC178, "TCPv4")

# Seconds a few commands may take in an emulated machine.
_PATIENCE = 300


@pytest.fixture(name="root", scope="module")
def _root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The other root with the wheel installed; fail if a mount or process is left."""
    if reason := _lacking():
        if os.environ.get("VNETHASH_REQUIRE_KERNEL"):
            pytest.fail(reason)
        pytest.skip(reason)
    before = _mounts()
    with other_root.unpacked() as root:
        other_root.install(root, _wheel(tmp_path_factory.mktemp("dist")))
        yield root
        assert _living_in(root) == []
    assert not root.exists()
    assert _mounts() == before


def _lacking() -> str | None:
    """Why this cannot be tried here."""
    try:
        other_root.get()
        debian_kernel.of_series(SERIES)
    except (other_root.RootError, debian_kernel.KernelError) as error:
        return str(error)
    return qemu_kernel.missing()


def _wheel(folder: Path) -> Path:
    """As its users get it: from a source distribution, compiled in another folder."""
    dist = ["-d", str(folder)]
    _run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", *dist])
    (source,) = folder.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)])
    (wheel,) = folder.glob("*.whl")
    return wheel


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def _living_in(root: Path) -> list[str]:
    """Processes whose root is there."""
    found = []
    for link in Path("/proc").glob("[0-9]*/root"):
        try:
            if link.readlink().is_relative_to(root):
                found.append(str(link))
        except OSError:  # it has ended meanwhile
            continue
    return found


def inside(root: Path, *command: str) -> str:
    done = other_root.run(root, command, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_another_release_without_a_compiler(root: Path) -> None:
    told = dict(
        line.split("=", 1) for line in inside(root, "cat", "/etc/os-release").splitlines() if line
    )
    assert told["VERSION_CODENAME"] == other_root.release()
    search = 'for name; do command -v "$name"; done; exit 0'
    assert inside(root, "sh", "-c", search, "sh", *COMPILERS) == ""
    assert inside(root, "sh", "-c", search, "sh", "python3") != ""  # it does look
    assert list((root / other_root.ENVIRONMENT_FOLDER).rglob("ziglang")) == []


def test_its_object_is_the_one_built_here(root: Path) -> None:
    where = "import vnethash.native as native; print(native.STAGES_OBJECT)"
    there = Path(inside(root, PYTHON, "-c", where).strip())
    installed = root / there.relative_to("/")
    assert other_root.ENVIRONMENT_FOLDER in str(installed)
    assert installed.read_bytes() == STAGES_OBJECT.read_bytes()


def test_works_there_on_this_kernel(root: Path, portability: list[list[str]]) -> None:
    check_hash(json.loads(inside(root, VNETHASH, *_HASH)))
    probed = json.loads(inside(root, VNETHASH, "probe", "--json"))
    packets = check_demo(inside(root, VNETHASH, "demo", "--json"), probed)
    portability.append(row(root, os.uname().release, probed, packets))


def test_works_there_on_another_kernel(root: Path, portability: list[list[str]]) -> None:
    script = f"uname -r && {VNETHASH} {' '.join(_HASH)} && {VNETHASH} probe --json"
    result = qemu_kernel.run(
        SERIES,
        ["sh", "-c", f"{script} && exec {VNETHASH} demo --json"],
        timeout=_PATIENCE,
        root=root,
        cwd=Path("/"),
    )
    assert result.exit_status == 0, result.output
    release, hashed, probed, demo = result.output.splitlines()
    assert release.startswith(f"{SERIES}.")
    check_hash(json.loads(hashed))
    features = json.loads(probed)
    packets = check_demo(demo, features)
    portability.append(row(root, release, features, packets))


def check_hash(answer: dict[str, Any]) -> None:
    assert (answer["hash_value"], answer["hash_report"]) == _VECTOR


def check_demo(said: str, probed: dict[str, Any]) -> int:
    """Every packet agreed, and went through the kernel; how many they were."""
    demo = json.loads(said)
    assert (demo["agrees"], demo["problems"], demo["missing"]) == (True, [], 0)
    assert demo["engine"] == probed["engine"]["name"] == "ebpf"
    # On a quick machine the segments of a connection come in few packets.
    assert demo["records"] == demo["packets"] > len(demo["flows"]) >= 20
    return int(demo["packets"])


def row(root: Path, release: str, probed: dict[str, Any], packets: int) -> list[str]:
    version = inside(root, PYTHON, "-c", "import platform; print(platform.python_version())")
    libbpf = probed["features"]["libbpf"]["reason"].removeprefix("version ")
    kernel = release.partition("-")[0].partition("+")[0]
    outcome = f"{packets:,} packets, every one agrees"
    return [f"Debian {other_root.release()}", kernel, version.strip(), libbpf, outcome]
