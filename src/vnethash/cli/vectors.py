# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash vectors``: does an implementation conform, and where not."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vnethash.cli.options import JsonOption
from vnethash.cli.output import console, emit_json, error_console, progress
from vnethash.errors import ConfigError, VnethashError
from vnethash.vectors.engines import Engine
from vnethash.vectors.export import Format
from vnethash.vectors.report import By
from vnethash.writing import write

if TYPE_CHECKING:
    from vnethash.vectors.answer import Answer, Result
    from vnethash.vectors.model import Vector, VectorFile
    from vnethash.vectors.report import Report

OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="PATTERN",
        help="Only vectors of this topic, or whose id fits a pattern such as 'ipv4/*tcp*'; "
        "may be given again.",
    ),
]


def check_command(
    command: Annotated[
        str | None,
        typer.Option(
            "--command",
            metavar="CMD",
            help="Program under test: reads requests as JSON lines, writes answers the same way.",
        ),
    ] = None,
    engine: Annotated[
        Engine | None,
        typer.Option(
            "--engine",
            "-e",
            case_sensitive=False,
            help="One of vnethash itself instead: the native core (default), the reference "
            "in Python, or the hash stage in the kernel.",
        ),
    ] = None,
    only: OnlyOption = None,
    types: Annotated[
        str | None,
        typer.Option(
            "--types",
            "-t",
            metavar="LIST",
            help="Hash types that are supported; no other is enabled then (default all).",
        ),
    ] = None,
    tunnels: Annotated[
        str | None,
        typer.Option(
            "--tunnels",
            "-T",
            metavar="LIST",
            help="Tunnel types that are supported, or none; no other is enabled then "
            "(default all).",
        ),
    ] = None,
    by: Annotated[
        By, typer.Option("--by", case_sensitive=False, help="What a row of the table is.")
    ] = By.TOPIC,
    failures: Annotated[
        int,
        typer.Option(
            "--failures", metavar="N", min=0, help="Failures to show of each row; 0: all."
        ),
    ] = 1,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0.1, help="How long the program may answer nothing."
        ),
    ] = 10.0,
    json: JsonOption = False,
) -> None:
    """Run an implementation against the vectors; print a conformance table.

    Exit code 1 if a vector failed that the specification decides, or had no
    answer. See docs/vectors.md for what the program reads and writes.
    """
    from vnethash.vectors import load
    from vnethash.vectors.answer import judge
    from vnethash.vectors.files import choose
    from vnethash.vectors.report import Report
    from vnethash.vectors.restrict import restrict
    from vnethash.virtio.hash_types import parse_hash_types, parse_tunnel_types

    if command is not None and engine is not None:
        raise ConfigError("engine", "cannot be given together with a command")
    files = choose(load(), only or [])
    files = restrict(files, parse_hash_types(types or "all"), parse_tunnel_types(tunnels or "all"))
    vectors = [vector for file in files for vector in file.vectors]
    answers, failure, note = _ask(vectors, command, engine or Engine.NATIVE, timeout)
    report = Report(tuple(judge(vector, answers.get(vector.id)) for vector in vectors))
    if json:
        _emit(report)
    else:
        _print(report, files, by, failures)
    if note:
        error_console().print(f"vnethash: {note}", soft_wrap=True)
    sys.stdout.flush()
    if failure is not None:
        raise failure
    if not report.conforms:
        raise typer.Exit(1)


def _ask(
    vectors: "list[Vector]", command: str | None, engine: Engine, timeout: float
) -> "tuple[dict[str, Answer], VnethashError | None, str]":
    """Answers by id, what went wrong, and what is odd."""
    with progress("asking", len(vectors)) as advance:
        if command is not None:
            from vnethash.vectors.process import converse, parse_command

            words = parse_command(command)
            talk = converse(words, vectors, timeout=timeout, advance=advance)
            return talk.answers, talk.failure, talk.note

        from vnethash.vectors.engines import ask

        answers = {}
        for name, answer in ask(engine, vectors):
            answers[name] = answer
            advance(len(answers))
        return answers, None, ""


def _emit(report: "Report") -> None:
    from vnethash.vectors.diagnose import diagnose
    from vnethash.vectors.report import result_json

    for result in report.results:
        guess = diagnose(result.vector, result.answer) if result.answer and result.wrong else ""
        emit_json(result_json(result, guess))
    emit_json({"summary": report.to_json()})


def _print(report: "Report", files: "list[VectorFile]", by: By, most: int) -> None:
    from rich.table import Table
    from rich.text import Text

    from vnethash.vectors.answer import Outcome
    from vnethash.vectors.report import count
    from vnethash.vectors.statements import STATEMENTS

    outcomes = [o for o in Outcome if o in (Outcome.PASSED, Outcome.FAILED) or report.total[o]]
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("")
    table.add_column(by)
    table.add_column("", overflow="fold")
    for outcome in outcomes:
        table.add_column(outcome, justify="right")
    titles = {file.topic: file.title for file in files}
    if by is By.STATEMENT:
        titles = {
            name: f"{section if not name.startswith('OPEN') else 'open'}: {text}"
            for name, (section, text) in STATEMENTS.items()
        }
    rows = report.rows(by)
    for name, row in rows.items():
        counted = count(row)
        mark = Text("✓", style="green")
        if counted[Outcome.FAILED] or counted[Outcome.UNANSWERED]:
            mark = Text("✗", style="red")
        elif counted[Outcome.DIFFERS] or not counted[Outcome.PASSED]:
            mark = Text("~", style="yellow")
        cells = (str(counted[outcome]) if counted[outcome] else "-" for outcome in outcomes)
        table.add_row(mark, name, titles.get(name, ""), *cells)
    console().print(table)

    for name, row in rows.items():
        wrong = [r for r in row if r.outcome is Outcome.FAILED]
        wrong += [r for r in row if r.outcome is Outcome.DIFFERS]
        for result in wrong[: most or None]:
            console().print()
            _print_wrong(result)
        if most and len(wrong) > most:
            console().print(f"\n... and {len(wrong) - most} more of {name}")
    console().print(f"\ncompared: {', '.join(report.told()) or 'nothing'}")
    mark = Text("✓ ", style="green") if report.conforms else Text("✗ ", style="red")
    console().print(mark + report.verdict(), soft_wrap=True)


