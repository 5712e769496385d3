# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash balance``, on a tap that another process could own."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import vnethash
from tests.kernel import flows
from tests.kernel.pins import own_bpffs
from tests.kernel.test_adaptive import skewed
from tests.terminals import terminal
from vnethash.cli import main
from vnethash.cli.balance import parse_share
from vnethash.cli.options import parse_duration
from vnethash.errors import ConfigError
from vnethash.kernel import link
from vnethash.kernel.netns import Namespace
from vnethash.kernel.tun import TunDevice

pytestmark = pytest.mark.usefixtures("netns")
PROGRAM = [sys.executable, "-m", "vnethash.cli.main"]


@pytest.fixture(autouse=True)
def tap(netns: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TunDevice]:
    """A tap that is attached with --adaptive, and detached in the end."""
    monkeypatch.setenv("PYTHONPATH", str(Path(vnethash.__file__).parent.parent))
    with own_bpffs(tmp_path / "bpffs", monkeypatch), TunDevice.create("tap0", 4) as device:
        link.quiet("tap0")
        link.set_up("tap0")
        assert main.run(["attach", "tap0", "--adaptive"]) == 0
        yield device
        main.run(["detach", "tap0"])


@contextmanager
def traffic() -> Iterator[None]:
    """Skewed flows, until the block is left."""
    stop = threading.Event()
    sent = skewed(1000)

    def send() -> None:
        while not stop.wait(0.01):
            flows.send("tap0", sent)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def table(capsys: pytest.CaptureFixture[str]) -> list[int]:
    capsys.readouterr()
    assert main.run(["show", "tap0", "--json"]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    return list(shown["rss"]["indirection_table"])


@contextmanager
def balancing(*args: str, terminal: int = -1) -> Iterator["subprocess.Popen[str]"]:
    """The command as a process; it must have ended by itself when the block is left."""
    output = subprocess.PIPE if terminal < 0 else terminal
    process = subprocess.Popen(
        [*PROGRAM, "balance", "tap0", *args],
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell does to background jobs: they ignore SIGINT, and so would a child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    try:
        yield process
        process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()


def test_once(capsys: pytest.CaptureFixture[str]) -> None:
    before = table(capsys)
    balance = ["balance", "tap0", "--once", "--interval", "300ms"]
    assert main.run([*balance, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["packets"] == 0
    with traffic():
        assert main.run([*balance, "--dry-run"]) == 0
        said = capsys.readouterr().out
        assert "would move" in said
        assert table(capsys) == before
        assert main.run([*balance, "--json"]) == 0
        step = json.loads(capsys.readouterr().out)
        assert step["applied"]
        assert step["imbalance"] > 1.3
        assert step["expected"] < 1.1
        moved = before[:]
        for move in step["moves"]:
            assert moved[move["bucket"]] == move["from"]
            moved[move["bucket"]] = move["to"]
        assert table(capsys) == moved
        assert main.run([*balance, "--tolerance", "20%"]) == 0
        assert "nothing to move" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_until_told(number: int) -> None:
    with traffic(), balancing("--interval", "0.2", "--json") as process:
        assert process.stdout is not None
        steps = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert sum(step.get("applied", False) for step in steps) >= 1
    assert main.run(["show", "tap0"]) == 0  # the tap stays attached


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (["configure", "tap0", "--indirection", "0,1,2,3"], "set by its owner"),
        (["configure", "tap0", "--no-adaptive"], "set by its owner"),
        (["detach", "tap0"], "detached"),
    ],
)
def test_ends_when_the_owner_decides(
    command: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with balancing("--interval", "50ms", "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert main.run(command) == 0
        assert process.wait(10) == 1
        assert process.stderr is not None
        said = json.loads(process.stderr.read())
    if command[0] == "detach":  # as it happens to look: the stages come off first
        assert error in said["error"] or "no longer on tap0" in said["error"]
        return
    assert error in said["error"]
    assert said["kind"] == "TableOwned"
    kept = table(capsys)
    assert main.run(["balance", "tap0"]) == 1
    assert "vnethash configure tap0 --adaptive" in capsys.readouterr().err
    assert main.run(["configure", "tap0", "--adaptive"]) == 0
    assert main.run(["balance", "tap0", "--once", "--interval", "10ms"]) == 0
    assert table(capsys) == kept


def test_a_terminal_shows_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with (
        terminal() as screen,
        traffic(),
        balancing("--interval", "0.3", terminal=screen.fd) as process,
    ):
        screen.wait("so far: ", "█")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert "of the mean" in screen.text


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["balance", "tap0", "--tolerance", "0"], 2, "from 1% to 100%"),
        (["balance", "tap0", "--tolerance", "much"], 2, "must be a share"),
        (["balance", "tap0", "--interval", "1h"], 2, "from 10ms to a day"),
        (["balance", "tap1"], 1, "tap1 is not attached"),
        (["attach", "tap0", "--adaptive", "-i", "0,1"], 2, "together with --indirection"),
        (["attach", "tap0", "--adaptive", "-c", "x"], 2, "together with --config"),
        (["configure", "tap0", "--adaptive", "-i", "0,1"], 2, "together with --indirection"),
    ],
)
def test_errors(args: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main.run(args) == code
    assert said in capsys.readouterr().err


def test_a_tap_attached_without(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["detach", "tap0"]) == 0
    assert main.run(["attach", "tap0"]) == 0
    assert main.run(["balance", "tap0"]) == 2
    assert "vnethash attach tap0 --adaptive" in capsys.readouterr().err
    assert main.run(["configure", "tap0", "--adaptive"]) == 2


def test_durations_and_shares() -> None:
    assert [parse_duration(text) for text in ("1", "0.5s", "200ms", "2m")] == [1, 0.5, 0.2, 120]
    assert [parse_share(text) for text in ("10%", "0.1", "100%")] == [0.1, 0.1, 1]
    for text in ("", "-1", "1 s s", "nan", "9ms"):
        with pytest.raises(ConfigError, match="interval"):
            parse_duration(text)
