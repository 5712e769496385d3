# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash demo``: real traffic through a steered tap, every packet checked."""

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from vnethash.cli.options import DEFAULT_QUEUES, JsonOption
from vnethash.cli.output import console, emit_json
from vnethash.errors import DependencyMissing, NotPermitted, Unsupported, VnethashError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from vnethash.demo.flow import Kind
    from vnethash.demo.ledger import Ledger, Row, Verdict
    from vnethash.rss.config import RssConfig

_BAR = 58
"""Columns of the longest bar."""
_SEED = 42
"""One whose TCP connections reach all of four queues."""
_QUEUE_STYLES = ("cyan", "magenta", "yellow", "blue", "bright_cyan", "bright_magenta")


class DemoEngine(StrEnum):
    """A tap's engines, the library without a tap, and the best there is."""

    AUTO = "auto"
    TUN_PROGTYPE = "tun-progtype"
    TUN_KFUNC = "tun-kfunc"
    TUN_CB = "tun-cb"
    TUN_RSS = "tun-rss"
    EBPF = "ebpf"
    SOFTWARE = "software"
    NATIVE = "native"


def demo_command(
    queues: Annotated[
        int,
        typer.Option("--queues", "-q", metavar="N", help="Queues of the tap."),
    ] = DEFAULT_QUEUES,
    engine: Annotated[
        DemoEngine,
        typer.Option(
            "--engine",
            "-e",
            case_sensitive=False,
            help="ebpf and software steer a tap, as do tun-... on a kernel of the lab; "
            "native does without one. "
            "auto: the best that works here.",
        ),
    ] = DemoEngine.AUTO,
    seed: Annotated[
        int,
        typer.Option("--seed", metavar="N", help="Other ports and payloads for another seed."),
    ] = _SEED,
    json: JsonOption = False,
) -> None:
    """Send real traffic through a steered tap and check every packet.

    In network namespaces of its own, two network stacks talk through a tap:
    TCP with offloads on, UDP, ICMP, IPv6, VLANs and fragments. Hash, type and
    queue of each packet must be what the Python reference says. Fails (exit
    code 1) if one is not, or if a kind of traffic did not come. Without the
    rights for a tap, frames of the same kinds go through the library.
    """
    rss = _config(queues, engine)
    result = _run(rss, engine, seed)
    if json:
        emit_json(_to_json(result, rss))
    else:
        _print(result, rss)
    if result.problems():
        raise typer.Exit(1)


def _config(queues: int, engine: DemoEngine) -> "RssConfig":
    """The default with all hash types that the engine knows."""
    from vnethash.rss.config import RssConfig

    rss = RssConfig.default(queues)
    if engine is not DemoEngine.TUN_RSS:
        return rss
    from vnethash.kernel.tun_ioctl import read_hash_types

    return rss.replace(hash_types=read_hash_types())


@dataclass(frozen=True, slots=True)
class _Result:
    ledger: "Ledger"
    engine: str
    point: str
    missing: int
    """Packets that the engine counted and nobody read."""
    fallback: VnethashError | None
    """Why there was no tap, if that was not asked for."""
    seconds: float

    def unseen(self) -> "list[Kind]":
        from vnethash.demo.flow import Kind

        return [kind for kind in Kind if kind not in self.ledger.kinds]

    def problems(self) -> list[str]:
        """What went wrong; empty if all went well."""
        problems = []
        if self.ledger.disagreements:
            problems.append(f"{self.ledger.disagreements} packets differ from the Python reference")
        if self.unseen():
            problems.append(f"not seen: {', '.join(self.unseen())}")
        if self.missing:
            problems.append(f"{self.missing} packets went to the tap and never came out")
        return problems


def _run(rss: "RssConfig", engine: DemoEngine, seed: int) -> _Result:
    from vnethash.demo.plan import Plan

    plan = Plan.from_seed(seed)
    started = time.monotonic()
    fallback = None
    if engine is not DemoEngine.NATIVE:
        from vnethash.demo.through_tap import run_tap

        try:
            run = run_tap(plan, rss, engine)
        except (DependencyMissing, NotPermitted, Unsupported) as error:
            if engine is not DemoEngine.AUTO:
                raise
            fallback = error
        else:
            seconds = time.monotonic() - started
            return _Result(run.ledger, run.engine, run.point, run.missing, None, seconds)

    from vnethash.demo.through_library import run_library

    ledger = run_library(plan, rss)
    return _Result(ledger, "native", "library", 0, fallback, time.monotonic() - started)


