# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Benchmarks: their arithmetic, what they measure against, their command."""

import errno
import json
import os
import re
import shutil
import socket
import sys
from dataclasses import replace
from functools import partial, reduce
from operator import xor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import bench_page, vectors
from vnethash.bench import (
    bulk,
    captures,
    cluster,
    frames,
    layouts,
    measure,
    path,
    plot,
    report,
    scale,
)
from vnethash.bench.driver import BareLoop
from vnethash.bench.library import bench_library
from vnethash.bench.measure import Effort, Row, Summary, Target
from vnethash.cli import main
from vnethash.errors import ConfigError, DeviceError, VnethashError
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.rss.native import bulk_methods
from vnethash.virtio.hash_types import TunnelType

ROOT = Path(__file__).resolve().parents[2]
CAPTURES = ROOT / "bench" / "captures.json"
RESULTS, PLOTS = ROOT / "bench" / "results.json", ROOT / "docs" / "plots"
AGAIN = "vnethash bench --from bench/results.json --plot docs/plots"

TINY = Effort(rounds=2, work=0.01)
RUN = report.Run({"cpu": "a CPU"}, TINY, ())
ROW = Row("bulk", "hash", "native", "ns", Summary(10.0, 9.0, 11.0, 5))


def nothing() -> None:
    pass


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main.run(["bench", *args])
    done = capsys.readouterr()
    return code, done.out, done.err


def test_summary_is_median_and_quartiles() -> None:
    assert Summary.of([5, 1, 3, 2, 4]) == Summary(3, 2, 4, 5)
    assert Summary.of([7]) == Summary(7, 7, 7, 1)
    summary = Summary.of([1.5, 2.5])
    assert Summary.from_json(json.loads(json.dumps(summary.to_json()))) == summary


def test_ratios_are_taken_within_a_round() -> None:
    # The machine halves its speed in the second round: the ratio does not change.
    assert measure.ratios([20, 40], [10, 20]) == Summary(2, 2, 2, 2)
    assert measure.ratios([1], [0]) is None
    assert measure.differences([5, 3], [1, 4]) == [4, -1]


def test_variants_take_turns_and_the_first_place_goes_round() -> None:
    order: list[str] = []
    advances: list[None] = []

    def place(name: str) -> int:
        order.append(name)
        return len(order)

    work = {name: partial(place, name) for name in "abc"}
    measured = measure.interleave(work, 3, lambda: advances.append(None))
    assert "".join(order) == "abcbcacab"
    assert measured == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}
    assert len(advances) == 3


def test_pinned_gives_the_cpus_back() -> None:
    before = os.sched_getaffinity(0)
    with measure.pinned() as cpu:
        assert os.sched_getaffinity(0) == {cpu}
    assert os.sched_getaffinity(0) == before


def test_a_wrong_answer_is_not_timed() -> None:
    measure.check_agreement("hash", 1, 1)
    with pytest.raises(VnethashError, match="hash is wrong: 1, expected 2"):
        measure.check_agreement("hash", 1, 2)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("IPv4/TCP", "TCPv4"),
        ("IPv6/TCP", "TCPv6"),
        ("IPv4/UDP", "UDPv4"),
        ("IPv6/UDP", "UDPv6"),
        ("IPv4 fragment", "IPv4"),
        ("VLAN/IPv4/TCP", "TCPv4"),
        ("QinQ/IPv4/TCP", "TCPv4"),
        ("IPv6/options/TCP", "TCPv6_EX"),
        ("4in4/TCP", "IPv4"),
        ("GRE/IPv4/TCP", "IPv4"),
        ("VXLAN/IPv4/TCP", "UDPv4"),
        ("Geneve/IPv6/TCP", "UDPv4"),
    ],
)
def test_frames_are_what_they_are_called(kind: str, expected: str) -> None:
    frame = frames.kinds()[kind]
    assert reference.classify(frame, RssConfig.default(4)).hash_report.name == expected


