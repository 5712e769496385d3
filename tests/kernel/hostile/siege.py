# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash serve`` in a process of its own, and what has to hold of it after each attack.

A process of its own, so that a crash is one of the server and not of the test,
that a hang can be ended, and that what it holds can be counted from outside.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import vnethash
from tests.kernel.flows import FLOWS, Got, expected, send
from tests.kernel.served import MAC, QUEUES, link_line
from vnethash.closing import Closing
from vnethash.kernel import link
from vnethash.rss.config import RssConfig
from vnethash.testing.driver import FakeDriver
from vnethash.testing.front_end import FrontEnd
from vnethash.virtio.hash_types import ReportType

TAP = "tap0"
PATIENCE = 5.0
"""Seconds in which a front end has to be answered, on a machine that may stall for some:
attacks go on meanwhile, so one that is starved would wait for good."""

SETTLES = 5.0
"""Seconds for everything else, on a machine that is busy."""

_SOURCE = str(Path(vnethash.__file__).parents[1])
_RSS = RssConfig.symmetric(QUEUES)
_WINDOW = 0.05
_BUSY = 0.4  # of a CPU: somebody else may have the other half
_PACKET_VNET_HDR = 15
_LATEST, _LINE = 12, 200


@dataclass(frozen=True, slots=True)
class Held:
    """What the process has: numbers of descriptors, threads and mappings of guest memory."""

    descriptors: int
    threads: int
    shared: int

    @classmethod
    def of(cls, pid: int) -> "Held":
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        return cls(
            descriptors=len(os.listdir(f"/proc/{pid}/fd")),
            threads=len(os.listdir(f"/proc/{pid}/task")),
            # What is a file, private ones being the program's own.
            shared=sum(line.split()[1].endswith("s") for line in maps),
        )


class Siege:
    """The server, its tap, and the traffic that flows into the tap meanwhile."""

    def __init__(self, path: Path, process: "subprocess.Popen[str]", errors: IO[str]) -> None:
        self.path = path
        self.process = process
        self.events: deque[Mapping[str, Any]] = deque(maxlen=_LATEST)
        self.fallen = False
        """An attack has succeeded."""
        self._errors = errors
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.wait(lambda: self.events, "it does not listen")
        link.quiet(TAP)
        self.flood = Flood()
        self._calm = Held.of(process.pid)

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def connect(self) -> FrontEnd:
        """The next front end, once the server's queue of callers has room for it."""
        deadline = time.monotonic() + SETTLES
        while True:
            try:
                return FrontEnd.connect(self.path)
            except BlockingIOError:
                assert time.monotonic() < deadline, "it accepts nobody"
                time.sleep(0.001)

    @contextmanager
    def driver(self, **options: Any) -> Iterator[FakeDriver]:
        """A driver whose rings run, so that packets can come."""
        with self.connect() as front_end, FakeDriver(front_end, **options) as driver:
            front_end.features()
            self.wait(lambda: "qdisc noop" not in link_line(TAP), "the tap has no carrier")
            yield driver

    def attack(self, do: Callable[[ExitStack], None]) -> None:
        """Let ``do`` attack under traffic; what it leaves in the stack goes when it was watched.

        AssertionError if the server does not live through it, or spins, or keeps something.
        """
        try:
            with ExitStack() as left:
                with self.flood:
                    do(left)
                self.idles()
            self.recovers()
        except Exception as error:
            error.add_note(self._story())
            self.fallen = True
            raise

    def idles(self, why: str = "") -> None:
        """Nobody asks anything of the process: it has to sleep."""

        def sleeps() -> bool:
            before = self._cpu_time()
            time.sleep(_WINDOW)
            return self._cpu_time() - before < _BUSY * _WINDOW

        self.wait(sleeps, f"it spins {why}")

    def recovers(self) -> None:
        """A healthy driver is served at once, gets all packets, and leaves nothing behind."""
        self.answers()
        with self.driver(pairs=QUEUES) as driver:
            driver.rss_config(_RSS)
            send(TAP)
            packets = driver.receive_any(len(FLOWS))
            got = [Got(q, p.frame, p.header.hash_value, p.header.hash_report) for q, p in packets]
            assert len(got) == len(FLOWS), f"{len(got)} packets"
            assert set(got) == _WANTED, "a packet of another, or with another hash or queue"
            driver.send(QUEUES - 1, FLOWS[0])
            driver.flush()
        self.wait(lambda: Held.of(self.process.pid) == self._calm, "it keeps something")

    def answers(self) -> None:
        """The next front end is answered."""
        start = time.monotonic()
        try:
            with self.connect() as front_end:
                front_end.features()
        except (OSError, TimeoutError) as error:
            raise AssertionError("it does not answer") from error
        took = time.monotonic() - start
        assert took < PATIENCE, f"it answers after {took:.1f} s"

    def prompt(self, front_end: FrontEnd) -> None:
        """The front end at work is answered, whatever else there is to do."""
        start = time.monotonic()
        front_end.features()
        took = time.monotonic() - start
        assert took < PATIENCE, f"it answers after {took:.1f} s"

    def wait(self, holds: Callable[[], object], complaint: str) -> None:
        """Until something holds; AssertionError if it does not."""
        deadline = time.monotonic() + SETTLES
        while not holds():
            assert self.process.poll() is None, "it has ended"
            assert time.monotonic() < deadline, complaint
            time.sleep(0.005)

    def _cpu_time(self) -> float:
        """Seconds on a CPU of all threads (Documentation/scheduler/sched-stats)."""
        entries = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(entry.read_text().split()[0]) for entry in entries) / 1e9

    def _story(self) -> str:
        """What may explain a failure."""
        time.sleep(0.1)  # for the last words
        lines = [f"exit status {self.process.poll()}"]
        if self.process.poll() is None:
            lines.append(f"{Held.of(self.process.pid)}, at first {self._calm}")
        lines += [str(event)[:_LINE] for event in list(self.events)[-_LATEST:]]
        self._errors.seek(0)
        return "\n".join([*lines, self._errors.read()])

    def end(self) -> None:
        """Terminate; it has to do that by itself, without a word of complaint."""
        self.process.terminate()
        try:
            status = self.process.wait(SETTLES)
        except subprocess.TimeoutExpired:
            raise AssertionError("SIGTERM does not end it") from None
        self._errors.seek(0)
        errors = self._errors.read()
        assert (status, errors) == (0, ""), errors

    def close(self) -> None:
        self.process.kill()
        self._reader.join()
        self.flood.close()


