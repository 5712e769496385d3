# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""TCP bulk with offloads through a tap, against a plain multi-queue tap.

Two stacks, each in a namespace with a tap: what sockets send here is read from
the queues of the tap that is measured and written to the other, with checksum
and segmentation left to do, as a VMM does between a guest and its tap; the
acknowledgements go back. One thread does it all and never waits: the time that
passes is the CPU time of both stacks, the taps, the stages and the reader.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from vnethash.bench.library import bench_library
from vnethash.bench.measure import (
    Advance,
    Effort,
    Row,
    Summary,
    Target,
    interleave,
    pinned,
    ratios,
)
from vnethash.bench.path import (
    BASE,
    BURST,
    QUEUES,
    SOFTWARE,
    attach_readers,
    switches,
)
from vnethash.bench.path import (
    variants as variants_of_path,
)
from vnethash.engines.readers import QueueReader
from vnethash.errors import DeviceError
from vnethash.kernel import link, netns
from vnethash.kernel.links import Links
from vnethash.kernel.tun import Offload, TunDevice
from vnethash.native import core
from vnethash.packet import PACKET_DTYPE

NAME = "tcp"
_TARGETS = {"ebpf off": 1.02, "ebpf record": 1.05}

CONNECTIONS = 8
_BYTES = 2 << 20
"""Of a burst."""
_BURSTS = 24
_SIZE, _PATTERN = 128 << 10, 65521  # a prime, so that a shift is seen
_ARENA = 512 << 10
_SEND_BUFFER = 32 << 10
"""Of a connection; the kernel takes twice as much. All of it fits into the ring of one
queue as packets without offloads, and stays in the CPU's caches."""
_FIRST_PORT = 20000
_OFFLOADS = Offload.CSUM | Offload.TSO4 | Offload.TSO6
_CASES = ("TCP bulk, TSO", "TCP bulk, no offloads")
_TAP, _OTHER = "tap0", "tap1"
_HERE, _THERE = "10.0.0.1", "10.0.0.2"
_MIB = 1 << 20


def variants() -> tuple[str, ...]:
    """Those of the path that are read queue by queue."""
    return tuple(name for name in variants_of_path() if name != SOFTWARE)


def steps(effort: Effort) -> int:
    return effort.rounds * len(_CASES)


def run(effort: Effort, advance: Advance) -> list[Row]:
    """Microseconds of CPU a MiB. Raises NotPermitted, DeviceError, BpfError."""
    with pinned():
        return [row for case in _CASES for row in _run(case, effort, advance)]


def _run(case: str, effort: Effort, advance: Advance) -> Iterator[Row]:
    offloads = _OFFLOADS if case == _CASES[0] else Offload.NONE
    with ExitStack() as resources:
        buffers = Buffers()
        lanes = {name: Lane(name, offloads, buffers, resources) for name in variants()}
        for lane in lanes.values():
            lane.check()
        bursts = effort.share(_BURSTS)
        turns = {name: partial(lane.turn, bursts) for name, lane in lanes.items()}
        measured = interleave(turns, effort.rounds, advance)
    base = [cost for cost, _ in measured[BASE]]
    for name, turns_of in measured.items():
        costs = [cost for cost, _ in turns_of]
        ratio = ratios(costs, base)
        target = None
        if name in _TARGETS and ratio is not None:
            most = _TARGETS[name]
            target = Target(f"<= {most:.2f}", ratio.median <= most)
        parts = {"packets": Summary.of([packets for _, packets in turns_of])}
        yield Row(NAME, case, name, "us/MiB", Summary.of(costs), ratio, parts, target)


class Buffers:
    """What all variants share, for memory differs in speed."""

    def __init__(self) -> None:
        ffi, _ = bench_library()
        pattern = np.random.default_rng(1).integers(0, 256, _PATTERN, np.uint8)
        self._kept = [
            np.resize(pattern, _SIZE),
            np.empty(_SIZE, np.uint8),
            np.empty(_ARENA, np.uint8),
            np.empty(BURST, PACKET_DTYPE).view(np.uint8),
        ]
        self.data, self.room, self.arena, self.packets = (
            ffi.from_buffer("uint8_t[]", memory) for memory in self._kept
        )


