# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What is done once: opening a tap, changing its configuration, starting the program."""

import os
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import vnethash
from vnethash.bench.measure import Advance, Effort, Row, Summary, Target, interleave, nanoseconds
from vnethash.kernel import netns
from vnethash.rss.config import RssConfig
from vnethash.tap import Tap

NAME = "startup"
_OPEN, _CONFIGURE, _HELP = "Tap.open", "Tap.configure", "vnethash --help"
_TARGETS = {_OPEN: 100, _CONFIGURE: 5, _HELP: 300}
_QUEUES = 4
_ROUNDS_MAX = 11
_NS_PER_MS = 1e6


def steps(effort: Effort) -> int:
    return min(effort.rounds, _ROUNDS_MAX)


def run(effort: Effort, advance: Advance) -> list[Row]:
    """Raises NotPermitted, DeviceError, BpfError, CalledProcessError."""
    with netns.fresh():
        Tap.open(queues=_QUEUES).close()  # finds libbpf and the modules
        with Tap.open(queues=_QUEUES) as tap:
            configs = cycle((RssConfig.symmetric(_QUEUES), RssConfig.default(_QUEUES)))
            works = {
                _OPEN: _open,
                _CONFIGURE: lambda: nanoseconds(lambda: tap.configure(next(configs))),
                _HELP: lambda: nanoseconds(_help),
            }
            measured = interleave(works, steps(effort), advance)
    return [
        _row(name, Summary.of([nanos / _NS_PER_MS for nanos in values]))
        for name, values in measured.items()
    ]


def _row(name: str, value: Summary) -> Row:
    most = _TARGETS[name]
    target = Target(f"< {most} ms", value.median < most)
    case = "process" if name == _HELP else f"{_QUEUES} queues"
    return Row(NAME, case, name, "ms", value, target=target)


def _open() -> int:
    opened: list[Tap] = []
    duration = nanoseconds(lambda: opened.append(Tap.open(queues=_QUEUES)))
    opened[0].close()
    return duration


def _help() -> None:
    # This very package, wherever it was imported from.
    paths = [str(Path(vnethash.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "vnethash.cli.main", "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=env)
