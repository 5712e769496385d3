# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Cost of the BPF stages per packet, against steering bit by bit.

The bit-by-bit program that targets speak of is the one of an installed QEMU, and
without one ours that hashes as QEMU's does ("padded"). Ratios are to the plain one.

BPF_PROG_TEST_RUN, less an empty program of the same type in the same round.
The record cannot be measured over repeated runs, which would each put one
more in front of the same frame; so it is measured over many single runs, as
is the hash stage without it, to compare with.
"""

import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from vnethash.bench import frames
from vnethash.bench.bitwise import BitwiseSteering
from vnethash.bench.measure import (
    Advance,
    Effort,
    Row,
    Summary,
    Target,
    check_agreement,
    differences,
    interleave,
    pinned,
    ratios,
)
from vnethash.bench.qemu import QemuSteering
from vnethash.engines.stages import Stages
from vnethash.errors import DependencyMissing
from vnethash.kernel.bpf import BpfObject, Program, ProgramType
from vnethash.native import BUILT
from vnethash.programs import open_program
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.compiled import compile_config
from vnethash.rss.config import RssConfig
from vnethash.virtio.hash_types import TunnelType

NAME = "stages"
BASE = "bit by bit"
_PADDED, _HASH, _STEERING = "bit by bit, padded", "hash stage", "steering stage"
_QEMU = "QEMU's"
_PROGRAM = "hash program"
_TUNNELS = "hash stage, tunnels on"
_SINGLE, _RECORD = "hash stage, once", "with record, once"
_EMPTY_TC, _EMPTY_SOCKET, _EMPTY_SINGLE = "empty tc", "empty socket", "empty tc, once"

# What stands behind each program's cost.
_EMPTY = {
    BASE: _EMPTY_SOCKET,
    _PADDED: _EMPTY_SOCKET,
    _QEMU: _EMPTY_SOCKET,
    _STEERING: _EMPTY_SOCKET,
    _HASH: _EMPTY_TC,
    _TUNNELS: _EMPTY_TC,
    _PROGRAM: _EMPTY_TC,
    _SINGLE: _EMPTY_SINGLE,
    _RECORD: _EMPTY_SINGLE,
}
_BITWISE_KNOWS = {"IPv4/TCP", "IPv6/TCP", "IPv4/UDP", "IPv6/UDP", "IPv4 fragment"}
_TIMES_LESS = {"IPv4/TCP": 20, "IPv6/TCP": 12}
"""How often the hash stage is to go into steering bit by bit."""
_MORE = 10
"""Nanoseconds that a hash program may cost above the hash stage for the same work."""

_QUEUES = 4
_REPEAT = 20_000
_REPEAT_BITWISE = 5_000
_SINGLE_RUNS = 400


def steps(effort: Effort) -> int:
    return effort.rounds * len(frames.kinds())


def run(effort: Effort, advance: Advance) -> list[Row]:
    """Raises DependencyMissing, NotPermitted, BpfError; VnethashError for a wrong hash."""
    with ExitStack() as resources:
        resources.enter_context(pinned())
        programs = Programs(resources)
        rows = list(programs.verified())
        for case, frame in frames.kinds().items():
            programs.check(case, frame)
            measured = interleave(programs.costs(case, frame, effort), effort.rounds, advance)
            rows += _rows(case, measured)
        return rows


def _rows(case: str, measured: dict[str, list[float]]) -> Iterator[Row]:
    net = {
        name: differences(values, measured[_EMPTY[name]])
        for name, values in measured.items()
        if name in _EMPTY
    }
    for name, values in net.items():
        value = Summary.of(values)
        # Of the steering stage there is nothing left to compare.
        compared = BASE in net and name in (BASE, _PADDED, _QEMU, _HASH)
        ratio = ratios(values, net[BASE]) if compared else None
        target = None
        if name == _PROGRAM:
            more = Summary.of(differences(values, measured[_HASH])).median
            target = Target(f"<= {_HASH} + {_MORE} ns", more <= _MORE)
        yield Row(NAME, case, name, "ns", value, ratio, target=target)
    for other in (BASE, _PADDED, _QEMU):
        times = ratios(net[other], net[_HASH]) if other in net else None
        if times is not None:
            judged = other == (_QEMU if _QEMU in net else _PADDED)
            target = _target(case, times) if judged else None
            yield Row(NAME, case, f"{other} / {_HASH}", "times", times, target=target)


def _target(case: str, times: Summary) -> Target | None:
    least = _TIMES_LESS.get(case)
    return Target(f">= {least} times", times.median >= least) if least else None


class Programs:
    """All the programs, loaded and configured alike."""

    def __init__(self, resources: ExitStack) -> None:
        self._config = RssConfig.default(_QUEUES)
        self._looking = self._config.replace(tunnels=TunnelType.ALL)
        self._bitwise = resources.enter_context(BitwiseSteering.load(self._config))
        try:
            self._qemu: QemuSteering | None = resources.enter_context(
                QemuSteering.load(self._config)
            )
        except DependencyMissing:
            self._qemu = None
        self._off = resources.enter_context(_stages(self._config, Reporting.OFF))
        self._record = resources.enter_context(_stages(self._config, Reporting.RECORD))
        self._tunnels = resources.enter_context(_stages(self._looking, Reporting.OFF))
        program = open_program(BUILT / "program.bpf.o")
        self._program = resources.enter_context(_stages(self._config, Reporting.OFF, program))
        self._empty_tc = resources.enter_context(_empty(ProgramType.SCHED_CLS))
        self._empty_socket = resources.enter_context(_empty(ProgramType.SOCKET_FILTER))

    def check(self, case: str, frame: bytes) -> None:
        """Raise VnethashError unless all programs judge the frame as the reference does."""
        expected = reference.classify(frame, self._config)
        self._check_record(f"{case}: hash stage", frame, self._config)
        self._record.maps.publish(compile_config(self._looking, Reporting.RECORD))
        self._check_record(f"{case}: tunnels", frame, self._looking)
        self._record.maps.publish(compile_config(self._config, Reporting.RECORD))
        if case in _BITWISE_KNOWS:
            for program in self._bit_by_bit().values():
                queue = program.test_run(frame).retval
                check_agreement(f"{case}: {program.name}", queue, expected.queue)

    def _bit_by_bit(self) -> dict[str, Program]:
        programs = {BASE: self._bitwise.program, _PADDED: self._bitwise.padded}
        return {**programs, _QEMU: self._qemu.program} if self._qemu else programs

    def _check_record(self, what: str, frame: bytes, config: RssConfig) -> None:
        expected = reference.classify(frame, config)
        record = struct.unpack_from("<IH", self._record.hash_stage.test_run(frame).data)
        check_agreement(what, record, (expected.hash_value, expected.hash_report))

    def costs(self, case: str, frame: bytes, effort: Effort) -> dict[str, Callable[[], float]]:
        """What measures each program once: nanoseconds of a run."""

        def repeated(program: Program, usual: int) -> Callable[[], float]:
            return lambda: cpu_time(program, frame, effort.share(usual))

        def single(program: Program) -> Callable[[], float]:
            runs = range(effort.share(_SINGLE_RUNS))
            return lambda: Summary.of([program.test_run(frame).duration_ns for _ in runs]).median

        costs = {
            _EMPTY_TC: repeated(self._empty_tc, _REPEAT),
            _EMPTY_SOCKET: repeated(self._empty_socket, _REPEAT),
            _EMPTY_SINGLE: single(self._empty_tc),
            _HASH: repeated(self._off.hash_stage, _REPEAT),
            _TUNNELS: repeated(self._tunnels.hash_stage, _REPEAT),
            _PROGRAM: repeated(self._program.hash_stage, _REPEAT),
            _STEERING: repeated(self._off.steering_stage, _REPEAT),
            _SINGLE: single(self._off.hash_stage),
            _RECORD: single(self._record.hash_stage),
        }
        if case in _BITWISE_KNOWS:
            for name, program in self._bit_by_bit().items():
                costs[name] = repeated(program, _REPEAT_BITWISE)
        return costs

    def verified(self) -> Iterator[Row]:
        """How many instructions the verifier went through, where the kernel says (5.16)."""
        programs = {
            **self._bit_by_bit(),
            _HASH: self._off.hash_stage,
            _PROGRAM: self._program.hash_stage,
            _STEERING: self._off.steering_stage,
        }
        for name, program in programs.items():
            count = verified_instructions(program)
            if count is not None:
                yield Row(NAME, "verifier", name, "insns", Summary.of([count]))


def verified_instructions(program: Program) -> int | None:
    """Instructions the verifier processed to accept the program; None if not told."""
    info = Path(f"/proc/self/fdinfo/{program.fd}").read_text()
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    text = fields.get("verified_insns")
    return None if text is None else int(text)


def cpu_time(program: Program, frame: bytes, repeat: int) -> float:
    """Nanoseconds of a run. What the kernel says itself has no fractions of one."""
    start = time.thread_time_ns()
    program.test_run(frame, repeat=repeat)
    return (time.thread_time_ns() - start) / repeat


def _stages(config: RssConfig, reporting: Reporting, program: BpfObject | None = None) -> Stages:
    stages = Stages.load(config.queues, program=program)
    stages.maps.publish(compile_config(config, reporting))
    return stages


def _empty(kind: ProgramType) -> Program:
    """A program that returns 0: mov r0, 0; exit."""
    return Program.from_instructions(kind, "empty", [(0xB7, 0, 0, 0), (0x95, 0, 0, 0)])
