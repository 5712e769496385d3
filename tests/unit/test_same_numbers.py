# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""JSON, text, page and Arrow tables say the same numbers of the same files."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_analyze import sample
from tests.unit.test_report import Reader
from vnethash.analysis import analyze, arrow
from vnethash.analysis.flows import flow_text
from vnethash.analysis.words import REASONS, ether_type
from vnethash.capture import write_pcap
from vnethash.cli import output
from vnethash.cli.main import run
from vnethash.rss.config import RssConfig
from vnethash.virtio.hash_types import HashType

TYPES = "tcpv4,ipv6,udpv6"
RSS = RssConfig.default(8).replace(
    hash_types=HashType.TCPv4 | HashType.IPv6 | HashType.UDPv6, unclassified_queue=3
)
OPTIONS = ["--queues", "8", "--types", TYPES, "--unclassified", "3", "--by", "bytes"]


def number(text: str) -> int:
    return int(text.replace(",", ""))


@pytest.fixture(name="files", scope="module")
def _files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Frames of all kinds and link types; some without a time; one file that is damaged."""
    folder = tmp_path_factory.mktemp("same")
    sample(folder / "a.pcapng", 600)
    write_pcap(folder / "b.pcap", sample(folder / "c.pcapng", 50, seed=4)[:0])
    whole = (folder / "c.pcapng").read_bytes()
    (folder / "c.pcapng").write_bytes(whole[:-20])
    return sorted(str(path) for path in folder.iterdir())


@pytest.fixture(name="told")
def _told(files: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["analyze", *files, *OPTIONS, "--json", "--windows", "--top", "20"]) == 1
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


@pytest.fixture(name="wide")
def _wide(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No line is folded."""
    monkeypatch.setenv("COLUMNS", "300")
    output.console.cache_clear()
    yield
    output.console.cache_clear()


@pytest.mark.usefixtures("wide")
def test_text(files: list[str], told: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["analyze", *files, *OPTIONS, "--buckets", "--windows", "--top", "20"]) == 1
    head, *parts = capsys.readouterr().out.split("\n\n")
    rows = [[line.split() for line in part.splitlines()[1:]] for part in parts]
    queues, buckets, windows, reports, unhashed, flows = rows
    amounts = [number(text) for text in re.findall(r"[\d,]+(?= (?:packet|byte|flow))", head)]
    assert amounts[:3] == [told["packets"], told["bytes"], told["flows"]]
    assert f"{told['captured_short']:,} packets captured short" in head
    names = "packets", "bytes", "flows"
    for found, row in zip(told["queues"], queues, strict=False):
        assert [number(text) for text in row[:4]] == [found["queue"], *map(found.get, names)]
    even = told["evenness"]["bytes"]
    assert (queues[8][4], queues[8][-1]) == (
        f"{even['imbalance']:.2f}",
        f"{even['variation']:.2f}",
    )
    for found, row in zip(told["buckets"], buckets, strict=True):
        queue = RSS.indirection_table[found["bucket"]]
        assert [number(text) for text in row[:5]] == [
            found["bucket"],
            queue,
            *map(found.get, names),
        ]
    for found, row in zip(told["windows"], windows, strict=True):
        assert [number(text) for text in row[2:10]] == found["bytes"]
    assert {row[0]: [number(text) for text in row[1:]] for row in reports} == {
        name: [found[key] for key in names] for name, found in told["report_types"].items()
    }
    lines = {" ".join(re.split(r"\s[\d,]+(?=\s|$)", " ".join(row))).strip() for row in unhashed}
    reasons = {
        REASONS[reason] for reason in REASONS if told["not_hashed"][reason.name.lower()]["packets"]
    }
    assert reasons <= lines
    for found, row in zip(told["heaviest_flows"], flows, strict=True):
        assert number(row[-5]) == found["bytes"]
        assert number(row[-6]) == found["packets"]
        assert row[-1] == str(found["queue"])
        assert row[-2] == ("-" if found["bucket"] is None else str(found["bucket"]))


def test_page(files: list[str], told: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert run(["report", *files, *OPTIONS, "-o", str(page)]) == 1
    found = Reader(page.read_text()).tables
    for row, queue in zip(found["Load of the queues"][1:], told["queues"], strict=True):
        assert [number(text) for text in row[:4]] == list(queue.values())
    assert found["How uneven the queues are"][1:] == [
        [
            name,
            str(max(told["queues"], key=lambda queue: queue[name])["queue"]),
            f"{told['evenness'][name]['imbalance']:.2f}",
            f"{told['evenness'][name]['variation']:.2f}",
        ]
        for name in ("bytes", "packets")
    ]
    for row, flow in zip(found["The heaviest flows"][1:], told["heaviest_flows"], strict=True):
        assert str(flow["source"]) in row[2] or str(flow["source"]) in row[1]
        assert f"{flow['bytes']:,}" in row
        assert f"{flow['packets']:,}" in row
    kinds = {row[0]: [number(text) for text in row[1:4]] for row in found["Report types"][1:]}
    names = {"NONE": "no hash"}
    assert kinds == {
        names.get(k, k): list(load.values()) for k, load in told["report_types"].items()
    }
    why = {row[0]: row[1:] for row in found["Packets without a hash"][1:]}
    for reason, words in REASONS.items():
        load = told["not_hashed"][reason.name.lower()]
        assert why.get(words, ["0", "0"]) == [f"{load['packets']:,}", f"{load['bytes']:,}"]
    for kind, packets in told["ether_types"].items():
        assert why[f"— {ether_type(int(kind, 16))}"][0] == f"{packets:,}"
    files_read = {row[0]: row[1] for row in found["Files"][1:]}
    assert files_read == {file["path"]: f"{file['packets']:,}" for file in told["files"]}
    assert sum(row[3] != "none" for row in found["Files"][1:]) == 1


def test_arrow(files: list[str], told: dict[str, Any]) -> None:
    analysis = analyze(files, RSS)
    assert arrow.queues_table(analysis).to_pylist() == told["queues"]
    buckets = arrow.buckets_table(analysis).drop_columns("queue").to_pylist()
    assert buckets == told["buckets"]
    assert {row.pop("reason"): row for row in arrow.unhashed_table(analysis).to_pylist()} == told[
        "not_hashed"
    ]
    assert arrow.sources_table(analysis).to_pylist() == told["files"]
    rows = arrow.flows_table(analysis).to_pylist()
    loads = [0] * 8
    for row in rows:
        loads[row["queue"]] += row["bytes"]
    loads[3] += sum(load["bytes"] for load in told["not_hashed"].values())
    loads[3] -= told["not_hashed"]["type_off"]["bytes"]  # which are flows
    assert loads == [queue["bytes"] for queue in told["queues"]]
    for row, flow, raw in zip(rows, told["heaviest_flows"], analysis.flows, strict=False):
        for name in ("source", "destination", "packets", "bytes", "hash_report", "bucket", "queue"):
            assert row[name] == flow[name], flow_text(raw)
        assert row["hash_value"] == (flow["hash_value"] if flow["bucket"] is not None else None)
    by_window: dict[Any, dict[int, int]] = {}
    for row in arrow.windows_table(analysis).to_pylist():
        by_window.setdefault(row["start"], {})[row["queue"]] = row["bytes"]
    timed = [loads for start, loads in by_window.items() if start is not None]
    assert [list(loads.values()) for loads in timed] == [w["bytes"] for w in told["windows"]]
    sums = [sum(loads[queue] for loads in by_window.values()) for queue in range(8)]
    assert sums == [queue["bytes"] for queue in told["queues"]]