def _print_wrong(result: "Result") -> None:
    from rich.text import Text

    from vnethash.vectors.answer import Outcome
    from vnethash.vectors.diagnose import diagnose

    vector, answer = result.vector, result.answer
    failed = result.outcome is Outcome.FAILED
    says = f"virtio 1.3, {vector.section}" if failed else "virtio leaves it open"
    says = f"{vector.statement}: {says}"
    line = Text.assemble(
        ("✗ failed " if failed else "~ differs ", "red" if failed else "yellow"),
        (vector.id, "bold"),
        f" ({says})",
    )
    console().print(line, soft_wrap=True)
    console().print(f"    {vector.reason}", soft_wrap=True)
    expected = vector.expected.to_json()
    told = answer.to_json() if answer else {}
    console().print(f"    expected  {_told(expected)}", soft_wrap=True)
    console().print(f"    answered  {_told(told)}", soft_wrap=True)
    guess = diagnose(vector, answer) if answer else ""
    if guess:
        console().print(f"    which is {guess}", soft_wrap=True)


def _told(values: Mapping[str, object]) -> str:
    report = values.get("hash_report")
    value = values.get("hash_value")
    parts = [] if report is None else [str(report)]
    if isinstance(value, int) and report != "NONE":
        parts.append(f"{value:#010x}")
    for name in ("index", "queue"):
        if values.get(name) is not None:
            parts.append(f"{name} {values[name]}")
    return ", ".join(parts)


def export_command(
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            case_sensitive=False,
            help="json: the files; jsonl: a vector a line; pcapng: the frames, with comments; "
            "c: a header with arrays.",
        ),
    ] = Format.JSONL,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to (default: standard output); a folder with --format json.",
        ),
    ] = None,
    only: OnlyOption = None,
) -> None:
    """Write the vectors for use elsewhere."""
    from vnethash.vectors import load
    from vnethash.vectors.export import render
    from vnethash.vectors.files import choose

    files = choose(load(), only or [])
    if form is Format.JSON:
        _export_folder(files, output)
        return
    data = render(files, form)
    if output is None or str(output) == "-":
        if form is Format.PCAPNG and sys.stdout.isatty():
            raise ConfigError("output", "is needed: a capture is nothing for a terminal")
        sys.stdout.buffer.write(data)
    else:
        write(output, data)


def _export_folder(files: "list[VectorFile]", folder: Path | None) -> None:
    from vnethash.vectors.files import SCHEMA, dump
    from vnethash.vectors.files import folder as source

    if folder is None or str(folder) == "-":
        raise ConfigError("output", "is needed with --format json", hint="name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / SCHEMA, (source() / SCHEMA).read_bytes())
    for file in files:
        write(folder / f"{file.topic}.json", dump(file))


def list_vectors_command(only: OnlyOption = None, json: JsonOption = False) -> None:
    """List the vectors: id, what is expected, what is tested."""
    from vnethash.vectors import load
    from vnethash.vectors.files import choose

    for file in choose(load(), only or []):
        for vector in file.vectors:
            if json:
                emit_json(vector.to_json())
            else:
                report = vector.expected.hash_report.name
                sys.stdout.write(f"{vector.id:<44} {report:<8}  {vector.reason}\n")


def show_vector_command(
    name: Annotated[str, typer.Argument(metavar="ID", help="A vector, as `list` names it.")],
    json: JsonOption = False,
) -> None:
    """Explain a vector: its frame, its configuration, and why it gets that hash."""
    from vnethash.rss.reference import explain
    from vnethash.vectors import load

    vector = next((v for f in load() for v in f.vectors if v.id == name), None)
    if vector is None:
        raise ConfigError("id", f"{name!r} is no vector", hint="see `vnethash vectors list`")
    explanation = explain(vector.frame, vector.config, l3=vector.is_raw)
    if json:
        emit_json(
            vector.to_json()
            | {"config": vector.config.to_json(), "explanation": explanation.to_json()}
        )
        return
    from rich.table import Table

    from vnethash.cli.hash import print_explanation, summary
    from vnethash.virtio.hash_types import format_hash_types

    says = "the specification" if vector.demand == "specification" else "open in the specification"
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    grid.add_row("vector", vector.id)
    grid.add_row("tests", vector.reason)
    grid.add_row("demand", f"{vector.statement}: {says} (virtio 1.3, {vector.section})")
    grid.add_row("headers", ", ".join(explanation.headers.seen) or "-")
    grid.add_row("types", ", ".join(format_hash_types(vector.config.hash_types)) or "none")
    console().print(grid)
    console().print()
    for at in range(0, len(vector.frame), 16):
        console().print(f"{at:04x}  {vector.frame[at : at + 16].hex(' ')}")
    console().print()
    console().print(summary(explanation))
    print_explanation(explanation, vector.config)