class Lane:
    """The tap of one variant, the other tap, and connections from here to there."""

    def __init__(
        self, variant: str, offloads: Offload, buffers: Buffers, resources: ExitStack
    ) -> None:
        ffi, self._lib = bench_library()
        core_ffi, core_lib = core()
        here, there = netns.Namespace.create(), netns.Namespace.create()
        resources.callback(here.close)
        resources.callback(there.close)
        with there:
            other = resources.enter_context(TunDevice.create(_OTHER, 1, offloads=offloads))
            other_mac = link.mac_of(_OTHER)
        with here:
            device = resources.enter_context(TunDevice.create(_TAP, QUEUES, offloads=offloads))
            readers = attach_readers(variant, device, offloads, resources)
            _join(_TAP, _HERE, _THERE, other_mac)
            mac = link.mac_of(_TAP)
        with there:
            _join(_OTHER, _THERE, _HERE, mac)
        self._name = f"{variant}, TCP"
        addresses = []
        for reader in readers:
            if not isinstance(reader, QueueReader):
                raise DeviceError(f"{self._name}: no reader of one queue")
            addresses.append(_address(core_ffi, reader.handle))
        receive = _address(core_ffi, core_ffi.addressof(core_lib, "vh_receive"))
        self._readers = ffi.new("void *[]", [ffi.cast("void *", at) for at in addresses])
        self.connections = ffi.new("struct tcp_connection[]", CONNECTIONS)
        fields = {
            "connection": self.connections,
            "connections": CONNECTIONS,
            "queues": QUEUES,
            "readers": self._readers,
            "receive": ffi.cast("void *", receive),
            "here": device.fds[0],
            "there": other.fds[0],
            "data": buffers.data,
            "room": buffers.room,
            "size": _SIZE,
            "pattern": _PATTERN,
            "packets": buffers.packets,
            "packets_size": BURST,
            "arena": buffers.arena,
            "arena_size": _ARENA,
        }
        self._tcp = ffi.new("struct tcp *", fields)
        self._lent = buffers, readers
        self._connect(here, there, resources)

    def check(self) -> None:
        """Raise DeviceError unless bytes arrive as they were sent."""
        self._tcp.verify = 1
        self._pump(4 * _BYTES)
        self._tcp.verify = 0

    def turn(self, bursts: int) -> tuple[float, float]:
        """Microseconds a MiB, and packets a MiB: medians, behind a burst that warms the caches."""
        self._burst()
        measured: list[tuple[float, float]] = []
        disturbed: list[tuple[float, float]] = []
        for _ in range(bursts):
            before = switches()
            cost = self._burst()
            (measured if switches() == before else disturbed).append(cost)
        costs, packets = zip(*(measured or disturbed), strict=True)
        return float(np.median(costs)), float(np.median(packets))

    def _burst(self) -> tuple[float, float]:
        received, carried = self._tcp.bytes, self._tcp.carried
        self._pump(_BYTES)
        mib = (self._tcp.bytes - received) / _MIB
        return self._tcp.nanoseconds / 1000 / mib, (self._tcp.carried - carried) / mib

    def _pump(self, size: int) -> None:
        code = self._lib.tcp_pump(self._tcp, size)
        if code < 0:
            raise DeviceError(f"{self._name}: {os.strerror(-code).lower()}")

    def _connect(self, here: netns.Namespace, there: netns.Namespace, kept: ExitStack) -> None:
        """Handshakes need the pump: what is on its way is carried by it."""
        with there:
            listener = kept.enter_context(socket.create_server((_THERE, 0)))
        senders = []
        for number, connection in enumerate(self.connections):
            with here:
                sender = kept.enter_context(socket.socket())
                sender.bind((_HERE, _FIRST_PORT + number))
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            sender.setblocking(False)
            sender.connect_ex(listener.getsockname())
            senders.append(sender)
            connection.sender = connection.receiver = sender.fileno()
        listener.settimeout(0.001)
        receivers: dict[object, int] = {}
        for _ in range(2000):
            self._lib.tcp_pump(self._tcp, 0)
            try:
                accepted, name = listener.accept()
            except TimeoutError:
                continue
            kept.enter_context(accepted)
            receivers[name] = accepted.fileno()
            if len(receivers) == CONNECTIONS:
                break
        else:
            raise DeviceError(f"{self._name}: no connection came about")
        for connection, sender in zip(self.connections, senders, strict=True):
            connection.receiver = receivers[sender.getsockname()]


def _address(ffi: Any, pointer: Any) -> int:
    """For the other library, which has types of its own."""
    return int(ffi.cast("uintptr_t", pointer))


def _join(name: str, address: str, other: str, mac: str) -> None:
    link.quiet(name)
    link.set_up(name)
    with Links() as links:
        links.add_address(name, f"{address}/24")
        links.add_neighbour(name, other, mac)
