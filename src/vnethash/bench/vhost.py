# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The data path of a guest, tap to ring and back, against a bare loop on the same tap.

A burst is put into the queue of a tap while whoever reads it has to wait: the
guest has lent no buffers. Then a driver, on a CPU of its own, lends them, kicks,
takes what is used and lends it again until all have come; the time counts when
a lead of them has come. So nobody waits for a sender, nothing is lost, and how
fast a thread wakes up is no part of it. To transmit, the driver lends
packets. The bare loop is a thread that is kicked as well and calls read(), or
write(), for each packet, and reads always to the same memory; "spread" to as
many places as the guest has buffers; "records" from a tap that has them.

Not mergeable are what a guest without MRG_RXBUF has: a chain for each packet.
"""

import os
import resource
import socket
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count

import numpy as np

from vnethash.bench import frames
from vnethash.bench.driver import LARGEST, RING_SIZE, BareLoop, Burst, Chains, Guest, Mover
from vnethash.bench.measure import (
    Advance,
    Effort,
    Row,
    Summary,
    Target,
    check_agreement,
    interleave,
    ratios,
)
from vnethash.bench.path import FLOWS, Sender
from vnethash.engines.select import EBPF
from vnethash.kernel import link, netns
from vnethash.kernel.tun import Offload
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.vhost_user.host_tap import HostTap, Wanted
from vnethash.virtio.header import HASH_SIZE, V1_SIZE, GsoType, Header, HeaderFlag

NAME = "vhost"
BASE = "bare"
_SPREAD = "bare, spread"
_RECORDS = "bare, records"
_SHARE = 0.8
"""Of a bare loop's packets per second, what the project wants to deliver at least."""

_BURSTS = 10
_DISTURBED = 3  # times as many, and no more
_PINGS = 200
_WARM = 10
_TAP = "tap0"
_PAIRS = (1, 2, 4)
_OFFLOADS = Offload.CSUM | Offload.TSO4 | Offload.TSO6
_PLAIN = Header()
_TSO = Header(
    flags=HeaderFlag.NEEDS_CSUM,
    gso_type=GsoType.TCPV4,
    hdr_len=54,
    gso_size=1448,
    csum_start=34,
    csum_offset=16,
)
_WIRE_HEADER = 10  # struct virtio_net_hdr: PACKET_VNET_HDR knows no num_buffers
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15  # include/uapi/linux/if_packet.h
_ETH_P_IP = 0x0800


@dataclass(frozen=True, slots=True)
class Traffic:
    """Frames, and the buffers in which a Linux guest would have them."""

    name: str
    length: int
    burst: int
    """Packets of a burst, fewer than the queue of a tap holds (500); a multiple of 4."""
    lead: int
    """Packets of it that come before the time counts."""
    batch: int
    """Packets that the bare loop tells of at once, as many as the guest sees at once."""
    buffer: int
    """Bytes of a buffer if they are mergeable."""
    whole: tuple[int, ...]
    """Descriptors of a chain if they are not."""
    places: int
    """Packets that the memory of a guest's buffers has room for."""
    sent: tuple[int, ...]
    """Most bytes of the descriptors of a packet to transmit."""
    header: Header = _PLAIN


TRAFFIC = (
    Traffic("64 B", 64, 384, 64, 64, 1536, (1536,), 256, (2048,)),
    Traffic("1514 B", 1514, 384, 64, 64, 1536, (1536,), 256, (2048,)),
    Traffic("60 kB", 60_000, 48, 16, 2, 4096, (4096,) * 16, 16, (128, 32768, 32768), _TSO),
)
_SMALL = TRAFFIC[0]


@dataclass(frozen=True, slots=True)
class Variant:
    """How a guest gets its packets."""

    name: str
    reporting: Reporting
    mergeable: bool

    @property
    def header(self) -> int:
        return V1_SIZE if self.reporting is Reporting.OFF else HASH_SIZE

    @property
    def off(self) -> str:
        """The same without hashes."""
        return self.name.replace(self.reporting.value, Reporting.OFF.value)


VARIANTS = tuple(
    Variant(f"{reporting.value}{how}", reporting, mergeable)
    for how, mergeable in (("", True), (", unmerged", False))
    for reporting in (Reporting.OFF, Reporting.RECORD, Reporting.REHASH)
)
_MERGEABLE = tuple(variant for variant in VARIANTS if variant.mergeable)
_RECORD = _MERGEABLE[1]
_SENT = _MERGEABLE[:2]  # transmitting, a header of 20 bytes is the whole difference


