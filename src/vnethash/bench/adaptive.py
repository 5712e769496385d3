# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Adaptive tables under skewed flows: how even the queues are, and what it puts out of order.

Flows send with the frequencies of Zipf's law through a real tap with four queues,
each read by a thread at a rate of its own making, so that packets may wait in a
queue when their bucket moves to another: that is what changes their order. Each
packet has the number of its flow and its place in it. A reader takes a packet
and notes it under one lock, so that there is one order of arrival of all. A
packet is reordered when a later one of its flow has arrived before (RFC 4737,
section 3). Both variants have the same flows and packets, others in each round.

And what it takes the hash stage to count by bucket, on the packets of `stages`.
"""

import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, count

from vnethash.bench import frames
from vnethash.bench.measure import (
    Advance,
    Effort,
    Row,
    Summary,
    Target,
    differences,
    interleave,
    pinned,
    ratios,
)
from vnethash.engines.select import EBPF
from vnethash.engines.stages import Stages
from vnethash.errors import DeviceError
from vnethash.kernel import link, netns
from vnethash.kernel.bpf import Program, ProgramType
from vnethash.reporting import Reporting
from vnethash.rss.balance import imbalance
from vnethash.rss.compiled import compile_config
from vnethash.rss.config import RssConfig
from vnethash.tap import Tap

NAME = "adaptive"
BASE = "fixed"
_ADAPTIVE = "adaptive"
VARIANTS = (BASE, _ADAPTIVE)


@dataclass(frozen=True, slots=True)
class Case:
    """How well queues are read, and since when they are balanced."""

    capacity: float
    """What the reader of a queue can do, over the mean load of a queue."""
    begin: float = 0.0
    """Share of the packets that come before the balancer begins."""


CASES = {
    "drained": Case(4.0),
    "backlogged": Case(1.25),
    "full": Case(1.1, 0.4),
}
"""No packet waits for long; the busiest queue grows; it has run over for a while already."""

KINDS = ("IPv4/TCP", "IPv6/TCP")
"""Packets on which counting is timed."""
_REPEAT = 20_000
EMPTY = [(0xB7, 0, 0, 0), (0x95, 0, 0, 0)]
"""mov r0, 0; exit"""

QUEUES = 4
FLOWS = 500
EXPONENT = 1.0
"""The flow of rank r sends in proportion to r ** -EXPONENT."""
RATE = 20_000
"""Packets per second."""
_PACKETS = 30_000
_LOOK_EVERY = 0.2
"""Seconds."""
_BEFORE, _AFTER = 4000, 1 / 3
"""The first packets, and the last share of them: what is compared."""
_ROUNDS_MAX = 9
_WITHIN = 1.15
"""The tolerance of a tenth, and the chance of some thousand packets a queue."""

_TICK = 0.001
_TAG = struct.Struct("<II")
_HEADER = 12
_ROOM = 2048
_CREDIT = 8  # packets that a reader without work may catch up
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one scenario."""

    before: float
    after: float
    moved: int
    changes: int
    sent: int
    arrived: int
    reordered: int

    def parts(self) -> dict[str, float]:
        """What the imbalance is shown beside."""
        return {
            "before": self.before,
            "moved": self.moved,
            "changes": self.changes,
            "late %": 100 * self.reordered / max(1, self.arrived),
            "lost %": 100 * (self.sent - self.arrived) / self.sent,
        }


def steps(effort: Effort) -> int:
    return _rounds(effort) * len(CASES) + effort.rounds * len(KINDS)


def run(effort: Effort, advance: Advance) -> list[Row]:
    """Raises NotPermitted, DeviceError, BpfError, Unsupported."""
    rows = [row for case in CASES for row in _run(case, effort, advance)]
    with pinned():
        return rows + list(_cost(effort, advance))


def _rounds(effort: Effort) -> int:
    return min(effort.rounds, _ROUNDS_MAX)


def _run(case: str, effort: Effort, advance: Advance) -> Iterator[Row]:
    packets = max(4 * _BEFORE, effort.share(_PACKETS))

    def turns(adaptive: bool) -> "partial[Outcome]":
        seeds = count(1)
        return partial(
            lambda: scenario(next(seeds), CASES[case], packets=packets, adaptive=adaptive)
        )

    variants = {name: turns(name == _ADAPTIVE) for name in VARIANTS}
    measured = interleave(variants, _rounds(effort), advance)
    base = [outcome.after for outcome in measured[BASE]]
    for name, outcomes in measured.items():
        after = [outcome.after for outcome in outcomes]
        value = Summary.of(after)
        parts = {
            part: Summary.of([outcome.parts()[part] for outcome in outcomes])
            for part in outcomes[0].parts()
        }
        target = None
        if name == _ADAPTIVE:
            target = Target(f"<= {_WITHIN}", value.median <= _WITHIN)
        yield Row(NAME, case, name, "x mean", value, ratios(after, base), parts, target)


def _cost(effort: Effort, advance: Advance) -> Iterator[Row]:
    """Nanoseconds of a run of the hash stage, less an empty program, and what is verified."""
    with ExitStack() as resources:
        empty = resources.enter_context(
            Program.from_instructions(ProgramType.SCHED_CLS, "empty", EMPTY)
        )
        programs = {}
        for name in VARIANTS:
            stages = resources.enter_context(Stages.load(QUEUES, adaptive=name == _ADAPTIVE))
            stages.maps.publish(compile_config(RssConfig.default(QUEUES), Reporting.OFF))
            programs[name] = stages.hash_stage
        repeat = effort.share(_REPEAT)
        for kind in KINDS:
            frame = frames.kinds()[kind]

            def nanoseconds(program: Program, frame: bytes = frame) -> float:
                return program.test_run(frame, repeat=repeat).duration_ns

            runs = {name: partial(nanoseconds, each) for name, each in programs.items()}
            measured = interleave({**runs, "": partial(nanoseconds, empty)}, effort.rounds, advance)
            costs = {name: differences(measured[name], measured[""]) for name in VARIANTS}
            for name, cost in costs.items():
                yield Row(NAME, kind, name, "ns", Summary.of(cost), ratios(cost, costs[BASE]))
        for name, program in programs.items():
            if program.verified:
                yield Row(NAME, "verifier", name, "insns", Summary.of([program.verified]))


