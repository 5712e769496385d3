# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash bench``: what hashing and steering cost here."""

from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vnethash.cli.options import JsonOption
from vnethash.cli.output import console, emit_json, progress
from vnethash.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from vnethash.bench.measure import Effort, Row, Summary
    from vnethash.bench.report import Run, Saved


def bench_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAMES]...",
            help="Of bulk, captures, cluster, plan, stages, layouts, path, tcp, vhost, startup, "
            "adaptive, scale (default all).",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds: does it run at all?")] = False,
    repeat: Annotated[
        int | None,
        typer.Option("--repeat", "-r", metavar="N", min=1, help="Rounds; medians are over them."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Write the results to a file.")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="FILE", help="Show the change since a saved run."),
    ] = None,
    read: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Measure nothing: show a saved run."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="DIR", help="Draw a picture of each, as SVG (matplotlib)."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure what hashing and steering cost, against what there is without.

    bulk: hashing in user space. captures: analysing files. cluster: the
    same on Dask. plan: a key and a table for a million flows. stages: the
    BPF programs. layouts: the tables they could hash by. path: CPU per
    packet through a tap. tcp: two stacks and a tap between them. vhost:
    from a tap to a guest's rings and back. startup: opening a tap, changing
    its configuration. adaptive: how even queues are under skewed flows, and
    what moving buckets puts out of order. scale: a thousand taps, many
    queues, long tables.
    All but the first four need root; traffic stays in namespaces made for it.
    """
    from vnethash.bench import report

    chosen = report.select(names or ())
    saved = None if compare is None else report.read_saved(compare)
    if plot is not None:
        from vnethash.bench.plot import draw, require_matplotlib

        require_matplotlib()  # before time is spent on measuring
    if read is None:
        run = report.Run(report.machine(), _effort(quick, repeat), ())
    elif quick or repeat is not None:
        raise ConfigError("from", "measures nothing: neither --quick nor --repeat goes with it")
    else:
        run = report.read_run(read)
    rows: list[Row] = []
    for name in chosen:
        found = _measure(name, run.effort) if read is None else run.of(name)
        rows += found
        if found and not json:
            _print_whole(_table(name, found, saved))
            console().print()
    if json:
        emit_json(report.to_json(rows, run, saved))
    else:
        _print_machine(run)
    if save is not None:
        report.save(save, report.to_json(rows, run))
    if plot is not None:
        for file in draw(rows, plot):
            if not json:
                console().print(f"drawn: {file}", soft_wrap=True, style="dim")


def _effort(quick: bool, repeat: int | None) -> "Effort":
    from dataclasses import replace

    from vnethash.bench.measure import FULL, QUICK

    effort = QUICK if quick else FULL
    return effort if repeat is None else replace(effort, rounds=repeat)


def _measure(name: str, effort: "Effort") -> "list[Row]":
    from vnethash.bench import report

    benchmark = report.benchmark(name)
    with progress(f"measuring {name}", benchmark.steps(effort)) as show:
        return benchmark.run(effort, _counting(show))


def _print_whole(table: "Table") -> None:
    """As wide as it is: where a line has no room for it, better broken than numbers cut off."""
    from rich.measure import Measurement

    out = console()
    most = Measurement.get(out, out.options.update(width=1000), table).maximum
    out.width = max(most, out.width)
    out.print(table)


def _counting(show: Callable[[int], None]) -> Callable[[], None]:
    """Tell ``show`` how often it was called."""
    calls = count(1)
    return lambda: show(next(calls))


def _table(name: str, rows: "list[Row]", saved: "Saved | None") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from vnethash.bench.report import base_of

    told = Counter(part for row in rows for part in row.parts)
    parts = [part for part, count in told.items() if count * 4 >= len(rows)]
    if saved is not None:  # there is room for one or the other
        parts = []
    has_ratio = any(row.ratio for row in rows)
    has_target = any(row.target for row in rows)
    table = Table(box=None, pad_edge=False, title=name, title_justify="left", title_style="bold")
    for column in ("", ""):
        table.add_column(column, no_wrap=True)
    table.add_column("median", justify="right", no_wrap=True)
    table.add_column("quartiles", justify="right", no_wrap=True)
    for part in parts:
        table.add_column(part, justify="right", no_wrap=True)
    if has_ratio:
        bases = {base_of(row.benchmark, row.case) for row in rows if row.ratio}
        heading = f"of {bases.pop()}" if len(bases) == 1 else "ratio"
        table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("quartiles", justify="right", no_wrap=True)
    if saved is not None:
        table.add_column("change", justify="right", no_wrap=True)
    if has_target:
        table.add_column("target", no_wrap=True)
    case = ""
    for row in rows:
        if case and row.case != case:
            table.add_row()
        first = Text(row.case if row.case != case else "", style="bold")
        case = row.case
        cells = [first, Text(row.variant), _value(row), Text(_spread(row.value), style="dim")]
        cells += [
            Text(_number(row.parts[part].median) if part in row.parts else "") for part in parts
        ]
        if has_ratio:
            cells += _ratio(row, base_of(row.benchmark, row.case))
        if saved is not None:
            cells.append(_change(row, saved))
        if has_target:
            cells.append(_target(row))
        table.add_row(*cells)
    return table


def _value(row: "Row") -> "Text":
    from rich.text import Text

    return Text(f"{_number(row.value.median)} {row.unit}")


def _number(value: float) -> str:
    """Three digits or more."""
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def _spread(summary: "Summary") -> str:
    return f"{_number(summary.low)}-{_number(summary.high)}" if summary.count > 1 else ""


def _ratio(row: "Row", base: str) -> "list[Text]":
    from rich.text import Text

    if row.ratio is None:
        return [Text(""), Text("")]
    if row.variant == base:
        return [Text("1", style="dim"), Text("")]
    ratio = row.ratio
    # Beside the many that lie around one, a few are far below it.
    digits = 3 if ratio.median >= 0.01 else 5
    spread = f"{ratio.low:.{digits}f}-{ratio.high:.{digits}f}" if ratio.count > 1 else ""
    return [Text(f"{ratio.median:.{digits}f}"), Text(spread, style="dim")]


def _change(row: "Row", saved: "Saved") -> "Text":
    from rich.text import Text

    from vnethash.bench.report import change_of

    change = change_of(row, saved)
    if change is None:
        return Text("-", style="dim")
    style = "dim" if not change.clear else "red" if change.relative > 0 else "green"
    return Text(f"{change.relative:+.1%}", style=style)


def _target(row: "Row") -> "Text":
    from rich.text import Text

    if row.target is None:
        return Text("")
    met = Text("met: ", style="green") if row.target.met else Text("missed: ", style="red")
    return met.append(row.target.text, style="default")


def _print_machine(run: "Run") -> None:
    on = run.machine
    console().print(
        f"{on['cpus']} CPUs ({on['cpu']}), Linux {on['kernel']}, Python {on['python']}, "
        f"load {on['load']}; medians of {run.effort.rounds} interleaved rounds",
        style="dim",
    )
