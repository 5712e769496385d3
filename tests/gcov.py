# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Lines and branches of C that tests did not reach, by what gcov says: tools/coverage.

    python -m tests.gcov hash.gcda native/dissect.h native/tunnel.h

Exits with 1 if there are any that tests/uncovered.toml does not justify, or if
that file justifies one that is reached.
"""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = ROOT / "tests" / "uncovered.toml"


Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Gap:
    """A line, or the outcomes of its conditions, that tests did not reach."""

    file: str
    function: str
    number: int
    text: str
    what: str

    @property
    def key(self) -> Key:
        """Lines are told by their text: numbers change."""
        return self.file, self.function, self.text


@dataclass
class Reached:
    """How much of one file is reached."""

    lines: int = 0
    lines_reached: int = 0
    branches: int = 0
    branches_reached: int = 0

    def __str__(self) -> str:
        return (
            f"{self.lines_reached} of {self.lines} lines, "
            f"{self.branches_reached} of {self.branches} branches"
        )


def gaps(report: dict[str, Any], file: str, reached: Reached) -> Iterator[Gap]:
    """What of ``file``, a path below the root, was not reached; counts into ``reached``."""
    text = (ROOT / file).read_text().splitlines()
    (found,) = (entry for entry in report["files"] if entry["file"].endswith(file))
    for line in found["lines"]:
        number = line["line_number"]
        branches = [branch["count"] for branch in line["branches"]]
        reached.lines += 1
        reached.lines_reached += line["count"] > 0
        reached.branches += len(branches)
        reached.branches_reached += sum(count > 0 for count in branches)
        what = ""
        if not line["count"]:
            what = "not reached"
        elif not all(branches):
            what = f"{branches.count(0)} of {len(branches)} branches not reached"
        if what:
            yield Gap(file, line["function_name"], number, text[number - 1].strip(), what)


def main(arguments: Sequence[str]) -> int:
    data, *files = arguments
    said = subprocess.run(
        ["gcov", "--json-format", "--stdout", "--branch-probabilities", data],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(said.stdout)
    justified = {
        (entry["file"], entry["function"], line): entry["reason"]
        for entry in tomllib.loads(ALLOWED.read_text())["uncovered"]
        for line in entry["lines"]
    }
    used: set[Key] = set()
    failed = False
    for file in files:
        reached = Reached()
        found = list(gaps(report, file, reached))
        print(f"{file}: {reached}")
        for gap in found:
            reason = justified.get(gap.key)
            used.add(gap.key)
            failed |= reason is None
            print(f"  {gap.number}: {gap.text}\n      {gap.what}: {reason or 'not justified'}")
    for key in sorted(justified.keys() - used):
        print(f"{ALLOWED.name} justifies what is reached, or gone: {': '.join(key)}")
        failed = True
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
