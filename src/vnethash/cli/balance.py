# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash balance``: keep the queues of an attached tap evenly loaded."""

import os
import re
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from vnethash.cli.options import JsonOption, parse_duration
from vnethash.cli.output import console, emit_json
from vnethash.cli.rss_change import TapArgument
from vnethash.errors import ConfigError
from vnethash.stats import Measure

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vnethash.balancer import Balancer, Step

_SHARE = re.compile(r"(\d+\.?\d*|\.\d+)(%?)")
_BAR = 30
"""Columns of a bar for a queue that has twice the mean."""


def balance_command(
    tap: TapArgument,
    interval: Annotated[
        str,
        typer.Option(
            "--interval", metavar="TIME", help="How often to look: seconds, or 500ms, 1s, 2m."
        ),
    ] = "1s",
    tolerance: Annotated[
        str,
        typer.Option(
            "--tolerance",
            metavar="SHARE",
            help="By how much of the mean the busiest queue may exceed it: 10%, or 0.1.",
        ),
    ] = "10%",
    by: Annotated[
        Measure, typer.Option("--by", help="What load is counted in.", case_sensitive=False)
    ] = Measure.PACKETS,
    once: Annotated[
        bool, typer.Option("--once", help="One look of an interval, what it leads to, and out.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Show what would move; move nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Move few entries of the indirection table, so that queues are evenly loaded.

    For a tap that was attached with --adaptive, until Ctrl-C or SIGTERM. Ends
    with an error when the tap goes, and as soon as its owner sets a table
    (vnethash configure), which is not touched. A look with too few packets to
    tell goes on. With --json there is one object for each look.
    """
    from vnethash.balancer import Balancer
    from vnethash.engines.pinned import PinnedTap

    seconds, share = parse_duration(interval), parse_share(tolerance)
    with PinnedTap.open(tap) as attached, told_to_end() as told:
        balancer = Balancer(attached, tolerance=share, by=by, dry_run=dry_run)
        steps = _steps(balancer, seconds, told, once=once)
        _show(tap, steps, dry_run=dry_run, as_json=json)


def parse_share(text: str) -> float:
    """A share of ``10%`` or ``0.1``. Raises ConfigError."""
    from vnethash.rss.balance import check_tolerance

    match = _SHARE.fullmatch(text.strip())
    if not match:
        raise ConfigError(
            "tolerance", f"must be a share, not {text!r}", hint="write 10%, or 0.1 for the same"
        )
    return check_tolerance(float(match[1]) / (100 if match[2] else 1))


@contextmanager
def told_to_end() -> Iterator[Callable[[float], bool]]:
    """Waits for that many seconds, and says whether SIGTERM or Ctrl-C has come."""
    # No threading.Event: its lock may be held where the handler comes in between.
    told = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    before = {
        number: signal.signal(number, lambda *_: os.eventfd_write(told, 1))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield lambda seconds: bool(select.select([told], [], [], seconds)[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(told)


def _steps(
    balancer: "Balancer", interval: float, told: Callable[[float], bool], *, once: bool
) -> "Iterator[Step]":
    while not told(interval):
        yield balancer.step()
        if once:
            return


def _show(tap: str, steps: "Iterator[Step]", *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        for step in steps:
            emit_json({"name": tap, **step.to_json()}, flush=True)
    elif console().is_terminal:
        from rich.live import Live
        from rich.text import Text

        waiting = Text(f"{tap}: looking", style="dim")
        with Live(waiting, console=console(), auto_refresh=False) as live:
            live.refresh()
            shown = _Shown(tap, dry_run)
            for step in steps:
                live.update(shown.render(step), refresh=True)
    else:
        for step in steps:
            console().print(f"{tap}: {_outcome(step, dry_run)}")
            console().file.flush()


def _outcome(step: "Step", dry_run: bool) -> str:
    """One line."""
    if step.plan is None:
        return f"{step.packets} packets in {step.seconds:.1f} s: too few to tell"
    moves = len(step.plan.moves)
    text = f"{step.packets} packets in {step.seconds:.1f} s, imbalance {step.imbalance:.2f}"
    if not moves:
        return text + ": nothing to move"
    buckets = _count(moves, "bucket")
    if step.applied:
        return f"{text}: {buckets} moved, {step.expected:.2f} expected"
    why = "would move" if dry_run else "not moved, the configuration has changed meanwhile"
    return f"{text}: {buckets} {why}, {step.expected:.2f} expected"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


class _Shown:
    """What a terminal shows: a bar for each queue, and what has been done so far."""

    def __init__(self, tap: str, dry_run: bool) -> None:
        self._tap = tap
        self._dry_run = dry_run
        self._moved = self._rounds = 0
        self._last: Step | None = None

    def render(self, step: "Step") -> "RenderableType":
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        if step.plan is not None:
            self._last = step
            if step.applied:
                self._moved += len(step.plan.moves)
                self._rounds += 1
        parts: list[RenderableType] = [Text(self._tap, style="bold")]
        plan = self._last.plan if self._last else None
        if plan is not None:
            table = Table(box=None, pad_edge=False)
            table.add_column("queue")
            table.add_column("per second", justify="right")
            table.add_column("of the mean", justify="right")
            table.add_column("")
            table.add_column("then", justify="right")
            mean = sum(plan.before) / len(plan.before) or 1.0
            for queue, (load, after) in enumerate(zip(plan.before, plan.after, strict=True)):
                share = load / mean
                bar = Text("█" * min(2 * _BAR, round(share * _BAR / 2)))
                bar.stylize("green" if after <= load else "yellow")
                then = f"{after / mean:.0%}" if after != load else ""
                table.add_row(str(queue), f"{load:,.0f}", f"{share:.0%}", bar, then)
            parts.append(table)
        parts.append(Text(_outcome(step, self._dry_run)))
        moved, rounds = _count(self._moved, "bucket"), _count(self._rounds, "round")
        parts.append(Text(f"so far: {moved} moved, in {rounds}", style="dim"))
        return Group(*parts)
