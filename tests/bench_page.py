# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The table of docs/benchmarks.md that is made from bench/results.json."""

from collections.abc import Sequence
from pathlib import Path

from vnethash.bench import scale
from vnethash.bench.measure import Row, Summary
from vnethash.bench.report import Run

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN = (
    "<!-- of bench/results.json: VNETHASH_WRITE_DOCS=1 make test ARGS=tests/unit/test_bench.py -->"
)
END = "<!-- end of what is of bench/results.json -->"

_COLUMNS = (scale.ATTACH, scale.MEMORY, scale.RECONFIGURE, scale.PACKET, scale.AGAIN)


def growth(run: Run) -> str:
    """Markdown: what there is of each size of scale."""
    rows = run.of(scale.NAME)
    units = {row.case: row.unit for row in rows}
    heads = ["", *(f"{case}, {units[case]}" for case in _COLUMNS)]
    sizes = dict.fromkeys(row.variant for row in rows)
    lines = [heads, ["---"] * len(heads)]
    lines += [[size, *(_cell(rows, case, size) for case in _COLUMNS)] for size in sizes]
    on = run.machine
    head = f"{on['cpu']}, {on['cpus']} CPUs, Linux {on['kernel']}, load {on['load']} at the start:"
    return f"{head}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cell(rows: Sequence[Row], case: str, size: str) -> str:
    found = [row.value for row in rows if (row.case, row.variant) == (case, size)]
    return _told(found[0]) if found else ""


def _told(value: Summary) -> str:
    def number(one: float) -> str:
        return f"{one:.3g}" if abs(one) < 100 else f"{one:.0f}"

    text = number(value.median)
    return text if value.count == 1 else f"{text} ({number(value.low)} to {number(value.high)})"


def on_page(page: Path = PAGE) -> str:
    """What is there now."""
    _, _, rest = page.read_text().partition(BEGIN)
    text, end, _ = rest.partition(END)
    assert end, f"{page} has no place for it"
    return text


def write(text: str, page: Path = PAGE) -> None:
    """Put it in its place."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
