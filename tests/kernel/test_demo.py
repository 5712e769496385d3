# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash demo`` as a user runs it."""

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import vnethash
from tests.kernel.least_privilege import with_only
from tests.kernel.wire import ENGINES, fitting
from vnethash.cli import main, output
from vnethash.demo import conversations, through_tap
from vnethash.demo.flow import Kind
from vnethash.demo.lab import Lab
from vnethash.demo.ledger import Ledger
from vnethash.demo.plan import Exchange, Plan
from vnethash.demo.through_tap import run_tap
from vnethash.engines.select import LAB, TUN_RSS, choose
from vnethash.errors import VnethashError
from vnethash.kernel.caps import Cap
from vnethash.rss.config import RssConfig

ENV = {**os.environ, "PYTHONPATH": str(Path(vnethash.__file__).parent.parent), "COLUMNS": "80"}
CAP_NET_RAW = 13  # linux/capability.h


@pytest.fixture(autouse=True)
def _fresh_console() -> Iterator[None]:
    output.console.cache_clear()
    yield
    output.console.cache_clear()


def demo(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "vnethash.cli.main", "demo", *args],
        env=ENV,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_command() -> None:
    started = time.monotonic()
    done = demo()
    took = time.monotonic() - started
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    assert all(len(line.rstrip()) <= 80 for line in done.stdout.splitlines())
    assert f"engine {choose().name} at {_point()}" in done.stdout
    assert os.uname().release in done.stdout
    assert "hash, type and queue of every one as the Python reference" in done.stdout
    assert took < 20, "it should take about a second"


def _point() -> str:
    from vnethash.kernel.probe import best_attach_point

    if choose().name in LAB:
        return "steering"
    return str(best_attach_point().name)


@pytest.mark.parametrize("engine", ENGINES)
def test_all_kinds_through_every_engine(engine: str) -> None:
    done = demo("--json", "--engine", engine, "--queues", "3", "--seed", "11")
    assert done.returncode == 0, done.stderr + done.stdout
    result = json.loads(done.stdout)
    assert result["engine"] == engine
    assert result["agrees"] is True
    assert result["kinds"] == dict.fromkeys(Kind, True)
    assert result["missing"] == result["disagreements"] == 0
    unhashed = sum(f["packets"] for f in result["flows"] if f["hash_report"] == "NONE")
    brought = {"ebpf": result["packets"], "software": 0}
    assert result["records"] == brought.get(engine, result["packets"] - unhashed)
    assert sum(result["queues"]) == result["packets"] > 50
    assert len(result["queues"]) == 3
    seen = {(flow["protocol"], flow["hash_report"]) for flow in result["flows"]}
    assert seen >= {
        ("TCP", "TCPv4"),
        ("TCP", "TCPv6"),
        ("UDP", "UDPv4"),
        ("UDP", "UDPv6"),
        ("ICMP", "IPv4"),
        ("ICMPv6", "IPv6"),
        ("fragment", "IPv4"),
        ("ARP", "NONE"),
    }
    extended = {("UDP", "UDPv6_EX"), ("fragment", "IPv6_EX")}
    assert seen & extended == (set() if engine == TUN_RSS else extended)
    assert {tuple(flow["vlans"]) for flow in result["flows"]} == {(), (7,), (7, 42)}
    assert result["largest"] > 1514, "no packet was larger than a frame on the wire"


def test_a_single_queue() -> None:
    done = demo("--queues", "1", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads(done.stdout)["queues"] == [json.loads(done.stdout)["packets"]]


def test_more_queues_than_a_tap_has() -> None:
    done = demo("--queues", "257", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert json.loads(done.stderr)["field"] == "queues"


@pytest.mark.parametrize("engine", ENGINES)
def test_leaves_nothing_behind(engine: str) -> None:
    run = run_tap(Plan.from_seed(2), fitting(engine, RssConfig.default(4)), engine)
    assert run.ledger.disagreements == run.missing == 0


def test_a_payload_that_changed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer_wrong(connection: socket.socket) -> None:
        data = await conversations._read_all(connection)
        wrong = data[:-1] + bytes([data[-1] ^ 1])
        await asyncio.get_running_loop().sock_sendall(connection, wrong)

    monkeypatch.setattr(conversations, "_echo", answer_wrong)
    with pytest.raises(VnethashError, match=r"TCP port .* others came back"):
        run_tap(Plan.from_seed(0), RssConfig.default(4), "ebpf")


def test_traffic_that_never_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(exchange: Exchange, lab: Lab) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(through_tap, "_TIME_LIMIT", 0.3)
    monkeypatch.setattr(conversations, "_tcp", deaf)
    with pytest.raises(VnethashError, match=r"did not end within 0\.3 s"):
        run_tap(Plan.from_seed(0), RssConfig.default(4), "software")


def test_an_error_while_forwarding_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise VnethashError("the ledger broke")

    monkeypatch.setattr(Ledger, "check", broken)
    with pytest.raises(VnethashError, match="the ledger broke"):
        run_tap(Plan.from_seed(0), RssConfig.default(4), "ebpf")


def run_under(caps: list[Any], *args: str) -> Any:
    """Exit code, stdout and stderr of the command with these capabilities."""

    def run() -> object:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = main.run(["demo", *args])
        return [code, out.getvalue(), err.getvalue()]

    return with_only(caps, run)


def test_without_rights() -> None:
    code, out, err = run_under([])
    assert (code, err) == (0, "")
    assert "no tap here" in out
    assert "CAP_SYS_ADMIN" in out
    assert "engine native in the library" in out
    code, out, _ = run_under([], "--json")
    assert code == 0
    result = json.loads(out)
    assert result["agrees"] is True
    assert "CAP_SYS_ADMIN" in result["fallback"]


@pytest.mark.parametrize("engine", ENGINES)
def test_without_rights_an_engine_asked_for_fails(engine: str) -> None:
    code, out, err = run_under([], "--engine", engine, "--json")
    assert (code, out) == (1, "")
    assert json.loads(err)["kind"] == "NotPermitted"


def test_the_missing_right_is_named() -> None:
    admin = [Cap.SYS_ADMIN, Cap.NET_ADMIN]
    code, out, err = run_under([*admin, CAP_NET_RAW], "--json")
    assert code == 0, err
    assert json.loads(out)["engine"] == choose().name
    code, out, err = run_under(admin, "--json")
    assert code == 0, err
    assert "CAP_NET_RAW" in json.loads(out)["fallback"]
