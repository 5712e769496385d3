# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The kernels on which the kernel tests run, and how each is asked."""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tests.effort import PART
from tests.guest import debian_kernel, qemu_kernel, uml
from tests.guest.kernel_tests import SUBSET
from tests.guest.qemu_kernel import BOOT_GRACE
from vnethash.kernel.egress import CLSACT, TCX
from vnethash.lab.guest import Guest, Machine
from vnethash.lab.inside.task import MARK, Task
from vnethash.programs import compile_program

EXAMPLES = uml.ROOT / "docs/examples/programs"

# Seconds it may take one kernel to answer.
_PATIENCE = 900

_MEMORY = "1G"


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel to test.

    machine   what boots it; None: it is the one that runs
    missing   why it cannot be had here, if it cannot
    point     the attach point it is known to have; None: either
    guests    how many of them share the tests: one with a single emulated CPU is slow
    """

    name: str
    title: str
    machine: Callable[[], Machine] | None = None
    missing: Callable[[], str | None] = lambda: None
    point: str | None = None
    guests: int = 1


def _qemu(series: str, point: str) -> Kernel:
    def missing() -> str | None:
        if reason := qemu_kernel.missing():
            return reason
        try:
            debian_kernel.of_series(series)
        except debian_kernel.KernelError as error:
            return str(error)
        return None

    return Kernel(
        f"{series}-qemu",
        "Debian, QEMU's software emulation, 1 CPU",
        lambda: qemu_kernel.Machine(debian_kernel.of_series(series), cpus=1),
        missing,
        point,
        guests=2,
    )


KERNELS = (
    Kernel("running", f"this machine's, {os.cpu_count()} CPUs"),
    _qemu("6.12", TCX),
    _qemu("6.1", CLSACT),
    Kernel("6.1-uml", "Debian, user-mode-linux, 1 CPU", uml.kernel, uml.missing, CLSACT),
)


class NoAnswerError(Exception):
    """The kernel did not come to an end; has what it said."""


answered: dict[Kernel, dict[str, Any]] = {}
"""What was."""

_failed: dict[Kernel, Exception] = {}


def answer(kernel: Kernel) -> dict[str, Any]:
    """What `tests.kernels.inside` says there; each is asked once. NoAnswerError, GuestError."""
    if kernel in _failed:
        raise _failed[kernel]
    if kernel not in answered:
        try:
            answered[kernel] = _ask(kernel)
        except Exception as error:
            _failed[kernel] = error
            raise
    return answered[kernel]


def _ask(kernel: Kernel) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="vnethash-programs-") as scratch:
        whole = Task((), tests=tuple(SUBSET))
        tasks = [replace(whole, programs=_objects(Path(scratch))), *[whole] * (kernel.guests - 1)]
        commands = [
            [sys.executable, "-m", "tests.kernels.inside", task.to_json()] for task in tasks
        ]
        outputs = _here(*commands) if kernel.machine is None else _there(kernel.machine(), commands)
        first, *others = (_read(kernel, output) for output in outputs)
    for other in others:
        first["suite"] = _sum(first["suite"], other["suite"])
    return first


def _here(command: Sequence[str]) -> list[str]:
    done = subprocess.run(
        command,
        cwd=uml.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    return [done.stdout]


def _there(machine: Machine, commands: Sequence[Sequence[str]]) -> list[str]:
    """What each command printed, in a guest of its own, all at the same time."""
    with ExitStack() as stack:
        guests = [
            stack.enter_context(
                Guest(
                    machine,
                    command,
                    timeout=_PATIENCE,
                    mem=_MEMORY,
                    cwd=uml.ROOT,
                    env={PART: f"{number}/{len(commands)}"},
                )
            )
            for number, command in enumerate(commands)
        ]
        for guest in guests:
            guest.wait(_PATIENCE + BOOT_GRACE)
        return [guest.result().output for guest in guests]


def _read(kernel: Kernel, output: str) -> dict[str, Any]:
    *_, said = output.splitlines() or [""]
    if not said.startswith(MARK):
        raise NoAnswerError(f"{kernel.name}: {output[-4000:]}")
    told: dict[str, Any] = json.loads(said.removeprefix(MARK))
    return told


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Of the tests of two guests."""
    return {
        "total": {name: count + other["total"][name] for name, count in one["total"].items()},
        "skipped": dict(Counter(one["skipped"]) + Counter(other["skipped"])),
        "failed": one["failed"] + other["failed"],
    }


def _objects(folder: Path) -> tuple[tuple[str, str], ...]:
    """The hash programs of the documentation, compiled out here for all of them."""
    made = []
    for source in sorted(EXAMPLES.glob("*.c")):
        path = folder / f"{source.stem}.o"
        path.write_bytes(_compiled(source))
        made.append((source.stem, str(path)))
    return tuple(made)


@cache
def _compiled(source: Path) -> bytes:
    return compile_program(source).image
