# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""attach, show, stats, configure, detach, on a tap that another process owns."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vnethash
from tests.kernel import flows, owner
from tests.kernel.hash_programs import compiled, example
from tests.kernel.pins import own_bpffs
from tests.terminals import terminal
from vnethash.cli import main
from vnethash.kernel import link
from vnethash.kernel.netns import Namespace
from vnethash.kernel.tun import TunDevice
from vnethash.rss.config import RssConfig
from vnethash.rss.keys import SYMMETRIC_KEY
from vnethash.virtio.hash_types import HashType

pytestmark = pytest.mark.usefixtures("netns", "pins")
PROGRAM = [sys.executable, "-m", "vnethash.cli.main"]


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PYTHONPATH", str(Path(vnethash.__file__).parent.parent))
    with own_bpffs(tmp_path / "bpffs", monkeypatch) as folder:
        yield folder


class Owner:
    """The process with the tap."""

    def __init__(self, name: str = "tap0", queues: int = 4, header_size: int = 12) -> None:
        command = [sys.executable, owner.__file__, name, str(queues), str(header_size)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.name = name
        assert self._line() == "ready\n"
        link.quiet(name)
        link.set_up(name)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def reads(self) -> set[flows.Got]:
        """What it reads of FLOWS."""
        flows.send(self.name)
        packets = [json.loads(self._line()) for _ in flows.FLOWS]
        return {flows.parse(each["queue"], bytes.fromhex(each["data"])) for each in packets}

    def end(self) -> None:
        self._process.communicate()


@pytest.fixture
def tap(netns: Namespace) -> Iterator[Owner]:
    process = Owner()
    try:
        yield process
    finally:
        process.end()


def run(*args: str, code: int = 0, stdin: str = "") -> str:
    """The program as a process of its own in the test's network namespace; its output."""
    done = subprocess.run(
        [*PROGRAM, *args], input=stdin, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, "")
    return done.stdout


def run_json(*args: str, stdin: str = "") -> Any:
    return json.loads(run(*args, "--json", stdin=stdin))


def fails(capsys: pytest.CaptureFixture[str], code: int, *args: str) -> dict[str, Any]:
    """The error of a command that must fail."""
    capsys.readouterr()
    assert main.run([*args, "--json"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    error: dict[str, Any] = json.loads(err)
    return error


@pytest.mark.parametrize("point", ["auto", "clsact"])
def test_from_attach_to_detach(tap: Owner, point: str) -> None:
    attached = run_json("attach", "tap0", "--reporting", "record", "--attach-point", point)
    rss = RssConfig.default(4)
    assert attached["rss"] == rss.to_json()
    assert attached["reporting"] == "record"
    assert attached["queues"] == 4
    assert attached["attach_point"] == point or point == "auto"
    assert run_json("show", "tap0") == attached
    # The command has ended; what it attached has not.
    assert tap.reads() == flows.expected(rss, record=True)

    stats = run_json("stats", "tap0")
    assert stats["name"] == "tap0"
    assert stats["total"]["packets"] == len(flows.FLOWS)
    assert stats["by_report"]["TCPv4"]["packets"] == 8
    assert stats["by_report"]["NONE"]["packets"] == 8
    assert sum(queue["packets"] for queue in stats["queues"]) == len(flows.FLOWS)
    assert set(stats["unmarked"].values()) == {0}

    assert run("configure", "tap0", "--indirection", "2,1") == "tap0: configured\n"
    changed = rss.replace(indirection_table=(2, 1))
    assert run_json("show", "tap0")["rss"] == changed.to_json()
    assert tap.reads() == flows.expected(changed, record=True)
    now = run_json(
        "configure", "tap0", "--types", "TCPv4,IPv4", "--key", SYMMETRIC_KEY.hex(":"),
        "--unclassified", "3", "--reporting", "off",
    )  # fmt: skip
    changed = changed.replace(
        hash_types=HashType.TCPv4 | HashType.IPv4, key=SYMMETRIC_KEY, unclassified_queue=3
    )
    assert (now["rss"], now["reporting"]) == (changed.to_json(), "off")
    assert tap.reads() == flows.expected(changed, record=False)

    run("configure", "tap0", "--indirection", "3", "--types", "none")
    assert {got.queue for got in tap.reads()} == {3}
    assert run("detach", "tap0") == "tap0: detached\n"
    got = tap.reads()
    assert {packet.frame for packet in got} == set(flows.FLOWS)
    assert len({packet.queue for packet in got}) > 1
    assert run("show") == "no tap of this network namespace is attached\n"


def test_tunnels(tap: Owner) -> None:
    def tunnels() -> Any:
        return run_json("show", "tap0")["rss"]["tunnels"]

    run("attach", "tap0", "--tunnels", "vxlan,ipip")
    assert tunnels() == ["VXLAN", "IPIP"]
    shown = run("show", "tap0")
    assert "Inner headers of: VXLAN,IPIP\n" in shown
    run("configure", "tap0", "--from-ethtool", "-", stdin=shown)
    assert tunnels() == ["VXLAN", "IPIP"]  # which ethtool does not tell
    run("configure", "tap0", "--tunnels", "none")
    assert tunnels() == []
    assert "Inner headers of: no tunnel\n" in run("show", "tap0")
    run("detach", "tap0")


def test_show_as_ethtool_would(tap: Owner) -> None:
    said = run("attach", "tap0", "--indirection", "0,1,2,3", "--types", "tcpv4", "-u", "2")
    assert said.startswith("tap0: attached by ")
    assert said.endswith(", 4 queues, reporting off\n")
    rss = RssConfig(
        4, hash_types=HashType.TCPv4, indirection_table=(0, 1, 2, 3), unclassified_queue=2
    )
    text = run("show", "tap0")
    assert text.startswith(rss.ethtool("tap0"))
    for line in ("Hash types: TCPv4", "Unclassified queue: 2", "Reporting: off"):
        assert line in text.splitlines()
    assert "Engine: ebpf, attached by " in text
    assert run("show").startswith("tap0: ")
    assert run_json("show")["name"] == "tap0"

    # What it prints it also takes.
    as_json = run("show", "tap0", "--json")
    run("configure", "tap0", "--indirection", "3", "--key", SYMMETRIC_KEY.hex(), "-u", "1")
    run("configure", "tap0", "--from-ethtool", "-", stdin=text)
    told = run_json("show", "tap0")["rss"]
    assert told == rss.replace(unclassified_queue=1).to_json()
    run("configure", "tap0", "--config", "-", stdin=as_json)
    assert run_json("show", "tap0")["rss"] == rss.to_json()
    run("configure", "tap0", "--config", "-", "--key", SYMMETRIC_KEY.hex(),
        stdin=json.dumps(rss.to_json()))  # fmt: skip
    assert run_json("show", "tap0")["rss"] == rss.replace(key=SYMMETRIC_KEY).to_json()
    run("detach", "tap0")


def test_attach_from_files(tap: Owner, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rss = RssConfig.symmetric(4).replace(hash_types=HashType.UDPv6, unclassified_queue=3)
    stored, text = tmp_path / "rss.json", tmp_path / "ethtool"
    stored.write_text(json.dumps(rss.to_json()))
    text.write_text(rss.ethtool("eth0"))
    assert main.run(["attach", "tap0", "--config", str(stored), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rss"] == rss.to_json()
    assert main.run(["detach", "tap0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "tap0", "detached": True}
    assert main.run(["attach", "tap0", "--from-ethtool", str(text), "-u", "1", "--json"]) == 0
    told = rss.replace(hash_types=HashType.ALL, unclassified_queue=1)
    assert json.loads(capsys.readouterr().out)["rss"] == told.to_json()
    assert main.run(["detach", "tap0"]) == 0

    eight = tmp_path / "eight"
    eight.write_text(RssConfig.default(8).ethtool("eth0"))
    error = fails(capsys, 2, "attach", "tap0", "--from-ethtool", str(eight))
    assert error["error"] == "queues: is 8, but tap0 has 4"
    both = ["--config", str(stored), "--from-ethtool", str(text)]
    assert fails(capsys, 2, "attach", "tap0", *both)["field"] == "config"
    missing = str(tmp_path / "missing")
    for option, field in (("--config", "config"), ("--from-ethtool", "from_ethtool")):
        error = fails(capsys, 2, "attach", "tap0", option, missing)
        assert error["field"] == field
        assert "no such file" in error["error"]
    stored.write_text("{")
    assert fails(capsys, 2, "attach", "tap0", "--config", str(stored))["field"] == "json"


@pytest.mark.parametrize(
    ("args", "field"),
    [
        (["--indirection", "0,4"], "indirection_table"),
        (["--indirection", "0,1,2"], "indirection_table"),
        (["--unclassified", "4"], "unclassified_queue"),
        (["--key", "6d5a"], "key"),
        (["--types", "TCPv5"], "hash_types"),
    ],
)
def test_bad_values(
    tap: Owner, args: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails(capsys, 2, "attach", "tap0", *args)["field"] == field
    assert fails(capsys, 1, "show", "tap0")["error"] == "tap0 is not attached"
    assert main.run(["attach", "tap0"]) == 0
    assert fails(capsys, 2, "configure", "tap0", *args)["field"] == field
    assert main.run(["show", "tap0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rss"] == RssConfig.default(4).to_json()
    assert main.run(["detach", "tap0"]) == 0


def test_errors(tap: Owner, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["show"], ["stats"], ["configure", "-u", "1"], ["detach"]):
        error = fails(capsys, 1, *command, "tap0")
        assert (error["error"], error["kind"]) == ("tap0 is not attached", "DeviceError")
        assert fails(capsys, 2, *command, "../tap0")["field"] == "name"
    assert fails(capsys, 1, "attach", "tap9")["error"] == "there is no link tap9"
    assert fails(capsys, 1, "attach", "lo")["error"].startswith("lo is no tap")
    with TunDevice.create("one", 1):
        assert "single queue" in fails(capsys, 1, "attach", "one")["error"]
    assert main.run(["attach", "tap0"]) == 0
    error = fails(capsys, 1, "attach", "tap0")
    assert error["error"] == "tap0 is attached already"
    assert "vnethash configure tap0" in error["hint"]
    assert fails(capsys, 2, "configure", "tap0")["rule"] == "nothing is given to change"
    assert main.run(["detach", "tap0"]) == 0
    with TunDevice.create("old", 2, vnet_header_size=10):
        error = fails(capsys, 1, "attach", "old", "--reporting", "record")
        assert "of 12 bytes" in error["error"]
        assert "of 10 bytes" in error["error"]


def test_a_tap_that_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    with TunDevice.create("tap0", 2):
        assert main.run(["attach", "tap0"]) == 0
    for command in (["show"], ["stats"], ["configure", "-u", "1"]):
        error = fails(capsys, 1, *command, "tap0")
        assert error["error"] == "the device tap0 is gone"
        assert "vnethash detach tap0" in error["hint"]
    assert main.run(["show"]) == 0
    assert capsys.readouterr().out == "tap0: the device tap0 is gone\n"
    assert main.run(["show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["error"] == "the device tap0 is gone"
    assert main.run(["detach", "tap0"]) == 0
    assert main.run(["show"]) == 0
    assert "no tap" in capsys.readouterr().out


def test_show_tells_of_queues_that_came_later(capsys: pytest.CaptureFixture[str]) -> None:
    with TunDevice.create("tap0", 3) as device:
        assert main.run(["attach", "tap0"]) == 0
        device.detach_queue(2)
        capsys.readouterr()
        assert main.run(["show", "tap0"]) == 0
        assert "Queues open now: 2" in capsys.readouterr().out
        assert main.run(["detach", "tap0"]) == 0


def test_two_commands_at_once(tap: Owner) -> None:
    commands = [
        subprocess.Popen(
            [*PROGRAM, "attach", "tap0", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    results = [(command.communicate()[1], command.returncode) for command in commands]
    assert sorted(code for _, code in results) == [0, 1, 1]
    for err, code in results:
        assert code == 0 or json.loads(err)["error"] == "tap0 is attached already"
    run("detach", "tap0")


def test_stats_as_tables(tap: Owner, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["attach", "tap0", "--indirection", "2", "--unclassified", "2"]) == 0
    assert main.run(["stats", "tap0"]) == 0
    assert "no packets yet" in capsys.readouterr().out
    tap.reads()
    assert main.run(["stats", "tap0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    size = sum(map(len, flows.FLOWS))
    assert ["2", "48", f"{size:,}", "100.0%"] in [line.split() for line in lines]
    assert ["all", "48", f"{size:,}", "100.0%"] in [line.split() for line in lines]
    assert ["TCPv6", "8"] in [line.split()[:2] for line in lines]
    assert not any("record" in line for line in lines)
    assert main.run(["detach", "tap0"]) == 0


def test_stats_shows_frames_without_a_record(
    tap: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    link.set_mtu("tap0", 65521)
    assert main.run(["attach", "tap0", "--reporting", "record"]) == 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("tap0", 0))
        raw.send(flows.FLOWS[0] + bytes(20000))
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        capsys.readouterr()
        assert main.run(["stats", "tap0"]) == 0
        words = [line.split() for line in capsys.readouterr().out.splitlines()]
        if ["too_large", "1"] in words:
            break
    else:
        pytest.fail(f"no frame too large in {words}")
    assert main.run(["detach", "tap0"]) == 0


def heed_interrupts() -> None:
    """Undo what a shell does to background jobs: they ignore SIGINT, and so would a child."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_watching_as_json(tap: Owner) -> None:
    run("attach", "tap0")
    watch = subprocess.Popen(
        [*PROGRAM, "stats", "tap0", "--watch", "--interval", "0.2", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    assert watch.stdout is not None
    first = json.loads(watch.stdout.readline())
    assert first["total"] == {
        "packets": 0, "bytes": 0, "packets_per_second": 0.0, "bytes_per_second": 0.0
    }  # fmt: skip
    tap.reads()
    second: dict[str, Any] = {}
    while second.get("total", {}).get("packets") != len(flows.FLOWS):
        before, second = second, json.loads(watch.stdout.readline())
    assert 0.15 < second["seconds"] < 5
    came = len(flows.FLOWS) - before.get("total", {}).get("packets", 0)
    assert second["total"]["packets_per_second"] == pytest.approx(came / second["seconds"])
    assert len(second["queues"]) == 4
    assert "bytes_per_second" in second["queues"][0]
    watch.send_signal(signal.SIGINT)
    _, err = watch.communicate(timeout=10)
    assert (watch.returncode, err) == (0, "")
    run("detach", "tap0")


def test_a_watch_ends_with_what_it_watches(tap: Owner) -> None:
    run("attach", "tap0")
    watch = subprocess.Popen(
        [*PROGRAM, "stats", "tap0", "--watch", "--interval", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None
    assert watch.stdout.readline().strip() == "tap0"
    run("detach", "tap0")
    out, err = watch.communicate(timeout=10)
    assert watch.returncode == 1
    assert "packets/s" in out
    # As it happens to look: detach takes the stages off first, the pins last.
    assert "no longer on tap0" in err or "tap0 was detached" in err


def test_watching_on_a_terminal(tap: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    run("attach", "tap0")
    monkeypatch.setenv("TERM", "xterm")
    with terminal() as screen:
        watch = subprocess.Popen(
            [*PROGRAM, "stats", "tap0", "--watch", "--interval", "0.1"],
            stdout=screen.fd,
            preexec_fn=heed_interrupts,
        )
        try:
            screen.wait("packets/s", times=2)
            watch.send_signal(signal.SIGINT)
            assert watch.wait(10) == 0
        finally:
            watch.kill()
    assert "\x1b[" in screen.text
    run("detach", "tap0")


@pytest.mark.parametrize(
    "args",
    [
        ["stats", "tap0", "--watch", "--interval", "0"],
        ["attach", "tap0", "--reporting", "loud"],
        ["attach", "tap0", "--max-indirection", "32769"],
        ["attach", "tap0", "--attach-point", "xdp"],
        ["attach"],
        ["detach"],
    ],
)
def test_wrong_use(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(capsys, 2, *args)["kind"] == "UsageError"


def test_commands_import_nothing_slow(tap: Owner) -> None:
    code = (
        "import sys\n"
        "from vnethash.cli.main import run\n"
        "assert run(['attach', 'tap0', '--json']) == 0\n"
        "assert run(['configure', 'tap0', '-u', '1', '--json']) == 0\n"
        "assert run(['detach', 'tap0', '--json']) == 0\n"
        "print(sorted({'pyroute2', 'scapy', 'rich', 'asyncio'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# Hash programs


@pytest.fixture(scope="module")
def xor(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The object of an example, in a file."""
    file = tmp_path_factory.mktemp("programs") / "xor.o"
    file.write_bytes(example("xor"))
    return str(file)


def test_a_hash_program_from_attach_to_own_again(tap: Owner, xor: str) -> None:
    rss = RssConfig.default(4)
    out = run("attach", "tap0", "--program", xor, "--reporting", "record")
    assert out.startswith("tap0: program xor attached by ")
    assert {(g.queue, g.hash_value, g.hash_report) for g in tap.reads()} == {(1, 3, 2)}
    shown = run_json("show", "tap0")
    assert (shown["engine"], shown["program"]) == ("program", "xor")
    assert "Engine: program (xor), attached by " in run("show", "tap0")
    stats = run_json("stats", "tap0")
    assert stats["by_report"]["TCPv4"]["packets"] == len(flows.FLOWS)
    assert stats["program_counts"] == [0] * 16
    changed = run_json("configure", "tap0", "--program", "none", "--unclassified", "2")
    assert (changed["engine"], changed["program"]) == ("ebpf", None)
    assert tap.reads() == flows.expected(rss.replace(unclassified_queue=2), record=True)
    changed = run_json("configure", "tap0", "--program", xor)
    assert (changed["program"], changed["rss"]["unclassified_queue"]) == ("xor", 2)
    assert {g.queue for g in tap.reads()} == {3}
    run("detach", "tap0")


def test_what_a_program_says_that_cannot_be_is_shown(tap: Owner, tmp_path: Path) -> None:
    file = tmp_path / "nonsense.o"
    file.write_bytes(compiled("verdict->queue = 4; verdict->hash_report = 10; vnet_count(7);"))
    run("attach", "tap0", "--program", str(file), "--reporting", "record")
    assert {(g.queue, g.hash_value, g.hash_report) for g in tap.reads()} == {(0, 0, 0)}
    count = str(len(flows.FLOWS))
    rows = [line.split() for line in run("stats", "tap0").splitlines()]
    assert ["no", "such", "queue", count] in rows
    assert ["no", "such", "report", count] in rows
    assert ["7", count] in rows
    run("detach", "tap0")


def test_refusals_of_hash_programs(
    tap: Owner, xor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = fails(capsys, 2, "attach", "tap0", "--program", xor, "--reporting", "rehash")
    assert "a reader cannot hash as a hash program does" in error["error"]
    error = fails(capsys, 1, "attach", "tap0", "--program", str(tmp_path / "none.o"))
    assert "no such file" in error["error"]
    file = tmp_path / "text.o"
    file.write_text("no object")
    assert "text" in fails(capsys, 1, "attach", "tap0", "--program", str(file))["error"]
    run("attach", "tap0", "--reporting", "rehash")
    fails(capsys, 2, "configure", "tap0", "--program", xor)
    assert run_json("show", "tap0")["engine"] == "ebpf"
    run("detach", "tap0")
