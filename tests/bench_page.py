# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The tables of docs/benchmarks.md that are made from bench/results.json."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vnethash.bench import scale
from vnethash.bench.measure import Row, Summary
from vnethash.bench.report import Run

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
COMMAND = "VNETHASH_WRITE_DOCS=1 make test ARGS=tests/unit/test_bench.py"

_PLACE = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(\n<!-- end -->)", re.DOTALL)

RATIO, VALUE = "ratio", "value"


@dataclass(frozen=True, slots=True)
class Column:
    """A variant, and what of it: its value, its ratio, or a part by name."""

    title: str
    variant: str
    what: str = VALUE


_ALL_STAGES = {
    "hash stage": "hash stage, ns",
    "hash program": "hash program, ns",
    "hash stage, tunnels on": "tunnels on, ns",
}
_PATH = {
    "bit by bit": "bit by bit",
    "ebpf off": "`off`",
    "ebpf record": "`record`",
    "ebpf rehash": "`rehash`",
}


def tables(run: Run, apart: Run) -> dict[str, str]:
    """Markdown of each, by name; ``apart`` is the run of those that read captures."""
    kinds = _cases(run, "stages", lambda case: case != "verifier")
    known = {case: case for case in kinds if _find(run, "stages", case, "bit by bit")}
    received = _cases(run, "vhost", lambda case: case.startswith("receive"), "receive, ")
    sent = _cases(run, "vhost", lambda case: case.startswith("transmit"), "transmit, ")
    queues = ("drained", "backlogged", "full")
    return {
        "machine": _machine(run),
        "against": _across(
            run,
            "stages",
            known,
            [
                Column("hash stage, ns", "hash stage"),
                Column("QEMU's, ns", "QEMU's"),
                Column("padded, ns", "bit by bit, padded"),
                Column("bit by bit, ns", "bit by bit"),
                Column("QEMU's / hash stage", "QEMU's / hash stage"),
                Column("padded / hash stage", "bit by bit, padded / hash stage"),
                Column("bit by bit / hash stage", "bit by bit / hash stage"),
            ],
            "packet",
        ),
        "stages": _across(
            run, "stages", kinds, [Column(t, v) for v, t in _ALL_STAGES.items()], "packet"
        ),
        "once": _across(
            run,
            "stages",
            {case: case for case in ("IPv4/TCP", "IPv6/TCP")},
            [
                Column("hash stage, once, ns", "hash stage, once"),
                Column("with record, once, ns", "with record, once"),
            ],
            "packet",
        ),
        "verifier": _down(run, "stages", {"verifier": "instructions the verifier went through"}),
        "layouts": _across(
            run,
            "layouts",
            _cases(run, "layouts"),
            [Column(name, name) for name in ("nibbles", "bytes", "11 bits", "16 bits")],
            "packet",
        ),
        "path": _across(
            run,
            "path",
            _cases(run, "path"),
            [
                Column("plain tap, ns", "plain tap"),
                *(Column(title, variant, RATIO) for variant, title in _PATH.items()),
                Column("software", "software", RATIO),
            ],
            "traffic",
        ),
        "tcp": _across(
            run,
            "tcp",
            _cases(run, "tcp"),
            [
                Column("plain tap, us a MiB", "plain tap"),
                Column("packets a MiB", "plain tap", "packets"),
                *(Column(title, variant, RATIO) for variant, title in _PATH.items()),
            ],
        ),
        "receive": _across(
            run,
            "vhost",
            received,
            [
                Column("bare, ns", "bare"),
                Column("spread", "bare, spread", RATIO),
                Column("records", "bare, records", RATIO),
                *(Column(f"`{name}`", name, RATIO) for name in ("off", "record", "rehash")),
            ],
        ),
        "unmerged": _across(
            run,
            "vhost",
            received,
            [
                *(
                    Column(f"`{name}`", f"{name}, unmerged", RATIO)
                    for name in ("off", "record", "rehash")
                ),
                Column("`record` to `off`", "record, unmerged", "of off"),
                Column("the same, mergeable", "record", "of off"),
            ],
            "unmerged",
        ),
        "kpps": _across(
            run,
            "vhost",
            received,
            [
                *(
                    Column(f"{title}, kpps", name, "kpps")
                    for name, title in (("bare", "bare"), ("off", "`off`"), ("record", "`record`"))
                ),
                *(
                    Column(f"{title}, CPU ns", name, "cpu")
                    for name, title in (("bare", "bare"), ("off", "`off`"), ("record", "`record`"))
                ),
            ],
        ),
        "transmit": _across(
            run,
            "vhost",
            sent,
            [
                Column("bare, ns", "bare"),
                Column("12 bytes", "off", RATIO),
                Column("20 bytes", "record", RATIO),
            ],
        ),
        "roundtrip": _down(run, "vhost", {"round trip, 64 B": "us"}, ratio="times bare"),
        "pairs": _down(run, "vhost", {"pairs, 64 B": "CPU ns"}, ratio="times bare"),
        "bulk": _down(
            run,
            "bulk",
            {
                "hash IPv4/TCP": "IPv4 and ports (12 bytes), ns",
                "hash IPv6/TCP": "IPv6 and ports (36 bytes), ns",
            },
        ),
        "frames": _down(
            run,
            "bulk",
            {
                "frames, IPv4": "IPv4/TCP, 60 B",
                "frames, IPv6": "IPv6/TCP, 80 B",
                "frames, 1514 B": "IPv4/TCP, 1514 B",
                "frames, mixed": "mixed",
            },
        ),
        "classify": _down(run, "bulk", {"classify": "ns a frame"}),
        "startup": _down(run, "startup", {"4 queues": "ms", "process": "ms"}),
        "adaptive": _across(
            run,
            "adaptive",
            {case: case for case in queues},
            [
                Column("imbalance, fixed", "fixed"),
                Column("adaptive", "adaptive"),
                Column("lost %, fixed", "fixed", "lost %"),
                Column("adaptive", "adaptive", "lost %"),
                Column("late %, adaptive", "adaptive", "late %"),
            ],
            "queues",
        ),
        "counting": _across(
            run,
            "adaptive",
            {case: case for case in ("IPv4/TCP", "IPv6/TCP", "verifier")},
            [
                Column("does not count", "fixed"),
                Column("counts", "adaptive"),
                Column("ratio", "adaptive", RATIO),
            ],
        ),
        "scale": _scale(run),
        **_captures(apart),
    }


