# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Hashing and classifying many at once, in user space, one thread.

``hash`` cases: rows of addresses and ports, by each method this CPU has, against the
scalar loop of packet libraries and a loop that only copies the rows and XORs
their words. ``classify``: a few frames, against the Python reference.
``frames`` cases: more frames than any cache holds, as they lie in a capture.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from vnethash.bench import frames
from vnethash.bench.library import bench_library
from vnethash.bench.measure import (
    Advance,
    Effort,
    Row,
    Summary,
    Target,
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
from vnethash.rss.native import Hasher, bulk_methods

NAME = "bulk"
BASE = "scalar loop"
BASE_CLASSIFY = "Python reference"
BASE_FRAMES = "tables"
_COPY = "copy and XOR"

ROWS = 16384
_CALLS = 40
_SLOW_CALLS = 4
_FRAMES = 512
_REFERENCE_FRAMES = 64
_MEMORY = 192 << 20
"""Bytes of the frames of a ``frames`` case."""
_WIDTHS = {"hash IPv4/TCP": 12, "hash IPv6/TCP": 36}
_TIMES_FASTER = 50
_TIMES_COPY = 1.5
_FRAME_NS = 50
"""Nanoseconds a frame: twenty million a second."""

Rows = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint32]
Work = Callable[[], object]
Works = dict[str, tuple[Work, int, int]]
"""By name: what to do, how often in a turn, how many items it does each time."""


def frames_cases() -> dict[str, list[bytes]]:
    """Frames that ``frames`` cases repeat: TCP as short as it gets, full length, all kinds."""
    flows = range(_FRAMES)
    return {
        "frames, IPv4": [frames.tcp4(flow, 60) for flow in flows],
        "frames, IPv6": [frames.tcp6(flow, 80) for flow in flows],
        "frames, 1514 B": [frames.tcp4(flow, 1514) for flow in flows],
        "frames, mixed": mixed_frames(_FRAMES),
    }


def steps(effort: Effort) -> int:
    return effort.rounds * (len(_WIDTHS) + 1 + len(frames_cases()))


def base_of(case: str) -> str:
    """The variant that ratios of ``case`` are to."""
    if case == "classify":
        return BASE_CLASSIFY
    return BASE_FRAMES if case.startswith("frames") else BASE


def run(effort: Effort, advance: Advance) -> list[Row]:
    """Raises DependencyMissing; VnethashError for a wrong hash."""
    with pinned():
        rows: list[Row] = []
        for case, width in _WIDTHS.items():
            measured = _measure(_hashing(width), effort, advance)
            rows += _rows(case, measured, _hash_target(case, measured))
        rows += _rows("classify", _measure(_classifying(), effort, advance))
        for case, batch in frames_cases().items():
            measured = _measure(_reading(batch, effort), effort, advance)
            rows += _rows(case, measured, _frames_target(measured))
        return rows


def _measure(works: Works, effort: Effort, advance: Advance) -> dict[str, list[float]]:
    """Nanoseconds an item, by variant and round."""

    def cost(work: Work, calls: int, items: int) -> float:
        times = [nanoseconds(work) / items for _ in range(effort.share(calls))]
        return Summary.of(times).median

    variants = {name: partial(cost, *what) for name, what in works.items()}
    return interleave(variants, effort.rounds, advance)


def _rows(
    case: str, measured: dict[str, list[float]], target: tuple[str, Target] | None = None
) -> Iterator[Row]:
    base = measured[base_of(case)]
    for name, values in measured.items():
        met = target[1] if target and target[0] == name else None
        yield Row(NAME, case, name, "ns", Summary.of(values), ratios(values, base), target=met)


def _hash_target(case: str, measured: dict[str, list[float]]) -> tuple[str, Target]:
    best = _best()
    to_scalar = ratios(measured[best], measured[BASE])
    to_copy = ratios(measured[best], measured[_COPY])
    met = to_scalar is not None and to_scalar.median * _TIMES_FASTER <= 1
    text = f"<= 1/{_TIMES_FASTER}"
    if _WIDTHS[case] == 36:
        text += f", {_TIMES_COPY} copy"
        met = met and to_copy is not None and to_copy.median <= _TIMES_COPY
    return best, Target(text, met)


def _frames_target(measured: dict[str, list[float]]) -> tuple[str, Target]:
    best = _best()
    return best, Target(f"<= {_FRAME_NS} ns", Summary.of(measured[best]).median <= _FRAME_NS)


