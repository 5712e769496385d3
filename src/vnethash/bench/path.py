# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""CPU per packet through a tap, against a plain multi-queue tap.

One thread, kept on one CPU, sends a burst and then reads it, so that all of
a packet's work is done by it: the sender's system call carries the frame
through bridge, stages and queue selection into the ring of a queue (on a veth
pair in the softirq that runs before the call returns), and the same native
loop reads it. No one waits, nothing is lost, no reader falls behind; the time
that passes is the CPU time spent, however the kernel accounts for softirqs.
Bursts in which the thread was switched out are left out.

Each variant has a namespace of its own with the same links in it, and they
take turns. Where a kernel of the lab runs, its engine is among them.
"""

import os
import resource
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vnethash.bench import frames
from vnethash.bench.bitwise import BitwiseSteering
from vnethash.bench.library import bench_library
from vnethash.bench.measure import (
    Advance,
    Effort,
    Row,
    Summary,
    Target,
    check_agreement,
    interleave,
    pinned,
    ratios,
)
from vnethash.engines.base import Reader, Setup
from vnethash.engines.readers import History, QueueReader
from vnethash.engines.select import LAB, TUN_RSS, engine_named
from vnethash.errors import DeviceError, VnethashError
from vnethash.kernel import link, netns, probe
from vnethash.kernel.links import Links
from vnethash.kernel.tun import Offload, TunDevice
from vnethash.kernel.tun_ioctl import read_hash_types
from vnethash.native import core
from vnethash.packet import PACKET_DTYPE
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig
from vnethash.virtio.header import GsoType, Header, HeaderFlag

NAME = "path"
BASE = "plain tap"
_BITWISE, SOFTWARE = "bit by bit", "software"
_OFF, _RECORD = "ebpf off", "ebpf record"
VARIANTS = (BASE, _BITWISE, _OFF, _RECORD, "ebpf rehash", SOFTWARE)
"""On any kernel; `variants` are those of the running one."""
_TARGETS = {_OFF: 1.02, _RECORD: 1.05}

QUEUES = 4
FLOWS = 64
BURST = 384
"""Packets sent at once: fewer than the ring of one queue holds (500)."""
_BURSTS = 10
_ATTEMPTS = 1000
_ARENA = 1 << 20
_OFFLOADS = Offload.CSUM | Offload.TSO4 | Offload.TSO6

_TAP, _PEER, _BRIDGE, _VXLAN = "tap0", "peer0", "br0", "vxlan0"
_HERE, _THERE = "veth0", "veth1"
_RECEIVER = frames.RECEIVER.hex(":")
_HOST, _GUEST = "10.0.0.1", "10.0.0.2"
_MTU = 1514
_TSO = Header(
    flags=HeaderFlag.NEEDS_CSUM,
    gso_type=GsoType.TCPV4,
    hdr_len=54,
    gso_size=1448,
    csum_start=34,
    csum_offset=16,
)
_LEARN = b"\xff" * 6 + frames.RECEIVER + b"\x88\xb5" + bytes(46)  # RFC 5342: experimental


@dataclass(frozen=True, slots=True)
class Traffic:
    """Where packets come from, and how long they are."""

    name: str
    sender: Callable[[TunDevice, int, ExitStack], "Sender"]
    length: int
    """Bytes of a frame, Ethernet header included."""
    judged: bool
    """The project's targets are for this traffic."""
    burst: int = BURST
    """Packets sent at once."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Nanoseconds a packet, of a turn."""

    send: float
    receive: float

    @property
    def total(self) -> float:
        return self.send + self.receive


def steps(effort: Effort) -> int:
    return effort.rounds * len(traffic_here())


def variants() -> tuple[str, ...]:
    """What can be measured here, the base first."""
    lab = [name for name in LAB if probe.probe(name)]
    return VARIANTS + tuple(f"{name} {how}" for name in lab for how in ("off", "record"))


def run(effort: Effort, advance: Advance, traffic: "Sequence[Traffic] | None" = None) -> list[Row]:
    """Measure all variants under all traffic. Raises NotPermitted, DeviceError, BpfError."""
    chosen = traffic_here() if traffic is None else traffic
    with pinned():
        return [row for each in chosen for row in _run(each, effort, advance)]


def _run(traffic: Traffic, effort: Effort, advance: Advance) -> Iterator[Row]:
    with ExitStack() as resources:
        buffers = Buffers()
        lanes = {name: Lane(name, traffic, buffers, resources) for name in variants()}
        for lane in lanes.values():
            lane.check()
        bursts = effort.share(_BURSTS)
        turns = {name: partial(lane.turn, bursts) for name, lane in lanes.items()}
        measured = interleave(turns, effort.rounds, advance)
    base = [cost.total for cost in measured[BASE]]
    for name, costs in measured.items():
        totals = [cost.total for cost in costs]
        ratio = ratios(totals, base)
        yield Row(
            NAME,
            traffic.name,
            name,
            "ns",
            Summary.of(totals),
            ratio,
            {
                "send": Summary.of([cost.send for cost in costs]),
                "receive": Summary.of([cost.receive for cost in costs]),
            },
            _target(name, ratio) if traffic.judged else None,
        )