def _captures(run: Run) -> dict[str, str]:
    alone = ("a million flows", "1514 B", "small frames, gzip", "small frames, zstd")
    return {
        "captures_machine": _machine(run),
        "captures": _down(run, "captures", {"small frames": "ns a packet"}, ratio="of dpkt"),
        "captures_others": _across(
            run,
            "captures",
            {case: case for case in alone},
            [Column("ns a packet", "analyze")],
            "packets",
        ),
        "captures_memory": _across(
            run,
            "captures",
            _cases(run, "captures", lambda case: case.startswith("memory")),
            [Column("MB", "analyze")],
        ),
        "cluster": _across(
            run,
            "cluster",
            _cases(run, "cluster"),
            [
                Column("local", "local"),
                *(
                    Column(f"{name}, times local", name, RATIO)
                    for name in dict.fromkeys(row.variant for row in run.of("cluster"))
                    if name != "local"
                ),
            ],
        ),
    }


def _machine(run: Run) -> str:
    on = run.machine
    return (
        f"{on['cpu']}, {on['cpus']} CPUs, Linux {on['kernel']}, Python {on['python']}, "
        f"{run.effort.rounds} rounds, load {on['load']} at the start.\n"
    )


def _cases(run: Run, benchmark: str, wanted: object = None, prefix: str = "") -> dict[str, str]:
    """Cases of a benchmark in their order, and what they are called without the prefix."""
    found = dict.fromkeys(row.case for row in run.of(benchmark))
    chosen = [case for case in found if not callable(wanted) or wanted(case)]
    return {case: case.removeprefix(prefix) for case in chosen}


def _find(run: Run, benchmark: str, case: str, variant: str) -> Row | None:
    rows = (row for row in run.of(benchmark) if (row.case, row.variant) == (case, variant))
    return next(rows, None)


def _told_of(row: Row | None, what: str) -> str:
    if row is None:
        return ""
    summary = {VALUE: row.value, RATIO: row.ratio, **row.parts}.get(what)
    return "" if summary is None else _told(summary, row.unit if what == VALUE else "")


def _told(value: Summary, unit: str = "") -> str:
    def number(one: float) -> str:
        return f"{one:.3g}" if abs(one) < 100 else f"{one:.0f}"

    if unit == "insns":
        return f"{value.median:.0f}"
    text = number(value.median)
    return text if value.count == 1 else f"{text} ({number(value.low)} to {number(value.high)})"


def _across(
    run: Run,
    benchmark: str,
    cases: Mapping[str, str],
    columns: Sequence[Column],
    corner: str = "",
) -> str:
    """A row for each case."""
    lines = [
        [label, *(_told_of(_find(run, benchmark, case, one.variant), one.what) for one in columns)]
        for case, label in cases.items()
    ]
    return _markdown([corner, *(column.title for column in columns)], lines)


def _down(run: Run, benchmark: str, cases: Mapping[str, str], *, ratio: str = "") -> str:
    """A row for each variant; cases in columns of the same title share one."""
    variants = dict.fromkeys(row.variant for row in run.of(benchmark) if row.case in cases)
    titles = list(dict.fromkeys(cases.values()))
    lines = []
    for variant in variants:
        line = [variant]
        for title in titles:
            found = [_find(run, benchmark, case, variant) for case in cases if cases[case] == title]
            line.append("".join(_told_of(row, VALUE) for row in found))
            if ratio:
                line.append("".join(_told_of(row, RATIO) for row in found))
        lines.append(line)
    heads = [head for title in titles for head in ([title, ratio] if ratio else [title])]
    return _markdown(["", *heads], lines)


def _scale(run: Run) -> str:
    rows = run.of(scale.NAME)
    cases = (scale.ATTACH, scale.MEMORY, scale.RECONFIGURE, scale.PACKET, scale.AGAIN)
    units = {row.case: row.unit for row in rows}
    lines = [
        [size, *(_told_of(_find(run, scale.NAME, case, size), VALUE) for case in cases)]
        for size in dict.fromkeys(row.variant for row in rows)
    ]
    return _markdown(["", *(f"{case}, {units[case]}" for case in cases)], lines)


def _markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    table = [heads, ["---"] * len(heads), *lines]
    return "".join("| " + " | ".join(line) + " |\n" for line in table)


def on_page(page: Path = PAGE) -> dict[str, str]:
    """What is there now, by name."""
    return {name: text for _, name, text, _ in _PLACE.findall(page.read_text())}


def write(found: Mapping[str, str], page: Path = PAGE) -> None:
    """Put each into its place."""
    page.write_text(_PLACE.sub(lambda at: f"{at[1]}{found[at[2]]}{at[4]}", page.read_text()))
