# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What a tap costs as one of many, with many queues, with a long indirection table.

Taps are attached one after the other and all stay. What is measured at a
number of them is measured with that many attached.
"""

import gc
import os
import random
import re
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vnethash.bench import frames
from vnethash.bench.kernel_memory import KernelMemory, kernel_memory
from vnethash.bench.measure import Advance, Effort, Row, Summary, Target, nanoseconds, pinned
from vnethash.engines.base import Setup
from vnethash.engines.ebpf import EbpfEngine, StagesAttachment
from vnethash.errors import VnethashError
from vnethash.kernel import netns
from vnethash.kernel.bpf import Map, Program, ProgramType
from vnethash.kernel.bpf_fd import BpfFd
from vnethash.kernel.link import set_up
from vnethash.kernel.links import Links
from vnethash.kernel.tun import Offload, TunDevice
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig

NAME = "scale"
ATTACH, MEMORY, RECONFIGURE = "attach", "kernel memory", "reconfigure"
PACKET, AGAIN = "packet, in turn", "packet, same tap"
PROCESS, DESCRIPTORS = "process memory", "descriptors"
BASE = "100 taps"
"""What attaching is compared with."""

TAPS, QUEUES, ENTRIES = (1, 10, 100, 1000), (1, 4, 16, 64, 256), (128, 1024, 8192, 32768)
_QUEUES, _ENTRIES = 4, 128
_GROUP = 10
"""Taps that a number of queues, or of entries, is measured on."""
_LAST = 100
_SAMPLES = 200
_MOST_MS, _MOST_KIB, _GROWS = 1, 96, 1.2
_SETTLE, _SETTLE_SAME, _SETTLE_MOST = 0.02, 5, 100
_NS_PER_MS, _KIB = 1e6, 1024


class Plan(NamedTuple):
    """How many of each there will be."""

    taps: tuple[int, ...]
    queues: tuple[int, ...]
    entries: tuple[int, ...]
    group: int

    @classmethod
    def of(cls, effort: Effort) -> "Plan":
        """All where there is time; the first few to see whether it runs."""
        if effort.work >= 1:
            return cls(TAPS, QUEUES, ENTRIES, _GROUP)
        return cls(TAPS[:2], QUEUES[::4], ENTRIES[::3], 2)

    @property
    def attached(self) -> int:
        return self.taps[-1] + (len(self.queues) + len(self.entries)) * self.group


def steps(effort: Effort) -> int:
    return Plan.of(effort).attached


def run(effort: Effort, advance: Advance) -> list[Row]:
    """Raises DependencyMissing, NotPermitted, DeviceError, BpfError; VnethashError where fewer
    files may be open than that takes.
    """
    plan = Plan.of(effort)
    with ExitStack() as resources:
        resources.enter_context(pinned())
        resources.enter_context(_open_files(plan))
        memory = resources.enter_context(kernel_memory())
        resources.enter_context(netns.fresh())
        bench = _Bench(memory, effort, advance, resources)
        with bench.crowd(_QUEUES, _ENTRIES) as crowd:
            crowd.grow(1, unseen=True)  # the first of all finds libbpf and the modules
        rows: list[Row] = []
        with bench.crowd(_QUEUES, _ENTRIES) as crowd:
            for taps in plan.taps:
                crowd.grow(taps)
                rows += crowd.rows(f"{taps} tap" + "s" * (taps > 1))
        for queues in plan.queues:
            with bench.crowd(queues, max(_ENTRIES, queues)) as crowd:
                crowd.grow(plan.group)
                rows += crowd.rows(f"{queues} queue" + "s" * (queues > 1))
        for entries in plan.entries:
            with bench.crowd(_QUEUES, entries) as crowd:
                crowd.grow(plan.group)
                rows += crowd.rows(f"table of {entries}")
    return compared(sorted(rows, key=lambda row: _CASES.index(row.case)))


_CASES = (ATTACH, MEMORY, RECONFIGURE, PACKET, AGAIN, PROCESS, DESCRIPTORS)


def compared(rows: Sequence[Row]) -> list[Row]:
    """With attaching many against attaching few."""
    base = next((r.value.median for r in rows if (r.case, r.variant) == (ATTACH, BASE)), None)
    if base is None:
        return list(rows)
    compared = []
    for row in rows:
        if row.case == ATTACH and row.variant.endswith("taps"):
            value = row.value
            ratio = Summary(value.median / base, value.low / base, value.high / base, value.count)
            target = None
            if row.variant == f"{TAPS[-1]} taps":
                target = Target(f"<= {_GROWS} of {BASE}", ratio.median <= _GROWS)
            row = Row(NAME, row.case, row.variant, row.unit, value, ratio, target=target)
        compared.append(row)
    return compared


class _Bench(NamedTuple):
    """What all crowds share."""

    memory: KernelMemory
    effort: Effort
    advance: Advance
    resources: ExitStack

    @contextmanager
    def crowd(self, queues: int, entries: int) -> Iterator["_Crowd"]:
        crowd = _Crowd(self, queues, entries)
        try:
            yield crowd
        finally:
            crowd.close()


class _Crowd:
    """Taps that are alike, each with the stages attached; ``grow`` adds to them."""

    def __init__(self, bench: _Bench, queues: int, entries: int) -> None:
        self._bench = bench
        self._queues, self._entries = queues, entries
        self._chance = random.Random(entries)
        self._devices: list[TunDevice] = []
        self._attached: list[StagesAttachment] = []
        self._attach_ns: list[int] = []
        # What it takes to attach, of all that were.
        self._kernel = self._process = self._descriptors = 0

    def grow(self, taps: int, *, unseen: bool = False) -> None:
        """Have that many; tell of each unless ``unseen``."""
        more = taps - len(self._devices)
        fresh = []
        for _ in range(more):  # first all plain ones, so that what comes on top is told apart
            fresh.append(TunDevice.create("crowd%d", self._queues))
            self._devices.append(fresh[-1])
            set_up(fresh[-1].name)
        gc.collect()
        kernel, process, files = (
            _settled(self._bench.memory),
            _process_memory(),
            _open_descriptors(),
        )
        for device in fresh:
            self._attach_ns.append(nanoseconds(partial(self._attach, device)))
            if not unseen:
                self._bench.advance()
        gc.collect()
        self._kernel += _settled(self._bench.memory) - kernel
        self._process += _process_memory() - process
        self._descriptors += _open_descriptors() - files

    def _attach(self, device: TunDevice) -> None:
        setup = Setup(device, self._config(), Reporting.OFF, Offload.NONE, False, self._entries)
        self._attached.append(EbpfEngine().attach(setup))

    def _config(self) -> RssConfig:
        """Another key, another table."""
        table = tuple(self._chance.choices(range(self._queues), k=self._entries))
        return RssConfig(self._queues, key=self._chance.randbytes(40), indirection_table=table)

    def rows(self, variant: str) -> Iterator[Row]:
        """What there is to say of this many."""
        taps = len(self._attached)
        judged = self._queues == _QUEUES and self._entries == _ENTRIES
        attach = [nanos / _NS_PER_MS for nanos in self._attach_ns[-_LAST:]]
        yield Row(NAME, ATTACH, variant, "ms", Summary.of(attach))

        if taps >= _GROUP:  # or what the kernel has in stock says more than what it uses
            parts = self._parts()
            each = self._kernel / taps / _KIB
            if not self._bench.memory.counts_machine_code:
                each += parts["machine code"]
            if not self._bench.memory.counts_per_cpu:
                shared = self._attached[-1].stages.shared
                each += sum(map(_per_cpu, (shared.counters, shared.counts))) / _KIB
            target = Target(f"<= {_MOST_KIB} KiB", each <= _MOST_KIB) if judged else None
            told = {name: Summary.of([value]) for name, value in parts.items()}
            yield Row(NAME, MEMORY, variant, "KiB", Summary.of([each]), parts=told, target=target)

        changed = Summary.of([nanos / _NS_PER_MS for nanos in self._reconfigure()])
        target = Target(f"<= {_MOST_MS} ms", changed.median <= _MOST_MS) if judged else None
        yield Row(NAME, RECONFIGURE, variant, "ms", changed, target=target)

        cold, warm = self._packets()
        yield Row(NAME, PACKET, variant, "ns", cold)
        yield Row(NAME, AGAIN, variant, "ns", warm)
        if taps > _GROUP:
            process = Summary.of([self._process / taps / _KIB])
            yield Row(NAME, PROCESS, variant, "KiB", process)
            yield Row(NAME, DESCRIPTORS, variant, "", Summary.of([self._descriptors / taps]))

    def _parts(self) -> dict[str, float]:
        """KiB of one tap, as the kernel says of each map and program."""
        stages = self._attached[-1].stages
        program = stages.hash_stage  # that of the steering stage is one for all taps
        return {
            "maps": sum(map(_locked, stages.shared)) / _KIB,
            "program": _locked(program) / _KIB,
            "machine code": program.machine_code / _KIB,
        }

    def _reconfigure(self) -> Iterator[int]:
        """Nanoseconds of a change of key and table, of one among all."""
        for _ in range(self._bench.effort.share(_SAMPLES)):
            config = self._config()
            tap = self._chance.choice(self._attached)
            yield nanoseconds(partial(tap.configure, config, Reporting.OFF))

    def _packets(self) -> tuple[Summary, Summary]:
        """Nanoseconds of a packet of one tap after the other, and of always the same."""
        stages = [attached.stages.hash_stage for attached in self._attached]
        samples = max(self._bench.effort.share(_SAMPLES), min(len(stages), 1000))
        sent = [frames.tcp4(self._chance.randrange(1000), 60) for _ in range(samples)]
        with _empty() as empty:
            cold = [
                _once(stages[turn % len(stages)], frame) - _once(empty, frame)
                for turn, frame in enumerate(sent)
            ]
            warm = [_once(stages[0], frame) - _once(empty, frame) for frame in sent]
        return Summary.of(cold), Summary.of(warm)

    def close(self) -> None:
        """Remove all devices at once: one after the other, each would wait for the kernel."""
        with ExitStack() as closing:
            for device in self._devices:
                closing.callback(device.close)
            for attached in self._attached:
                closing.callback(attached.close)
            with Links() as links:
                links.delete_all([device.ifindex for device in self._devices])


def _once(program: Program, frame: bytes) -> int:
    return program.test_run(frame).duration_ns


def _empty() -> Program:
    return Program.from_instructions(
        ProgramType.SCHED_CLS, "empty", [(0xB7, 0, 0, 0), (0x95, 0, 0, 0)]
    )


def _settled(memory: KernelMemory) -> int:
    """Bytes, once the kernel has freed what it had put off."""
    same, told = 0, memory.read()
    for _ in range(_SETTLE_MOST):
        time.sleep(_SETTLE)
        before, told = told, memory.read()
        same = same + 1 if told == before else 0
        if same == _SETTLE_SAME:
            break
    return told


def _locked(kept: BpfFd) -> int:
    """Bytes that the kernel says a map or program takes."""
    told = re.search(r"^memlock:\s*(\d+)", Path(f"/proc/self/fdinfo/{kept.fd}").read_text(), re.M)
    return int(told[1]) if told else 0


def _per_cpu(array: Map) -> int:
    """Bytes of its values on all CPUs."""
    return array.value_size * array.max_entries * len(array.lookup_percpu(0))


def _process_memory() -> int:
    """Bytes of this process that nobody else has."""
    told = re.findall(
        r"^Private_\w+:\s*(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.M
    )
    return _KIB * sum(map(int, told))


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def _open_files(plan: Plan) -> Iterator[None]:
    """Allow as many descriptors as it takes."""
    needed = 200 + max(12 * plan.taps[-1], (8 + plan.queues[-1]) * plan.group)
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if needed > before:
        if 0 <= most < needed:
            raise VnethashError(
                f"{plan.taps[-1]} taps need {needed} open files, the limit is {most}",
                hint=f"raise it (ulimit -Hn {needed}), or use --quick",
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))
