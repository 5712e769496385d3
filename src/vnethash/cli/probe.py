# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash probe``: what this kernel and these rights allow."""

from typing import TYPE_CHECKING

from vnethash.cli.options import JsonOption
from vnethash.errors import VnethashError

if TYPE_CHECKING:
    from vnethash.engines.select import Choice
    from vnethash.kernel.probe import AttachPoint, ProbeResult

_STYLES = {"available": "green", "unsupported": "red", "inconclusive": "yellow"}


def probe_command(json: JsonOption = False) -> None:
    """Show what this kernel and these rights allow, and what auto would take.

    Fails (exit code 1) if no engine can work here.
    """
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
    if json:
        _print_json(results, choice, point)
    else:
        _print_tables(results, choice, point)
    if failure is not None:
        raise failure


def _print_json(
    results: "list[ProbeResult]", choice: "Choice | None", point: "AttachPoint"
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
        }
    )


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
    out = console()
    out.print(table)
    out.print()
    out.print(chosen)
