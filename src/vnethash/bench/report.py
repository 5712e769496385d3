# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""All benchmarks by name, and what a run of them leaves: rows, and on which machine."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from vnethash import __version__
from vnethash.bench.measure import Advance, Effort, Row, Summary
from vnethash.errors import ConfigError
from vnethash.writing import write

NAMES = (
    *("bulk", "captures", "cluster", "plan", "stages", "layouts", "path", "tcp", "vhost"),
    *("startup", "adaptive", "scale"),
)
"""The benchmarks; only the first four need no rights."""

FORMAT = 1
"""Version of the saved form."""


class Benchmark(Protocol):
    """What each module of the benchmarks has."""

    def steps(self, effort: Effort) -> int:
        """How often ``run`` will call ``advance``."""

    def run(self, effort: Effort, advance: Advance) -> list[Row]:
        """Measure."""


def select(names: Sequence[str]) -> tuple[str, ...]:
    """The benchmarks of these names, all without any, in their order. Raises ConfigError."""
    for name in names:
        if name not in NAMES:
            raise ConfigError("benchmark", f"must be of {', '.join(NAMES)}, not {name!r}")
    return tuple(name for name in NAMES if name in names or not names)


def benchmark(name: str) -> Benchmark:
    """The module that measures ``name``."""
    return cast(Benchmark, import_module(f"vnethash.bench.{name}"))


def base_of(name: str, case: str) -> str:
    """The variant that ratios of this case are to; empty if there is none."""
    module = import_module(f"vnethash.bench.{name}")
    if hasattr(module, "base_of"):  # it has several
        return str(module.base_of(case))
    return str(getattr(module, "BASE", ""))


def machine() -> dict[str, Any]:
    """What numbers depend on: no names of hosts or users."""
    load, _, _ = os.getloadavg()
    return {
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "vnethash": __version__,
        "load": round(load, 2),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "CPU part"):
            return value.strip()
    return platform.machine()


@dataclass(frozen=True, slots=True)
class Change:
    """A row now, against the same row of a saved run: its ratio, or its value without one."""

    before: Summary
    relative: float
    """Of the medians: 0.1 is a tenth more."""
    clear: bool
    """The quartiles of the two do not overlap."""

    @classmethod
    def of(cls, now: Summary, before: Summary) -> "Change | None":
        """None where a ratio says nothing, the earlier median not being above zero."""
        if before.median <= 0:
            return None
        clear = now.low > before.high or now.high < before.low
        return cls(before, now.median / before.median - 1, clear)

    def to_json(self) -> dict[str, Any]:
        return {
            "before": self.before.to_json(),
            "relative": round(self.relative, 4),
            "clear": self.clear,
        }


Saved = Mapping[tuple[str, str, str], Summary]


@dataclass(frozen=True, slots=True)
class Run:
    """Where and how long was measured, and of a saved run what was found."""

    machine: Mapping[str, Any]
    effort: Effort
    rows: tuple[Row, ...]

    def of(self, name: str) -> list[Row]:
        """The rows of a benchmark."""
        return [row for row in self.rows if row.benchmark == name]


def to_json(rows: Sequence[Row], run: Run, saved: Saved | None = None) -> dict[str, Any]:
    """What was found in a run; with an earlier one ``saved``, each row's change."""
    listed = []
    for row in rows:
        entry = row.to_json()
        if saved is not None:
            change = change_of(row, saved)
            entry["change"] = change.to_json() if change else None
        listed.append(entry)
    return {
        "format": FORMAT,
        "machine": dict(run.machine),
        "rounds": run.effort.rounds,
        "work": run.effort.work,
        "rows": listed,
    }


def change_of(row: Row, saved: Saved) -> Change | None:
    """How a row changed; None if the saved run lacks it."""
    before = saved.get(row.key)
    return Change.of(_comparable(row.value, row.ratio), before) if before else None


def _comparable(value: Summary, ratio: Summary | None) -> Summary:
    """What to compare between runs: the ratio, which does not drift as the machine
    does; the value where there is none, and of the base, whose ratio is always 1."""
    if ratio is None or ratio.low == ratio.high == 1:
        return value
    return ratio


def save(file: Path, run: Mapping[str, Any]) -> None:
    """Write what to_json() gave. Raises ConfigError."""
    try:
        write(file, json.dumps(run, indent=1) + "\n")
    except OSError as error:
        raise ConfigError("save", f"cannot write {file}: {_reason(error)}") from error


def read_run(file: Path, *, field: str = "from") -> Run:
    """A saved run. Raises ConfigError for ``field``."""
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
        if run["format"] != FORMAT:
            raise ConfigError(field, f"{file} has format {run['format']}, not {FORMAT}")
        return Run(
            dict(run["machine"]),
            Effort(int(run["rounds"]), float(run["work"])),
            tuple(map(Row.from_json, run["rows"])),
        )
    except OSError as error:
        raise ConfigError(field, f"cannot read {file}: {_reason(error)}") from error
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            field, f"{file} is no saved run", hint="make one with vnethash bench --save FILE"
        ) from error


def read_saved(file: Path) -> dict[tuple[str, str, str], Summary]:
    """What to compare with of each row of a saved run. Raises ConfigError."""
    run = read_run(file, field="compare")
    return {row.key: _comparable(row.value, row.ratio) for row in run.rows}


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
