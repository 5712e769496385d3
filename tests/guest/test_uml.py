# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The guest runner, and the kernel tests on the kernel it boots."""

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest import uml
from tests.guest.kernel_tests import AT_LEAST, TIMEOUT
from vnethash.lab.uml import Guest

pytestmark = pytest.mark.guest

# What Linux 6.1 does not have: the one reason for which a test may be skipped.
ABSENT = ("tcx not supported", "USO not supported")


@pytest.fixture(autouse=True)
def _leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Skip without user-mode-linux; fail if a guest leaves a file or a process."""
    if reason := uml.missing():
        if os.environ.get("VNETHASH_REQUIRE_KERNEL"):
            pytest.fail(reason)
        pytest.skip(reason)
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    yield
    assert list(home.iterdir()) == []
    assert list(temporary.iterdir()) == []
    deadline = time.monotonic() + 5  # SIGKILL is sent, all but the first process die on their own
    while (running := _running_with(str(temporary))) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running == []


def _running_with(argument: str) -> list[str]:
    """Command lines of living processes that contain `argument`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if argument in line:
                found.append(line)
    return found


def test_runs_on_another_kernel() -> None:
    result = uml.run_in_uml(
        ["sh", "-c", 'uname -r; id -u; echo "$GREETING"; pwd; echo error >&2; exit 7'],
        timeout=20,
        mem="128M",
        env={"GREETING": "it's me"},
    )
    release, *rest = result.output.splitlines()
    assert (uml.MODULES / release).is_dir()
    assert release != os.uname().release
    assert rest == ["0", "it's me", str(uml.ROOT), "error"]
    assert result.exit_status == 7
    assert 0 < result.seconds < 80


def test_host_is_read_only_there(tmp_path: Path) -> None:
    wanted = tmp_path / "written by the guest"
    result = uml.run_in_uml(["touch", str(wanted)], timeout=20, mem="128M")
    assert result.exit_status == 1
    assert "Read-only file system" in result.output
    assert not wanted.exists()


def test_command_that_takes_too_long() -> None:
    result = uml.run_in_uml(["sh", "-c", "echo begun; sleep 60"], timeout=3, mem="128M")
    assert result.exit_status == 124
    assert result.output == "begun\n"


def test_guest_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uml, "_BOOT_GRACE", -14.0)
    with pytest.raises(uml.GuestError, match="without an exit status") as caught:
        uml.run_in_uml(["sleep", "60"], timeout=20, mem="128M")
    assert "PF_NETLINK" in str(caught.value)  # the console


def test_kernel_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uml, "KERNEL", "no-such-linux.uml")
    reason = uml.missing()
    assert reason is not None
    assert "apt install user-mode-linux" in reason


def test_kernel_tests_pass_there(kernel_tests: Guest) -> None:
    kernel_tests.wait(TIMEOUT + 60)
    result = kernel_tests.result()
    assert result.exit_status == 0, result.output[-8000:]
    *report, closing = result.output.splitlines()
    counts = {outcome: int(number) for number, outcome in re.findall(r"(\d+) ([a-z]+)", closing)}
    skips = [line for line in report if line.startswith("SKIPPED")]
    assert [line for line in skips if not any(absent in line for absent in ABSENT)] == []
    assert counts.keys() <= {"passed", "deselected", "skipped"}, closing
    assert bool(skips) == ("skipped" in counts), closing
    assert counts["passed"] >= AT_LEAST


def test_a_kernel_without_tc_egress() -> None:
    """There the eBPF engine says what is missing, leaves nothing, and auto takes the other."""
    script = """
import socket
from vnethash import Tap
from vnethash.errors import Unsupported

try:
    Tap.open("tap0", engine="ebpf")
except Unsupported as error:
    print(error.message, error.hint, sep="; ")
print([name for _, name in socket.if_nameindex()])
with Tap.open("tap0") as tap:
    print(tap.engine)
"""
    without = "echo /bin/false >/proc/sys/kernel/modprobe && rmmod cls_bpf sch_ingress"
    result = uml.run_in_uml(
        ["sh", "-c", f"{without} && exec {sys.executable} -c '{script}'"], timeout=60, mem="256M"
    )
    assert result.exit_status == 0, result.output
    refusal, links, engine = result.output.splitlines()
    assert refusal.startswith("tc egress BPF not supported (requires CONFIG_NET_SCH_INGRESS")
    assert refusal.endswith("modprobe sch_ingress cls_bpf")
    assert "tap0" not in links
    assert engine == "software"
