# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""docs/conformance.md: every row has its test, and what it names is there."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "conformance.md").read_text()

WORDS = ("not offered", "driver's")
"""What stands in place of a test."""

TOPICS = {
    *("TYPE", "HASH", "IP4", "IP6", "EXT", "TUN", "REP", "FEAT", "CFG", "AUTO", "HCFG", "RSS"),
    *("STEER", "CTX", "DEV", "OPEN", "LIM"),
}

PEERS = {
    "QEMU eBPF": "QEMU's steering program",
    "QEMU software": "QEMU's software path",
    "tun series": "The series proposed for tun",
}
"""Columns of the comparison, and the headings of their differences."""

_CODE = re.compile(r"`([^`]+)`")
_ID = re.compile(r"([A-Z0-9]+)-(\d+)(?: to \1-(\d+))?")
_TEST = re.compile(r"(?:test_\w+::)?test_\w+")
_C_FUNCTION = re.compile(r"^(?!\s|typedef|struct \w+ \{).*?\b(\w+)\([^;]*$", re.MULTILINE)
_PATH = re.compile(r"[\w/]+\.(?:c|h|py)")


class Row(NamedTuple):
    heading: str
    cells: dict[str, str]

    @property
    def names(self) -> list[str]:
        """The tests it names."""
        return [code for code in _CODE.findall(self.cells["test"]) if _TEST.fullmatch(code)]


def rows() -> Iterator[Row]:
    """All rows of all tables, with the heading they are under and their cells by column."""
    heading, columns = "", None
    for line in PAGE.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            columns = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if columns is None:
            columns = cells
        elif set(line) - set("|-"):
            assert len(cells) == len(columns), line
            yield Row(heading, dict(zip(columns, cells, strict=True)))


def ids(cell: str) -> list[str]:
    """``A-1, B-2 to B-4`` one by one; empty if the cell is anything else."""
    parts = [_ID.fullmatch(part.strip()) for part in cell.split(",")]
    return [
        f"{part[1]}-{number}"
        for part in parts
        if part
        for number in range(int(part[2]), int(part[3] or part[2]) + 1)
    ]


ROWS = list(rows())
DEMANDS = [row for row in ROWS if "id" in row.cells and "test" in row.cells]
IDS = [row.cells["id"] for row in DEMANDS]
TESTED = [row for row in ROWS if "test" in row.cells]
row_of_a_demand = pytest.mark.parametrize("row", DEMANDS, ids=IDS)


def trees(folder: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield path, ast.parse(path.read_text())


def defined_functions() -> Counter[str]:
    """How often each name is there: alone, and with its module."""
    found: Counter[str] = Counter()
    for path, tree in trees("tests"):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.update([node.name, f"{path.stem}::{node.name}"])
    return found


FUNCTIONS = defined_functions()


def python_names() -> set[str]:
    """``f()``, ``C``, and ``C.m()`` or ``C.a`` of what src defines."""
    names: set[str] = set()
    for _, tree in trees("src"):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                names.add(f"{node.name}()")
            elif isinstance(node, ast.ClassDef):
                names |= {node.name, *(f"{node.name}.{name}" for name in members(node))}
    return names


def members(node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            is_property = any(getattr(d, "id", "") == "property" for d in item.decorator_list)
            yield item.name if is_property else f"{item.name}()"
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            yield item.target.id


def c_names() -> set[str]:
    """``f()`` and ``struct s`` of what native defines."""
    names: set[str] = set()
    for path in sorted((ROOT / "native").glob("*.[ch]")):
        text = path.read_text()
        names |= {f"{name}()" for name in _C_FUNCTION.findall(text)}
        names |= {f"struct {name}" for name in re.findall(r"^struct (\w+) \{", text, re.MULTILINE)}
    return names


OURS = python_names() | c_names()


def is_ours(name: str) -> bool:
    if _PATH.fullmatch(name):
        return any((ROOT / folder / name).is_file() for folder in ("", "src/vnethash"))
    return name in OURS


def test_ids_are_their_rows_own() -> None:
    assert [name for name, count in Counter(IDS).items() if count > 1] == []
    assert [name for name in IDS if not _ID.fullmatch(name)] == []
    for topic in TOPICS:
        numbers = [int(name.rpartition("-")[2]) for name in IDS if name.startswith(f"{topic}-")]
        assert numbers == list(range(1, len(numbers) + 1)), topic
    assert {name.rpartition("-")[0] for name in IDS} == TOPICS


@row_of_a_demand
def test_a_row_has_a_test_or_says_why_not(row: Row) -> None:
    said = [word for word in WORDS if row.cells["test"].startswith(word)]
    assert row.names or said
    if "who" in row.cells:
        assert row.cells["who"] in ("device", "driver", "both")
        assert row.cells["where"] or said


@pytest.mark.parametrize("row", TESTED, ids=lambda row: next(iter(row.cells.values())))
def test_tests_of_a_row_exist_and_are_meant(row: Row) -> None:
    assert {name: FUNCTIONS[name] for name in row.names} == dict.fromkeys(row.names, 1)
    rest = _CODE.sub("", row.cells["test"])
    assert "test_" not in rest
    assert [code for code in _CODE.findall(row.cells["test"]) if not _TEST.fullmatch(code)] == []


@row_of_a_demand
def test_what_a_row_names_of_ours_is_there(row: Row) -> None:
    assert [name for name in _CODE.findall(row.cells.get("where", "")) if not is_ours(name)] == []


def test_names_that_are_not_there_are_noticed() -> None:
    for name in ("vnet_hash()", "struct vnet_hdr", "NetDevice.judge()", "rss/dissect.py"):
        assert is_ours(name)
    for name in ("vnet_hush()", "struct vnet_hat", "NetDevice.jugde()", "rss/dissekt.py"):
        assert not is_ours(name)
    assert FUNCTIONS["test_vectors"] > 1 == FUNCTIONS["test_reference::test_vectors"]
    assert FUNCTIONS["test_no_such_thing"] == 0


def test_rows_cited_elsewhere_on_the_page_exist() -> None:
    cited = {f"{topic}-{number}" for topic, number in re.findall(r"\b([A-Z]+\d?)-(\d+)\b", PAGE)}
    assert {name for name in cited if name.rpartition("-")[0] in TOPICS} <= set(IDS)


COMPARED = [row for row in ROWS if PEERS.keys() <= row.cells.keys()]


def test_the_comparison_has_a_mark_everywhere() -> None:
    named = [name for row in COMPARED for name in ids(row.cells["id"])]
    assert len(named) == len(set(named)) > 40
    assert set(named) <= set(IDS)
    assert {row.cells[peer] for row in COMPARED for peer in PEERS} == {
        *("=", "≠", "was ≠", "\N{EN DASH}"),
    }


@pytest.mark.parametrize("peer", PEERS)
def test_each_difference_is_told_and_placed(peer: str) -> None:
    differs = [
        name for row in COMPARED if row.cells[peer].endswith("≠") for name in ids(row.cells["id"])
    ]
    told = [row for row in ROWS if row.heading == PEERS[peer] and "id" in row.cells]
    assert {name for row in told for name in ids(row.cells["id"])} == set(differs)
    assert all(row.cells["what it does"] and _CODE.search(row.cells["where"]) for row in told)
