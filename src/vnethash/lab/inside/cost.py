# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What the way costs: its program alone, and the whole path of a packet."""

import struct
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from vnethash.bench import frames, path
from vnethash.bench.measure import Effort, Summary, check_agreement, differences, interleave, pinned
from vnethash.engines.select import STEERING
from vnethash.engines.stages import Stages, SteeringStage
from vnethash.engines.tun_steering import PROGTYPE
from vnethash.errors import VnethashError
from vnethash.kernel.bpf import BpfObject, Program, ProgramType
from vnethash.lab.inside.task import Task
from vnethash.native import BUILT
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.compiled import compile_config
from vnethash.rss.config import RssConfig

HASH_STAGE = "hash stage"
_KINDS = ("IPv4/TCP", "IPv6/TCP", "VLAN/IPv4/TCP", "IPv6/options/TCP")
_REPEAT = 2_000
# struct __sk_buff of tun-progtype: its size, and where the queue is. Elsewhere it is shorter.
_CTX, _RSS_QUEUE = 200, 198
_ENTRIES = 128
"""Of the indirection table."""
_ROUNDS = Effort(rounds=21, work=0.4)
_QUICK = Effort(rounds=3, work=0.1)
_TRAFFIC = ("bridge, 60 B", "bridge, TSO 60 kB", "veth, bridge, 60 B")
"""As the benchmark `path` calls it."""


def measure(task: Task) -> dict[str, Any]:
    effort = _QUICK if task.quick else _ROUNDS
    return {"programs": _programs(effort), "path": _path(task, effort)}


def _programs(effort: Effort) -> dict[str, Any]:
    """BPF_PROG_TEST_RUN, less an empty program of the same type in the same round."""
    config = RssConfig.default(4)
    answers: dict[str, Any] = {}
    with ExitStack() as resources:
        resources.enter_context(pinned())
        stages = resources.enter_context(Stages.load(config.queues))
        programs = {HASH_STAGE: stages.hash_stage}
        for way in STEERING:
            try:
                stage = SteeringStage.load_opened(
                    _object(way), config.queues, l3=False, max_indirection=_ENTRIES
                )
            except VnethashError as error:
                answers[way] = {"works": False, "why": error.message}
                continue
            resources.callback(stage.close)
            stage.maps.publish(compile_config(config, Reporting.RECORD))
            programs[way] = stage.steering_stage
        for name, program in programs.items():
            answers[name] = {
                "works": True,
                "jit": program.jited,
                "verified": program.verified,
                "ns": {},
            }
        empty = {kind: resources.enter_context(_empty(kind)) for kind in _types(programs)}
        for kind in _KINDS:
            frame = frames.kinds()[kind]
            stages.maps.publish(compile_config(config, Reporting.RECORD))
            for name, program in programs.items():
                _check(name, program, frame, config)
            # Over repeated runs each would put one more record in front of the frame.
            stages.maps.publish(compile_config(config, Reporting.OFF))
            runs = {name: _timed(program, frame, effort) for name, program in programs.items()}
            for number, program in empty.items():
                runs[f"empty {number}"] = _timed(program, frame, effort)
            measured = interleave(runs, effort.rounds, lambda: None)
            for name, program in programs.items():
                net = differences(measured[name], measured[f"empty {program.type}"])
                answers[name]["ns"][kind] = Summary.of(net).to_json()
    return answers


def _object(way: str) -> BpfObject:
    opened = BpfObject.open(BUILT / f"{way}.bpf.o", name="vnethash")
    if way == PROGTYPE:  # libbpf does not know the section
        opened.set_program_type("steering_stage", ProgramType.VNET_HASH)
    return opened


def _types(programs: dict[str, Program]) -> list[int]:
    return sorted({program.type for program in programs.values()})


def _empty(kind: int) -> Program:
    code = [(0xB7, 0, 0, 0), (0x95, 0, 0, 0)]  # mov r0, 0; exit
    return Program.from_instructions(ProgramType(kind), "empty", code)


def _given(program: Program, frame: bytes) -> bytes:
    """What to start from: a socket filter is run without the first Ethernet header."""
    return frame[:14] + frame if program.type == ProgramType.SOCKET_FILTER else frame


def _check(name: str, program: Program, frame: bytes, config: RssConfig) -> None:
    """Raise VnethashError unless the program answers as the reference does."""
    expected = reference.classify(frame, config)
    done = program.test_run(_given(program, frame), ctx=bytes(_CTX))
    if name == HASH_STAGE:
        return check_agreement(
            f"{name}: hash", done.data[:4], struct.pack("<I", expected.hash_value)
        )
    if name != PROGTYPE:
        return check_agreement(f"{name}: queue", done.retval, expected.queue)
    (queue,) = struct.unpack_from("<H", done.ctx, _RSS_QUEUE)
    return check_agreement(f"{name}: queue", queue, expected.queue)


def _timed(program: Program, frame: bytes, effort: Effort) -> Callable[[], float]:
    repeat, given = effort.share(_REPEAT), _given(program, frame)
    return lambda: float(program.test_run(given, repeat=repeat).duration_ns)


def _path(task: Task, effort: Effort) -> list[dict[str, Any]]:
    """Rows of the benchmark `path`."""
    chosen = _TRAFFIC[:1] if task.quick else _TRAFFIC
    traffic = [traffic for traffic in path.TRAFFIC if traffic.name in chosen]
    rows = path.run(effort, lambda: None, traffic)
    return [replace(row, target=None).to_json() for row in rows]
