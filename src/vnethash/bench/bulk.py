# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Hashing and classifying many at once, in user space, one thread.

``hash`` cases: rows of addresses and ports, against the scalar loop of packet
libraries and a loop that only copies the rows and XORs their words.
``classify`` cases: whole frames, against the Python reference.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from vnethash.bench import frames
from vnethash.bench.library import bench_library
from vnethash.bench.measure import (
    Advance,
    Effort,
    Row,
    Summary,
    check_agreement,
    interleave,
    nanoseconds,
    pinned,
    ratios,
)
from vnethash.native import core
from vnethash.rss import reference
from vnethash.rss.compiled import compile_config
from vnethash.rss.config import RssConfig
from vnethash.rss.native import Hasher

NAME = "bulk"
BASE = "scalar loop"
BASE_CLASSIFY = "Python reference"

ROWS = 4096
_CALLS = 40
_SLOW_CALLS = 4
_FRAMES = 512
_REFERENCE_FRAMES = 64
_WIDTHS = {"hash IPv4/TCP": 12, "hash IPv6/TCP": 36}

Rows = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint32]
Work = Callable[[], object]


def steps(effort: Effort) -> int:
    return effort.rounds * (len(_WIDTHS) + 1)


def run(effort: Effort, advance: Advance) -> list[Row]:
    """Raises DependencyMissing; VnethashError for a wrong hash."""
    with pinned():
        rows = []
        for case, width in _WIDTHS.items():
            rows += _measure(case, BASE, _hashing(width), effort, advance)
        return rows + _measure("classify", BASE_CLASSIFY, _classifying(), effort, advance)


def _measure(
    case: str,
    base: str,
    works: dict[str, tuple[Work, int, int]],
    effort: Effort,
    advance: Advance,
) -> list[Row]:
    """``works``: what to do, how often in a turn, how many items it does each time."""

    def cost(work: Work, calls: int, items: int) -> float:
        times = [nanoseconds(work) / items for _ in range(effort.share(calls))]
        return Summary.of(times).median

    variants = {name: partial(cost, *what) for name, what in works.items()}
    measured = interleave(variants, effort.rounds, advance)
    return [
        Row(NAME, case, name, "ns", Summary.of(values), ratios(values, measured[base]))
        for name, values in measured.items()
    ]


def _hashing(width: int) -> dict[str, tuple[Work, int, int]]:
    config = RssConfig.default(4)
    rows = np.random.default_rng(1).integers(0, 256, (ROWS, width), np.uint8)
    hasher = Hasher(config)
    tables = toeplitz_tables(config)
    ffi, lib = bench_library()
    hashes, copy = np.empty(ROWS, np.uint32), np.empty_like(rows)
    given = (ffi.from_buffer("uint8_t[]", rows), ROWS, width)
    out = ffi.from_buffer("uint32_t[]", hashes)
    room = ffi.from_buffer("uint8_t[]", copy)
    key = ffi.from_buffer("uint8_t[]", config.key)

    native = hasher.hash_batch(rows)
    first = [reference.toeplitz(config.key, row.tobytes()) for row in rows[:8]]
    check_agreement("native hash", native[:8].tolist(), first)
    lib.scalar_hash(key, *given, out)
    check_agreement("hash of the scalar loop", hashes.tolist(), native.tolist())
    check_agreement("hash of numpy", numpy_hash(tables, rows).tolist(), native.tolist())
    return {
        BASE: (lambda: lib.scalar_hash(key, *given, out), _CALLS, ROWS),
        "native": (lambda: hasher.hash_batch(rows), _CALLS, ROWS),
        "copy and XOR": (lambda: lib.copy_xor(*given, room, out), _CALLS, ROWS),
        "numpy": (lambda: numpy_hash(tables, rows), _SLOW_CALLS, ROWS),
    }


def toeplitz_tables(config: RssConfig) -> Hashes:
    """What each byte adds at each offset, shape (36, 256)."""
    ffi, _ = core()
    compiled = compile_config(config)  # the buffer does not keep it
    tables = bytes(ffi.buffer(compiled.rss.toeplitz))
    return np.frombuffer(tables, np.uint32).reshape(-1, 256)


def numpy_hash(tables: Hashes, rows: Rows) -> Hashes:
    """Toeplitz with tables as numpy does it: fancy indexing, byte by byte."""
    hashes = np.zeros(len(rows), np.uint32)
    for offset in range(rows.shape[1]):
        hashes ^= tables[offset][rows[:, offset]]
    return hashes


def mixed_frames(count: int) -> list[bytes]:
    """Frames of all kinds in turn, of many flows."""
    kinds = list(frames.kinds().values())
    flows = [frames.tcp4, frames.tcp6]
    some: Iterator[bytes] = (
        flows[i % 2](i, 60 + i % 2 * 20) if i % 4 else kinds[i // 4 % len(kinds)]
        for i in range(count)
    )
    return list(some)


def _classifying() -> dict[str, tuple[Work, int, int]]:
    config = RssConfig.default(4)
    hasher = Hasher(config)
    batch = mixed_frames(_FRAMES)
    few = batch[:_REFERENCE_FRAMES]
    expected = [reference.classify(frame, config) for frame in few]
    check_agreement("native classification", hasher.classify_many(few), expected)

    ffi, lib = core()
    lengths = [len(frame) for frame in batch]
    compiled = compile_config(config)
    data = ffi.from_buffer(b"".join(batch))
    offsets = ffi.new("uint64_t[]", list(accumulate(lengths, initial=0))[:-1])
    sizes = ffi.new("uint32_t[]", lengths)
    verdicts = ffi.new("struct vh_verdict[]", _FRAMES)
    arguments = (compiled, data, offsets, sizes, _FRAMES, 0, verdicts)
    return {
        BASE_CLASSIFY: (
            lambda: [reference.classify(frame, config) for frame in few],
            1,
            _REFERENCE_FRAMES,
        ),
        "native": (lambda: lib.vh_classify_batch(*arguments), _CALLS, _FRAMES),
        "native, to Python objects": (
            lambda: hasher.classify_many(batch),
            _SLOW_CALLS,
            _FRAMES,
        ),
    }
