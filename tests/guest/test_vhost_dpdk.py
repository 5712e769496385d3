# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""DPDK's virtio-user as the front end: packets both ways, counted on both sides."""

import gc
import json
import os
import pty
import re
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests import frames
from tests.guest.vhost import MAC, TAP, Backend
from tests.kernel.leaks import snapshot
from vnethash.closing import Closing
from vnethash.kernel import link, netns

pytestmark = [pytest.mark.guest, pytest.mark.kernel]

_PROGRAM = "dpdk-testpmd"
_PAIRS = 2
_HOST_MAC = "02:00:00:00:00:01"

# Frames on the way at once: less than the shortest queue there is holds.
_BURST = 64


@pytest.fixture(name="path")
def _path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the backend listens; in a folder of a short name."""
    return tmp_path_factory.mktemp("dpdk") / "vhost"


@pytest.fixture(name="backend")
def _backend(path: Path) -> Iterator[Backend]:
    """A backend in a network namespace of the test's own; must not complain."""
    if shutil.which(_PROGRAM) is None:
        reason = f"{_PROGRAM} is not installed (apt install dpdk-dev)"
        if os.environ.get("VNETHASH_REQUIRE_KERNEL"):
            pytest.fail(reason)
        pytest.skip(reason)
    gc.collect()
    before = snapshot()
    with netns.fresh(), Backend(path, pairs=_PAIRS) as backend:
        link.set_up("lo")
        link.quiet(TAP)
        yield backend
        backend.wait_for("disconnected")
        assert backend.stop() == 0, backend.said()
        assert backend.said() == ""
    gc.collect()
    left = snapshot() - before
    assert not left, f"left behind: {', '.join(sorted(left))}"


class Forwarder(Closing):
    """DPDK's test program with one virtio-user port that is forwarding.

    Without huge pages: its memory is then one memfd, which it shares as well.
    """

    def __init__(self, path: Path, mode: str) -> None:
        cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        with ExitStack() as stack:
            # Its standard output is a terminal, or it would tell us all at the end only.
            self._output, terminal = pty.openpty()
            stack.callback(os.close, self._output)
            try:
                self._process = subprocess.Popen(
                    [
                        *[_PROGRAM, "--no-huge", "-m", "128", "--no-pci", "--no-telemetry"],
                        *["--lcores", f"(0,1)@({cpus})", "--file-prefix", path.parent.name],
                        *["--vdev", f"net_virtio_user0,path={path},queues={_PAIRS},mac={MAC}"],
                        *["--", "--interactive", "--auto-start", f"--forward-mode={mode}"],
                        *[f"--rxq={_PAIRS}", f"--txq={_PAIRS}", "--total-num-mbufs=4096"],
                    ],
                    stdin=subprocess.PIPE,
                    stdout=terminal,
                    stderr=terminal,
                    env={**os.environ, "RUNTIME_DIRECTORY": str(path.parent)},
                )
            finally:
                os.close(terminal)
            stack.callback(self._kill)
            self._said = ""
            self.expect("testpmd> ")
            self._held = stack.pop_all()

    def expect(self, pattern: str, patience: float = 10) -> "re.Match[str]":
        """What matches in the output, once it is there; all up to it is forgotten."""
        deadline = time.monotonic() + patience
        while not (found := re.search(pattern, self._said, re.DOTALL)):
            left = max(deadline - time.monotonic(), 0)
            said = b""
            if select.select([self._output], [], [], left)[0]:
                with suppress(OSError):  # what a terminal says at its end
                    said = os.read(self._output, 1 << 16)
            assert said, f"no {pattern!r}: {self._said}"
            self._said += said.decode(errors="replace")
        self._said = self._said[found.end() :]
        return found

    def say(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()

    def stop(self) -> dict[str, list[int]]:
        """Stop forwarding; packets received ("RX") and sent ("TX") by each queue."""
        self.say("stop")
        said = self.expect(r"Forward Stats for.*(?=Forward statistics for port)").group()
        return {
            direction: [int(number) for number in re.findall(rf"{direction}-packets: (\d+)", said)]
            for direction in ("RX", "TX")
        }

    def quit(self) -> int:
        """Have it disconnect and end; its exit status."""
        self.say("quit")
        self.expect("Bye")
        return self._process.wait(10)

    def close(self) -> None:
        self._held.close()

    def _kill(self) -> None:
        self._process.kill()
        with self._process:
            pass


def packets() -> tuple[int, int]:
    """Packets the tap sent to whoever reads it, and got from who writes to it."""
    (shown,) = json.loads(subprocess.check_output(["ip", "-j", "-s", "link", "show", TAP]))
    counted = shown["stats64"]
    return int(counted["tx"]["packets"]), int(counted["rx"]["packets"])


@contextmanager
def wire() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as wire:
        wire.bind((TAP, 0))
        wire.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
        wire.settimeout(5)
        yield wire


def test_what_it_swaps_comes_back(backend: Backend, path: Path) -> None:
    """Each frame comes back once, its addresses swapped, whatever queue it took."""
    count = 50 * _BURST
    sent = [
        link.parse_mac(MAC)
        + link.parse_mac(_HOST_MAC)
        + b"\x08\x00"
        + frames.ipv4(frames.udp(1 + number, 9, number.to_bytes(4, "big") * 20), frames.UDP)
        for number in range(count)
    ]
    with Forwarder(path, "macswap") as dpdk, wire() as line:
        backend.wait_for("queues")
        features = backend.wait_for("features")["features"]
        assert {"mq", "mrg-rxbuf", "version-1"} <= set(features)
        assert not {"ctrl-vq", "rss", "hash-report"} & set(features)
        back = []
        for first in range(0, count, _BURST):
            for frame in sent[first : first + _BURST]:
                line.send(frame)
            back += [line.recv(2048) for _ in range(_BURST)]
        told = dpdk.stop()
        assert sorted(frame[6:12] + frame[:6] + frame[12:] for frame in back) == sorted(sent)
        assert sum(told["RX"]) == sum(told["TX"]) == count
        assert len(told["RX"]) == _PAIRS
        assert all(told["RX"])
        assert packets() == (count, count)
        assert dpdk.quit() == 0
    assert backend.controls() == []


def test_what_it_sends_arrives(backend: Backend, path: Path) -> None:
    """As fast as it can; what it says it sent was written to the tap, in two queues."""
    with Forwarder(path, "txonly") as dpdk:
        time.sleep(0.5)
        told = dpdk.stop()
        assert len(told["TX"]) == _PAIRS
        assert all(told["TX"])
        deadline = time.monotonic() + 5  # some may be in the ring
        while (arrived := packets()[1]) < sum(told["TX"]) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert arrived == sum(told["TX"])
        assert dpdk.quit() == 0
