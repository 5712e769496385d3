# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash lab``: kernels of our own, built and run."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from vnethash.cli.options import JsonOption
from vnethash.cli.output import console, emit_json, error_console, print_failure
from vnethash.errors import ConfigError

if TYPE_CHECKING:
    from vnethash.lab.build import Progress, Report
    from vnethash.lab.kernels import BuiltKernel
    from vnethash.lab.options import Option

EXIT_GUEST_DIED = 125

# Seconds between lines where no bar can be drawn.
_LINE_EVERY = 15.0


def build_command(
    names: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME", help="Of `lab list`; repeat (default all)."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", metavar="N", min=1, help="Compile N files at a time."),
    ] = None,
    keep_tree: Annotated[
        bool,
        typer.Option("--keep-tree/--no-keep-tree", help="Keep the unpacked source (2.3 GB) too."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Build the kernels of the lab, each once.

    The distribution's kernel source with the patches in lab/patches, for
    user-mode-linux. What is built is kept in ~/.cache/vnethash/lab, or where
    VNETHASH_LAB_CACHE says; what has not changed since is not built again.
    """
    from vnethash.lab.build import build
    from vnethash.lab.errors import BuildError
    from vnethash.lab.options import select

    chosen = select(names or ())

    def done(kernel: "BuiltKernel", fresh: bool) -> None:
        if json:
            emit_json({"event": "kernel", "built": fresh, **kernel.to_json()}, flush=True)
        else:
            took = f"built in {_duration(_seconds(kernel))}" if fresh else "there already"
            console().print(
                f"{kernel.option}: {kernel.release}, {took}, {kernel.path}", soft_wrap=True
            )

    with terminable(), _watching(as_json=json) as progress:
        try:
            build(chosen, jobs=jobs, keep_tree=keep_tree, progress=progress, done=done)
        except BuildError as error:
            if not json:
                error_console().print(error.tail, style="dim", end="", soft_wrap=True)
            raise


def run_command(
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="What to run there.")],
    name: Annotated[
        str, typer.Option("--option", "-o", metavar="NAME", help="The kernel, of `lab list`.")
    ],
    mem: Annotated[str, typer.Option(metavar="SIZE", help="Memory of the guest.")] = "512M",
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=1, help="End the command after so long (exit 124)."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="NAME=VALUE", help="Set in its environment; repeat."),
    ] = None,
) -> None:
    """Run a command as root on a kernel of the lab.

    The guest sees the host's files, read-only; /run and what TMPDIR and HOME
    name are its own. `vnethash` there is this one. Exits as the command does;
    124 when it took too long, 125 when the guest died.
    """
    from vnethash.lab import uml
    from vnethash.lab.errors import GuestError
    from vnethash.lab.kernels import built
    from vnethash.lab.options import checkout, select

    variables = dict(_variable(text) for text in env or ())
    _check_memory(mem)
    (option,) = select([name])
    kernel = built(option)
    if kernel is None:
        raise ConfigError(
            "option",
            f"{name} is not built, or not from what is there now",
            hint=f"vnethash lab build --option {name}",
        )
    root, here = checkout(), Path.cwd()
    try:
        with terminable():
            result = uml.run(
                kernel.kernel,
                command,
                timeout=timeout,
                mem=mem,
                env=variables,
                cwd=here if here.is_relative_to(root) else root,
                show=_show,
            )
    except GuestError as error:
        error_console().print(error.console[-4000:], style="dim", end="", soft_wrap=True)
        print_failure(error, as_json=False)
        raise typer.Exit(EXIT_GUEST_DIED) from error
    raise typer.Exit(result.exit_status)


def list_command(json: JsonOption = False) -> None:
    """List the kernels of the lab, and which are built."""
    from vnethash.lab import cache
    from vnethash.lab.options import options

    folder = cache.location()
    states = [_state(option, folder) for option in options()]
    if json:
        for option, state, kernel in states:
            built = kernel.to_json() if kernel else {}
            emit_json({"option": option.name, "summary": option.summary, "state": state, **built})
        return
    from rich.table import Table
    from rich.text import Text

    styles = {"built": "green", "outdated": "yellow"}
    table = Table("option", "what", "state", "key", box=None, pad_edge=False)
    for column in ("size", "age"):
        table.add_column(column, justify="right", no_wrap=True)
    for option, state, kernel in states:
        cells = [Text(option.name, style="bold"), Text(option.summary)]
        cells.append(Text(state, style=styles.get(state, "dim")))
        if kernel:
            age = time.time() - kernel.built_at.timestamp()
            cells += [Text(kernel.key), Text(_mega(kernel.size)), Text(_duration(age))]
        table.add_row(*cells)
    console().print(table)
    console().print(f"in {folder / 'kernels'}", style="dim", soft_wrap=True)


def clean_command(json: JsonOption = False) -> None:
    """Remove what the lab keeps: kernels, source, logs."""
    from vnethash.lab import cache

    folder = cache.location()
    with terminable():
        freed = cache.clean(folder)
    if json:
        emit_json({"path": str(folder), "freed": freed})
    else:
        console().print(f"{folder}: {_mega(freed)} removed", soft_wrap=True)


def _state(option: "Option", folder: Path) -> "tuple[Option, str, BuiltKernel | None]":
    """``built``; ``outdated``: from other patches, source or tools; or ``not built``."""
    from vnethash.lab import kernels
    from vnethash.lab.errors import LabError

    try:
        kernel = kernels.built(option, folder)
    except LabError:
        return option, "no patches", None
    if kernel:
        return option, "built", kernel
    others = kernels.of_option(option, folder)
    return (option, "outdated", others[0]) if others else (option, "not built", None)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConfigError("env", f"{text!r} is not of the form NAME=VALUE")
    return name, value


def _check_memory(size: str) -> None:
    number, unit = size[:-1], size[-1:].upper()
    if not number.isascii() or not number.isdigit() or unit not in ("M", "G"):
        raise ConfigError("mem", f"{size!r} is not a size such as 512M or 1G")
    if int(number) * (1024 if unit == "G" else 1) < 64:
        raise ConfigError("mem", "a guest needs 64M or more")


def _show(part: bytes) -> None:
    sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


def _stop(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the block as Ctrl-C does, so that nothing is left running."""
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _watching(*, as_json: bool) -> "Iterator[Report]":
    """Shows progress: a bar on a terminal, else a line now and then."""
    if as_json:
        yield _Lines(lambda progress, seconds: emit_json(_to_json(progress, seconds), flush=True))
    elif not sys.stderr.isatty():
        yield _Lines(_print_line)
    else:
        from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[files]}"),
            TimeElapsedColumn(),
        )
        out = sys.stdout.isatty()  # see cli/output.py
        with Bar(*columns, console=error_console(), transient=True, redirect_stdout=out) as bar:
            task: TaskID = bar.add_task("", total=None, files="")

            def show(progress: "Progress") -> None:
                bar.update(
                    task,
                    description=_title(progress),
                    completed=progress.done,
                    total=progress.total,
                    files=_files(progress),
                )

            yield show


