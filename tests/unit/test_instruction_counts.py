# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What a packet costs the hash stage in BPF instructions, against docs/benchmarks.md.

Counted, not timed: the same on every machine. The table on that page is the
measure; VNETHASH_WRITE_DOCS=1 has this test write it anew.
"""

import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.bpf_machine import Array, Fault, Machine, Run
from vnethash.bench import frames
from vnethash.native import STAGES_OBJECT, core
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.compiled import compile_config
from vnethash.rss.config import RssConfig
from vnethash.virtio.hash_types import ReportType, TunnelType

PAGE = Path(__file__).resolve().parents[2] / "docs/benchmarks.md"
COMMAND = "VNETHASH_WRITE_DOCS=1 make test ARGS=tests/unit/test_instruction_counts.py"
BEGIN, END = f"<!-- counted: {COMMAND} -->", "<!-- end of what was counted -->"
ALLOWED = 0.10

QUEUES, TABLE_WORDS = 4, 512
PLAIN = RssConfig.default(QUEUES)
LOOKING = PLAIN.replace(tunnels=TunnelType.ALL)
COLUMNS = {
    "`off`": (PLAIN, Reporting.OFF),
    "`record`": (PLAIN, Reporting.RECORD),
    "`off`, tunnels on": (LOOKING, Reporting.OFF),
}

pytestmark = pytest.mark.skipif(
    "BPF_CC" in os.environ, reason="the counts are those of the compiler that ships"
)


class Count(NamedTuple):
    instructions: int
    helpers: int
    """Calls of helpers."""

    def __str__(self) -> str:
        return f"{self.instructions} + {self.helpers}"


def machine(config: RssConfig, reporting: Reporting) -> tuple[Machine, Array]:
    """The hash stage with that configuration in force, and its counters."""
    ffi, lib = core()
    maps = {
        "vnet_table": Array(8, 2 * TABLE_WORDS),
        "vnet_counters": Array(ffi.sizeof("struct vnet_counters"), QUEUES),
        "vnet_counts": Array(8, lib.VNET_COUNTS),
        "vnet_buckets": Array(ffi.sizeof("struct vnet_traffic"), 1),
    }
    made = Machine(STAGES_OBJECT, "hash_stage", maps)
    device = [lib.VNET_ABI, 0, TABLE_WORDS, 0]
    made.variables[".rodata.vnet"][:] = ffi.buffer(ffi.new("struct vnet_device *", device))
    state = ffi.from_buffer("struct vnet_state *", made.variables[".data.vnet"])
    table = ffi.from_buffer("uint64_t[]", maps["vnet_table"].data)
    lib.vh_publish(state, table, TABLE_WORDS, compile_config(config, reporting))
    return made, maps["vnet_counters"]


def reports(counters: Array, queue: int) -> dict[ReportType, tuple[int, int]]:
    """Packets and bytes that were counted on a queue, by report type."""
    ffi, _ = core()
    start = queue * counters.value_size
    value = bytes(counters.data[start : start + counters.value_size])
    counted = ffi.from_buffer("struct vnet_counters *", value).by_report
    traffic: list[Any] = list(counted)
    return {ReportType(i): (one.packets, one.bytes) for i, one in enumerate(traffic) if one.packets}


def run(frame: bytes, config: RssConfig, reporting: Reporting) -> Run:
    """One packet through the stage, which must judge it as the reference does."""
    stage, counters = machine(config, reporting)
    expected = reference.classify(frame, config)
    done = stage.run(frame)
    assert done.value == -1  # to the next program
    assert done.queue_mapping == expected.queue
    assert reports(counters, expected.queue) == {expected.hash_report: (1, len(frame))}
    if reporting is Reporting.RECORD:
        record, mark = struct.pack("<IH", expected.hash_value, expected.hash_report), b"\xb5\x1d"
        assert done.frame == record + mark + frame
    else:
        assert done.frame == frame
    return done


def count(case: str, column: str) -> Count:
    done = run(frames.kinds()[case], *COLUMNS[column])
    return Count(done.instructions, done.helpers.total())


def page() -> tuple[str, str, str]:
    """What is before the table, the table, and what comes after it."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    text, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no place for the table in {PAGE}")
    return before, text, after


def read_table() -> dict[tuple[str, str], Count]:
    """The table of the page, by packet and column."""
    _, text, _ = page()
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()
    ]
    head, _, *rows = lines
    return {
        (row[0], column): Count(*map(int, cell.split("+")))
        for row in rows
        for column, cell in zip(head[1:], row[1:], strict=True)
    }


def write_table() -> None:
    rows = [["packet", *COLUMNS], ["---"] * (1 + len(COLUMNS))]
    rows += [[case, *(str(count(case, column)) for column in COLUMNS)] for case in frames.kinds()]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    before, _, after = page()
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")


@pytest.fixture(scope="module", name="table")
def _table() -> dict[tuple[str, str], Count]:
    if os.environ.get("VNETHASH_WRITE_DOCS"):
        write_table()
    return read_table()


CELLS = [(case, column) for case in frames.kinds() for column in COLUMNS]


def test_the_table_has_each_packet(table: dict[tuple[str, str], Count]) -> None:
    assert list(table) == CELLS


@pytest.mark.parametrize(("case", "column"), CELLS)
def test_no_path_grows(case: str, column: str, table: dict[tuple[str, str], Count]) -> None:
    was, now = table[case, column], count(case, column)
    remedy = f"if that is meant to be: {COMMAND}"
    assert now.helpers == was.helpers, f"{case}, {column}: other helper calls; {remedy}"
    change = now.instructions / was.instructions - 1
    assert change <= ALLOWED, f"{case}, {column}: {change:+.0%} instructions; {remedy}"
    assert change >= -ALLOWED, f"{case}, {column}: {change:+.0%} instructions, well done: {COMMAND}"


def test_the_machine_stays_in_the_packet() -> None:
    """A frame cut anywhere is judged as the reference judges it, and nothing is read behind it."""
    for frame in (frames.kinds()[kind] for kind in ("QinQ/IPv4/TCP", "IPv6/options/TCP")):
        for length in range(14, len(frame)):
            run(frame[:length], LOOKING, Reporting.RECORD)


def test_the_machine_faults() -> None:
    with pytest.raises(Fault, match="no map vnet_"):
        Machine(STAGES_OBJECT, "hash_stage", {})
    stage, _ = machine(PLAIN, Reporting.OFF)
    stage.variables[".data.vnet"] = bytearray(8)  # no room for a configuration
    with pytest.raises(Fault, match="access of"):
        stage.run(frames.kinds()["IPv4/TCP"])
