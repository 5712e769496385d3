# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What the commands print: results on stdout, errors and progress on stderr."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vnethash.errors import ConfigError, VnethashError

if TYPE_CHECKING:
    from rich.console import Console

# Tables in a file or a pipe need not fit a terminal: they are as wide as they need.
_PIPE_WIDTH = 10_000


@cache
def console() -> "Console":
    """The rich console on stdout. Text is printed as it is: style with `Text` or ``style``."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    # An address in brackets is no markup, and between colons is no emoji.
    return Console(width=width, highlight=False, markup=False, emoji=False)


@cache
def error_console() -> "Console":
    """The rich console on stderr, like `console`."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def _plain(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return value.hex()
    if hasattr(value, "__index__"):  # integers of numpy
        return int(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def json_line(value: object) -> str:
    """`value` as one line of JSON; bytes become hexadecimal."""
    return json.dumps(value, default=_plain, allow_nan=False)


def emit_json(value: object, *, flush: bool = False) -> None:
    """Print `value` as one line of JSON, in one write.

    `flush` at once where lines come slowly (``--watch``); all else is
    flushed when the command ends.
    """
    sys.stdout.write(json_line(value) + "\n")
    if flush:
        sys.stdout.flush()


def _printable(text: str) -> str:
    """One line without control characters, which an argument may carry."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def print_error(message: str, *, kind: str, hint: str | None, as_json: bool, **extra: str) -> None:
    """One error on stderr: a line and a hint, or one JSON object."""
    if as_json:
        error = {"error": message, "kind": kind, "hint": hint, **extra}
        print(json_line(error), file=sys.stderr, flush=True)
        return
    from rich.text import Text

    console = error_console()
    line = Text.assemble("vnethash: ", ("error: ", "bold red"), _printable(message))
    console.print(line, soft_wrap=True)
    if hint:
        hint_line = Text.assemble("vnethash: ", ("hint: ", "bold"), _printable(hint))
        console.print(hint_line, soft_wrap=True)


def print_failure(error: VnethashError, *, as_json: bool) -> None:
    """Print a vnethash error; a `ConfigError` adds ``field`` and ``rule`` to its JSON."""
    extra = {"field": error.field, "rule": error.rule} if isinstance(error, ConfigError) else {}
    print_error(error.message, kind=type(error).__name__, hint=error.hint, as_json=as_json, **extra)


def check_output(file: Path, option: str = "output", inputs: Iterable[str] = ()) -> None:
    """See that ``file`` can be written, before long work, and is none of what is read.

    Raises ConfigError.
    """
    if str(file) == "-":
        raise ConfigError(option, "- is no file", hint="/dev/stdout is standard output")
    if os.path.realpath(file) in map(os.path.realpath, inputs):
        raise ConfigError(option, f"{file} is named already, and would be written over")
    if file.is_dir():
        raise ConfigError(option, f"{file} is a folder", hint="name a file in it")
    if not file.parent.is_dir():
        raise ConfigError(option, f"there is no folder {file.parent}", hint="make it first")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ConfigError(option, f"no permission to write {file}")


@contextmanager
def progress(
    description: str, total: int | None = None, *, in_bytes: bool = False
) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr while the block runs, if stderr is a terminal.

    Yields a function that takes how far the work has come, in the unit of
    `total`; without a total the bar only shows that something moves. For bytes
    it shows how many a second and the time that is left as well.
    """
    if not sys.stderr.isatty():
        yield lambda completed: None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False), BarColumn()]
    if in_bytes:
        columns += [DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    else:
        done = "{task.completed}/{task.total}" if total is not None else "{task.completed}"
        columns += [TextColumn(done), TimeElapsedColumn()]
    # The bar takes sys.stdout over to write above itself: right on a terminal,
    # but a file or a pipe must get its lines.
    bar_above = sys.stdout.isatty()
    with Progress(
        *columns, console=error_console(), transient=True, redirect_stdout=bar_above
    ) as bar:
        task = bar.add_task(_printable(description), total=total)
        yield lambda completed: bar.update(task, completed=completed)
