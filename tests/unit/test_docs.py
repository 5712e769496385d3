# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The documentation names only what is there, and its Python prompts are real."""

import doctest
import re
from pathlib import Path

import pytest
import typer

from vnethash.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"(?:^|[`/ ])(?<!from )vnethash ([a-z]+)(?= |`|$)", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```|^(?: {4}|\t).*?$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_TEST = re.compile(r"`(test_\w+)`")
_DEFINED = re.compile(r"def (test_\w+)\(")


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> set[str]:
    """Names after ``vnethash`` in code."""
    return {name for code in _CODE.findall(text) for name in _COMMAND.findall(code)}


KNOWN = set(typer.main.get_group(app).commands)


def defined_tests() -> set[str]:
    return {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in _DEFINED.findall(path.read_text())
    }


@PAGE
def test_links_resolve(page: Path) -> None:
    text = page.read_text()
    for target in _LINK.findall(text):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}"


def test_links_are_found() -> None:
    assert len(_LINK.findall((ROOT / "README.md").read_text())) > 8


@PAGE
def test_commands_exist(page: Path) -> None:
    assert commands(page.read_text()) <= KNOWN


def test_every_command_is_in_the_readme() -> None:
    assert commands((ROOT / "README.md").read_text()) == KNOWN


@PAGE
def test_tests_exist(page: Path) -> None:
    named = set(_TEST.findall(page.read_text()))
    assert named - defined_tests() == set()


@pytest.mark.parametrize(("name", "least"), [("python.md", 8), ("bulk.md", 8)])
def test_python_at_the_prompt(name: str, least: int) -> None:
    page = ROOT / "docs" / name
    # What the prompt shows ends where its block does.
    text = re.sub(r"^```.*$", "", page.read_text(), flags=re.MULTILINE)
    prompts = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert len(prompts.examples) >= least
    complaints: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(prompts, out=complaints.append)
    assert runner.failures == 0, "".join(complaints)
