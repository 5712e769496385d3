# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash analyze``: which queues the flows of captures land on, and how evenly."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

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
    parse_duration,
)
from vnethash.cli.output import console, emit_json, print_error, progress
from vnethash.cli.sharing import (
    AnonymizeKeyOption,
    AnonymizeOption,
    anonymizer_from_options,
    shareable,
)
from vnethash.errors import ConfigError
from vnethash.stats import Measure

if TYPE_CHECKING:
    from rich.table import Table

    from vnethash.analysis import Analysis, Load, Source
    from vnethash.analysis.counting import Progress
    from vnethash.rss.config import RssConfig

_OF_THE_MEAN = "of the mean"
_GAP = 2
"""Between columns."""

FilesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE",
        help="Captures (pcap, pcapng) and flow tables (CSV, Zeek logs, Parquet and others), "
        "compressed with gzip, zstd, xz or bzip2 as well; folders of them, addresses in object "
        "stores, or - for standard input.",
        show_default=False,
    ),
]
WindowOption = Annotated[
    str,
    typer.Option(
        "--window",
        "-w",
        metavar="TIME",
        help="Length of windows of time, such as 500us, 10ms, 1s, 5m; they become longer if "
        "there are too many.",
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        min=1,
        help="Threads to read with, of files and of parts of large captures (default: one a CPU).",
    ),
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="ROLE=NAME,...",
        help="Columns of flow tables without usual names: source, destination, source_port, "
        "destination_port, protocol, packets, bytes, reverse_packets, reverse_bytes, time.",
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Let the workers of a Dask scheduler do it, such as tcp://192.0.2.1:8786.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", min=1, help="Let N worker processes of Dask do it, here."
    ),
]
ByOption = Annotated[
    Measure,
    typer.Option("--by", "-b", case_sensitive=False, help="What load is counted in."),
]

_BAR = 30
_ETHER_TYPES_SHOWN = 5