@pytest.mark.parametrize(
    ("kind", "tunnel", "expected"),
    [
        ("4in4/TCP", TunnelType.IPIP, "TCPv4"),
        ("GRE/IPv4/TCP", TunnelType.GRE_2784, "TCPv4"),
        ("VXLAN/IPv4/TCP", TunnelType.VXLAN, "TCPv4"),
        ("Geneve/IPv6/TCP", TunnelType.GENEVE, "TCPv6"),
    ],
)
def test_what_tunnels_carry(kind: str, tunnel: TunnelType, expected: str) -> None:
    config = RssConfig.default(4).replace(tunnels=tunnel)
    assert reference.classify(frames.kinds()[kind], config).hash_report.name == expected


@pytest.mark.parametrize(("make", "least"), [(frames.tcp4, 54), (frames.tcp6, 74)])
def test_flows_differ_and_have_the_length_asked_for(make: Any, least: int) -> None:
    config = RssConfig.default(4)
    flows = [make(flow, least + 10) for flow in range(path.FLOWS)]
    assert {len(frame) for frame in flows} == {least + 10}
    assert len({reference.classify(frame, config).hash_value for frame in flows}) == path.FLOWS
    assert {reference.classify(frame, config).queue for frame in flows} == {0, 1, 2, 3}


@pytest.mark.parametrize("vector", vectors.VECTORS, ids=lambda vector: vector.source)
def test_loops_measured_against_hash_right(vector: vectors.Vector) -> None:
    from ipaddress import ip_address

    ports = vector.source_port.to_bytes(2, "big") + vector.destination_port.to_bytes(2, "big")
    addresses = ip_address(vector.source).packed + ip_address(vector.destination).packed
    row = np.frombuffer(addresses + ports, np.uint8).reshape(1, -1)
    config = RssConfig.default(4).replace(key=vectors.KEY)
    assert bulk.numpy_hash(bulk.toeplitz_tables(config), row).tolist() == [vector.tcp_hash]
    ffi, lib = bench_library()
    hashes = ffi.new("uint32_t[]", 1)
    given = ffi.from_buffer("uint8_t[]", row)
    assert lib.scalar_hash(config.key, given, 1, row.shape[1], hashes) == 0
    assert hashes[0] == vector.tcp_hash


def test_copy_loop_copies_and_sums() -> None:
    ffi, lib = bench_library()
    rows = np.random.default_rng(2).integers(0, 256, (5, 36), np.uint8)
    copy, sums = np.zeros_like(rows), np.zeros(5, np.uint32)
    given, room = (ffi.from_buffer("uint8_t[]", part) for part in (rows, copy))
    assert lib.copy_xor(given, 5, 36, room, ffi.from_buffer("uint32_t[]", sums)) == 0
    assert (copy == rows).all()
    assert (sums == np.bitwise_xor.reduce(rows.view(np.uint32), axis=1)).all()
    assert lib.copy_xor(given, 5, 20, room, ffi.from_buffer("uint32_t[]", sums)) == -1


def test_sender_takes_messages_and_descriptors_in_turn() -> None:
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    try:
        path.Sender([here.fileno() for here, _ in pairs], [b"one", b"two", b"six"]).send(6)
        got = [[there.recv(8) for _ in range(3)] for _, there in pairs]
        assert got == [[b"one", b"six", b"two"], [b"two", b"one", b"six"]]
    finally:
        for pair in pairs:
            for end in pair:
                end.close()
    with pytest.raises(DeviceError, match=os.strerror(errno.EBADF).lower()):
        path.Sender([-1], [b"one"]).send(1)


def test_bare_loop_reads_and_writes_in_turn() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with here, there, BareLoop("loop", here.fileno(), [b"one", b"two"], batch=2) as loop:
        loop.start()
        assert loop.transmit(3).bytes == 9
        assert [there.recv(8) for _ in range(3)] == [b"one", b"two", b"one"]
        for number in range(5):
            there.send(bytes(number))
        moved = loop.receive(5)
        assert (moved.packets, moved.bytes, moved.hashed) == (5, 10, 0)
        assert moved.nanoseconds > 0
        assert loop.cpu() > 0
        assert loop.switches() >= 0
        with pytest.raises(DeviceError, match=os.strerror(errno.EAGAIN).lower()):
            loop.receive(1)


