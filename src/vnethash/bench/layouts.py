# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Toeplitz in BPF by tables of several layouts (bench/layouts.bpf.c): why the stage has bytes.

Each program less one that only reads the words, in the same round: the tables
alone. With the packets of one flow, all that is read stays in the L1 cache; with
another flow each time, entries from all over the tables are. Cold, caches are emptied
before each single run: the L1 cache, as the kernel's own work between two packets
does, or L2 as well.
"""

import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from vnethash.bench import frames
from vnethash.bench.measure import (
    Advance,
    Effort,
    Row,
    Summary,
    check_agreement,
    differences,
    interleave,
    pinned,
    ratios,
)
from vnethash.bench.stages import cpu_time
from vnethash.kernel.bpf import BpfObject, Program
from vnethash.native import BUILT
from vnethash.rss import reference
from vnethash.rss.config import RssConfig

NAME = "layouts"
BASE = "bytes"
_WORDS = "words"
_LAYOUTS = {_WORDS: "words", "nibbles": "nibbles", BASE: "bytes", "11 bits": "elevens"}
_PAIRS = {"16 bits": "pairs"}
_INPUTS = {"IPv4/TCP": 12, "IPv6/TCP": 36}
_ONE, _OTHER = "one flow", "other flows"
_COLD = {"cold L1": 128 << 10, "cold L1, L2": 8 << 20}
"""Bytes walked through before a run: more than one cache has, less than the next."""

_REPEAT, _COLD_RUNS = 20_000, 60

VARIABLES = np.dtype(
    [
        ("flow", "<u8"),
        ("step", "<u8"),
        ("nibbles", "<u4", (72, 16)),
        ("bytes", "<u4", (36, 256)),
        ("elevens", "<u4", (27, 2048)),
        ("pairs", "<u4", (6, 65536)),
    ]
)
"""The variables of the object."""


def steps(effort: Effort) -> int:
    return effort.rounds * len(_INPUTS)


def run(effort: Effort, advance: Advance) -> list[Row]:
    """Raises DependencyMissing, NotPermitted, BpfError; VnethashError for a wrong hash."""
    config, rows = RssConfig.default(4), []
    with ExitStack() as resources:
        resources.enter_context(pinned())
        loaded = resources.enter_context(BpfObject.open(BUILT / "layouts.bpf.o"))
        loaded.load()
        # Unmapped with the last reference to it.
        variables = np.frombuffer(loaded.map(".bss").mmap(), VARIABLES, count=1)[0]
        fill(variables, config.key)
        for case, size in _INPUTS.items():
            names = _LAYOUTS if size == 36 else {**_LAYOUTS, **_PAIRS}
            programs = {name: loaded.program(f"{c}_{size}") for name, c in names.items()}
            frame = frames.kinds()[case]
            variables["flow"] = variables["step"] = 0  # the frame as it is
            expected = reference.classify(frame, config).hash_value
            for name in names.keys() - {_WORDS}:
                check_agreement(f"{case}: {name}", programs[name].test_run(frame).retval, expected)
            work = _works(programs, frame, variables, effort)
            rows += _rows(case, interleave(work, effort.rounds, advance))
    return rows


def fill(variables: "np.void", key: bytes) -> None:
    """Compute all the tables from the Toeplitz key."""
    for layout, split in fields().items():
        for table, bits in zip(variables[layout], split, strict=True):
            table[: 1 << len(bits)] = _table(bits, key)


def fields() -> dict[str, list[range]]:
    """By layout and table, which bits of the input it has, the lowest of byte 0 being 0."""
    elevens = [
        range(bit, min(bit + 11, word + 64, 288))
        for word in range(0, 288, 64)
        for bit in range(word, min(word + 64, 288), 11)
    ]
    even = {"nibbles": (4, 288), "bytes": (8, 288), "pairs": (16, 96)}
    split = {
        layout: [range(bit, bit + width) for bit in range(0, end, width)]
        for layout, (width, end) in even.items()
    }
    return {**split, "elevens": elevens}


def _table(bits: range, key: bytes) -> NDArray[np.uint32]:
    """What each value of these bits adds to the hash: the window of the key at each that is set."""
    number = int.from_bytes(key)
    table = np.zeros(1 << len(bits), np.uint32)
    for index, bit in enumerate(bits):
        first = bit // 8 * 8 + 7 - bit % 8  # of the key's bits, in network order
        window = number >> (8 * len(key) - 32 - first) & 0xFFFFFFFF
        table[1 << index : 2 << index] = table[: 1 << index] ^ np.uint32(window)
    return table


Key = tuple[str, str]
"""Which way it is measured, and the layout."""


def _works(
    programs: Mapping[str, Program], frame: bytes, variables: "np.void", effort: Effort
) -> dict[Key, Callable[[], float]]:
    """What measures each layout each way once: nanoseconds of a run."""
    buffer = np.zeros(max(_COLD.values()) // 8, np.uint64)

    def warm(program: Program, step: int) -> Callable[[], float]:
        def measure() -> float:
            variables["step"] = step
            return cpu_time(program, frame, effort.share(_REPEAT))

        return measure

    def cold(program: Program, size: int) -> Callable[[], float]:
        lines = buffer[: size // 8 : 8]

        def once() -> int:
            np.add(lines, 1, out=lines)
            return program.test_run(frame).duration_ns

        def measure() -> float:
            variables["step"] = 1
            # The clock of single runs is coarse, and some runs are interrupted.
            times = sorted(once() for _ in range(effort.share(_COLD_RUNS)))
            return statistics.fmean(times[len(times) // 4 :][: len(times) // 2 + 1])

        return measure

    work: dict[Key, Callable[[], float]] = {}
    for name, program in programs.items():
        work[_ONE, name] = warm(program, 0)
        work[_OTHER, name] = warm(program, 1)
        work |= {(way, name): cold(program, size) for way, size in _COLD.items()}
    return work


def _rows(case: str, measured: Mapping[Key, list[float]]) -> list[Row]:
    net = {
        (way, name): differences(values, measured[way, _WORDS])
        for (way, name), values in measured.items()
        if name != _WORDS
    }
    return [
        Row(
            NAME,
            f"{case}, {way}",
            name,
            "ns",
            Summary.of(net[way, name]),
            ratios(net[way, name], net[way, BASE]),
        )
        for way in (_ONE, _OTHER, *_COLD)
        for name in dict.fromkeys(name for _, name in net)
    ]
