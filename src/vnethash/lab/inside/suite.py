# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The kernel tests of the checkout, by pytest."""

import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

from vnethash.lab.inside.task import Task

_OUTCOMES = {"failure": "failed", "error": "failed", "skipped": "skipped"}


def measure(task: Task) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "junit.xml"
        command = [
            *[sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "--color=no"],
            *[f"--junitxml={report}", "-m", "kernel and not host_only", *task.tests],
        ]
        environment = {**os.environ, "VNETHASH_REQUIRE_KERNEL": "1", "VNETHASH_EFFORT": "10"}
        if task.way:
            environment["VNETHASH_REQUIRE_LAB"] = task.way
        # Passed on line by line: who waits outside can see that it goes on, or stop it.
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            for line in process.stdout or ():
                print(line, end="", flush=True)
        if not report.exists():
            raise RuntimeError(f"pytest left no report, and status {process.returncode}")
        return read_report(report.read_text())


def read_report(text: str) -> dict[str, Any]:
    """Of JUnit XML: outcomes by file, why tests were skipped, which failed."""
    files: dict[str, Counter[str]] = {}
    skipped: Counter[str] = Counter()
    failed: list[dict[str, str]] = []
    for case in ElementTree.fromstring(text).iter("testcase"):
        file = case.get("classname", "").replace(".", "/") + ".py"
        told = next((child for child in case if child.tag in _OUTCOMES), None)
        outcome = "passed" if told is None else _OUTCOMES[told.tag]
        files.setdefault(file, Counter())[outcome] += 1
        if told is None:
            continue
        said = told.get("message", "")
        if outcome == "skipped":
            skipped[said] += 1
        else:
            failed.append({"test": f"{file}::{case.get('name')}", "said": _first(said)})
    total = sum(files.values(), Counter())
    return {
        "total": {name: total[name] for name in ("passed", "failed", "skipped")},
        "files": {name: dict(counts) for name, counts in sorted(files.items())},
        "skipped": dict(skipped.most_common()),
        "failed": failed,
    }


def _first(said: str) -> str:
    return re.sub(r"\s+", " ", said)[:300]
