# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash report``: an analysis as a page to be read and shared, and as pictures."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vnethash.cli.analyze import (
    ByOption,
    ClusterOption,
    ColumnsOption,
    FilesArgument,
    JobsOption,
    WindowOption,
    WorkersOption,
    analyze_with_progress,
    tell_failures,
)
from vnethash.cli.options import (
    ConfigOption,
    IndirectionOption,
    JsonOption,
    KeyOption,
    QueuesOption,
    TunnelsOption,
    TypesOption,
    UnclassifiedOption,
    config_from_options,
)
from vnethash.cli.output import check_output, console, emit_json
from vnethash.cli.sharing import (
    AnonymizeKeyOption,
    AnonymizeOption,
    anonymizer_from_options,
    shareable,
)
from vnethash.stats import Measure
from vnethash.writing import write

if TYPE_CHECKING:
    from vnethash.analysis import Analysis


def report_command(
    files: FilesArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The page to write.")
    ] = Path("report.html"),
    plot: Annotated[
        list[Path] | None,
        typer.Option(
            "--plot",
            metavar="FILE|DIR",
            help="Also draw all pictures to a .png or .svg, or each to an SVG in a folder. "
            "May be given again.",
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Also show what a planned key and table would make of it."),
    ] = False,
    anonymize: AnonymizeOption = False,
    anonymize_key: AnonymizeKeyOption = None,
    queues: QueuesOption = None,
    key: KeyOption = None,
    types: TypesOption = None,
    indirection: IndirectionOption = None,
    unclassified: UnclassifiedOption = None,
    tunnels: TunnelsOption = None,
    config: ConfigOption = None,
    by: ByOption = Measure.PACKETS,
    window: WindowOption = "1ms",
    jobs: JobsOption = None,
    columns: ColumnsOption = None,
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
    json: JsonOption = False,
) -> None:
    """Write a page that shows where the flows of captures land. Needs no rights.

    One HTML file with all pictures and numbers in it, which runs no script and asks
    no server. It shows the load of the queues, also over time, and of the entries of
    the table, the heaviest flows, what was not hashed, and with --plan what would be
    better. Damaged files count as far as they can be read; the exit code is 1 then.
    """
    from vnethash.analysis.report import draw, html
    from vnethash.analysis.report.pictures import check_target
    from vnethash.analysis.report.sentences import verdict

    rss = config_from_options(queues, key, types, indirection, unclassified, config, tunnels)
    anonymizer = anonymizer_from_options(anonymize, anonymize_key)
    check_output(output, inputs=files)
    for target in plot or ():
        if not check_target(target):
            check_output(target, "plot", inputs=[*files, str(output)])
    analysis = analyze_with_progress(
        files,
        rss,
        window=window,
        jobs=jobs,
        columns=columns,
        cluster=cluster,
        workers=workers,
    )
    # With a key that all can make, a page would tell more of addresses than it may.
    seed = 0 if anonymizer is None else secrets.randbits(64)
    after, advice = _planned(analysis, by, seed) if plan else (None, [])
    shown = shareable(analysis, anonymizer)
    if after is not None and anonymizer is not None:
        after, advice = shareable(after, anonymizer), []  # whose line may tell a key
    page = html(shown, after, by=by, advice=advice)
    write(output, page)
    written = [output]
    for target in plot or ():
        written += draw(shown, target, after, by=by)
    said = verdict(shown, by)
    if json:
        emit_json({"verdict": said, "written": [str(path) for path in written]})
    else:
        console().print(said)
        console().print(f"written: {', '.join(str(path) for path in written)}")
    tell_failures([analysis], as_json=json)


def _planned(analysis: "Analysis", by: Measure, seed: int) -> "tuple[Analysis | None, list[str]]":
    """The same traffic under a plan, and the line that sets it; None without traffic."""
    from vnethash.analysis.planning import Aim, plan_analysis

    if not analysis.packets:
        return None, []
    plan = plan_analysis(analysis, Aim(measure=by, seed=seed))
    ethtool = plan.ethtool
    line = [ethtool.line("eth0")] if ethtool and ethtool.rss == plan.after else []
    return analysis.under(plan.after), line
