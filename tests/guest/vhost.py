# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A guest whose network device is served by `vnethash serve`, and both ends of its wire.

The guest is user-mode-linux: a vhost-user front end of Linux's own, with
Linux's virtio_net on top. It boots once; a device is bound to its driver, and
unbound, as often as there are backends to try. The host's end is the tap.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.guest import agent, uml
from vnethash.closing import Closing
from vnethash.kernel import link
from vnethash.kernel.links import Links
from vnethash.lab.uml import Guest as UmlGuest
from vnethash.rss.config import RssConfig
from vnethash.virtio.hash_types import HashType

TAP, MAC = "tap0", "02:00:00:00:00:02"
HOST, GUEST = "10.0.0.1", "10.0.0.2"
HOST6, GUEST6 = "fd00::1", "fd00::2"

_DRIVER = "/sys/bus/platform/drivers/virtio-uml"
_AGENT = uml.ROOT / "tests/guest/agent.py"

# The guest's serial line loses what its driver has not taken yet.
_LONGEST_REQUEST = 4000

# Frames on the way at once: less than the shortest queue there is holds.
_BURST = 128


class Guest(Closing):
    """Linux 6.1 with an agent that answers requests.

    Its device is bound at boot if there is a backend, else by bind(). Ends with
    its whole process group, whatever it is doing.
    """

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self.lost = False
        self._last = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._buffer = b""
        with ExitStack() as stack:
            self._line, theirs = socket.socketpair()
            stack.enter_context(self._line)
            with theirs:
                self._guest = stack.enter_context(
                    UmlGuest(
                        replace(uml.kernel(), at_boot=("ipv6", "8021q", "virtio_net")),
                        [sys.executable, str(_AGENT), "/dev/ttyS0"],
                        mem="256M",
                        cwd=uml.ROOT,
                        arguments=[
                            f"ssl0=fd:{theirs.fileno()}",
                            f"virtio_uml.device={self.socket_path}:1",
                        ],
                        descriptors=[theirs.fileno()],
                    )
                )
            Pending(self, 0).result()
            # A test sees no packet that it did not ask for.
            script = "cd /proc/sys/net/ipv6/conf/default; echo 1 >addr_gen_mode; "
            keys = "accept_dad accept_ra router_solicitations autoconf"
            self.run("sh", "-ec", f"{script}for key in {keys}; do echo 0 >$key; done")
            self._held = stack.pop_all()

    @property
    def console(self) -> str:
        """What the guest's kernel said."""
        return self._guest.console

    def call(self, do: str, *, patience: float = 20, **values: Any) -> Any:
        """One request, and its answer within ``patience`` seconds."""
        return self.begin(do, **values).result(patience)

    def begin(self, do: str, **values: Any) -> "Pending":
        """A request whose answer is taken later."""
        assert not self.lost, "the guest was lost by a test before"
        self._last += 1
        data = json.dumps({"id": self._last, "do": do, "with": values}).encode() + b"\n"
        assert len(data) < _LONGEST_REQUEST
        self._line.sendall(data)
        return Pending(self, self._last)

    def run(self, *argv: str, status: int = 0) -> str:
        """Run a command, which has to end with this exit status; its output."""
        got, output = self.call("run", argv=list(argv))
        assert got == status, f"{' '.join(argv)}: exit status {got}: {output}"
        return str(output)

    def bind(self) -> None:
        """Connect to the backend and have the driver set up eth0."""
        self._drive("bind")

    def unbind(self) -> None:
        """Have the driver let go of eth0 and disconnect."""
        # Linux frees its buffers before it tells the device to stop: what is still
        # on its way, as the last of TCP, would be written to memory in other use.
        time.sleep(0.02)
        self._drive("unbind")

    def _drive(self, verb: str) -> None:
        try:
            self.call("write", path=f"{_DRIVER}/{verb}", text="virtio-uml.0")
        except RuntimeError:
            self.lost = True  # a device whose backend has died does not come back
            raise

    def power_off(self) -> None:
        """Ask it to end, and see that it does."""
        self.begin("end")
        assert self._guest.wait(10), f"the guest does not stop\n{self.console}"

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Nothing of the guest runs meanwhile."""
        os.kill(self._guest.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._guest.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.lost = True
        self._guest.close()

    def close(self) -> None:
        self._held.close()

    def answer(self, number: int, patience: float) -> dict[str, Any] | None:
        """The answer to a request, None if there is none after ``patience`` seconds."""
        deadline = time.monotonic() + patience
        while number not in self._answers:
            left = max(deadline - time.monotonic(), 0)
            if not select.select([self._line], [], [], left)[0]:
                return None
            part = self._line.recv(1 << 16)
            if not part:
                self.lost = True
                raise EOFError(f"the guest has ended\n{self.console[-3000:]}")
            *lines, self._buffer = (self._buffer + part).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                self._answers[answer["id"]] = answer
        return self._answers[number]


@dataclass(frozen=True)
class Pending:
    """A request that the guest works on."""

    guest: Guest
    number: int

    @property
    def done(self) -> bool:
        """Whether there is an answer."""
        return self.guest.answer(self.number, 0) is not None

    def result(self, patience: float = 20) -> Any:
        """The answer; a guest that gives none in ``patience`` seconds is given up."""
        answer = self.guest.answer(self.number, patience)
        if answer is None:
            self.guest.lost = True
            raise TimeoutError(f"no answer from the guest\n{self.guest.console[-3000:]}")
        if "error" in answer:
            raise RuntimeError(f"in the guest: {answer['error']}")
        return answer["result"]


class Backend(Closing):
    """`vnethash serve --json` in this network namespace."""

    def __init__(self, path: Path, *options: str, pairs: int = 4) -> None:
        self._offset = 0
        self.events: list[dict[str, Any]] = []
        program = Path(sys.executable).parent / "vnethash"
        with ExitStack() as stack:
            self._log = stack.enter_context(tempfile.TemporaryFile())
            self._errors = stack.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                [
                    *[str(program), "serve", "--json", "--socket", str(path), "--tap", TAP],
                    *["--queue-pairs", str(pairs), "--mac", MAC, *options],
                ],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._errors,
            )
            stack.callback(self._kill)
            self.wait_for("listening")
            self._held = stack.pop_all()

    @property
    def carrier(self) -> bool:
        """Whether the tap's link is up because a guest is there."""
        shown = subprocess.check_output(["ip", "-j", "link", "show", TAP])
        return "LOWER_UP" in json.loads(shown)[0]["flags"]

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, event: str, count: int = 1, patience: float = 10) -> dict[str, Any]:
        """The latest event of that name, when there have been so many."""
        deadline = time.monotonic() + patience
        while True:
            self.look()
            found = [entry for entry in self.events if entry["event"] == event]
            if len(found) >= count:
                return found[-1]
            assert self.running, f"the backend ended: {self.said()}"
            assert time.monotonic() < deadline, f"no {event!r}: {self.events}\n{self.said()}"
            time.sleep(0.01)

    def look(self) -> list[dict[str, Any]]:
        """All events so far."""
        data = os.pread(self._log.fileno(), 1 << 24, self._offset)
        whole = data.rpartition(b"\n")[0]
        self._offset += len(whole) + bool(whole)
        self.events += [json.loads(line) for line in whole.splitlines()]
        return self.events

    def controls(self) -> list[dict[str, Any]]:
        """The control commands so far."""
        return [entry for entry in self.look() if entry["event"] == "control"]

    def said(self) -> str:
        """What it wrote to standard error."""
        return os.pread(self._errors.fileno(), 1 << 20, 0).decode(errors="replace")

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(10)

    def end(self) -> None:
        """See that it ends when told to, and that all went well until then."""
        self.wait_for("disconnected")
        assert self.stop() == 0, self.said()
        assert self.said() == ""
        assert {entry["answer"] for entry in self.controls()} <= {"ok"}
        assert not [entry for entry in self.look() if entry["event"] == "fault"]

    def close(self) -> None:
        self._held.close()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class Seen:
    """A frame as the guest's BPF program saw it."""

    hash_value: int
    queue: int
    length: int


