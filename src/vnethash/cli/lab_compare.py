# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash lab compare``: the ways of reporting a hash, measured; and the page of it."""

import json as json_format
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from vnethash.cli.lab import terminable
from vnethash.cli.output import console
from vnethash.errors import ConfigError, VnethashError
from vnethash.writing import write

_PAGE = Path("docs", "three-ways.md")


def compare_command(
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure little: does it run at all? Writes no page.")
    ] = False,
    results_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results to a file.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="The page to write, its picture beside it (default docs/three-ways.md).",
        ),
    ] = None,
    from_json: Annotated[
        Path | None,
        typer.Option("--from-json", metavar="FILE", help="Measure nothing: take these results."),
    ] = None,
) -> None:
    """Measure the ways of reporting a hash on their kernels, and write docs/three-ways.md.

    On the kernels that `lab build` made, on Debian's user-mode-linux and on
    the running kernel; as root, or the last is left out. About 15 minutes.
    """
    from vnethash.lab.compare import measure, page, picture
    from vnethash.lab.options import checkout

    if from_json is not None:
        results = _read(from_json)
    else:
        begun = time.monotonic()

        def say(text: str) -> None:
            print(
                f"vnethash: {time.monotonic() - begun:.0f} s: {text}", file=sys.stderr, flush=True
            )

        chosen = measure.kernels()
        if not quick:
            page.require(chosen)  # before a quarter of an hour is spent
        with terminable():
            results = measure.measure(chosen, say, quick=quick)
    if results_file is not None:
        _write(results_file, json_format.dumps(results, indent=1) + "\n")
    failures = [
        f"{name}: {part}: {error}"
        for name, measured in results["kernels"].items()
        for part, error in measured["errors"].items()
    ]
    if failures:
        raise VnethashError(f"not all could be measured: {'; '.join(failures)}")
    if output is None and quick:
        return
    written = output or checkout() / _PAGE
    _write(written, page.render(results, page.template().read_text()))
    _write(written.with_suffix(".svg"), picture.draw(results))
    console().print(f"{written} and {written.with_suffix('.svg').name} written", soft_wrap=True)
    if unmet := page.claims(results):
        raise VnethashError(
            f"the page says what these results do not bear out: {'; '.join(unmet)}",
            hint=f"measure again on a quiet machine, or change {page.template()}",
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        results = json_format.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError("from-json", f"{path}: {error}") from error
    if not isinstance(results, dict):
        raise ConfigError("from-json", f"{path} holds no results of this command")
    return results


def _write(path: Path, text: str) -> None:
    try:
        write(path, text)
    except OSError as error:
        raise VnethashError(f"write {path}: {(error.strerror or str(error)).lower()}") from error
