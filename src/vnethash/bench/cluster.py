# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Analysing on a Dask cluster: one capture in the page cache, in blocks, by 1 and 2 workers.

Against one thread of `analyze`. Workers are running when time begins, on this machine:
what more of them bring ends where its cores do. ``as much as possible`` is a long
capture; ``a small file`` is what a run costs that has nothing to do.
"""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from vnethash.analysis import Analysis, analyze
from vnethash.analysis.cluster import analyze_cluster, connected
from vnethash.bench.captures import file_header, records
from vnethash.bench.measure import (
    Advance,
    Effort,
    Row,
    Summary,
    check_agreement,
    interleave,
    nanoseconds,
    ratios,
)
from vnethash.rss.config import RssConfig

NAME = "cluster"
BASE = "local"
LARGE, SMALL = "a large capture", "a small file"

_WORKERS = (1, 2)
_PACKETS = 1_000_000
_REPEATED = 20
_FLOWS = 1000
_BLOCK_BYTES = 128 << 20


def steps(effort: Effort) -> int:
    return effort.rounds * 2


def run(effort: Effort, advance: Advance) -> list[Row]:
    """Raises DependencyMissing; VnethashError if packets are missing."""
    packets = effort.share(_PACKETS)
    with ExitStack() as resources:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory("-vnethash-bench")))
        clients = {number: resources.enter_context(connected(None, number)) for number in _WORKERS}
        rows: list[Row] = []
        block = records(packets, _FLOWS).tobytes()
        for case, repeated in ((LARGE, _REPEATED), (SMALL, 1)):
            path = folder / "capture.pcap"
            with path.open("wb") as file:
                file.write(file_header())
                for _ in range(repeated):
                    file.write(block[: None if case == LARGE else 76])
            count = repeated * packets if case == LARGE else 1
            measured = interleave(_variants(path, count, clients), effort.rounds, advance)
            base = measured[BASE]
            rows += [
                Row(NAME, case, name, _UNITS[case], Summary.of(values), ratios(values, base))
                for name, values in measured.items()
            ]
    return rows


_UNITS = {LARGE: "ns", SMALL: "ms"}


def _variants(path: Path, packets: int, clients: dict[int, Any]) -> dict[str, Callable[[], float]]:
    rss = RssConfig.default(8)
    scale = packets if packets > 1 else 1_000_000
    variants: dict[str, Callable[[], float]] = {
        BASE: partial(_timed, partial(analyze, [path], rss, jobs=1), packets, scale)
    }
    for number, client in clients.items():
        there = partial(analyze_cluster, [path], rss, cluster=client, block_bytes=_BLOCK_BYTES)
        name = f"{number} worker{'' if number == 1 else 's'}"
        variants[name] = partial(_timed, there, packets, scale)
    return variants


def _timed(work: Callable[[], Analysis], packets: int, scale: int) -> float:
    found: list[Analysis] = []
    taken = nanoseconds(lambda: found.append(work()))
    check_agreement("number of packets", found[0].packets, packets)
    return taken / scale
