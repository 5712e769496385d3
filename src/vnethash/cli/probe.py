# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash probe``: what this kernel and these rights allow."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vnethash.cli.options import JsonOption
from vnethash.cli.verifier_log import VerifierLogOption, verifier_log
from vnethash.errors import ConfigError, VnethashError

if TYPE_CHECKING:
    from vnethash.engines.select import Choice
    from vnethash.engines.verifier import Loaded
    from vnethash.kernel.probe import AttachPoint, ProbeResult
    from vnethash.rss.native import BulkMethod

_STYLES = {"available": "green", "unsupported": "red", "inconclusive": "yellow"}


def probe_command(
    verifier: Annotated[
        bool,
        typer.Option(
            "--verifier", help="Load the programs too, and show what the verifier made of them."
        ),
    ] = False,
    program: Annotated[
        list[Path] | None,
        typer.Option(
            "--program",
            "-p",
            metavar="FILE",
            help="With --verifier: object of a hash program to load as well; repeat.",
        ),
    ] = None,
    log: VerifierLogOption = None,
    json: JsonOption = False,
) -> None:
    """Show what this kernel and these rights allow, and what auto would take.

    Fails (exit code 1) if no engine can work here, or with --verifier if the
    verifier rejects a program.
    """
    if program and not verifier:
        raise ConfigError("program", "is for the verifier", hint="give --verifier as well")
    from vnethash.engines.select import choose
    from vnethash.kernel.probe import AttachPoint, best_attach_point, probe_all

    results = probe_all()
    choice: Choice | None = None
    failure: VnethashError | None = None
    try:
        choice = choose()
    except VnethashError as error:
        failure = error
    try:
        point = best_attach_point()
    except VnethashError as error:
        point = AttachPoint(None, error.message)
    loaded: list[Loaded] = []
    if verifier and failure is None:
        try:
            with verifier_log(log):
                loaded = _verify(program or [])
        except VnethashError as error:
            failure = error
    if json:
        _print_json(results, choice, point, loaded if verifier else None)
    else:
        _print_tables(results, choice, point)
        if loaded:
            _print_verified(loaded)
    if failure is not None:
        raise failure


def _verify(programs: "list[Path]") -> "list[Loaded]":
    from vnethash.engines.verifier import verify

    return [verify(), *map(verify, programs)]


def _print_json(
    results: "list[ProbeResult]",
    choice: "Choice | None",
    point: "AttachPoint",
    loaded: "list[Loaded] | None",
) -> None:
    from vnethash.cli.output import emit_json

    emit_json(
        {
            "features": {
                r.name: {"state": r.state.value, "reason": r.reason, "needs": r.needs}
                for r in results
            },
            "engine": None
            if choice is None
            else {
                "name": choice.name,
                "reason": choice.reason,
                "rejected": dict(choice.rejected),
            },
            "attach_point": {"name": point.name, "reason": point.reason},
            "bulk_hashing": [method.title for method in _bulk_methods()],
            **({} if loaded is None else {"verifier": [_object_json(each) for each in loaded]}),
        }
    )


def _object_json(loaded: "Loaded") -> dict[str, Any]:
    return {
        "object": loaded.name,
        "load_seconds": loaded.seconds,
        "programs": {
            each.name: {
                "verified": each.verified or None,
                "verifier_seconds": each.seconds,
                "instructions": each.instructions,
                "machine_code": each.machine_code,
            }
            for each in loaded.programs
        },
    }


def _print_verified(loaded: "list[Loaded]") -> None:
    from rich.table import Table

    from vnethash.cli.output import console

    table = Table(box=None, pad_edge=False)
    table.add_column("object, program")
    for title in ("verified", "in ms", "instructions", "machine code", "all loaded in ms"):
        table.add_column(title, justify="right")
    for each in loaded:
        took = f"{each.seconds * 1e3:.1f}"
        for number, program in enumerate(each.programs):
            table.add_row(
                f"{each.name}, {program.name}",
                f"{program.verified:,}" if program.verified else "-",
                "-" if program.seconds is None else f"{program.seconds * 1e3:.1f}",
                f"{program.instructions:,}",
                f"{program.machine_code:,} bytes" if program.machine_code else "interpreted",
                "" if number else took,
            )
    out = console()
    out.print()
    out.print(table)


def _print_tables(
    results: "list[ProbeResult]", choice: "Choice | None", point: "AttachPoint"
) -> None:
    from rich.table import Table
    from rich.text import Text

    from vnethash.cli.output import console
    from vnethash.engines.select import LAB

    table = Table("feature", "state", "why", "needs", box=None, pad_edge=False)
    for result in results:
        state = Text(result.state.value, style=_STYLES[result.state.value])
        table.add_row(result.name, state, Text(result.reason), Text(result.needs or ""))
    chosen = Table("what auto takes", "", "why", box=None, pad_edge=False)
    if choice is not None:
        chosen.add_row("engine", Text(choice.name, style="bold"), Text(choice.reason))
        for name, reason in choice.rejected:
            chosen.add_row("", Text(f"not {name}", style="dim"), Text(reason, style="dim"))
    if choice is None or choice.name not in LAB:  # those need no hook
        attach = Text(point.name, style="bold") if point.name else Text("none", style="yellow")
        chosen.add_row("attach point", attach, Text(point.reason))
    *slower, fastest = (method.title for method in _bulk_methods())
    others = f"also {', '.join(reversed(slower))}" if slower else "this CPU has nothing faster"
    chosen.add_row("bulk hashing", Text(fastest, style="bold"), Text(others))
    out = console()
    out.print(table)
    out.print()
    out.print(chosen)


def _bulk_methods() -> "tuple[BulkMethod, ...]":
    from vnethash.rss.native import bulk_methods

    return bulk_methods()