def _to_json(result: _Result, rss: "RssConfig") -> dict[str, object]:
    from platform import release

    from vnethash.demo.flow import Kind

    ledger = result.ledger
    return {
        "agrees": not result.problems(),
        "problems": result.problems(),
        "engine": result.engine,
        "attach_point": result.point,
        "fallback": result.fallback and result.fallback.message,
        "kernel": release(),
        "packets": ledger.packets,
        "disagreements": ledger.disagreements,
        "missing": result.missing,
        "records": ledger.records,
        "largest": ledger.largest,
        "kinds": {kind: kind in ledger.kinds for kind in Kind},
        "queues": [ledger.queues[queue] for queue in range(rss.queues)],
        "flows": [row.to_json() for row in ledger.rows()],
        "seconds": round(result.seconds, 3),
    }


def _print(result: _Result, rss: "RssConfig") -> None:
    from platform import release

    from rich.text import Text

    out = console()
    ledger = result.ledger
    if result.fallback is not None:
        out.print(Text(f"no tap here: {result.fallback.message}", style="yellow"))
        if result.fallback.hint:
            out.print(f"for a tap, {result.fallback.hint}")
        out.print("frames of the same kinds go through the library's native core instead")
        out.print()
    out.print(_flows(ledger.rows()))
    out.print()
    out.print(_chart([ledger.queues[queue] for queue in range(rss.queues)]))
    out.print()

    seen = ", ".join(kind for kind in _kinds() if kind in ledger.kinds)
    out.print(f"seen: {seen}; largest packet {ledger.largest} bytes")
    where = f"{'in the' if result.point in ('library', 'reader') else 'at'} {result.point}"
    came = "in records" if result.engine == "ebpf" else "from the kernel"
    records = f", {ledger.records} hashes {came}" if ledger.records else ""
    out.print(f"engine {result.engine} {where}{records}, Linux {release()}, {result.seconds:.1f} s")
    for problem in result.problems():
        out.print(Text.assemble((_mark(False), "bold red"), f" {problem}"))
    if not result.problems():
        out.print(
            Text.assemble(
                (_mark(True), "bold green"),
                f" {ledger.packets} packets: hash, type and queue of every one "
                "as the Python reference",
            )
        )


def _kinds() -> "list[Kind]":
    from vnethash.demo.flow import Kind

    return list(Kind)


def _flows(rows: "list[Row]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    # In all 80 columns with the longest flow.
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("")
    table.add_column("flow", no_wrap=True)
    table.add_column("", overflow="fold")
    table.add_column(" hash", no_wrap=True)
    table.add_column(" type", no_wrap=True)
    table.add_column(" queue", justify="right", no_wrap=True)
    table.add_column(" packets", justify="right", no_wrap=True)
    for row in rows:
        flow = row.flow
        between = f"{flow.source} {_arrow()} {flow.destination}" if flow.source else ""
        mark = Text(_mark(row.agrees), style="bold green" if row.agrees else "bold red")
        table.add_row(mark, flow.label, between, *_cells(row.got), f"{row.packets:>8}")
        if not row.agrees:
            table.add_row("", "", "the reference says", *_cells(row.expected), "", style="red")
    return table


def _cells(verdict: "Verdict") -> "tuple[str, str, Text]":
    from rich.text import Text

    value = f" {verdict.hash_value:#010x}" if verdict.hash_report else " -"
    return value, f" {verdict.hash_report.name}", Text(str(verdict.queue), _style(verdict.queue))


def _chart(packets: list[int]) -> "Table":
    """Packets of each queue, as bars."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("queue", justify="right")
    table.add_column("packets", justify="right")
    table.add_column("")
    most = max(*packets, 1)
    for queue, count in enumerate(packets):
        bar = _block() * max(round(count / most * _BAR), count > 0)
        table.add_row(Text(str(queue), _style(queue)), str(count), Text(bar, _style(queue)))
    return table


def _style(queue: int) -> str:
    return _QUEUE_STYLES[queue % len(_QUEUE_STYLES)]


def _mark(agrees: bool) -> str:
    if console().options.ascii_only:
        return "+" if agrees else "!"
    return "✓" if agrees else "✗"


def _arrow() -> str:
    return ">" if console().options.ascii_only else "→"


def _block() -> str:
    return "#" if console().options.ascii_only else "█"