def _target(name: str, ratio: Summary | None) -> Target | None:
    if name not in _TARGETS or ratio is None:
        return None
    most = _TARGETS[name]
    return Target(f"<= {most:.2f}", ratio.median <= most)


class Buffers:
    """What is read into: one for all variants, for memory differs in speed."""

    def __init__(self) -> None:
        ffi, _ = core()
        self.columns = np.empty(BURST, PACKET_DTYPE)
        self.packets = ffi.from_buffer("struct vh_packet[]", self.columns)
        self.arena = ffi.from_buffer("uint8_t[]", np.empty(_ARENA, np.uint8))


class Lane:
    """A tap of one variant in a namespace of its own, its sender and its readers."""

    def __init__(
        self, variant: str, traffic: Traffic, buffers: Buffers, resources: ExitStack
    ) -> None:
        namespace = netns.Namespace.create()
        resources.callback(namespace.close)
        with namespace:
            device = resources.enter_context(TunDevice.create(_TAP, QUEUES, offloads=_OFFLOADS))
            self._readers = attach_readers(variant, device, _OFFLOADS, resources)
            link.quiet(_TAP)
            link.set_up(_TAP)
            self._sender = traffic.sender(device, traffic.length, resources)
        self._buffers = buffers
        self._burst = traffic.burst
        self._variant = variant
        self._name = f"{variant}, {traffic.name}"
        self._receive(0)  # what came up with the links

    def sample(self) -> npt.NDArray[np.void]:
        """Send a burst; a row of PACKET_DTYPE for each packet of it."""
        self._sender.send(self._burst)
        return np.concatenate(
            [self._buffers.columns[:count].copy() for count in self._counts(self._burst)]
        )

    def check(self) -> None:
        """Raise VnethashError unless packets are reported as the variant says."""
        packets = self.sample()
        engine, reporting = _engine_of(self._variant)
        hashed = int(np.count_nonzero(packets["hash_report"]))
        wanted = len(packets) if reporting is not Reporting.OFF else 0
        check_agreement(f"{self._name}: number of hashes", hashed, wanted)
        records = int(np.count_nonzero(packets["has_record"]))
        wanted = len(packets) if reporting is Reporting.RECORD and engine != SOFTWARE else 0
        check_agreement(f"{self._name}: number of records", records, wanted)

    def turn(self, bursts: int) -> Cost:
        """Median cost of a packet over ``bursts``, behind one that warms the caches."""
        self._measure()
        costs: list[Cost] = []
        disturbed: list[Cost] = []
        for _ in range(bursts):
            before = switches()
            cost = self._measure()
            (costs if switches() == before else disturbed).append(cost)
        costs = costs or disturbed
        return Cost(
            float(np.median([cost.send for cost in costs])),
            float(np.median([cost.receive for cost in costs])),
        )

    def _measure(self) -> Cost:
        start = time.perf_counter_ns()
        self._sender.send(self._burst)
        sent = time.perf_counter_ns()
        self._receive(self._burst)
        done = time.perf_counter_ns()
        return Cost((sent - start) / self._burst, (done - sent) / self._burst)

    def _receive(self, wanted: int) -> None:
        for _ in self._counts(wanted):
            pass

    def _counts(self, wanted: int) -> Iterator[int]:
        """Read ``wanted`` packets; gives how many came with each read."""
        received = 0
        buffers = self._buffers
        for _ in range(_ATTEMPTS):
            for reader in self._readers:
                count = reader.receive(buffers.arena, _ARENA, buffers.packets, BURST)
                if count < 0:
                    raise DeviceError(f"{self._name}: read: {os.strerror(-count).lower()}")
                received += count
                yield count
            if received >= wanted:
                break
        if wanted and received != wanted:
            raise DeviceError(f"{self._name}: {wanted} packets sent, {received} received")


def switches() -> int:
    """How often this thread was switched out."""
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_nvcsw + usage.ru_nivcsw


def _engine_of(variant: str) -> tuple[str | None, Reporting]:
    """``ebpf off`` is the engine `ebpf` reporting `off`; None has no engine at work."""
    if variant in (BASE, _BITWISE):
        return None, Reporting.OFF
    if variant == SOFTWARE:
        return SOFTWARE, Reporting.RECORD
    engine, _, reporting = variant.rpartition(" ")
    return engine, Reporting(reporting)


def attach_readers(
    variant: str, device: TunDevice, offloads: Offload, resources: ExitStack
) -> Sequence[Reader]:
    """Put the variant to work on the device; its readers, by queue."""
    config = RssConfig.default(QUEUES)
    engine, reporting = _engine_of(variant)
    if engine is None:
        if variant == _BITWISE:
            bitwise = resources.enter_context(BitwiseSteering.load(config))
            device.set_steering(bitwise.program.fd)
        # A history without a configuration: the reader has nothing to hash by.
        history = History()
        resources.callback(history.close)
        return [QueueReader(fd, queue, history, l3=False) for queue, fd in enumerate(device.fds)]
    if engine == TUN_RSS:
        config = config.replace(hash_types=read_hash_types(device.fds[0]))
    attachment = engine_named(engine).attach(
        Setup(device, config, reporting, offloads, False, len(config.indirection_table))
    )
    resources.callback(attachment.close)
    readers = []
    for queue in range(QUEUES):
        readers.append(attachment.reader(queue))
        resources.callback(readers[-1].close)
    return readers