_WANTED = {
    Got(got.queue, got.frame, got.hash_value, got.hash_report or ReportType.NONE)
    for got in expected(_RSS, record=True)
}


@contextmanager
def besieged(folder: Path, *options: str) -> Iterator[Siege]:
    """A server on a tap in the namespace of the calling thread; it has to end well."""
    command = [sys.executable, "-m", "vnethash.cli.main", "serve", "--json", "--tap", TAP]
    command += ["--socket", str(folder / "vhost"), "--queue-pairs", str(QUEUES)]
    command += ["--mac", MAC.hex(":"), *options]
    with (folder / "errors").open("w+") as errors, ExitStack() as stack:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            # The same code as here, and its own leaks are complaints.
            env={**os.environ, "PYTHONPATH": _SOURCE, "PYTHONWARNINGS": "default"},
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        siege = Siege(folder / "vhost", process, errors)
        stack.callback(siege.close)
        yield siege
        if not siege.fallen:
            siege.end()


class Sieges(Closing):
    """One after the other: an attack that succeeds ends the one it was part of."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = ExitStack()
        self.present = self._begin()

    def _begin(self) -> Siege:
        return self._running.enter_context(besieged(self._folder))

    def renew(self) -> None:
        """Begin another if this one has fallen."""
        if self.present.fallen:
            self._running.close()
            self.present = self._begin()

    def close(self) -> None:
        self._running.close()


@contextmanager
def repeating(*do: Callable[[], object]) -> Iterator[None]:
    """Have a thread call these in turn, over and over, meanwhile."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                for one in do:
                    one()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]


class Flood:
    """Frames of all kinds into the tap, as fast as they go, while the ``with`` block runs."""

    def __init__(self) -> None:
        self._raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._gso = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._gso.setsockopt(263, _PACKET_VNET_HDR, 1)  # SOL_PACKET
        for sending in (self._raw, self._gso):
            sending.bind((TAP, 0))
        self._running = ExitStack()

    def __enter__(self) -> None:
        self._running.enter_context(repeating(self._send))

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No frames in this block, within the other."""
        self._running.close()
        try:
            yield
        finally:
            self.__enter__()

    def _send(self) -> None:
        for frame in FLOWS:
            _try(self._raw, frame)
        for packet in _SUPER:
            _try(self._gso, packet)
        time.sleep(0.001)

    def close(self) -> None:
        self._raw.close()
        self._gso.close()


def _try(sending: socket.socket, data: bytes) -> None:
    try:
        sending.send(data, socket.MSG_DONTWAIT)
    except OSError:
        return  # no carrier, or no room: not what is tested


def _super_packets() -> Sequence[bytes]:
    """TCP packets to be segmented, with the header a packet socket takes (packet(7))."""
    from tests import frames

    packets = []
    for size in (3000, 20000, 62000):
        tcp = frames.tcp(size, payload=bytes(size))
        frame = frames.ethernet(0x0800, frames.ipv4(tcp, frames.TCP))
        header = b"\x01\x01" + b"".join(
            number.to_bytes(2, "little") for number in (54, 1448, 34, 16)
        )
        packets.append(header + frame)
    return packets


_SUPER = _super_packets()