@dataclass(frozen=True, slots=True)
class Cost:
    """Nanoseconds of a packet in a turn: passing, and of the CPU."""

    time: float
    cpu: float


def steps(effort: Effort) -> int:
    return effort.rounds * (2 * len(TRAFFIC) + 2)


def run(effort: Effort, advance: Advance) -> list[Row]:
    """Measure all cases. Raises NotPermitted, DeviceError, BpfError, RingError."""
    with ExitStack() as resources:
        lanes = {variant.reporting: Lane(variant.reporting, 1, resources) for variant in _MERGEABLE}
        rows: list[Row] = []
        for traffic in TRAFFIC:
            rows += _receive(traffic, lanes, effort, advance)
        for traffic in TRAFFIC:
            rows += _transmit(traffic, lanes, effort, advance)
        rows += _round_trip(lanes, effort, advance)
        rows += _pairs(lanes, effort, advance)
        return rows


class Lane:
    """A tap in a namespace of its own, steered and reporting by the engine `ebpf`."""

    def __init__(self, reporting: Reporting, queues: int, resources: ExitStack) -> None:
        namespace = netns.Namespace.create()
        resources.callback(namespace.close)
        self._config = RssConfig.default(queues)
        with namespace:
            tap = resources.enter_context(
                HostTap.open(_TAP, queues, engine=EBPF, reporting=reporting)
            )
            link.quiet(tap.name)
            tap.apply(Wanted(self._config, False, reporting is not Reporting.OFF, _OFFLOADS))
            tap.use_queues(queues)
            self._wire = resources.enter_context(_packet_socket(tap.name, 0))  # only to send
            self._wire.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self._namespace = namespace
        self.tap = tap

    def frames(self, traffic: Traffic) -> list[bytes]:
        """A frame of each flow; frame n comes to queue n modulo the queues."""
        queues: list[list[bytes]] = [[] for _ in range(self.tap.queue_pairs)]
        each = FLOWS // len(queues)
        flows = count()
        while any(len(queue) < each for queue in queues):
            frame = frames.tcp4(next(flows), traffic.length)
            queues[reference.classify(frame, self._config).queue].append(frame)
        return [queue[n] for n in range(each) for queue in queues]

    def listener(self) -> socket.socket:
        """A packet socket that gets what the guest sends from now on."""
        with self._namespace:
            return _packet_socket(self.tap.name, _ETH_P_IP)

    def bare(self, traffic: Traffic, resources: ExitStack, places: int = 1) -> BareLoop:
        """The bare loop, reading to so many places."""
        header = traffic.header.encode_v1()
        messages = [header + frame for frame in self.frames(traffic)]
        room = RING_SIZE * traffic.buffer // places if places > 1 else LARGEST
        return resources.enter_context(
            BareLoop(
                f"{BASE}, {traffic.name}",
                self.tap.fd(0),
                messages,
                lead=traffic.lead,
                batch=traffic.batch,
                places=places,
                room=room,
            )
        )

    def guest(self, variant: Variant, traffic: Traffic, resources: ExitStack) -> Guest:
        """The guest that a variant has on this tap."""
        header = traffic.header.encode()[: variant.header]
        buffers = (traffic.buffer,) if variant.mergeable else traffic.whole
        received = variant.header + traffic.length
        return resources.enter_context(
            Guest(
                f"{variant.name}, {traffic.name}",
                self.tap,
                header=variant.header,
                mergeable=variant.mergeable,
                receive=Chains(buffers),
                transmit=Chains(
                    traffic.sent, tuple(header + frame for frame in self.frames(traffic))
                ),
                lead=traffic.lead,
                merged=-(-received // traffic.buffer) if variant.mergeable else 1,
            )
        )

    def receiving(self, mover: Mover, traffic: Traffic) -> Callable[[], Burst]:
        """What puts a burst into the tap and has it read."""
        header = traffic.header.encode()[:_WIRE_HEADER]
        messages = [header + frame for frame in self.frames(traffic)]
        sender = Sender([self._wire.fileno()], messages)

        def burst() -> Burst:
            sender.send(traffic.burst)
            with _unhindered():
                return mover.receive(traffic.burst)

        return burst


def _packet_socket(name: str, protocol: int) -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    wire.bind((name, protocol))
    return wire


Lanes = Mapping[Reporting, Lane]


@dataclass(frozen=True, slots=True)
class Work:
    """What a mover does over and over: ``burst`` gives ``expected``, but for the time."""

    mover: Mover
    burst: Callable[[], Burst]
    expected: tuple[int, int, int]
    """Packets, bytes, hashes."""

    def turn(self, bursts: int) -> Cost:
        """Median cost of a packet over ``bursts``, behind one that warms the caches.

        Bursts in which a thread had to leave its CPU to others are not counted
        among them, unless there are too many of those.
        """
        times: list[float] = []
        disturbed: list[float] = []
        with _at_work(self.mover):
            self._once()
            before = self.mover.cpu()
            while len(times) < bursts and len(disturbed) < _DISTURBED * bursts:
                switches = self._switches()
                time = self._once()
                (times if self._switches() == switches else disturbed).append(time)
            cpu = self.mover.cpu() - before
        packets = (len(times) + len(disturbed)) * self.expected[0]
        return Cost(float(np.median(times or disturbed)), cpu / packets)

    def _once(self) -> float:
        """Nanoseconds of a packet."""
        burst = self.burst()
        found = burst.packets, burst.bytes, burst.hashed
        check_agreement(f"{self.mover.name}: packets, bytes, hashes", found, self.expected)
        return burst.nanoseconds

    def _switches(self) -> int:
        return self.mover.switches() + resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def check(guest: Guest, work: Work, reporting: Reporting) -> None:
    """Raise VnethashError unless packets come with records, or are hashed, as reported."""
    work.turn(1)
    counters = guest.counters()
    packets = sum(each.receive.packets for each in counters)
    recorded = sum(each.recorded for each in counters)
    rehashed = sum(each.rehashed for each in counters)
    for what, found, asked in (
        ("recorded", recorded, reporting is Reporting.RECORD),
        ("rehashed", rehashed, reporting is Reporting.REHASH),
    ):
        check_agreement(f"{guest.name}: {what}", found, packets if asked else 0)


@contextmanager
def _unhindered() -> Iterator[None]:
    """Before all others on this CPU, for a millisecond at most; threads started here stay so."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


@contextmanager
def _at_work(mover: Mover) -> Iterator[None]:
    """Start it on the last CPU that this thread may use; this thread takes the first."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        with _unhindered():
            mover.start()
        os.sched_setaffinity(0, {min(allowed)})
        yield
    finally:
        mover.stop()
        os.sched_setaffinity(0, allowed)


def _receiving(lane: Lane, variant: Variant, traffic: Traffic, resources: ExitStack) -> Work:
    """A guest of the variant that receives, checked."""
    guest = lane.guest(variant, traffic, resources)
    packets = traffic.burst
    hashed = 0 if variant.reporting is Reporting.OFF else packets
    expected = packets, packets * (variant.header + traffic.length), hashed
    work = Work(guest, lane.receiving(guest, traffic), expected)
    check(guest, work, variant.reporting)
    return work


def _bare_receiving(lane: Lane, traffic: Traffic, resources: ExitStack, places: int = 1) -> Work:
    bare = lane.bare(traffic, resources, places)
    in_front = HASH_SIZE if lane.tap.takes_records else V1_SIZE
    expected = traffic.burst, traffic.burst * (in_front + traffic.length), 0
    return Work(bare, lane.receiving(bare, traffic), expected)


def _receive(traffic: Traffic, lanes: Lanes, effort: Effort, advance: Advance) -> list[Row]:
    with ExitStack() as resources:
        off = lanes[Reporting.OFF]
        works = {
            BASE: _bare_receiving(off, traffic, resources),
            _SPREAD: _bare_receiving(off, traffic, resources, traffic.places),
            _RECORDS: _bare_receiving(lanes[Reporting.RECORD], traffic, resources),
        }
        for variant in VARIANTS:
            works[variant.name] = _receiving(lanes[variant.reporting], variant, traffic, resources)
        costs = _measured(works, effort, advance)
    return _rows(f"receive, {traffic.name}", costs, judged={variant.name for variant in VARIANTS})


def _transmit(traffic: Traffic, lanes: Lanes, effort: Effort, advance: Advance) -> list[Row]:
    with ExitStack() as resources:
        bare = lanes[Reporting.OFF].bare(traffic, resources)
        packets = traffic.burst
        expected = packets, packets * (V1_SIZE + traffic.length), 0
        works = {BASE: Work(bare, _transmitting(bare, traffic), expected)}
        for variant in _SENT:
            guest = lanes[variant.reporting].guest(variant, traffic, resources)
            # A device writes nothing into what it is to transmit.
            works[variant.name] = Work(guest, _transmitting(guest, traffic), (packets, 0, 0))
        costs = _measured(works, effort, advance)
    return _rows(f"transmit, {traffic.name}", costs)


def _transmitting(mover: Mover, traffic: Traffic) -> Callable[[], Burst]:
    def burst() -> Burst:
        with _unhindered():
            return mover.transmit(traffic.burst)

    return burst


def _pairs(lanes: Lanes, effort: Effort, advance: Advance) -> list[Row]:
    with ExitStack() as resources:
        works = {BASE: _bare_receiving(lanes[Reporting.OFF], _SMALL, resources)}
        for pairs in _PAIRS:
            reporting = _RECORD.reporting
            lane = lanes[reporting] if pairs == 1 else Lane(reporting, pairs, resources)
            name = "1 pair" if pairs == 1 else f"{pairs} pairs"
            works[name] = _receiving(lane, _RECORD, _SMALL, resources)
        costs = _measured(works, effort, advance)
    # The threads share a CPU: what counts is how much of it they use together.
    cpu = {name: [Cost(cost.cpu, cost.cpu) for cost in values] for name, values in costs.items()}
    return _rows(f"pairs, {_SMALL.name}", cpu)


def _round_trip(lanes: Lanes, effort: Effort, advance: Advance) -> list[Row]:
    with ExitStack() as resources:
        off = lanes[Reporting.OFF]
        pinged = partial(_pinged, effort.share(_PINGS))
        turns = {BASE: partial(pinged, off, off.bare(_SMALL, resources))}
        for variant in _MERGEABLE:
            lane = lanes[variant.reporting]
            turns[variant.name] = partial(pinged, lane, lane.guest(variant, _SMALL, resources))
        costs = interleave(turns, effort.rounds, advance)
    return _rows(f"round trip, {_SMALL.name}", costs, unit="us")


def _pinged(pings: int, lane: Lane, mover: Mover) -> Cost:
    """Median of ``pings``, each one packet to the guest and one from it, after some to warm up."""
    frame = lane.frames(_SMALL)[0]
    with lane.listener() as listener, _at_work(mover):
        before = mover.cpu()
        with _unhindered():
            times = mover.ping(listener.fileno(), frame, _WARM + pings)
        cpu = (mover.cpu() - before) / len(times)
    return Cost(float(np.median(times[_WARM:])), cpu)


def _measured(works: Mapping[str, Work], effort: Effort, advance: Advance) -> dict[str, list[Cost]]:
    bursts = effort.share(_BURSTS)
    turns = {name: partial(work.turn, bursts) for name, work in works.items()}
    return interleave(turns, effort.rounds, advance)


def _rows(
    case: str,
    measured: Mapping[str, list[Cost]],
    *,
    judged: Set[str] = frozenset(),
    unit: str = "ns",
) -> list[Row]:
    """A row for each variant; of those ``judged`` the target is known."""
    scale = {"ns": 1, "us": 1000}[unit]
    times = {name: [cost.time / scale for cost in costs] for name, costs in measured.items()}
    without = {variant.name: variant.off for variant in VARIANTS}
    rows = []
    for name, values in times.items():
        ratio = ratios(values, times[BASE])
        parts = {"cpu": Summary.of([cost.cpu / scale for cost in measured[name]])}
        if unit == "ns":
            parts["kpps"] = Summary.of([1e6 / value for value in values])
        of_off = ratios(values, times[without[name]]) if name in without else None
        if of_off:
            parts["of off"] = of_off
        target = _target(ratio) if name in judged and name != BASE else None
        rows.append(Row(NAME, case, name, unit, Summary.of(values), ratio, parts, target))
    return rows


def _target(ratio: Summary | None) -> Target | None:
    if ratio is None:
        return None
    most = 1 / _SHARE
    return Target(f"<= {most:.2f}", ratio.median <= most)
