# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Commands and their output in the documentation are real.

VNETHASH_WRITE_DOCS=1 writes what the commands print into the pages.
"""

import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["captures.md", "cluster.md", "flow-tables.md", "plan.md", "report.md"]
_BLOCK = re.compile(r"(^```console\n)(.*?)(^```$)", re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run: the examples' capture maker is there."""
    shutil.copy(ROOT / "docs" / "examples" / "skewed_traffic.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str, folder: Path) -> str:
    """What it prints, both streams, without blanks at the ends of lines."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": "110"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return "".join(line.rstrip() + "\n" for line in done.stdout.splitlines())


def again(block: str, folder: Path) -> Iterator[str]:
    """The lines of a block of commands, with what they print now."""
    for line in block.splitlines():
        if line.startswith("$ "):
            yield f"{line}\n"
            yield run(line[2:], folder)


@pytest.mark.parametrize("name", PAGES)
def test_commands_print_what_the_page_says(name: str, folder: Path) -> None:
    page = ROOT / "docs" / name
    text = page.read_text()
    now = _BLOCK.sub(lambda b: b[1] + "".join(again(b[2], folder)) + b[3], text)
    if os.environ.get("VNETHASH_WRITE_DOCS"):
        page.write_text(now)
    assert now.count("\n$ vnethash ") >= 2
    assert now.splitlines() == text.splitlines()


@pytest.mark.parametrize("name", PAGES)
def test_python_prints_what_the_page_says(name: str, folder: Path) -> None:
    run("python skewed_traffic.py office.pcap", folder)
    text = re.sub(r"^```.*$", "", (ROOT / "docs" / name).read_text(), flags=re.MULTILINE)
    prompts = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    complaints: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(prompts, out=complaints.append)
    assert prompts.examples
    assert runner.failures == 0, "".join(complaints)