class _Lines:
    """Passes on each new step, and where it is every `_LINE_EVERY` seconds."""

    def __init__(self, show: "Callable[[Progress, float], None]") -> None:
        self._show = show
        self._begun = time.monotonic()
        self._last: tuple[str | None, str] | None = None
        self._due = 0.0

    def __call__(self, progress: "Progress") -> None:
        now, step = time.monotonic(), (progress.option, progress.step)
        if step != self._last or now >= self._due:
            self._show(progress, now - self._begun)
            self._last, self._due = step, now + _LINE_EVERY


def _print_line(progress: "Progress", seconds: float) -> None:
    parts = [_title(progress), _files(progress), _duration(seconds)]
    print("vnethash:", ", ".join(part for part in parts if part), file=sys.stderr, flush=True)


def _to_json(progress: "Progress", seconds: float) -> dict[str, object]:
    return {
        "event": "progress",
        "option": progress.option,
        "step": progress.step,
        "done": progress.done,
        "total": progress.total,
        "seconds": round(seconds, 1),
    }


def _title(progress: "Progress") -> str:
    return f"{progress.option}: {progress.step}" if progress.option else progress.step


def _files(progress: "Progress") -> str:
    if progress.total is not None:
        return f"{progress.done} of about {progress.total} files"
    return f"{progress.done} files" if progress.done else ""


def _seconds(kernel: "BuiltKernel") -> float:
    return float(sum(kernel.manifest["seconds"].values()))


def _mega(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h" if whole < 48 * 3600 else f"{whole // 86400} d"
