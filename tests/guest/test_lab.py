# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What boots the kernels of the lab, with Debian's; and those that are in the cache."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest import uml as debian
from vnethash.lab import kernels, uml
from vnethash.lab.errors import GuestError, LabError
from vnethash.lab.kernels import BuiltKernel
from vnethash.lab.options import options
from vnethash.lab.uml import Kernel

pytestmark = pytest.mark.guest


@pytest.fixture(name="temporary", autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where guests keep their files; fail if one leaves a file or a process."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []
    deadline = time.monotonic() + 5  # all but the first process die on their own
    while (running := processes_with(str(folder))) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running == []


@pytest.fixture(name="kernel")
def _kernel() -> Kernel:
    if reason := debian.missing():
        if os.environ.get("VNETHASH_REQUIRE_KERNEL"):
            pytest.fail(reason)
        pytest.skip(reason)
    return debian.kernel()


def processes_with(argument: str) -> list[str]:
    """Command lines of living processes that contain `argument`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if argument in line:
                found.append(line)
    return found


def test_output_is_shown_while_the_command_runs(kernel: Kernel) -> None:
    parts: list[tuple[bytes, float]] = []
    script = "for i in 1 2 3; do printf 'line %s\\n' $i; sleep 1; done"
    result = uml.run(
        kernel,
        ["sh", "-c", script],
        timeout=20,
        mem="128M",
        show=lambda part: parts.append((part, time.monotonic())),
    )
    assert result.output == "line 1\nline 2\nline 3\n"
    assert b"".join(part for part, _ in parts).decode() == result.output
    assert len(parts) == 3
    assert parts[-1][1] - parts[0][1] > 1


@pytest.mark.parametrize(
    ("command", "status"), [("no-such-command", 127), ("/etc/passwd", 126), ("false", 1)]
)
def test_exit_status_is_that_of_a_shell(kernel: Kernel, command: str, status: int) -> None:
    result = uml.run(kernel, [command], timeout=20, mem="128M")
    assert result.exit_status == status


def test_no_limit_of_time_and_another_folder(kernel: Kernel, tmp_path: Path) -> None:
    result = uml.run(kernel, ["pwd"], timeout=None, mem="128M", cwd=tmp_path)
    assert (result.exit_status, result.output) == (0, f"{tmp_path}\n")


def test_folder_that_is_not_there(kernel: Kernel, tmp_path: Path) -> None:
    result = uml.run(kernel, ["pwd"], timeout=20, mem="128M", cwd=tmp_path / "none")
    assert result.exit_status != 0
    assert "can't cd" in result.output


def test_what_is_installed_beside_the_interpreter_runs_there(kernel: Kernel) -> None:
    name = Path(sys.executable).name
    result = uml.run(kernel, ["sh", "-c", f"command -v {name}"], timeout=20, mem="128M")
    assert result.output == f"{Path(sys.executable).parent / name}\n"


def test_kernel_argument(kernel: Kernel) -> None:
    result = uml.run(
        kernel, ["cat", "/proc/cmdline"], timeout=20, mem="128M", arguments=["lab.word=1"]
    )
    assert "lab.word=1" in result.output.split()


def test_guest_that_dies(kernel: Kernel) -> None:
    script = "echo begun; sleep 1; echo c >/proc/sysrq-trigger; sleep 20"
    with pytest.raises(GuestError, match="without an exit status") as caught:
        uml.run(kernel, ["sh", "-c", script], timeout=30, mem="128M")
    assert caught.value.output == "begun\n"
    assert "sysrq triggered crash" in caught.value.console


def test_kernel_that_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match=r"cannot start .*: no such file"):
        uml.run(Kernel(tmp_path / "linux"), ["true"], timeout=5)


def test_interrupt_ends_the_guest(kernel: Kernel, temporary: Path) -> None:
    code = (
        "import signal; from tests.guest import uml as debian; from vnethash.lab import uml\n"
        # A shell has its background jobs ignore it, and so would this process.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "uml.run(debian.kernel(), ['sh', '-c', 'echo begun; sleep 60'], timeout=60,"
        " mem='128M', show=lambda part: print(part, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=debian.ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"b'begun\\n'\n"
        assert processes_with(str(temporary)) != []
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(10)
        assert time.monotonic() - begun < 5
    # `temporary` looks at what is left.


# Kernels of the lab, where they are


@pytest.fixture(name="built", scope="module")
def _built() -> list[BuiltKernel]:
    """Those that are; at least one."""
    found = []
    with contextlib.suppress(LabError):  # no checkout
        for option in options():
            with contextlib.suppress(LabError):  # no patches
                found.append(kernels.built(option))
    there = [kernel for kernel in found if kernel is not None]
    if not there:
        pytest.skip("no kernel of the lab is built (vnethash lab build)")
    return there


def test_kernels_of_the_lab(built: list[BuiltKernel]) -> None:
    script = "uname -r; id -u; test -s /sys/kernel/btf/vmlinux && echo BTF"
    for kernel in built:
        result = uml.run(kernel.kernel, ["sh", "-c", script], timeout=30, mem="128M")
        assert result.output.splitlines() == [kernel.release, "0", "BTF"]
        assert kernel.release.endswith(f"-{kernel.option}")


def test_command_line_runs_it(built: list[BuiltKernel]) -> None:
    kernel = built[0]

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vnethash.cli.main", "lab", "run"]
        command += ["--option", kernel.option, "--mem", "128M", *args]
        environment = {**os.environ, "PYTHONPATH": str(debian.ROOT / "src")}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd="/", env=environment
        )

    done = run("-e", "WORD=a b", "sh", "-c", 'uname -r; pwd; echo "$WORD" >&2; exit 9')
    assert done.stdout == f"{kernel.release}\n{debian.ROOT}\na b\n"
    assert (done.returncode, done.stderr) == (9, "")
    assert run("--timeout", "1", "--", "sleep", "30").returncode == 124
    died = run("--", "sh", "-c", "echo c >/proc/sysrq-trigger; sleep 30")
    assert died.returncode == 125
    assert "without an exit status" in died.stderr
