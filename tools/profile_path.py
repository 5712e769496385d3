# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Where a packet's time goes on its way through a tap, function by function.

    python -m tools.profile_path                              # plain tap, ebpf record
    python -m tools.profile_path --traffic "veth, bridge, 60 B" "plain tap" "ebpf off"

Runs the lanes of `vnethash bench path` under perf (apt install linux-perf), as
root, one after the other, and gives what each function has of the nanoseconds
a packet takes, by its share of samples of the CPU clock.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from rich.console import Console
from rich.table import Table

from vnethash.bench import path
from vnethash.bench.measure import pinned

ROWS = 24
HERTZ = 4000


def profile(variant: str, traffic: path.Traffic, seconds: float) -> tuple[float, Counter[str]]:
    """Nanoseconds a packet, and of these by function. Raises RuntimeError if perf saw nothing."""
    with pinned() as cpu, ExitStack() as resources, tempfile.TemporaryDirectory() as folder:
        lane = path.Lane(variant, traffic, path.Buffers(), resources)
        lane.check()
        data = Path(folder, "perf.data")
        with _recording(data, set(range(os.cpu_count() or 1)) - {cpu}):
            costs = []
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                costs.append(lane.turn(20).total)
        samples = _samples(data)
    cost = sorted(costs)[len(costs) // 2]
    count = samples.total()
    if not count:
        raise RuntimeError(f"perf has no samples of {variant}")
    return cost, Counter({name: cost * n / count for name, n in samples.items()})


@contextmanager
def _recording(data: Path, cpus: set[int]) -> Iterator[None]:
    """perf, on these CPUs, samples this thread from the beginning of the block to its end."""
    with ExitStack() as pipes:
        # It is told when, and acknowledges: how long it takes to start nobody knows.
        heard, tell = _pipe(pipes)
        acknowledged, acknowledge = _pipe(pipes)
        recorder = subprocess.Popen(
            [
                *("perf", "record", "--event=cpu-clock", f"--freq={HERTZ}", f"--output={data}"),
                *(f"--tid={os.getpid()}", "--delay=-1"),
                f"--control=fd:{heard.fileno()},{acknowledge.fileno()}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(heard.fileno(), acknowledge.fileno()),
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )
        heard.close()
        acknowledge.close()
        try:
            with suppress(BrokenPipeError):  # it has ended: there is no answer either
                tell.write(b"enable\n")
            if not acknowledged.read(1):
                raise RuntimeError("perf record does not begin: see perf record -e cpu-clock true")
            yield
        finally:
            recorder.send_signal(signal.SIGINT)
            recorder.wait()


def _pipe(resources: ExitStack) -> tuple[BinaryIO, BinaryIO]:
    """Ends to read and to write, without buffers."""
    reader, writer = os.pipe()
    return (
        resources.enter_context(cast(BinaryIO, open(reader, "rb", buffering=0))),
        resources.enter_context(cast(BinaryIO, open(writer, "wb", buffering=0))),
    )


def _samples(data: Path) -> Counter[str]:
    """How many samples fell into each function."""
    script = subprocess.run(
        ["perf", "script", f"--input={data}", "--fields=ip,sym"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    names = (line.split(None, 1) for line in script.stdout.splitlines() if line.strip())
    return Counter(_plain(name[1].strip()) for name in names if len(name) == 2)


def _plain(symbol: str) -> str:
    """A BPF program by its name, without the digest of its instructions."""
    if symbol.startswith("bpf_prog_"):
        return "BPF " + symbol.split("_", 3)[3]
    return symbol


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="Where a packet's time goes.")
    parser.add_argument("variants", nargs="*", default=[path.BASE, "ebpf record"])
    kinds = {traffic.name: traffic for traffic in path.traffic_here()}
    parser.add_argument("--traffic", choices=list(kinds), default="bridge, 60 B")
    parser.add_argument("--seconds", type=float, default=5, help="for each variant")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    if shutil.which("perf") is None:
        print("profile_path: perf is missing: apt install linux-perf", file=sys.stderr)
        return 1
    traffic = kinds[given.traffic]
    try:
        found = {name: profile(name, traffic, given.seconds) for name in given.variants}
    except RuntimeError as error:
        print(f"profile_path: {error}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps({name: {"ns": cost, "of": of} for name, (cost, of) in found.items()}))
        return 0
    table = Table(title=f"ns a packet, {traffic.name}", box=None)
    table.add_column("")
    for name in found:
        table.add_column(name, justify="right")
    table.add_row("all", *(f"{cost:.0f}" for cost, _ in found.values()))
    most = Counter[str]()
    for _, of in found.values():
        most |= of
    for function, _ in most.most_common(ROWS):
        table.add_row(function, *(f"{of[function]:.0f}" for _, of in found.values()))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