class Wire:
    """A guest bound to a backend: eth0 there, the tap here, both up and with addresses."""

    def __init__(self, guest: Guest, backend: Backend) -> None:
        self.guest = guest
        self.backend = backend

    def ethtool(self, option: str, *arguments: str, status: int = 0) -> str:
        """`ethtool OPTION eth0 ...` in the guest."""
        return self.guest.run("ethtool", option, "eth0", *arguments, status=status)

    def rss(self, types: int | HashType) -> RssConfig:
        """What the guest's driver says its device does, with these hash types."""
        return RssConfig.from_ethtool(self.ethtool("-x"), hash_types=HashType(types))

    def to_guest(self, seeds: list[int], size: int, address: str = GUEST) -> None:
        """Send bulk over TCP, a connection for each seed, and see that all arrives as it was."""
        receiving = self.guest.begin(
            "tcp_receive", address=address, port=5001, connections=len(seeds)
        )
        wanted = [agent.digest(seed, size) for seed in seeds]
        assert agent.tcp_send(address, 5001, seeds, size) == wanted
        assert sorted(receiving.result()) == sorted(wanted)

    def to_host(self, seeds: list[int], size: int, address: str = HOST) -> None:
        """As ``to_guest``, in the other direction."""
        sending = self.guest.begin("tcp_send", address=address, port=5002, seeds=seeds, size=size)
        wanted = sorted(agent.digest(seed, size) for seed in seeds)
        assert sorted(agent.tcp_receive(address, 5002, len(seeds))) == wanted
        assert sorted(sending.result()) == wanted

    def statistic(self, name: str) -> int:
        """One of eth0's, as the guest counts."""
        return int(self.guest.call("read", path=f"/sys/class/net/eth0/statistics/{name}"))

    @contextmanager
    def capture(self, frames: int, queues: int = 4, link_name: str = TAP) -> Iterator["Capture"]:
        """Have the guest note marked frames, with numbers below ``frames``; a way to send some."""
        self.guest.call("capture", interface="eth0", queues=queues, frames=frames)
        capture = Capture(self.guest)
        try:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
                wire.bind((link_name, 0))
                capture.wire = wire
                yield capture
        finally:
            capture.end()


