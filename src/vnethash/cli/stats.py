# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash stats``: packets and bytes of an attached tap."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from vnethash.cli.options import JsonOption
from vnethash.cli.output import console, emit_json
from vnethash.cli.rss_change import TapArgument

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vnethash.engines.pinned import PinnedTap
    from vnethash.stats import Stats, Traffic


class Sample(NamedTuple):
    """Counters, and those of a while ago to make rates of."""

    name: str
    stats: "Stats"
    before: "Stats | None" = None
    seconds: float = 0.0

    def rate(self, queue: int | None) -> tuple[float, float] | None:
        """Packets and bytes per second of a queue, or of all; None without a while ago."""
        if self.before is None:
            return None
        now, then = _traffic(self.stats, queue), _traffic(self.before, queue)
        return (
            (now.packets - then.packets) / self.seconds,
            (now.bytes - then.bytes) / self.seconds,
        )


def _traffic(stats: "Stats", queue: int | None) -> "Traffic":
    return stats.total if queue is None else stats.queues[queue].total


def stats_command(
    tap: TapArgument,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C, with rates.")
    ] = False,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="How often --watch looks.")
    ] = 1.0,
    json: JsonOption = False,
) -> None:
    """Show packets and bytes by queue and report type since attach.

    Bytes are those of frames, without headers of the tap and hash records.
    With --watch and --json there is one object an interval.
    """
    from vnethash.engines.pinned import PinnedTap

    with PinnedTap.open(tap) as attached:
        if not watch:
            attached.device()
            sample = Sample(tap, attached.stats())
            if json:
                emit_json(_to_json(sample))
            else:
                console().print(_render(sample))
            return
        try:
            _watch(attached, interval, as_json=json)
        except KeyboardInterrupt:
            return  # the way a watch ends


def _watch(tap: "PinnedTap", interval: float, *, as_json: bool) -> None:
    samples = _samples(tap, interval)
    if as_json:
        next(samples)  # no rates yet
        for sample in samples:
            emit_json(_to_json(sample), flush=True)
    elif console().is_terminal:
        from rich.live import Live

        with Live(_render(next(samples)), console=console(), auto_refresh=False) as live:
            for sample in samples:
                live.update(_render(sample), refresh=True)
    else:
        for sample in samples:
            console().print(_render(sample))
            console().file.flush()


def _samples(tap: "PinnedTap", interval: float) -> Iterator[Sample]:
    """One at once, then one an interval. Raises DeviceError when the tap goes."""
    before: Stats | None = None
    looked = due = time.monotonic()
    while True:
        tap.device()
        now, stats = time.monotonic(), tap.stats()
        yield Sample(tap.name, stats, before, now - looked)
        before, looked = stats, now
        due = max(due + interval, now)
        time.sleep(max(0.0, due - time.monotonic()))


def _to_json(sample: Sample) -> dict[str, Any]:
    values: dict[str, Any] = {"name": sample.name, **sample.stats.to_json()}
    if sample.before is not None:
        values["seconds"] = sample.seconds
        for queue, entry in [(None, values["total"]), *enumerate(values["queues"])]:
            rate = sample.rate(queue)
            if rate is not None:
                entry["packets_per_second"], entry["bytes_per_second"] = rate
    return values


def _render(sample: Sample) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    stats = sample.stats
    rated = sample.before is not None
    columns = ["queue", "packets", "bytes", "share"] + ["packets/s", "bytes/s"] * rated
    queues = Table(box=None, pad_edge=False, title=sample.name, title_justify="left")
    for column in columns:
        queues.add_column(column, justify="left" if column == "queue" else "right")
    for queue in [*range(len(stats.queues)), None]:
        traffic = _traffic(stats, queue)
        cells = ["all" if queue is None else str(queue), *_cells(traffic)]
        cells.append(f"{traffic.packets / stats.total.packets:.1%}" if stats.total.packets else "-")
        cells += [f"{value:,.0f}" for value in sample.rate(queue) or ()]
        queues.add_row(*cells, style="bold" if queue is None else None)

    reports = Table("type", box=None, pad_edge=False)
    for column in ("packets", "bytes"):
        reports.add_column(column, justify="right")
    for report, traffic in stats.by_report.items():
        if traffic.packets:
            reports.add_row(report.name, *_cells(traffic))
    parts: list[RenderableType] = [queues, Text()]
    parts.append(reports if reports.row_count else Text("no packets yet", style="dim"))
    if any(stats.unmarked.values()):
        reasons = Table("without a record", box=None, pad_edge=False)
        reasons.add_column("packets", justify="right")
        for reason, packets in stats.unmarked.items():
            if packets:
                reasons.add_row(reason, f"{packets:,}", style="yellow")
        parts += [Text(), reasons]
    if any(stats.invalid.values()):
        answers = Table("put right", box=None, pad_edge=False)
        answers.add_column("packets", justify="right")
        for kind, packets in stats.invalid.items():
            if packets:
                answers.add_row(f"no such {kind}", f"{packets:,}", style="red")
        parts += [Text(), answers]
    if any(stats.counts):
        counts = Table("program's counter", box=None, pad_edge=False)
        counts.add_column("count", justify="right")
        for index, count in enumerate(stats.counts):
            if count:
                counts.add_row(str(index), f"{count:,}")
        parts += [Text(), counts]
    return Group(*parts)


def _cells(traffic: "Traffic") -> tuple[str, str]:
    return f"{traffic.packets:,}", f"{traffic.bytes:,}"
