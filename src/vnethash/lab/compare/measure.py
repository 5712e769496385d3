# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Boots one kernel after the other and has each measure what it is there for."""

import json
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vnethash.bench.report import machine
from vnethash.engines.select import EBPF, LAB
from vnethash.errors import VnethashError
from vnethash.kernel import caps
from vnethash.kernel.caps import Cap
from vnethash.lab import uml
from vnethash.lab.compare import lines
from vnethash.lab.errors import GuestError
from vnethash.lab.inside.task import MARK, Task
from vnethash.lab.kernels import built
from vnethash.lab.options import SHARED, STOCK, checkout, options
from vnethash.lab.uml import Kernel
from vnethash.programs.compiler import compile_program

FORMAT = 1
DEBIAN, HOST = "debian", "host"
ENGINES = (EBPF, "software", *LAB)
PROGRAMS = ("xor", "inner")
TESTS = (
    *("tests/kernel/test_tap.py", "tests/kernel/test_traffic.py", "tests/kernel/test_replay.py"),
    *("tests/kernel/test_conformance.py", "tests/kernel/test_program_engine.py"),
    "tests/kernel/test_lab_engines.py",
)
_QUICK_TESTS = ("tests/kernel/test_conformance.py",)
_WITHOUT_COST = ("facts", "agreement", "journeys", "own_programs", "rights")
# VNET_WAY of native/bpf.h; tun-rss runs no program, a stock kernel runs ours before steering.
_WAY = {"tun-kfunc": 1, "tun-progtype": 2, "tun-cb": 3}
_SECONDS = 900.0
_SUITES_AT_ONCE = 2

Results = dict[str, Any]
Say = Callable[[str], object]


class Stopped(Exception):
    """Others were interrupted."""


def kernels() -> dict[str, Kernel | None]:
    """Those to measure on, by name; None is the running one. Those that are not here lack."""
    found: dict[str, Kernel | None] = {}
    for option in options():
        if kernel := built(option):
            found[option.name] = kernel.kernel
    if binary := shutil.which("linux.uml"):
        modules = Path("/usr/lib/uml/modules")
        found[DEBIAN] = Kernel(Path(binary), modules, ("tun", "ipv6", "sch_ingress", "cls_bpf"))
    if all(caps.has(cap) for cap in (Cap.NET_ADMIN, Cap.BPF, Cap.SYS_ADMIN)):
        found[HOST] = None
    return found


def measure(chosen: Mapping[str, Kernel | None], say: Say, *, quick: bool = False) -> Results:
    """Everything, on these kernels. ``say`` is told what is done.

    What could not be measured is missing in the results, with its reason
    under ``errors``. Raises VnethashError where nothing can be.
    """
    results: dict[str, Results] = {name: {"errors": {}} for name in chosen}
    with tempfile.TemporaryDirectory(prefix="vnethash-compare-") as scratch:
        say("compiling the hash programs")
        objects = _compile(Path(scratch))
        # One after the other: time is measured.
        for name, kernel in chosen.items():
            parts = _WITHOUT_COST if name == DEBIAN else (*_WITHOUT_COST, "cost")
            _run(name, kernel, _task(name, objects, quick), parts, results[name], say)
        stop = threading.Event()
        with ThreadPoolExecutor(_SUITES_AT_ONCE) as pool:
            try:
                suites = [
                    pool.submit(
                        _run,
                        name,
                        kernel,
                        _task(name, {}, quick),
                        ("suite",),
                        results[name],
                        say,
                        stop,
                    )
                    for name, kernel in chosen.items()
                ]
                for suite in suites:
                    suite.result()
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return {
        "format": FORMAT,
        "date": datetime.now(UTC).date().isoformat(),
        "quick": quick,
        "machine": {**machine(), "kernel": platform.release().partition("-")[0]},
        "lines": count_lines(),
        "kernels": results,
    }


def count_lines() -> dict[str, dict[str, int]]:
    """What each way adds, by its folder of lab/patches."""
    folder = checkout() / "lab" / "patches"
    return {name: lines.count(sorted((folder / name).glob("*.patch"))) for name in (*SHARED, *LAB)}


def _task(name: str, objects: Mapping[str, Sequence[tuple[str, str]]], quick: bool) -> Task:
    way = name if name in LAB else None
    tests = _QUICK_TESTS if quick else TESTS
    there = tuple(test for test in tests if (checkout() / test).exists())
    return Task(ENGINES, way, tuple(objects.get(name, objects.get(STOCK, ()))), there, quick)


def _compile(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """The hash programs for each kernel, by its name: what they are called and where they are."""
    objects: dict[str, list[tuple[str, str]]] = {"tun-rss": []}
    for name, number in {STOCK: 0, **_WAY}.items():
        objects[name] = []
        for program in PROGRAMS:
            source = checkout() / "docs" / "examples" / "programs" / f"{program}.c"
            defines = [f"VNET_WAY={number}"] if number else []
            made = folder / f"{program}-{name}.o"
            made.write_bytes(compile_program(source, defines=defines).image)
            objects[name].append((program, str(made)))
    return objects


def _run(
    name: str,
    kernel: Kernel | None,
    task: Task,
    parts: Sequence[str],
    results: Results,
    say: Say,
    stop: threading.Event | None = None,
) -> None:
    """Have one kernel measure these parts, into ``results``."""
    command = [sys.executable, "-m", "vnethash.lab.inside", task.to_json(), *parts]
    reader = _Answers(name, results, say, stop)
    try:
        if kernel is None:
            status = _here(command, reader)
        else:
            status = uml.run(
                kernel, command, timeout=_SECONDS, cwd=checkout(), show=reader
            ).exit_status
        if status:
            raise VnethashError(f"exit status {status}: {reader.other[-500:]}")
    except (GuestError, VnethashError) as error:
        for part in parts:
            if part not in results and part not in results["errors"]:
                results["errors"][part] = error.message
                say(f"{name}: {part} failed: {error.message}")


def _here(command: Sequence[str], reader: "_Answers") -> int:
    with subprocess.Popen(
        command, cwd=checkout(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            while part := process.stdout.read1() if process.stdout else b"":  # type: ignore[attr-defined]
                reader(part)
        except BaseException:
            process.terminate()
            raise
    return process.returncode


class _Answers:
    """Takes the answers out of what is printed."""

    def __init__(self, name: str, results: Results, say: Say, stop: threading.Event | None) -> None:
        self._name = name
        self._results = results
        self._say = say
        self._stop = stop
        self._rest = b""
        self.other = ""

    def __call__(self, part: bytes) -> None:
        if self._stop is not None and self._stop.is_set():
            raise Stopped
        *whole, self._rest = (self._rest + part).split(b"\n")
        for line in whole:
            self._line(line.decode(errors="replace"))

    def _line(self, line: str) -> None:
        if not line.startswith(MARK):
            self.other += line + "\n"
            return
        answer = json.loads(line.removeprefix(MARK))
        part = answer["part"]
        if "error" in answer:
            self._results["errors"][part] = answer["error"]
            self._say(f"{self._name}: {part} failed: {answer['error']}")
        else:
            self._results[part] = answer["result"]
            self._say(f"{self._name}: {part}, {answer['seconds']} s")