def test_bulk_has_its_rows() -> None:
    rounds: list[None] = []
    rows = bulk.run(TINY, lambda: rounds.append(None))
    assert len(rounds) == bulk.steps(TINY)
    methods = [method.title for method in bulk_methods()]
    hashing = ["scalar loop", *methods, "copy and XOR", "numpy"]
    classifying = ["Python reference", "native", "native, to Python objects"]
    assert [row.key[1:] for row in rows] == [
        *(("hash IPv4/TCP", variant) for variant in hashing),
        *(("hash IPv6/TCP", variant) for variant in hashing),
        *(("classify", variant) for variant in classifying),
        *((case, method) for case in bulk.frames_cases() for method in methods),
    ]
    for row in rows:
        assert row.value.low > 0
        assert row.value.count == TINY.rounds
        assert row.ratio is not None
        if row.variant == report.base_of(row.benchmark, row.case):
            assert row.ratio == Summary(1, 1, 1, TINY.rounds)


def test_captures() -> None:
    rounds: list[None] = []
    rows = captures.run(TINY, lambda: rounds.append(None))
    assert len(rounds) == captures.steps(TINY)
    small = {row.variant: row for row in rows if row.case == captures.SMALL}
    assert small.keys() >= {"analyze", "walk alone", "C loop", "dpkt", "scapy"}
    assert (shutil.which("tshark") is None) == ("tshark" not in small)
    for row in rows:
        # Of so few packets tshark's start takes most, and is taken off.
        assert row.value.low > 0 or row.variant == captures.TSHARK
    (memory,) = [row for row in rows if row.unit == "MB"]
    assert memory.target is not None
    assert memory.target.met
    assert {row.case for row in rows} >= {"a million flows", "1514 B", "small frames, gzip"}


def test_cluster() -> None:
    rounds: list[None] = []
    rows = cluster.run(TINY, lambda: rounds.append(None))
    assert len(rounds) == cluster.steps(TINY)
    variants = ["local", "1 worker", "2 workers"]
    cases = [(case, variant) for case in (cluster.LARGE, cluster.SMALL) for variant in variants]
    assert [row.key[1:] for row in rows] == cases
    assert all(row.value.low > 0 and row.ratio is not None for row in rows)


def test_names_come_in_their_order() -> None:
    assert report.select([]) == report.NAMES
    assert report.select(["path", "bulk"]) == ("bulk", "path")
    with pytest.raises(ConfigError, match="benchmark: must be of bulk, captures"):
        report.select(["bulk", "speed"])


def test_a_saved_run_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    report.save(file, report.to_json([ROW], RUN))
    assert report.read_saved(file) == {ROW.key: ROW.value}
    other = replace(
        ROW,
        variant="other",
        ratio=Summary(0.5, 0.4, 0.6, 5),
        parts={"part": ROW.value},
        target=Target("<= 1", True),
    )
    report.save(file, report.to_json([ROW, other], RUN))
    assert report.read_run(file) == report.Run(RUN.machine, TINY, (ROW, other))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "is no saved run"),
        ("[]", "is no saved run"),
        ('{"format": 1, "rows": [{}]}', "is no saved run"),
        ('{"format": 99, "rows": []}', "has format 99, not 1"),
        (None, "no such file or directory"),
    ],
)
def test_what_is_no_saved_run(tmp_path: Path, text: str | None, rule: str) -> None:
    file = tmp_path / "run.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=rule) as caught:
        report.read_saved(file)
    assert caught.value.field == "compare"


def test_a_run_that_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="save: cannot write"):
        report.save(tmp_path / "none" / "run.json", {})


