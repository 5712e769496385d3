# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Batches spread over processes."""

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context

from tests.differential.batch import SIZE, Batch, Result, compare
from tests.differential.implementations import Implementations

FINDINGS_MAX = 20
"""Different findings after which a run ends: there is something to repair first."""

# Of a worker process, which ends with them.
_implementations: Implementations
_pool: Sequence[bytes]


def _start(bpf: bool, pool: Sequence[bytes]) -> None:
    global _implementations, _pool
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells when to end
    _implementations, _pool = Implementations(bpf=bpf), pool


def _work(batch: Batch) -> Result:
    return compare(_implementations, *batch.make(_pool))


def batches(seed: str, frames: int) -> Iterator[Batch]:
    """``frames`` frames, the last batch smaller."""
    for number in range(-(-frames // SIZE)):
        yield Batch(seed, number, min(SIZE, frames - number * SIZE))


def run(todo: Iterator[Batch], pool: Sequence[bytes], *, jobs: int, bpf: bool) -> Iterator[Result]:
    """Results as they come. Close it, or exhaust it, to end the processes."""
    found: set[str] = set()
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start, (bpf, pool)) as workers:
        pending: set[Future[Result]] = set()
        while True:
            if len(found) < FINDINGS_MAX:
                # Enough for nobody to wait, and little to throw away at the end.
                missing = 2 * jobs - len(pending)
                pending |= {workers.submit(_work, batch) for batch in islice(todo, missing)}
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                result = future.result()
                found.update(finding.name for finding in result.findings)
                yield result
