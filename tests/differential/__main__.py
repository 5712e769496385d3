# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Differential testing: one frame, one configuration, the same verdict everywhere.

    python -m tests.differential                          100 000 frames
    python -m tests.differential --frames 1000000 --seed 7 --jobs 2
    python -m tests.differential --corpus build/fuzz/corpus    what the fuzzer found
    python -m tests.differential --write-seeds build/fuzz/seeds    where it starts

Frames go through the Python reference, the native core and, as root, the hash
stage by BPF_PROG_TEST_RUN; a sample of them through real taps. What they
disagree about is minimised and written to vectors/found/. The exit status is 0
if they agree, 1 if they do not.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from tests.conftest import lacking
from tests.differential import found, live
from tests.differential.batch import Result
from tests.differential.corpus import compare_corpus, write_seeds
from tests.differential.implementations import Implementations
from tests.differential.run import batches, run
from vnethash.errors import VnethashError

_SHOWN = 5
"""Findings printed; all are written."""


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.differential",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    positive = _positive
    parser.add_argument("--frames", type=positive, default=100_000, help="how many")
    parser.add_argument("--seed", default=None, help="a word; the same makes the same frames")
    parser.add_argument("--jobs", type=positive, default=os.cpu_count(), help="processes")
    parser.add_argument("--scapy", type=_number, default=1000, help="frames made by scapy")
    parser.add_argument("--live", type=_number, default=4000, help="frames through real taps")
    parser.add_argument("--no-bpf", action="store_true", help="reference and native core alone")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="inputs of fuzz/dissect.c")
    parser.add_argument("--write-seeds", type=Path, metavar="DIR", help="make such inputs and end")
    parser.add_argument("--found", type=Path, default=found.FOLDER, help="where findings go")
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout")
    return parser.parse_args(arguments)


def _number(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("is negative")
    return value


def _positive(text: str) -> int:
    value = _number(text)
    if not value:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main(arguments: Sequence[str]) -> int:
    options = _arguments(arguments)
    seed = options.seed or os.urandom(4).hex()
    console = Console(stderr=True, highlight=False)
    try:
        bpf = not options.no_bpf and _has_rights(console)
        if options.write_seeds:
            write_seeds(options.write_seeds, seed, options.frames, _scapy(options.scapy, seed))
            return 0
        started = time.monotonic()
        if options.corpus:
            with Implementations(bpf=bpf) as implementations:
                total = compare_corpus(implementations, options.corpus)
            sample = Result()
        else:
            pool = _scapy(options.scapy, seed)
            sample = live.sample(seed, options.live, pool) if bpf and options.live else Result()
            total = _generated(options, seed, pool, bpf, console)
    except KeyboardInterrupt:
        return 130
    except (VnethashError, OSError) as error:
        print(f"differential: error: {error}", file=sys.stderr)
        return 1
    seconds = time.monotonic() - started
    findings = {finding.name: finding for finding in total.findings + sample.findings}
    paths = [finding.write(options.found) for finding in findings.values()]
    if options.json:
        print(json.dumps(_as_json(seed, seconds, total, sample, paths)))
    else:
        _print(Console(highlight=False), seed, seconds, total, sample)
    for finding, path in list(zip(findings.values(), paths, strict=True))[:_SHOWN]:
        print(f"\n{path}", *finding.lines(), sep="\n", file=sys.stderr)
    if total.disagreements or sample.disagreements:
        return 1
    return 130 if not options.corpus and total.frames < options.frames else 0


def _has_rights(console: Console) -> bool:
    lack = lacking()
    if lack and os.environ.get("VNETHASH_REQUIRE_KERNEL"):
        raise VnethashError(f"VNETHASH_REQUIRE_KERNEL is set, but {lack}")
    if lack:
        console.print(f"without the hash stage and taps: {lack}")
    return not lack


def _scapy(count: int, seed: str) -> list[bytes]:
    from tests.differential.scapy_frames import pool  # takes half a second to import

    return pool(seed, count)


def _generated(
    options: argparse.Namespace, seed: str, pool: Sequence[bytes], bpf: bool, console: Console
) -> Result:
    """All batches; after an interrupt what was done until then."""
    total = Result()
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tenth = options.frames / 10
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("frames", total=options.frames)
        todo = batches(seed, options.frames)
        try:
            for result in run(todo, pool, jobs=options.jobs, bpf=bpf):
                before = total.frames
                total.add(result)
                progress.advance(task, result.frames)
                if not console.is_terminal and total.frames // tenth > before // tenth:
                    console.print(f"{total.frames:,} frames, {total.disagreements:,} disagreements")
        except KeyboardInterrupt:
            console.print("interrupted")
    return total


def _as_json(
    seed: str, seconds: float, total: Result, sample: Result, paths: Sequence[Path]
) -> dict[str, object]:
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "frames": total.frames,
        "on_bpf": total.on_bpf,
        "live": sample.frames,
        "disagreements": total.disagreements + sample.disagreements,
        "reports": dict(total.reports.most_common()),
        "headers": dict(total.headers.most_common()),
        "tunnels": dict(total.tunnels.most_common()),
        "reasons": dict(total.reasons.most_common()),
        "found": [str(path) for path in paths],
    }


def _print(console: Console, seed: str, seconds: float, total: Result, sample: Result) -> None:
    for title, counter in (
        ("report type", total.reports),
        ("header", total.headers),
        ("judged by what is in", total.tunnels),
        ("why no IP, or no ports", total.reasons),
    ):
        table = Table(box=None, pad_edge=False)
        table.add_column(title)
        table.add_column("frames", justify="right")
        for name, amount in counter.most_common():
            table.add_row(name, f"{amount:,}")
        console.print(table, "")
    disagreements = total.disagreements + sample.disagreements
    console.print(
        f"{total.frames:,} frames, {total.on_bpf:,} of them through the hash stage, "
        f"and {sample.frames:,} through taps, in {seconds:.0f} s "
        f"({total.frames / max(seconds, 1e-9):,.0f}/s); seed {seed}: "
        f"{disagreements:,} disagreements",
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