def test_a_change_is_clear_if_the_quartiles_do_not_overlap() -> None:
    before = {ROW.key: Summary(20, 18, 22, 5)}
    change = report.change_of(ROW, before)
    assert change == report.Change(before[ROW.key], -0.5, True)
    assert change.to_json()["relative"] == -0.5
    change = report.change_of(ROW, {ROW.key: Summary(11, 10, 12, 5)})
    assert change is not None
    assert not change.clear
    assert report.change_of(ROW, {}) is None
    assert report.change_of(ROW, {ROW.key: Summary(0, 0, 0, 1)}) is None


def test_ratios_are_compared_but_not_that_of_the_base(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    base = replace(ROW, variant="base", ratio=Summary(1, 1, 1, 5))
    rated = replace(ROW, ratio=Summary(0.5, 0.4, 0.6, 5))
    report.save(file, report.to_json([base, rated], RUN))
    saved = report.read_saved(file)
    # The machine has become half as fast; the ratio is as it was.
    slow = Summary(20, 18, 22, 5)
    changes = [report.change_of(replace(row, value=slow), saved) for row in (base, rated)]
    assert [change and change.relative for change in changes] == [1, 0]


def test_command_prints_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    code, out, _ = run(capsys, "bulk", "--quick", "--repeat", "1", "--json", "--save", str(file))
    assert code == 0
    first = json.loads(out)
    assert first["rounds"] == 1
    assert {row["benchmark"] for row in first["rows"]} == {"bulk"}
    assert set(first["machine"]) == {"cpu", "cpus", "kernel", "python", "vnethash", "load"}
    row = first["rows"][1]
    assert (row["case"], row["variant"], row["unit"]) == ("hash IPv4/TCP", "tables", "ns")
    assert 0 < row["ratio"]["median"] < 1

    code, out, _ = run(capsys, "bulk", "--quick", "--repeat", "1", "--json", "--compare", str(file))
    assert code == 0
    changed = json.loads(out)["rows"][1]["change"]
    assert changed["before"] == json.loads(file.read_text())["rows"][1]["ratio"]
    assert changed["relative"] > -1


def test_command_prints_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    report.save(file, report.to_json([], RUN))
    code, out, _ = run(capsys, "bulk", "--quick", "--repeat", "1", "--compare", str(file))
    assert code == 0
    for word in ("hash IPv6/TCP", "scalar loop", "median", "quartiles", "change", "1 interleaved"):
        assert word in out


def test_command_shows_a_saved_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    base = replace(ROW, variant="scalar loop", ratio=Summary(1, 1, 1, 5))
    report.save(file, report.to_json([base, replace(ROW, benchmark="path")], MACHINE))
    code, out, _ = run(capsys, "bulk", "--from", str(file), "--json")
    assert code == 0
    told = json.loads(out)
    assert (told["machine"], told["rounds"]) == (MACHINE.machine, 2)
    assert [row["benchmark"] for row in told["rows"]] == ["bulk"]
    code, out, _ = run(capsys, "--from", str(file), "--plot", str(tmp_path / "plots"))
    assert code == 0
    assert "1 CPUs (a CPU)" in out
    drawn = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert drawn == ["bulk.svg", "path.svg"]


MACHINE = report.Run(
    {"cpu": "a CPU", "cpus": 1, "kernel": "6", "python": "3", "vnethash": "1", "load": 0.5},
    TINY,
    (),
)


@pytest.fixture(name="results")
def _results() -> report.Run:
    """What the numbers and pictures of docs/benchmarks.md are of."""
    return report.read_run(RESULTS)


def test_pictures_are_of_the_results(results: report.Run, tmp_path: Path) -> None:
    names = {row.benchmark for row in results.rows}
    assert {scale.NAME} < names <= set(report.NAMES)
    assert {file.stem for file in PLOTS.glob("*.svg")} == names, AGAIN
    for file in plot.draw(results.rows, tmp_path):
        there = (PLOTS / file.name).read_text()
        assert plot.digest(results.of(file.stem)) in there, AGAIN
        if maker(there) == maker(file.read_text()):  # another matplotlib draws differently
            assert there == file.read_text(), AGAIN


def test_tables_are_of_the_results(results: report.Run) -> None:
    made = bench_page.tables(results, report.read_run(CAPTURES))
    if os.environ.get("VNETHASH_WRITE_DOCS"):
        bench_page.write(made)
    assert bench_page.on_page() == made, bench_page.COMMAND
    for name, row in (
        ("scale", "| 1000 taps |"),
        ("path", "| veth with room, 60 B |"),
        ("bulk", "| gfni-512 |"),
        ("against", "| IPv4 fragment |"),
        ("pairs", "| 4 pairs |"),
    ):
        assert row in made[name]
    for name in ("path", "tcp", "receive", "unmerged", "kpps", "stages", "frames"):
        assert "|  |" not in made[name].partition("---")[2]


def maker(picture: str) -> str:
    """Which version of matplotlib drew it."""
    found = re.search("Matplotlib v[^,<]+", picture)
    assert found
    return found[0]


def test_a_picture_names_what_it_shows(tmp_path: Path) -> None:
    rows = [replace(ROW, variant=name) for name in ("scalar loop", "native")]
    (file,) = plot.draw(rows, tmp_path / "new")
    picture = file.read_text()
    for text in ("hash, ns", "scalar loop", "native", plot.digest(rows)):
        assert text in picture
    assert plot.digest(rows) != plot.digest([replace(rows[0], unit="ms"), rows[1]])
    assert not re.search(r" $|/tmp|\d{4}-\d\d-\d\d", picture, re.M)


def test_a_picture_is_of_what_is_saved() -> None:
    whole = replace(ROW, value=Summary.of([25034]))  # which is read back as 25034.0
    again = Row.from_json(json.loads(json.dumps(whole.to_json())))
    assert plot.digest([whole]) == plot.digest([again])


def test_a_picture_needs_a_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"plot: cannot write to .*: file exists"):
        plot.draw([ROW], tmp_path / "file")