def analyze_command(
    files: FilesArgument,
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
    anonymize: AnonymizeOption = False,
    anonymize_key: AnonymizeKeyOption = None,
    top: Annotated[
        int,
        typer.Option("--top", "-n", metavar="N", min=0, help="How many of the heaviest flows."),
    ] = 10,
    buckets: Annotated[
        bool, typer.Option("--buckets", help="Show each entry of the indirection table.")
    ] = False,
    windows: Annotated[
        bool, typer.Option("--windows", help="Show the load of the queues in each window.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Where the flows of captures land under an RSS configuration. Needs no rights.

    Tells packets, bytes and flows of each queue, how even they are and over time,
    report types, what was not hashed and why, and the heaviest flows. A file that
    is damaged counts as far as it can be read; the others are read on, and the
    exit code is 1.
    """
    from vnethash.analysis.summary import summary

    rss = config_from_options(queues, key, types, indirection, unclassified, config, tunnels)
    anonymizer = anonymizer_from_options(anonymize, anonymize_key)
    analysis = analyze_with_progress(
        files, rss, window=window, jobs=jobs, columns=columns, cluster=cluster, workers=workers
    )
    shown = shareable(analysis, anonymizer)
    if json:
        emit_json(summary(shown, by=by, flows=top, windows=windows))
    else:
        _show(shown, by, top, buckets=buckets, windows=windows)
    tell_failures([analysis], as_json=json)


def analyze_with_progress(
    files: list[str],
    rss: "RssConfig",
    *,
    window: str,
    jobs: int | None,
    columns: str | None = None,
    cluster: str | None = None,
    workers: int | None = None,
) -> "Analysis":
    """The analysis of files named on the command line, with a progress bar."""
    from vnethash.analysis.files import find_files
    from vnethash.analysis.local import analyze_files
    from vnethash.analysis.tables import parse_columns

    given = None if columns is None else parse_columns(columns)
    window_ns = round(parse_duration(window, "window", "1us") * 1e9)
    if jobs is not None and (cluster is not None or workers is not None):
        raise ConfigError("jobs", "are of this process, and the workers read", hint="leave it out")
    if cluster is not None and workers is not None:
        raise ConfigError("workers", "are those of the cluster", hint="leave out one of the two")
    found = find_files(files)
    sizes = [file.size for file in found]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    with _progress(files, total) as tell:
        if cluster is None and workers is None:
            return analyze_files(
                found, rss, jobs=jobs, window_ns=window_ns, progress=tell, columns=given
            )
        from vnethash.analysis.cluster import analyze_files_cluster

        return analyze_files_cluster(
            found,
            rss,
            cluster=cluster,
            workers=workers,
            window_ns=window_ns,
            progress=tell,
            columns=given,
        )


def tell_failures(analyses: "Iterable[Analysis]", *, as_json: bool) -> None:
    """Say which files were not read to their end, if any; exit with 1 then."""
    failed = [source for analysis in analyses for source in analysis.failed]
    if not failed:
        return
    console().file.flush()
    for source in failed:
        kind = source.kind or "CaptureError"
        print_error(_failure(source), kind=kind, hint=source.hint, as_json=as_json)
    raise typer.Exit(1)


def _failure(source: "Source") -> str:
    where = f" at byte {source.offset}" if source.offset is not None else ""
    # Of a table, rows behind those that cannot be read count as well.
    kept = {0: "", 1: "; the packet that was read counts"}.get(
        source.packets, f"; the {source.packets:,} packets that were read count"
    )
    return f"{source.name}: {source.error}{where}{kept}"


@contextmanager
def _progress(files: list[str], total: int | None) -> "Iterator[Progress]":
    name = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    done = 0
    with progress(f"analysing {name}", total, in_bytes=True) as advance:

        def tell(read: int, _packets: int) -> None:
            nonlocal done
            done += read
            advance(done)

        yield tell


def _show(analysis: "Analysis", by: Measure, top: int, *, buckets: bool, windows: bool) -> None:
    out = console()
    out.print(_headline(analysis))
    out.print()
    out.print(load_table("queue", analysis.by_queue, by))
    out.print(_evenness(analysis, by))
    if buckets:
        out.print()
        out.print(load_table("bucket", analysis.by_bucket, by, analysis.rss.indirection_table))
    for table in _windows(analysis, by, out.width) if windows else ():
        out.print()
        out.print(table)
    out.print()
    out.print(_reports(analysis))
    if analysis.unhashed.any():
        out.print()
        out.print(_unhashed(analysis))
    if top and len(analysis.flows):
        out.print()
        out.print(_flows(analysis, by, top))


def load_table(
    name: str, load: "Load", by: Measure, queues: "Sequence[int] | None" = None
) -> "Table":
    """Packets, bytes and flows in rows, with a bar of what load is counted in."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in (name, *(["queue"] if queues else []), *load._fields, _OF_THE_MEAN):
        table.add_column(heading, justify="right")
    table.add_column("")
    loads = getattr(load, by.value)
    mean = float(loads.mean()) or 1.0
    widest = max(float(loads.max()) / mean, 1.0)
    for number, row in enumerate(zip(*(amounts.tolist() for amounts in load), strict=True)):
        share = float(loads[number]) / mean
        bar = Text("█" * round(share / widest * _BAR), style="green" if share < 1.25 else "yellow")
        queue = [str(queues[number])] if queues else []
        table.add_row(str(number), *queue, *(f"{n:,}" for n in row), f"{share:.0%}", bar)
    return table


def _headline(analysis: "Analysis") -> str:
    from vnethash.analysis.text import count, moment

    amounts = (
        count(analysis.packets, "packet"),
        count(analysis.bytes, "byte"),
        count(len(analysis.flows), "flow"),
    )
    text = f"{', '.join(amounts)} in {count(len(analysis.sources), 'file')}"
    windows = analysis.windows
    if windows is not None and len(windows.starts_ns):
        first, last = int(windows.starts_ns[0]), int(windows.starts_ns[-1]) + windows.length_ns
        text += f"\n{moment(first, fine=True)} to {moment(last, fine=True)} UTC"
    if analysis.captured_short:
        text += f"\n{count(analysis.captured_short, 'packet')} captured short"
    return text


def _evenness(analysis: "Analysis", by: Measure) -> str:
    import numpy as np

    from vnethash.analysis.statistics import evenness, over_time
    from vnethash.analysis.text import duration, moment

    even = evenness(getattr(analysis.by_queue, by.value))
    text = (
        f"by {by.value}: busiest queue {even.imbalance:.2f} times the mean, "
        f"coefficient of variation {even.variation:.2f}"
    )
    course = over_time(analysis, by)
    if len(course.imbalances) > 1 and analysis.windows is not None:
        text += (
            f"\nin windows of {duration(analysis.windows.length_ns)}: "
            f"median {np.median(course.imbalances):.2f}, "
            f"worst {course.imbalances.max():.2f} at {moment(course.worst_ns, fine=True)}"
        )
    return text


def _windows(analysis: "Analysis", by: Measure, width: int) -> "Iterator[Table]":
    """A row for each window and a column for each queue, in as many tables as the width takes."""
    from vnethash.analysis.text import moment

    if analysis.windows is None:
        return
    loads = analysis.windows.by_queue(analysis.rss)[by is Measure.BYTES]
    times = [moment(start, fine=True) for start in analysis.windows.starts_ns.tolist()]
    cells = [[f"{load:,}" for load in row] for row in loads.tolist()]
    busiest = [f"{row.max() / (row.mean() or 1.0):.0%}" for row in loads]
    ends = len(max(times, key=len, default="")) + len(_OF_THE_MEAN) + _GAP
    column = max((len(cell) for row in cells for cell in row), default=0) + _GAP
    at_once = max((width - ends) // column, 1)
    queues = analysis.rss.queues
    for first in range(0, queues, at_once):
        shown = range(first, min(first + at_once, queues))
        whole = shown.stop == queues
        table = _table("window", *map(str, shown), *([_OF_THE_MEAN] if whole else []))
        for time, row, share in zip(times, cells, busiest, strict=True):
            table.add_row(time, *row[shown.start : shown.stop], *([share] if whole else []))
        yield table


def _reports(analysis: "Analysis") -> "Table":
    from vnethash.virtio.hash_types import ReportType

    table = _table("report type", "packets", "bytes", "flows")
    for report, *row in zip(ReportType, *analysis.by_report, strict=True):
        if row[0]:
            table.add_row(report.name, *(f"{int(n):,}" for n in row))
    return table


def _unhashed(analysis: "Analysis") -> "Table":
    from vnethash.analysis import Reason
    from vnethash.analysis.words import REASONS, ether_type

    table = _table("not hashed", "packets", "bytes")
    for reason, (packets, octets) in zip(Reason, analysis.unhashed.tolist(), strict=True):
        if packets:
            table.add_row(REASONS[reason], f"{packets:,}", f"{octets:,}")
        if reason is Reason.NOT_IP:
            most = sorted(analysis.ether_types.items(), key=lambda item: (-item[1], item[0]))
            for number, count in most[:_ETHER_TYPES_SHOWN]:
                table.add_row(f"  {ether_type(number)}", f"{count:,}", "")
    return table


def _flows(analysis: "Analysis", by: Measure, top: int) -> "Table":
    from vnethash.analysis.flows import flow_text
    from vnethash.analysis.summary import heaviest

    table = _table("flow", "packets", "bytes", "share", "hash", "bucket", "queue")
    total = max(analysis.packets if by is Measure.PACKETS else analysis.bytes, 1)
    for number in heaviest(analysis.flows, top, by):
        flow = analysis.flows[number]
        value = "-" if analysis.anonymous else f"{flow['hash_value']:#010x}"
        hashed = [value, f"{analysis.flow_buckets[number]}"]
        table.add_row(
            flow_text(flow),
            f"{flow['packets']:,}",
            f"{flow['bytes']:,}",
            f"{int(flow[by.value]) / total:.1%}",
            *(hashed if flow["report"] else ("-", "-")),
            f"{analysis.flow_queues[number]}",
        )
    return table


def _table(first: str, *others: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