def _from_guest(device: TunDevice, length: int, resources: ExitStack) -> "Sender":
    """Another guest on the same bridge: what its VMM writes to its tap."""
    with _bridge(device) as links:
        peer = resources.enter_context(TunDevice.create(_PEER, 1))
        _join(links, _PEER)
    header = _TSO if length > _MTU else Header()
    return Sender(
        peer.fds, [header.encode_v1() + frames.tcp4(flow, length) for flow in range(FLOWS)]
    )


def _from_container(device: TunDevice, length: int, resources: ExitStack) -> "Sender":
    """UDP sockets in another namespace, by a veth pair to the bridge."""
    return _by_veth(device, length, resources, room=False)


def _from_roomy_container(device: TunDevice, length: int, resources: ExitStack) -> "Sender":
    """The same on a bridge with a VXLAN port: it has its ports leave room in front of
    frames (netdev_set_rx_headroom), veth the sockets behind it."""
    return _by_veth(device, length, resources, room=True)


def _by_veth(device: TunDevice, length: int, resources: ExitStack, *, room: bool) -> "Sender":
    namespace = netns.Namespace.create()
    resources.callback(namespace.close)
    with _bridge(device) as links:
        if room:
            links.add_vxlan(_VXLAN, 1)
            _join(links, _VXLAN)
        links.add_veth(_HERE, _THERE, peer_namespace=namespace)
        _join(links, _HERE)
    with namespace:
        return _sockets(_THERE, length, resources)


def _from_host(device: TunDevice, length: int, resources: ExitStack) -> "Sender":
    """UDP sockets of the host, routed to the tap."""
    return _sockets(device.name, length, resources)


TRAFFIC = (
    Traffic("bridge, 60 B", _from_guest, 60, True),
    Traffic("bridge, 1514 B", _from_guest, 1514, True),
    Traffic("bridge, TSO 60 kB", _from_guest, 60_000, True, 48),
    Traffic("veth, bridge, 60 B", _from_container, 60, True),
    Traffic("veth, bridge, 1514 B", _from_container, 1514, True),
    Traffic("veth with room, 60 B", _from_roomy_container, 60, True),
    Traffic("veth with room, 1514 B", _from_roomy_container, 1514, True),
    Traffic("local sockets, 60 B", _from_host, 60, False),
    Traffic("local sockets, 1514 B", _from_host, 1514, False),
)


def traffic_here() -> tuple[Traffic, ...]:
    """What the running kernel has the devices for."""
    if _has_vxlan():
        return TRAFFIC
    return tuple(each for each in TRAFFIC if each.sender is not _from_roomy_container)


@cache
def _has_vxlan() -> bool:
    try:
        with netns.fresh(), Links() as links:
            links.add_vxlan(_VXLAN, 1)
    except VnethashError:
        return False
    return True


@contextmanager
def _bridge(device: TunDevice) -> Iterator[Links]:
    """A bridge with the tap as port; further ports join in the block. It then
    knows where the receiver is."""
    with Links() as links:
        links.add_bridge(_BRIDGE)
        for setting in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
            path = Path("/proc/sys/net/bridge", setting)
            if path.exists():
                path.write_text("0\n")
        link.quiet(_BRIDGE)
        link.set_up(_BRIDGE)
        _join(links, device.name)
        yield links
    header = Header().encode_v1().ljust(device.vnet_header_size, b"\0")
    os.write(device.fds[0], header + _LEARN)


def _join(links: Links, name: str) -> None:
    link.quiet(name)
    links.enslave(name, _BRIDGE)
    link.set_up(name)


def _sockets(name: str, length: int, resources: ExitStack) -> "Sender":
    """A connected UDP socket for each flow, out of the link ``name``."""
    link.quiet(name)
    link.set_up(name)
    with Links() as links:
        links.add_address(name, f"{_HOST}/24")
        links.add_neighbour(name, _GUEST, _RECEIVER)
    fds = []
    for flow in range(FLOWS):
        sender = resources.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sender.bind((_HOST, 0))
        sender.connect((_GUEST, 5000 + flow))
        fds.append(sender.fileno())
    return Sender(fds, [bytes(length - 42)])


class Sender:
    """Sends messages, all of one length, in turn, on descriptors in turn."""

    def __init__(self, fds: Sequence[int], messages: Sequence[bytes]) -> None:
        ffi, self._lib = bench_library()
        self._arguments = (
            ffi.new("int[]", list(fds)),
            len(fds),
            ffi.from_buffer(b"".join(messages)),
            len(messages),
            len(messages[0]),
        )

    def send(self, count: int) -> None:
        """Send ``count`` messages. Raises DeviceError."""
        code = self._lib.send_burst(*self._arguments, count)
        if code < 0:
            raise DeviceError(f"send a burst: {os.strerror(-code).lower()}")