def test_without_matplotlib_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = run(capsys, "bulk", "--plot", str(tmp_path))
    assert (code, out) == (main.EXIT_FAILURE, "")
    assert "plots need matplotlib" in err
    assert "pip install 'vnethash[plot]'" in err


def test_growth_is_judged_from_the_first_hundred_to_the_last() -> None:
    def attach(variant: str, median: float) -> Row:
        return Row(scale.NAME, scale.ATTACH, variant, "ms", Summary(median, median, median, 100))

    def last(median: float) -> Row:
        rows = [attach("100 taps", 50), attach("1000 taps", median), attach("4 queues", 50)]
        first, row, other = scale.compared(rows)
        assert first.ratio == Summary(1, 1, 1, 100)
        assert other.ratio is None
        return row

    assert last(60).target == Target("<= 1.2 of 100 taps", True)
    assert last(61).target == Target("<= 1.2 of 100 taps", False)
    few = [attach("10 taps", 50)]
    assert scale.compared(few) == few


@pytest.mark.parametrize(
    "args",
    [
        ["speed"],
        ["--repeat", "0"],
        ["bulk", "--compare", "/nonexistent"],
        ["bulk", "--from", "/nonexistent"],
        ["bulk", "--from", str(RESULTS), "--quick"],
        ["bulk", "--from", str(RESULTS), "--repeat", "3"],
    ],
)
def test_wrong_use(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    code, out, err = run(capsys, *args)
    assert code == main.EXIT_USAGE
    assert out == ""
    assert err.startswith("vnethash: error: ")


@given(key=st.binary(min_size=40, max_size=40), data=st.binary(min_size=36, max_size=36))
@settings(max_examples=20, deadline=None)
def test_tables_of_every_layout_hash_alike(key: bytes, data: bytes) -> None:
    variables = np.zeros(1, layouts.VARIABLES)[0]
    layouts.fill(variables, key)
    number = int.from_bytes(data, "little")
    for layout, fields in layouts.fields().items():
        looked_up = [
            int(table[number >> bits.start & (1 << len(bits)) - 1])
            for table, bits in zip(variables[layout], fields, strict=True)
        ]
        covered = data[: fields[-1].stop // 8]
        assert reduce(xor, looked_up) == reference.toeplitz(key, covered), layout
