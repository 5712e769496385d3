# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash plan``: a key and an indirection table that even out traffic."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vnethash.cli.analyze import (
    ByOption,
    ClusterOption,
    ColumnsOption,
    JobsOption,
    WorkersOption,
    analyze_with_progress,
    tell_failures,
)
from vnethash.cli.find_port import DEFAULT_COUNT, PortProto, find_port, parse_range
from vnethash.cli.options import (
    DEFAULT_QUEUES,
    ConfigOption,
    IndirectionOption,
    JsonOption,
    KeyOption,
    TunnelsOption,
    TypesOption,
    UnclassifiedOption,
    changes_from_options,
    read_config,
    read_text,
)
from vnethash.cli.output import check_output, emit_json, json_line
from vnethash.errors import CaptureError, ConfigError
from vnethash.stats import Measure
from vnethash.writing import write

if TYPE_CHECKING:
    from vnethash.analysis import Analysis
    from vnethash.rss.config import RssConfig


# Parameters that only make sense with --find-port, and those that do without.
_OF_PORTS = ("queue", "proto", "span", "count")
_OF_PLANS = (
    *("by", "jobs", "columns", "cluster", "workers", "symmetric", "keep_key", "few_moves"),
    *("for_ethtool", "entries", "tolerance", "seed", "candidates", "judge_by", "device", "output"),
)