def scenario(seed: int, case: Case, *, packets: int, adaptive: bool) -> Outcome:
    """Send ``packets``, 16000 or more, of flows that ``seed`` makes; raises as Tap.open() does."""
    config = RssConfig.default(QUEUES)
    with netns.fresh():
        tap = Tap.open(
            "tap0",
            rss=config,
            reporting=Reporting.OFF,
            engine=EBPF,
            up=False,
            max_indirection=len(config.indirection_table),
            adaptive=True,  # counts in both variants
        )
        with tap:
            link.quiet(tap.name)
            link.set_up(tap.name)
            rate = case.capacity * RATE / QUEUES
            with (
                _readers(tap, rate) as arrivals,
                _balancing(tap if adaptive else None, case.begin * packets / RATE) as moves,
            ):
                loads = _send(tap, seed, packets)
            return Outcome(
                before=imbalance(loads[0]),
                after=imbalance(loads[1]),
                moved=sum(moves),
                changes=len(moves),
                sent=packets,
                arrived=len(arrivals),
                reordered=reordered(arrivals),
            )


def reordered(arrivals: Sequence[tuple[int, int]]) -> int:
    """Packets (flow, place) that arrived after a later one of their flow: RFC 4737, section 3."""
    highest: dict[int, int] = {}
    late = 0
    for flow, place in arrivals:
        if place < highest.get(flow, -1):
            late += 1
        else:
            highest[flow] = place
    return late


def schedule(seed: int, packets: int) -> tuple[list[bytes], list[int]]:
    """The headers of each flow, and whose the packets are, in order."""
    dice = random.Random(seed)
    flows = [dice.randrange(1 << 16) for _ in range(FLOWS)]
    weights = list(accumulate((rank + 1) ** -EXPONENT for rank in range(FLOWS)))
    heads = []
    for flow in flows:
        udp = frames.transport(frames.UDP, _TAG.size, flow=flow & 0x3FFF)
        heads.append(frames.ethernet(0x0800, frames.ipv4(frames.UDP, udp, flow=flow)))
    heads = [head[: -_TAG.size] for head in heads]
    return heads, dice.choices(range(FLOWS), cum_weights=weights, k=packets)


def _send(tap: Tap, seed: int, packets: int) -> tuple[list[int], list[int]]:
    """Send at RATE; returns what the queues got of the first packets, and of the last."""
    heads, order = schedule(seed, packets)
    places = [0] * FLOWS
    marks = (_BEFORE, round(packets * (1 - _AFTER)), packets)
    seen = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((tap.name, 0))
        begun = time.monotonic()
        for sent, flow in enumerate(order, 1):
            wire.send(heads[flow] + _TAG.pack(flow, places[flow]))
            places[flow] += 1
            if sent in marks:
                seen.append([queue.total.packets for queue in tap.stats().queues])
            while (ahead := begun + sent / RATE - time.monotonic()) > _TICK:
                time.sleep(ahead)
    first, middle, last = seen
    return first, [late - early for late, early in zip(last, middle, strict=True)]


@contextmanager
def _balancing(tap: Tap | None, begin: float) -> Iterator[list[int]]:
    """Balance in a thread, ``begin`` seconds from now on.

    Gives how many buckets each change of the table has moved.
    """
    moves: list[int] = []
    if tap is None:
        yield moves
        return
    stop = threading.Event()

    def balance() -> None:
        if stop.wait(begin):
            return
        balancer = tap.balancer()
        while not stop.wait(_LOOK_EVERY):
            step = balancer.step()
            if step.applied and step.plan:
                moves.append(len(step.plan.moves))

    thread = threading.Thread(target=balance, name="vnethash-balance")
    thread.start()
    try:
        yield moves
    finally:
        stop.set()
        thread.join()


@dataclass(slots=True)
class _Log:
    """One order of arrival for all queues."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    arrivals: list[tuple[int, int]] = field(default_factory=list)
    ends: threading.Event = field(default_factory=threading.Event)


@contextmanager
def _readers(tap: Tap, rate: float) -> Iterator[list[tuple[int, int]]]:
    """Read each queue in a thread, ``rate`` packets a second, until all are empty."""
    log = _Log()
    threads = [
        threading.Thread(target=_read, args=[queue.fileno(), rate, log], name="vnethash-read")
        for queue in tap.queues
    ]
    for thread in threads:
        thread.start()
    try:
        yield log.arrivals
    finally:
        log.ends.set()
        for thread in threads:
            thread.join(_PATIENCE)
    if any(thread.is_alive() for thread in threads):
        raise DeviceError(f"the queues of {tap.name} do not run dry")


def _read(fd: int, rate: float, log: _Log) -> None:
    credit, looked = 0.0, time.monotonic()
    while True:
        now = time.monotonic()
        credit, looked = credit + (now - looked) * rate, now
        while credit >= 1:
            with log.lock:
                try:
                    packet = os.read(fd, _ROOM)
                except BlockingIOError:
                    if log.ends.is_set():
                        return
                    credit = min(credit, _CREDIT)
                    break
                log.arrivals.append(_TAG.unpack(packet[-_TAG.size :]))
            credit -= 1
        time.sleep(_TICK)
