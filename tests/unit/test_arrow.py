# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Analyses as Arrow tables: types, values against the rows they are made of, files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from tests.analyses import START, analysis_of, random_flows
from vnethash.analysis import arrow
from vnethash.analysis.anonymize import Anonymizer, anonymize
from vnethash.analysis.flows import endpoints
from vnethash.analysis.result import Analysis, Reason, Source
from vnethash.errors import ConfigError
from vnethash.rss.config import RssConfig
from vnethash.virtio.hash_types import HashType, ReportType

RSS = RssConfig.default(4).replace(hash_types=HashType.ALL & ~HashType.UDPv4 & ~HashType.IPv4)
TRANSPORTS = {1: "tcp", 2: "udp"}


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    flows = random_flows(400)
    # The forms that IPv6 text has.
    for row, address in enumerate((bytes(16), bytes(15) + b"\1", b"\x20\1" + bytes(13) + b"\1")):
        flows["kind"][row] = ReportType.TCPv6
        flows["addresses"][row] = np.frombuffer(address * 2, np.uint8)
    return analysis_of(RSS, flows)


def test_each_flow_is_a_row(analysis: Analysis) -> None:
    rows = arrow.flows_table(analysis).to_pylist()
    assert len(rows) == 400
    for row, flow, queue in zip(rows, analysis.flows, analysis.flow_queues, strict=True):
        source, destination, *ports = endpoints(flow)
        protocol = TRANSPORTS.get((int(flow["kind"]) - 1) % 3)
        hashed = flow["report"] > 0
        assert row == {
            "source": source,
            "destination": destination,
            "source_port": ports[0] if protocol else None,
            "destination_port": ports[1] if protocol else None,
            "protocol": protocol,
            "packets": flow["packets"],
            "bytes": flow["bytes"],
            "hash_value": flow["hash_value"] if hashed else None,
            "hash_report": ReportType(flow["report"]).name,
            "bucket": flow["hash_value"] & 127 if hashed else None,
            "queue": queue,
        }


def test_types_of_flows(analysis: Analysis) -> None:
    word = pa.dictionary(pa.int8(), pa.string())
    assert {field.name: field.type for field in arrow.flows_table(analysis).schema} == {
        "source": pa.string(),
        "destination": pa.string(),
        "source_port": pa.uint16(),
        "destination_port": pa.uint16(),
        "protocol": word,
        "packets": pa.uint64(),
        "bytes": pa.uint64(),
        "hash_value": pa.uint32(),
        "hash_report": word,
        "bucket": pa.uint32(),
        "queue": pa.uint16(),
    }


def test_queues_and_buckets(analysis: Analysis) -> None:
    queues, buckets = arrow.queues_table(analysis), arrow.buckets_table(analysis)
    assert queues["queue"].to_pylist() == [0, 1, 2, 3]
    assert tuple(buckets["queue"].to_pylist()) == RSS.indirection_table
    for name in ("packets", "bytes", "flows"):
        assert np.array_equal(queues[name], getattr(analysis.by_queue, name))
        assert np.array_equal(buckets[name], getattr(analysis.by_bucket, name))


def test_windows_add_up(analysis: Analysis) -> None:
    table = arrow.windows_table(analysis)
    assert table.schema.field("start").type == pa.timestamp("ns", tz="UTC")
    assert table["start"][0].value == START
    assert len(table) == 10 * 4
    sums = table.group_by("queue").aggregate([("packets", "sum"), ("bytes", "sum")])
    for row in sums.to_pylist():
        assert row["packets_sum"] == analysis.by_queue.packets[row["queue"]]
        assert row["bytes_sum"] == analysis.by_queue.bytes[row["queue"]]


def test_packets_without_a_time_have_rows_of_their_own(analysis: Analysis) -> None:
    assert analysis.windows is not None
    untimed = np.zeros(129, np.uint64)
    untimed[2] = untimed[128] = 5  # of queue 2, and of the unclassified one
    windows = replace(analysis.windows, untimed_packets=untimed, untimed_bytes=60 * untimed)
    rows = arrow.windows_table(replace(analysis, windows=windows)).to_pylist()[-4:]
    assert [(row["start"], row["packets"], row["bytes"]) for row in rows] == [
        (None, 5, 300),
        (None, 0, 0),
        (None, 5, 300),
        (None, 0, 0),
    ]