def _best() -> str:
    return bulk_methods()[-1].title


def _hashing(width: int) -> Works:
    config = RssConfig.default(4)
    rows = np.random.default_rng(1).integers(0, 256, (ROWS, width), np.uint8)
    tables = toeplitz_tables(config)
    ffi, lib = bench_library()
    hashes, copy = np.empty(ROWS, np.uint32), np.empty_like(rows)
    given = (ffi.from_buffer("uint8_t[]", rows), ROWS, width)
    out = ffi.from_buffer("uint32_t[]", hashes)
    room = ffi.from_buffer("uint8_t[]", copy)
    key = ffi.from_buffer("uint8_t[]", config.key)

    lib.scalar_hash(key, *given, out)
    first = [reference.toeplitz(config.key, row.tobytes()) for row in rows[:8]]
    check_agreement("hash of the scalar loop", hashes[:8].tolist(), first)
    expected = hashes.tolist()
    check_agreement("hash of numpy", numpy_hash(tables, rows).tolist(), expected)
    works: Works = {BASE: (lambda: lib.scalar_hash(key, *given, out), _CALLS, ROWS)}
    for method, hasher in _hashers(config).items():
        check_agreement(f"hash by {method}", hasher.hash_batch(rows).tolist(), expected)
        works[method] = (partial(hasher.hash_batch, rows), _CALLS, ROWS)
    return works | {
        _COPY: (lambda: lib.copy_xor(*given, room, out), _CALLS, ROWS),
        "numpy": (lambda: numpy_hash(tables, rows), _SLOW_CALLS, ROWS),
    }


def _hashers(config: RssConfig) -> dict[str, Hasher]:
    """One for each method of this CPU."""
    hashers = {method.title: Hasher(config) for method in bulk_methods()}
    for method in bulk_methods():
        hashers[method.title].try_method(method)
    return hashers


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


def _classifying() -> Works:
    config = RssConfig.default(4)
    hasher = Hasher(config)
    batch = mixed_frames(_FRAMES)
    few = batch[:_REFERENCE_FRAMES]
    expected = [reference.classify(frame, config) for frame in few]
    check_agreement("native classification", hasher.classify_many(few), expected)
    laid_out = Laid.of(batch, len(batch))
    return {
        BASE_CLASSIFY: (
            lambda: [reference.classify(frame, config) for frame in few],
            1,
            _REFERENCE_FRAMES,
        ),
        "native": (lambda: laid_out.classify(hasher), _CALLS, _FRAMES),
        "native, to Python objects": (
            lambda: hasher.classify_many(batch),
            _SLOW_CALLS,
            _FRAMES,
        ),
    }


@dataclass(frozen=True, slots=True)
class Laid:
    """Frames in memory as a pcap file has them: each behind a header of 16 bytes."""

    memory: bytes
    offsets: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, some: Sequence[bytes], count: int) -> "Laid":
        """``some`` over and over until there are ``count`` frames."""
        times = -(-count // len(some))
        sizes = [len(frame) for frame in some]
        lengths = np.tile(np.array(sizes, np.uint32), times)[:count]
        ends = np.cumsum(lengths + np.uint32(16), dtype=np.uint64)
        record = (bytes(8) + 2 * struct.pack("<I", len(frame)) + frame for frame in some)
        return cls(b"".join(record) * times, ends - lengths, lengths)

    def classify(self, hasher: Hasher) -> npt.NDArray[np.void]:
        """What ``hasher`` says of each."""
        return hasher.classify_frames(self.memory, self.offsets, self.lengths)


def _reading(batch: list[bytes], effort: Effort) -> Works:
    config = RssConfig.default(4)
    count = effort.share(_MEMORY) * len(batch) // sum(16 + len(frame) for frame in batch)
    count = max(count, len(batch))
    laid_out = Laid.of(batch, count)
    expected = [reference.classify(frame, config) for frame in batch[:_REFERENCE_FRAMES]]
    works: Works = {}
    for method, hasher in _hashers(config).items():
        got = laid_out.classify(hasher)[["hash_value", "hash_report", "queue"]]
        wanted = [(one.hash_value, one.hash_report, one.queue) for one in expected]
        check_agreement(f"frames by {method}", got[:_REFERENCE_FRAMES].tolist(), wanted)
        works[method] = (partial(laid_out.classify, hasher), 1, count)
    return works