class Capture:
    """Sends frames from the host, and knows what became of them in the guest."""

    wire: socket.socket

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._sent = 0
        self._due = 0
        self._result: dict[str, Any] | None = None

    def send(
        self,
        payloads: Iterable[bytes],
        *,
        mac: str = MAC,
        expect: bool = True,
        before: bytes = b"",
        wait: bool = True,
    ) -> None:
        """Send frames, given from their EtherType on; marked and numbered from 0 on.

        Unless told not to ``wait``: after as many as a queue holds, and in the
        end, waits until those that are to be expected have come. ``before`` is
        put in front of each frame.
        """
        head = before + link.parse_mac(mac) + agent.MARK.to_bytes(2, "big")
        for payload in payloads:
            self.wire.send(head + self._sent.to_bytes(4, "big") + payload)
            self._sent += 1
            self._due += expect
            if wait and self._sent % _BURST == 0:
                self.arrived()
        if wait:
            self.arrived()

    def arrived(self) -> None:
        """See that all expected frames have come, and not one more."""
        seen = self._guest.call("captured", count=self._due, timeout=5)
        assert seen == self._due, f"{seen} of {self._due} frames came"

    def end(self) -> dict[str, Any]:
        """What the agent's `capture_end` tells."""
        if self._result is None:
            self._result = self._guest.call("capture_end")
        return self._result

    def by_program(self) -> list[Seen | None]:
        """What the BPF program saw, by number; None for a frame that did not come."""
        seen: list[Seen | None] = []
        for value, queue, times, length in self.end()["program"][: self._sent]:
            assert times in (0, 1)
            seen.append(Seen(value, queue, length) if times else None)
        return seen

    def by_rings(self) -> dict[int, tuple[int, int]]:
        """Queue and hash by number of the frame, from the packet rings."""
        result = self.end()
        assert result["complete"]
        return {number: (queue, value) for queue, number, value in result["rings"]}


@contextmanager
def served(guest: Guest, *options: str, pairs: int = 4) -> Iterator[Wire]:
    """A backend with these options, the guest's device bound to it, both ends up.

    In the end the backend is told to stop, and must not have complained.
    """
    with backend(guest, *options, pairs=pairs) as serving:
        with bound(guest, serving) as wire:
            yield wire
        serving.end()


@contextmanager
def backend(guest: Guest, *options: str, pairs: int = 4) -> Iterator[Backend]:
    """A backend for the guest, its tap up and with addresses."""
    with Backend(guest.socket_path, *options, pairs=pairs) as serving:
        link.quiet(TAP, ipv6=True)
        link.set_up(TAP)
        with Links() as links:
            for mine, peer, bits in ((HOST, GUEST, 24), (HOST6, GUEST6, 64)):
                links.add_address(TAP, f"{mine}/{bits}")
                links.add_neighbour(TAP, peer, MAC)
        yield serving


@contextmanager
def bound(guest: Guest, serving: Backend) -> Iterator[Wire]:
    """The guest's device bound to a backend that runs, eth0 up and with addresses."""
    wire = connect(guest, serving)
    try:
        yield wire
    finally:
        if not guest.lost:
            guest.unbind()


def connect(guest: Guest, serving: Backend) -> Wire:
    """As ``bound``, for a device that will not be unbound."""
    try:
        guest.bind()
    except RuntimeError as error:
        raise AssertionError(f"{error}\n{serving.look()}\n{serving.said()}") from error
    mac = link.mac_of(TAP)
    commands = ["ip link set eth0 up"]
    for mine, peer, bits in ((GUEST, HOST, "24"), (GUEST6, HOST6, "64 nodad")):
        commands.append(f"ip addr add {mine}/{bits} dev eth0")
        commands.append(f"ip neigh replace {peer} dev eth0 lladdr {mac}")
    # Or frames of a test would be joined before they are captured.
    commands.append("ethtool -K eth0 gro off")
    guest.run("sh", "-ec", "; ".join(commands))
    return Wire(guest, serving)