def plan_command(
    ctx: typer.Context,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Traffic, as `vnethash analyze` takes it; - is stdin."),
    ] = None,
    queues: Annotated[
        int | None,
        typer.Option(
            "--queues", "-q", metavar="N", help="Queues to plan for (default: as many as now)."
        ),
    ] = None,
    present: Annotated[
        Path | None,
        typer.Option(
            "--present",
            metavar="FILE",
            help="Key and table as they are now: `ethtool -x`, as text or JSON; - is stdin.",
        ),
    ] = None,
    config: ConfigOption = None,
    key: KeyOption = None,
    types: TypesOption = None,
    indirection: IndirectionOption = None,
    unclassified: UnclassifiedOption = None,
    tunnels: TunnelsOption = None,
    by: ByOption = Measure.PACKETS,
    jobs: JobsOption = None,
    columns: ColumnsOption = None,
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
    symmetric: Annotated[
        bool, typer.Option("--symmetric", help="Both directions of a flow go to one queue.")
    ] = False,
    keep_key: Annotated[
        bool, typer.Option("--keep-key", help="Keep the key: plan the table alone.")
    ] = False,
    few_moves: Annotated[
        bool,
        typer.Option(
            "--few-moves",
            help="Keep the key, and of the table all but the few entries that even it out.",
        ),
    ] = False,
    for_ethtool: Annotated[
        bool,
        typer.Option(
            "--for-ethtool",
            help="Only a table that `ethtool -X` can set: each queue once in a row.",
        ),
    ] = False,
    entries: Annotated[
        int | None,
        typer.Option(metavar="N", help="Entries of the table (default: as many as now)."),
    ] = None,
    tolerance: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="What is even enough: 1% above what is possible; with --few-moves, 10% above "
            "the mean.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Other keys are tried with another number.")
    ] = 0,
    candidates: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Keys to try at most (default 1024).")
    ] = None,
    judge_by: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            metavar="FILE",
            help="Other traffic, such as another day's: tell what the plan makes of that. "
            "May be given again.",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="DEV", help="Name in the line for ethtool.")
    ] = "eth0",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the configuration, as --config of attach and configure takes it.",
        ),
    ] = None,
    find: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--find-port",
            metavar="SRC DST",
            help="Plan nothing: tell ports with which this flow lands on --queue. One of the two "
            "has a port (addr:port, [addr]:port); the other's is looked for.",
        ),
    ] = None,
    queue: Annotated[
        int | None, typer.Option(metavar="Q", help="With --find-port: the queue.")
    ] = None,
    proto: Annotated[
        PortProto | None,
        typer.Option(help="With --find-port: the protocol (default tcp).", case_sensitive=False),
    ] = None,
    span: Annotated[
        str | None,
        typer.Option(
            "--range",
            metavar="A-B",
            help="With --find-port: ports to choose from (default 32768-60999).",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help=f"With --find-port: how many to print (default {DEFAULT_COUNT}).",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Find a key and an indirection table that even out the queues under given traffic.

    From the configuration of now (--present, --config or the single options; else
    the default), it tells what each queue gets now and then, how far that can be from
    the optimum, and how to set it. The same input has the same answer. The other
    way round, --find-port keeps the configuration and fits a flow to it: it needs no traffic.
    """
    named = {
        "file": files,
        "judge": judge_by,
        "present": [str(present)],
        "config": [str(config)],
    }
    standard_input = [name for name, paths in named.items() if "-" in (paths or ())]
    if len(standard_input) > 1:
        raise ConfigError(standard_input[1], "- is standard input, which is read already")
    changes = changes_from_options(key, types, indirection, unclassified, tunnels)
    rss = _present(present, config, queues, changes)
    if find is not None:
        if files:
            raise ConfigError("find_port", "needs no traffic: leave the files out")
        _refuse(ctx, _OF_PLANS, "does not go with --find-port")
        if queue is None:
            raise ConfigError("queue", "is needed with --find-port")
        find_port(
            rss if queues is None else rss.replace(queues=queues),
            find,
            proto or PortProto.TCP,
            queue,
            span=None if span is None else parse_range(span),
            count=count or DEFAULT_COUNT,
            as_json=json,
        )
        return
    _refuse(ctx, _OF_PORTS, "goes with --find-port alone")
    if few_moves or keep_key:
        _refuse(ctx, ("candidates", "seed"), "is for trying keys, and the key is kept")
    if not files:
        raise ConfigError("file", "is missing: traffic to plan for", hint="give a capture")

    from vnethash.analysis.planning import Aim, judge, plan_analysis
    from vnethash.cli.balance import parse_share
    from vnethash.cli.plan_shown import print_plan
    from vnethash.rss.keysearch import DEFAULT_CANDIDATES

    aim = Aim(
        queues=queues,
        entries=entries,
        measure=by,
        symmetric=symmetric,
        keep_key=keep_key,
        few_moves=few_moves,
        for_ethtool=for_ethtool,
        seed=seed,
        candidates=DEFAULT_CANDIDATES if candidates is None else candidates,
        tolerance=None if tolerance is None else parse_share(tolerance),
    )
    if output is not None:
        check_output(output, inputs=[*files, *(judge_by or ())])

    def analyzed(files: list[str]) -> "Analysis":
        analysis = analyze_with_progress(
            files,
            rss,
            window="1ms",
            jobs=jobs,
            columns=columns,
            cluster=cluster,
            workers=workers,
        )
        if not analysis.packets:
            tell_failures([analysis], as_json=json)
            raise CaptureError(files[0], "no packets in it")
        return analysis

    seen = [analyzed(files)]
    plan = plan_analysis(seen[0], aim)
    if judge_by:
        seen.append(analyzed(judge_by))
    judgement = judge(plan, seen[1]) if judge_by else None
    if output is not None:
        write(output, json_line(plan.after.to_json()) + "\n")
    if json:
        judged = None if judgement is None else judgement.to_json()
        emit_json({**plan.to_json(device), "judged": judged})
    else:
        print_plan(plan, judgement, device, output)
    tell_failures(seen, as_json=json)


def _refuse(ctx: typer.Context, names: Iterable[str], why: str) -> None:
    """ConfigError if one of these parameters was given."""
    for parameter in ctx.command.params:
        if parameter.name in names:
            source = ctx.get_parameter_source(parameter.name)
            if source is not None and source.name == "COMMANDLINE":
                raise ConfigError(parameter.opts[0].removeprefix("--"), why)


def _present(
    present: Path | None, config: Path | None, queues: int | None, changes: dict[str, Any]
) -> "RssConfig":
    """The configuration of now. Raises ConfigError."""
    from vnethash.rss.config import RssConfig

    if present is not None and config is not None:
        raise ConfigError("config", "cannot be given together with --present")
    if present is not None:
        base = RssConfig.from_ethtool(read_text("present", present))
    elif config is not None:
        base = read_config(config)
    else:
        named = max(changes.get("indirection_table", (-1,))) + 1
        base = RssConfig.default(max(named, queues or (0 if named else DEFAULT_QUEUES)))
    return base.replace(**changes)