def test_no_windows(analysis: Analysis) -> None:
    table = arrow.windows_table(replace(analysis, windows=None))
    assert len(table) == 0
    assert table.schema == arrow.windows_table(analysis).schema


def test_unhashed(analysis: Analysis) -> None:
    rows = arrow.unhashed_table(analysis).to_pylist()
    assert rows[0] == {"reason": "not_ip", "packets": 7, "bytes": 294}
    assert rows[Reason.TYPE_OFF]["packets"] == analysis.unhashed[Reason.TYPE_OFF, 0] > 0


def test_sources(analysis: Analysis) -> None:
    broken = Source("b.pcap", 1, 2, "cut short", 40)
    rows = arrow.sources_table(replace(analysis, sources=(analysis.sources[0], broken))).to_pylist()
    assert rows[0]["error"] is None
    assert rows[1] == {
        "path": "b.pcap",
        "packets": 1,
        "bytes_read": 2,
        "error": "cut short",
        "offset": 40,
    }


def test_nothing_at_all() -> None:
    nothing = analysis_of(RSS, random_flows(0), sources=())
    assert len(arrow.flows_table(nothing)) == 0
    assert arrow.flows_table(nothing).schema.field("source").type == pa.string()
    assert len(arrow.sources_table(nothing)) == 0


def read_csv(path: Path) -> Any:
    options = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
    return pyarrow.csv.read_csv(path, convert_options=options)


def read_ipc(path: Path) -> Any:
    return pa.ipc.open_file(path).read_all()


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("flows.parquet", pyarrow.parquet.read_table),
        ("flows.csv", read_csv),
        ("flows.ARROW", read_ipc),
        ("flows.feather", read_ipc),
    ],
)
def test_files(tmp_path: Path, analysis: Analysis, name: str, read: Callable[[Path], Any]) -> None:
    table = arrow.flows_table(analysis)
    arrow.write_table(table, tmp_path / name)
    assert read(tmp_path / name).to_pylist() == table.to_pylist()


def test_files_of_another_kind(tmp_path: Path, analysis: Analysis) -> None:
    with pytest.raises(ConfigError, match=r"flows\.xlsx: tables are written as \.parquet"):
        arrow.write_table(arrow.queues_table(analysis), tmp_path / "flows.xlsx")
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_written(tmp_path: Path, analysis: Analysis) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        arrow.write_table(arrow.queues_table(analysis), tmp_path / "nowhere" / "q.csv")
    assert caught.value.filename


def test_by_duckdb(analysis: Analysis) -> None:
    flows = arrow.flows_table(analysis)
    with duckdb.connect() as connection:
        connection.register("flows", flows)
        rows = connection.sql("SELECT queue, sum(bytes) FROM flows GROUP BY queue").fetchall()
    hashed = analysis.flow_queues
    assert dict(rows) == {
        queue: analysis.flows["bytes"][hashed == queue].sum() for queue in range(4)
    }


def test_by_polars(analysis: Analysis) -> None:
    frame = polars.from_arrow(arrow.windows_table(analysis))
    assert isinstance(frame, polars.DataFrame)
    assert frame["start"].dtype == polars.Datetime("ns", "UTC")
    assert frame["bytes"].sum() == analysis.bytes


@pytest.mark.parametrize("name", ["flows.parquet", "flows.csv", "flows.arrow"])
def test_anonymous_files(tmp_path: Path, analysis: Analysis, name: str) -> None:
    shared = anonymize(analysis, Anonymizer(bytes(range(32))))
    table = arrow.flows_table(shared)
    assert table["hash_value"].null_count == 400
    assert table["bucket"].null_count < 400
    arrow.write_table(table, tmp_path / name)
    arrow.write_table(arrow.flows_table(analysis), tmp_path / f"real-{name}")
    told = (tmp_path / name).read_bytes()
    if not name.endswith("parquet"):  # which is compressed
        assert addresses_in(analysis, (tmp_path / f"real-{name}").read_bytes())
        assert not addresses_in(analysis, told)
    both = {address for flow in analysis.flows for address in endpoints(flow)[:2]}
    assert not both & {*table["source"].to_pylist(), *table["destination"].to_pylist()}


def addresses_in(analysis: Analysis, data: bytes) -> list[str]:
    """Of the addresses long enough not to be there by chance."""
    texts = {address for flow in analysis.flows for address in endpoints(flow)[:2]}
    return [text for text in texts if len(text) > 10 and text.encode() in data]
