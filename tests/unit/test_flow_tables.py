# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Flow tables: what exporters write is read as they mean it, and what cannot be read is told."""

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import re
import sys
import tracemalloc
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from vnethash.analysis.arrow import flows_table, write_table
from vnethash.analysis.flows import endpoints, hash_flows
from vnethash.analysis.local import analyze, analyze_table
from vnethash.analysis.tables import (
    UNTIMED,
    FlowBatch,
    Role,
    is_flow_table,
    merge_rejected,
    open_flow_table,
    parse_columns,
    read_arrow,
    rejected_text,
)
from vnethash.analysis.tables.cells import parse_address
from vnethash.capture.stream import Stream
from vnethash.errors import CaptureError, ConfigError, DependencyMissing, FlowTableError
from vnethash.rss.config import RssConfig
from vnethash.rss.native import Hasher
from vnethash.rss.reference import Protocol, classify_tuple
from vnethash.virtio.hash_types import ReportType

RSS = RssConfig.default(8)
SECOND = 10**9
NOON = 1_709_294_400 * SECOND  # 2024-03-01 12:00:00 UTC


class Row(NamedTuple):
    source: str
    destination: str
    source_port: int
    destination_port: int
    kind: ReportType
    packets: int
    bytes: int
    time: int | None = None


A, B, SIX_A, SIX_B = "192.0.2.1", "198.51.100.7", "2001:db8::1", "2001:db8:ffff::2"
TCP4, UDP6, IP4, IP6 = ReportType.TCPv4, ReportType.UDPv6, ReportType.IPv4, ReportType.IPv6


def rows_of(batches: Iterable[FlowBatch]) -> list[Row]:
    rows = []
    for batch in batches:
        for number, flow in enumerate(batch.flows):
            time = None if batch.times_ns is None else int(batch.times_ns[number])
            rows.append(
                Row(
                    *endpoints(flow),
                    ReportType(flow["kind"]),
                    int(flow["packets"]),
                    int(flow["bytes"]),
                    None if time == UNTIMED else time,
                )
            )
    return rows


def stream(data: bytes, name: str = "flows.csv") -> Stream:
    return Stream(io.BytesIO(data), name, owned=False, size=None)


def read(content: bytes | str, columns: str = "") -> list[FlowBatch]:
    data = content.encode() if isinstance(content, str) else content
    given = parse_columns(columns) if columns else None
    return list(open_flow_table(stream(data), given))


def told(batches: Iterable[FlowBatch]) -> str | None:
    return rejected_text(part for batch in batches for part in batch.rejected)


ZEEK = """#separator \\x09
#set_separator\t,
#empty_field\t(empty)
#unset_field\t-
#path\tconn
#open\t2024-03-01-12-00-00
#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\torig_bytes\
\tresp_bytes\tconn_state\torig_pkts\torig_ip_bytes\tresp_pkts\tresp_ip_bytes\ttunnel_parents
#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tstring\tinterval\tcount\tcount\tstring\tcount\
\tcount\tcount\tcount\tset[string]
1709294400.250000\tC1a\t192.0.2.1\t40000\t198.51.100.7\t443\ttcp\tssl\t1.5\t700\t9000\tSF\t10\t1220\
\t12\t9624\t-
1709294401.000000\tC2b\t2001:db8::1\t5353\t2001:db8:ffff::2\t53\tudp\tdns\t-\t-\t-\tS0\t1\t68\t0\t0\
\t(empty)
1709294402.000000\tC3c\t192.0.2.1\t8\t198.51.100.7\t0\ticmp\t-\t-\t-\t-\tOTH\t2\t168\t2\t168\t-
#close\t2024-03-01-13-00-00
"""
ZEEK_ROWS = {
    Row(A, B, 40000, 443, TCP4, 10, 1220, NOON + SECOND // 4),
    Row(B, A, 443, 40000, TCP4, 12, 9624, NOON + SECOND // 4),
    Row(SIX_A, SIX_B, 5353, 53, UDP6, 1, 68, NOON + SECOND),
    Row(A, B, 0, 0, IP4, 2, 168, NOON + 2 * SECOND),
    Row(B, A, 0, 0, IP4, 2, 168, NOON + 2 * SECOND),
}
ZEEK_JSON = "\n".join(
    json.dumps(dict(row, uid="C1", conn_state="SF"))
    for row in (
        {
            "ts": 1709294400.25,
            "id.orig_h": A,
            "id.orig_p": 40000,
            "id.resp_h": B,
            "id.resp_p": 443,
            "proto": "tcp",
            "orig_pkts": 10,
            "orig_ip_bytes": 1220,
            "resp_pkts": 12,
            "resp_ip_bytes": 9624,
        },
        {
            "ts": 1709294401,
            "id.orig_h": SIX_A,
            "id.orig_p": 5353,
            "id.resp_h": SIX_B,
            "id.resp_p": 53,
            "proto": "udp",
            "orig_pkts": 1,
            "orig_ip_bytes": 68,
        },
    )
)
NFDUMP = """ts,te,td,sa,da,sp,dp,pr,flg,fwd,stos,ipkt,ibyt,opkt,obyt,in,out,sas,das
2024-03-01 12:00:00,2024-03-01 12:00:05,5.000,192.0.2.1,198.51.100.7,40000,443,TCP,...AP.S.,0,0,10,\
1220,12,9624,3,4,0,0
2024-03-01 12:00:01,2024-03-01 12:00:01,0.000,2001:db8::1,2001:db8:ffff::2,5353,53,UDP,........,0,\
0,1,68,0,0,3,4,0,0
2024-03-01 12:00:02,2024-03-01 12:00:02,0.000,192.0.2.1,198.51.100.7,0,8.0,ICMP,........,0,0,2,168,\
0,0,3,4,0,0
Summary
flows,bytes,packets,avg_bps,avg_pps,avg_bpp
3,1456,13,0,0,0
"""
NFDUMP_NEW = """firstSeen,duration,proto,srcAddr,srcPort,dstAddr,dstPort,packets,bytes,flows
2024-03-01 12:00:00.250,5.000,TCP,192.0.2.1,40000,198.51.100.7,443,10,1220,1
2024-03-01 12:00:01.000,0.000,UDP,2001:db8::1,5353,2001:db8:ffff::2,53,1,68,1
"""
NFDUMP_FAST = """cnt,af,firstSeen,lastSeen,proto,srcAddr,srcPort,dstAddr,dstPort,srcAS,dstAS,input,\
output,flags,srcTos,packets,bytes
1,2,1709294400250,1709294405250,6,192.0.2.1,40000,198.51.100.7,443,0,0,3,4,...AP.S.,0,10,1220
2,10,1709294401000,1709294401000,17,2001:db8::1,5353,2001:db8:ffff::2,53,0,0,3,4,........,0,1,68
"""
IPFIX = """flowStartMilliseconds;sourceIPv4Address;destinationIPv4Address;sourceIPv6Address;\
destinationIPv6Address;sourceTransportPort;destinationTransportPort;protocolIdentifier;\
packetDeltaCount;octetDeltaCount
1709294400250;192.0.2.1;198.51.100.7;::;::;40000;443;6;10;1220
1709294401000;0.0.0.0;0.0.0.0;2001:db8::1;2001:db8:ffff::2;5353;53;17;1;68
"""
SILK = """            sIP|            dIP|sPort|dPort|pro|   packets|     bytes|   flags|\
                  sTime| duration|
      192.0.2.1|   198.51.100.7|40000|  443|  6|        10|      1220| SPA    |\
2024/03/01T12:00:00.250|    5.000|
    2001:db8::1| 2001:db8:ffff::2| 5353|   53| 17|         1|        68|        |\
2024/03/01T12:00:01.000|    0.000|
"""
VPC = """version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes \
start end action log-status
2 123456789010 eni-1235b8ca 192.0.2.1 198.51.100.7 40000 443 6 10 1220 1709294400 1709294460 \
ACCEPT OK
2 123456789010 eni-1235b8ca 2001:db8::1 2001:db8:ffff::2 5353 53 17 1 68 1709294401 1709294460 \
ACCEPT OK
2 123456789010 eni-1235b8ca - - - - - - - 1709294460 1709294520 - NODATA
"""
NPROBE = """IPV4_SRC_ADDR,L4_SRC_PORT,IPV4_DST_ADDR,L4_DST_PORT,PROTOCOL,IN_BYTES,IN_PKTS,\
OUT_BYTES,OUT_PKTS
192.0.2.1,40000,198.51.100.7,443,6,1220,10,9624,12
"""
ARGUS = """srcip,sport,dstip,dsport,proto,sbytes,dbytes,Spkts,Dpkts,Stime
192.0.2.1,40000,198.51.100.7,443,tcp,1220,9624,10,12,1709294400
"""
FLOW_TOOLS = """#:unix_secs,dpkts,doctets,srcaddr,dstaddr,srcport,dstport,prot
1709294400,10,1220,192.0.2.1,198.51.100.7,40000,443,6
"""
SURICATA = "\n".join(
    [
        json.dumps({"event_type": "stats", "stats": {"uptime": 8}}),
        json.dumps(
            {
                "timestamp": "2024-03-01T12:01:00.000000+0000",
                "event_type": "flow",
                "src_ip": A,
                "src_port": 40000,
                "dest_ip": B,
                "dest_port": 443,
                "proto": "TCP",
                "flow": {
                    "pkts_toserver": 10,
                    "pkts_toclient": 12,
                    "bytes_toserver": 1220,
                    "bytes_toclient": 9624,
                    "start": "2024-03-01T12:00:00.250000+0000",
                },
            }
        ),
        json.dumps({"event_type": "dns", "src_ip": A, "dest_ip": B, "src_port": 1, "dest_port": 2}),
    ]
)
TSHARK = """frame.time_epoch,ip.src,ip.dst,ipv6.src,ipv6.dst,tcp.srcport,tcp.dstport,udp.srcport,\
udp.dstport,ip.proto,ipv6.nxt,frame.len
1709294400.250000000,192.0.2.1,198.51.100.7,,,40000,443,,,6,,1234
1709294401.000000000,,,2001:db8::1,2001:db8:ffff::2,,,5353,53,,17,82
"""
FORWARD = Row(A, B, 40000, 443, TCP4, 10, 1220, NOON + SECOND // 4)
BACKWARD = Row(B, A, 443, 40000, TCP4, 12, 9624, NOON + SECOND // 4)
QUERY = Row(SIX_A, SIX_B, 5353, 53, UDP6, 1, 68, NOON + SECOND)


def at(row: Row, time: int | None) -> Row:
    return row._replace(time=time)


FORMATS = {
    "zeek": (ZEEK, ZEEK_ROWS),
    "zeek-json": (ZEEK_JSON, {FORWARD, BACKWARD, QUERY}),
    "nfdump": (
        NFDUMP,
        {
            at(FORWARD, NOON),
            at(BACKWARD, NOON),
            QUERY,
            Row(A, B, 0, 0, IP4, 2, 168, NOON + 2 * SECOND),
        },
    ),
    "nfdump-1.7.4": (NFDUMP_NEW, {FORWARD, QUERY}),
    "nfdump-fast": (NFDUMP_FAST, {FORWARD, QUERY}),
    "ipfix": (IPFIX, {FORWARD, QUERY}),
    "silk": (SILK, {FORWARD, QUERY}),
    "vpc": (VPC, {at(FORWARD, NOON), QUERY}),
    "nprobe": (NPROBE, {at(FORWARD, None), at(BACKWARD, None)}),
    "argus": (ARGUS, {at(FORWARD, NOON), at(BACKWARD, NOON)}),
    "flow-tools": (FLOW_TOOLS, {at(FORWARD, None)}),
    "suricata": (
        SURICATA,
        {FORWARD, BACKWARD},
    ),
    "tshark": (TSHARK, {FORWARD._replace(packets=1, bytes=1234), QUERY._replace(bytes=82)}),
    "plain": (
        "src,dst,sport,dport\n192.0.2.1,198.51.100.7,40000,443\n",
        {Row(A, B, 40000, 443, TCP4, 1, 0)},
    ),
    "addresses": (
        "src\tdst\n192.0.2.1\t198.51.100.7\n2001:db8::1\t2001:db8:ffff::2\n",
        {Row(A, B, 0, 0, IP4, 1, 0), Row(SIX_A, SIX_B, 0, 0, IP6, 1, 0)},
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str) -> None:
    content, expected = FORMATS[name]
    batches = read(content)
    rows = rows_of(batches)
    assert told(batches) is None
    assert set(rows) == expected
    assert len(rows) == len(expected)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_hashes_as_the_reference_does(name: str) -> None:
    for batch in read(FORMATS[name][0]):
        hashed = hash_flows(batch.flows, Hasher(RSS))
        for flow in hashed:
            source, destination, *ports = endpoints(flow)
            kind = ReportType(flow["kind"])
            protocol = {2: Protocol.TCP, 0: Protocol.UDP}.get(kind % 3)
            expected = classify_tuple(RSS, source, destination, protocol, *ports)
            assert (flow["hash_value"], flow["report"]) == (expected.hash_value, kind)
            assert expected.hash_report is kind


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_taken_for_flow_tables(name: str) -> None:
    assert is_flow_table(FORMATS[name][0].encode()[:700])


def test_other_files_are_not() -> None:
    assert not is_flow_table(b"")
    assert not is_flow_table(b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00")
    assert not is_flow_table(bytes(100))
    assert is_flow_table(b"PAR1\x15\x04")
    assert not is_flow_table("src,dst\n".encode("utf-16"))
    assert is_flow_table("\ufeffsource,destination,städte".encode()[:-5])


@pytest.mark.parametrize("odd", ["Müller".encode("latin-1"), "a\xa0b".encode(), b"\x07"])
@pytest.mark.parametrize("before", [1, 2000])
def test_an_odd_byte_in_a_column_of_no_use(odd: bytes, before: int, tmp_path: Path) -> None:
    row, path = b"192.0.2.1,198.51.100.7,1,2,", tmp_path / "x.csv"
    path.write_bytes(b"src,dst,sport,dport,label\n" + (row + b"x\n") * before + row + odd + b"\n")
    result = analyze([path], RSS)
    if odd == b"\x07" and before == 1:  # control bytes at the beginning are no text
        assert str(result.failed[0].error).startswith("not a capture")
    else:
        assert result.failed == ()
        assert result.sources[0].packets == before + 1


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, bz2.compress, lzma.compress, zstandard.compress],
    ids=["gzip", "bz2", "xz", "zstd"],
)
def test_compressed(pack: Any) -> None:
    assert set(rows_of(read(pack(ZEEK.encode())))) == ZEEK_ROWS


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_compressed_in_several_parts(pack: Any) -> None:
    rows = rows_of(read(pack(VPC.encode()) + pack(b"".join([VPC.encode().splitlines(True)[1]]))))
    assert rows.count(at(FORWARD, NOON)) == 2


def test_a_compressed_table_that_ends_too_early_gives_what_there_is() -> None:
    rng = np.random.default_rng(1)
    ports = rng.integers(1, 65536, 400_000)
    text = "src,dst,sport,dport\n" + "".join(f"192.0.2.1,198.51.100.7,{p},443\n" for p in ports)
    whole = gzip.compress(text.encode(), 1)
    batches: list[FlowBatch] = []
    with pytest.raises(FlowTableError, match=r"^x\.gz: the gzip data ends too early"):
        batches.extend(open_flow_table(stream(whole[: len(whole) * 3 // 4], "x.gz")))
    found = rows_of(batches)
    # Every whole line, and no part of one.
    assert 297_000 < len(found) < 301_000
    assert [row.source_port for row in found] == ports[: len(found)].tolist()
    assert told(batches) is None


def test_a_pipe(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self._data = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, room: Any) -> int:
            return self._data.readinto(memoryview(room)[:700])

    def piped(data: bytes) -> list[Row]:
        return rows_of(open_flow_table(Pipe(data)))  # type: ignore[arg-type]

    assert set(piped(ZEEK.encode())) == ZEEK_ROWS
    assert set(piped(gzip.compress(ZEEK.encode()))) == ZEEK_ROWS
    table = pa.table({"src": [A], "dst": [B]})
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(FlowTableError, match="Parquet that cannot be sought in"):
        piped((tmp_path / "x.parquet").read_bytes())


class TestColumns:
    def test_given(self) -> None:
        text = "client,server,cport,sport,n\n192.0.2.1,198.51.100.7,40000,443,10\n"
        columns = (
            "source=client, destination=SERVER,source_port=cport,destination_port=sport,packets=n"
        )
        assert rows_of(read(text, columns)) == [Row(A, B, 40000, 443, TCP4, 10, 0)]

    def test_by_position_where_there_are_no_names(self) -> None:
        text = "192.0.2.1;40000;198.51.100.7;443;udp\n198.51.100.7;443;192.0.2.1;40000;udp\n"
        columns = "source=1,source_port=2,destination=3,destination_port=4,protocol=5"
        kind = ReportType.UDPv4
        assert rows_of(read(text, columns)) == [
            Row(A, B, 40000, 443, kind, 1, 0),
            Row(B, A, 443, 40000, kind, 1, 0),
        ]

    def test_an_empty_name_is_none(self) -> None:
        rows = rows_of(read(NFDUMP, "reverse_packets=,reverse_bytes=,time="))
        assert at(FORWARD, None) in rows
        assert at(BACKWARD, None) not in rows

    def test_lines_before_the_names(self) -> None:
        text = f"# exported\nSite: Köln, rack 7\n\n{NFDUMP_NEW}"
        assert set(rows_of(read(text))) == {FORWARD, QUERY}

    def test_parse(self) -> None:
        assert parse_columns("source=a b,time=t") == {Role.SOURCE: "a b", Role.TIME: "t"}
        with pytest.raises(ConfigError, match=r"columns: 'src=a' is not ROLE=NAME") as caught:
            parse_columns("source=x,src=a")
        assert "reverse_packets" in str(caught.value.hint)
        with pytest.raises(ConfigError, match="source is there twice"):
            parse_columns("source=x,source=a")
        with pytest.raises(ConfigError):
            parse_columns("source")

    def test_missing_ones_are_named(self) -> None:
        with pytest.raises(FlowTableError, match="no column is the source address") as caught:
            read("a,b,c\n1,2,3\n")
        assert caught.value.hint == "--columns source=NAME; its columns are: a, b, c"
        with pytest.raises(FlowTableError, match=r"no column is the source port$"):
            read("src,dst,proto\n192.0.2.1,198.51.100.7,6\n")
        with pytest.raises(FlowTableError, match=r"no column is the destination port$"):
            read("src,dst,sport\n192.0.2.1,198.51.100.7,6\n")
        with pytest.raises(FlowTableError, match="has no column 'nn' for packets"):
            read("src,dst\n192.0.2.1,198.51.100.7\n", "packets=nn")

    def test_no_table_at_all(self) -> None:
        for content, what in (
            (b"", "is empty"),
            (b"\n\n", "neither|address"),
            (b"\0\1\2" * 100, "neither a capture nor a flow table"),
            (b"#separator \\x09\n#path\tconn\n", "without #fields"),
            (b'["a"]', "source address"),
            (b'{"a": 1}\n', "source address"),
            (b"PAR1 and nothing else", "cannot be read further"),
        ):
            with pytest.raises(FlowTableError, match=what):
                read(content)

    def test_names_alone_have_no_rows(self) -> None:
        assert rows_of(read("src,dst\n")) == []
        assert rows_of(read("src,dst")) == []


class TestWhichColumn:
    """The one that is meant, and no other."""

    def table(self) -> pa.Table:
        names = ["src", "dst", "sport", "dport", "proto", "packets", "bytes", "packets", "x"]
        cells: list[Any] = [A, B, 40000, 443, 6, 10, 1220, 77, 99]
        return pa.Table.from_arrays([pa.array([cell]) for cell in cells], names=names)

    @pytest.mark.parametrize(("columns", "packets"), [("", 10), ("packets=8", 77)])
    def test_two_of_one_name(self, tmp_path: Path, columns: str, packets: int) -> None:
        given = parse_columns(columns) if columns else None
        pa.parquet.write_table(self.table(), tmp_path / "x.parquet")
        expected = [Row(A, B, 40000, 443, TCP4, packets, 1220)]
        assert rows_of(open_flow_table(tmp_path / "x.parquet", given)) == expected
        assert rows_of(read_arrow(self.table(), given)) == expected

    def test_two_structs_of_one_name(self, tmp_path: Path) -> None:
        ends = [pa.array([{"a": A, "b": B}]), pa.array([1]), pa.array([{"a": B, "b": A}])]
        table = pa.Table.from_arrays(ends, names=["id", "n", "id"])
        pa.parquet.write_table(table, tmp_path / "x.parquet")
        given = parse_columns("source=id.a,destination=5")
        for batches in (open_flow_table(tmp_path / "x.parquet", given), read_arrow(table, given)):
            assert rows_of(batches) == [Row(A, A, 0, 0, IP4, 1, 0)]

    @pytest.mark.parametrize(
        "first",
        [
            "192.0.2.1,198.51.100.7,40000,443,6,10,1220",
            "192.0.2.1,198.51.100.7,7,443,6,1,2",
            "3221225985,3325256711,7,443,6,1,2",
            "unknown,198.51.100.7,1,2,6,3,4",
            "192.0.2.1,-,1,2,6,3,4",
            "-,-,1,2,6,3,4",
        ],
    )
    def test_a_number_is_a_position_where_there_are_no_names(self, first: str) -> None:
        columns = (
            "source=1,destination=2,source_port=3,destination_port=4,protocol=5,packets=6,bytes=7"
        )
        rows = rows_of(read(f"{first}\n{A},{B},40000,443,6,10,1220\n", columns))
        assert rows[-1] == Row(A, B, 40000, 443, TCP4, 10, 1220)
        if "-" not in first and "unknown" not in first:
            ports_and_counts = [int(cell) for cell in first.split(",")[2:]]
            port, other, _, packets, octets = ports_and_counts
            assert rows[0] == Row(A, B, port, other, TCP4, packets, octets)

    def test_a_first_row_without_an_address_is_told(self) -> None:
        batches = read(f"unknown,{B},1,2\n{A},{B},1,2\n", "source=1,destination=2")
        assert "1 without a source address (line 1: 'unknown')" in str(told(batches))

    @pytest.mark.parametrize(
        ("counts", "ways"),
        [
            ("SrcPkts=100,DstPkts=200,SrcBytes=1000,DstBytes=3000", [(100, 1000), (200, 3000)]),
            ("TotPkts=14,TotBytes=3500,SrcBytes=500", [(14, 3500)]),
            ("TotPkts=14,SrcBytes=500,DstBytes=3000", [(14, 0)]),
            ("TotPkts=14,SrcBytes=500", [(14, 0)]),
            ("TotPkts=14,bytes=3500", [(14, 3500)]),
            ("pkts=14,bytes=3500,sbytes=500,dbytes=3000", [(14, 3500)]),
            ("SrcPkts=5,DstPkts=9,TotBytes=3500", [(5, 0), (9, 0)]),
            ("spkts=5,dpkts=9,bytes=3500", [(5, 0), (9, 0)]),
            ("SrcPkts=5,TotBytes=3500", [(5, 0)]),
            ("SrcBytes=5,DstBytes=3500", [(1, 5), (1, 3500)]),
        ],
    )
    def test_a_count_of_both_ways_is_not_taken_with_one_of_one(
        self, counts: str, ways: list[tuple[int, int]]
    ) -> None:
        names, _, cells = zip(*(part.partition("=") for part in counts.split(",")), strict=True)
        batches = read(f"src,dst,{','.join(names)}\n{A},{B},{','.join(cells)}\n")
        assert [(row.packets, row.bytes) for row in rows_of(batches)] == ways

    def test_a_given_count_of_both_ways(self) -> None:
        text = f"src,dst,totpkts,srcpkts,dstpkts,srcbytes,dstbytes\n{A},{B},14,5,9,500,900\n"
        assert rows_of(read(text, "packets=totpkts")) == [Row(A, B, 0, 0, IP4, 14, 0)]

    def test_a_column_without_a_name_is_none(self) -> None:
        text = f",src,dst,packets,bytes\n7,{A},{B},10,1220\n"
        assert rows_of(read(text)) == [Row(A, B, 0, 0, IP4, 10, 1220)]

    def test_numbers_as_names(self) -> None:
        assert rows_of(read(f"0,1,2\nx,{A},{B}\n", "source=1,destination=2")) == [
            Row(A, B, 0, 0, IP4, 1, 0)
        ]


class TestRejected:
    HEADER = "src,dst,sport,dport,proto,packets,bytes\n"
    GOOD = "192.0.2.1,198.51.100.7,40000,443,6,10,1220\n"

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("192.0.2.256,198.51.100.7,1,2,6,1,1", "without a source address"),
            ("192.0.2,198.51.100.7,1,2,6,1,1", "without a source address"),
            ("192.0.2.01,198.51.100.7,1,2,6,1,1", "without a source address"),
            ("192.0.2.1.,198.51.100.7,1,2,6,1,1", "without a source address"),
            ("192..2.1,198.51.100.7,1,2,6,1,1", "without a source address"),
            (",198.51.100.7,1,2,6,1,1", "without a source address"),
            ("192.0.2.1,2001:db8::g,1,2,6,1,1", "without a destination address"),
            ("192.0.2.1,4294967296,1,2,6,1,1", "without a destination address"),
            ("192.0.2.1,2001:db8::1,1,2,6,1,1", "with addresses of two families"),
            ("192.0.2.1,198.51.100.7,65536,2,6,1,1", "without a source port"),
            ("192.0.2.1,198.51.100.7,1,-1,17,1,1", "without a destination port"),
            ("192.0.2.1,198.51.100.7,1,,17,1,1", "without a destination port"),
            ("192.0.2.1,198.51.100.7,1,2,,1,1", "without a protocol"),
            ("192.0.2.1,198.51.100.7,1,2,256,1,1", "without a protocol"),
            ("192.0.2.1,198.51.100.7,1,2,6,-1,1", "without a number of packets"),
            ("192.0.2.1,198.51.100.7,1,2,6,1.5,1", "without a number of packets"),
            ("192.0.2.1,198.51.100.7,1,2,6,,1", "without a number of packets"),
            ("192.0.2.1,198.51.100.7,1,2,6,1,many", "without a number of bytes"),
            ("192.0.2.1,198.51.100.7,1,2,6,1,99999999999999999999", "without a number of bytes"),
            ("192.0.2.1,198.51.100.7,1,2,6,1,281474976710657", "without a number of bytes"),
            ("192.0.2.1,198.51.100.7,1,2,6,1", "not of 7 columns"),
            ("192.0.2.1,198.51.100.7,1,2,6,1,1,8", "not of 7 columns"),
        ],
    )
    def test_the_rest_goes_on(self, line: str, reason: str) -> None:
        batches = read(f"{self.HEADER}{self.GOOD}\n{line}\n{self.GOOD}{line}\n")
        assert rows_of(batches) == [at(FORWARD, None)] * 2
        (rejected,) = merge_rejected(part for batch in batches for part in batch.rejected)
        assert (rejected.reason, rejected.rows) == (reason, 2)
        assert rejected.first.startswith("line 4: ")
        assert sum(batch.rows for batch in batches) == 4

    def test_lines_are_counted_whatever_is_between(self) -> None:
        lines = ["x,y", self.GOOD.strip(), "", "#note", "short", "", self.GOOD.strip(), "1,2", "#"]
        bad = self.GOOD.strip().replace("192.0.2.1", "nowhere")
        text = self.HEADER + "\n".join([*lines, bad]) + "\n"
        batches = read(text)
        assert told(batches) == (
            "4 rows cannot be read: 3 not of 7 columns (line 2: 'x,y'), "
            "1 without a source address (line 11: 'nowhere')"
        )

    def test_one_row(self) -> None:
        text = rejected_text(part for batch in read(self.HEADER + "a\n") for part in batch.rejected)
        assert text == "1 row cannot be read: 1 not of 7 columns (line 2: 'a')"

    def test_bytes_that_are_no_text(self) -> None:
        batches = read(
            (self.HEADER + self.GOOD * 9000).encode() + b"192.0.2.\xff,198.51.100.7,1,2,6,1,\xfe\n"
        )
        assert "1 without a source address (line 9002: '192.0.2.?')" in str(told(batches))

    def test_json_lines(self) -> None:
        lines = ZEEK_JSON.splitlines()
        batches = read("\n".join([lines[0], "{oops", "", "[1]", lines[1].replace(SIX_A, "?")]))
        assert set(rows_of(batches)) == {FORWARD, BACKWARD}
        assert told(batches) == (
            "3 rows cannot be read: 2 not a JSON object (line 2: '{oops'), "
            "1 without a source address (line 5: '?')"
        )

    def test_rows_of_parquet(self) -> None:
        table = pa.table({"src": [A, None, A], "dst": [B, B, ""], "packets": [1, 1, 1]})
        batches = list(read_arrow(table))
        assert rows_of(batches) == [Row(A, B, 0, 0, IP4, 1, 0)]
        assert told(batches) == (
            "2 rows cannot be read: 1 without a source address (row 2: nothing), "
            "1 without a destination address (row 3: '')"
        )

    def test_the_way_back_may_say_nothing(self) -> None:
        text = ZEEK.replace("\t12\t9624\t", "\t-\t-\t").replace("\t1\t68\t0\t", "\t1\t68\tx\t")
        batches = read(text)
        rows = rows_of(batches)
        assert FORWARD in rows
        assert BACKWARD not in rows
        assert "1 without a number of reverse packets (line 10: 'x')" in str(told(batches))


class TestQuotes:
    """A field ends where its line ends, whatever its quotes say."""

    HEADER = "src,dst,sport,dport,label\n"

    @pytest.mark.parametrize(
        "line",
        [
            '192.0.2.1,198.51.100.7,40000,443,"oops',
            '"192.0.2.1,198.51.100.7,40000,443,x',
            '192.0.2.1,"198.51.100.7,40000,443,x',
            '192.0.2.1,198.51.100.7,5" disk,443,"oops',
            '192.0.2.1,198.51.100.7,40000,443,"oops""',
            '192.0.2.1,198.51.100.7,40000,443,"köln\r',
        ],
    )
    def test_one_that_does_not_end_costs_its_row(self, line: str) -> None:
        good = [f"192.0.2.1,198.51.100.7,{port},443,x\n" for port in range(1, 60_000)]
        lines = [*good[:9], f"{line}\n", *good[9:30_000], f"{line}\n", *good[30_000:], line]
        batches = read(self.HEADER + "".join(lines))
        assert [row.source_port for row in rows_of(batches)] == list(range(1, 60_000))
        first = line.replace("ö", "??").rstrip()[:40]
        assert told(batches) == (
            f"3 rows cannot be read: 3 with a quote that does not end (line 11: {first!r})"
        )

    def test_those_that_end(self) -> None:
        labels = ['"a,b"', '"say ""hi"""', '""', '5" disk', '"a" "b"', '"x"y', '""""', '"a\rb"']
        lines = [f'"192.0.2.1",198.51.100.7,{n},"443",{label}\n' for n, label in enumerate(labels)]
        for text in (*lines, "".join(lines)):
            batches = read(self.HEADER + text)
            assert told(batches) is None
            assert len(rows_of(batches)) == text.count("\n")

    def test_comments_have_any(self) -> None:
        text = '192.0.2.1,198.51.100.7,1,2,x\n#"a\n#,"b,c\n192.0.2.1,198.51.100.7,2,2,x\n'
        batches = read(self.HEADER + text)
        assert (len(rows_of(batches)), told(batches)) == (2, None)


def test_a_summary_ends_where_rows_go_on() -> None:
    """As in output of nfdump that was put together."""
    one, _, _ = NFDUMP.partition("Summary")
    header, row = one.splitlines()[:2]
    summary = "Summary\nflows,bytes,packets,avg_bps,avg_pps,avg_bpp\n1,2,3,4,5,6\n"
    text = f"{header}\n{row}\n{summary}{header}\n{row}\n{row[:40]}\n{summary}"
    batches = read(text)
    assert len(rows_of(batches)) == 2 * len(rows_of(read(f"{header}\n{row}\n")))
    assert "1 not of 19 columns (line 8: " in str(told(batches))


def test_json_lines_with_an_odd_letter() -> None:
    """Of a device that writes Latin-1."""
    flow = '{"src_ip": "192.0.2.1", "dest_ip": "198.51.100.7", "name": "Zürich"}\n'
    batches = read(flow.encode() + flow.encode("latin-1"))
    assert rows_of(batches) == [Row(A, B, 0, 0, IP4, 1, 0)] * 2
    assert told(batches) is None


@pytest.mark.parametrize(
    ("summary", "last"),
    [
        ("Summary\nflows,bytes,packets,avg_bps,avg_pps,avg_bpp\n1,2,3,4,5,6\n", 6),
        (
            "Summary: total flows: 1, total bytes: 2\nTime window: 2024-03-01 12:00:00\n"
            "Total flows processed: 1, Blocks skipped: 0\nSys: 0.0, flows/second: 1\n",
            7,
        ),
    ],
)
def test_rows_right_after_a_summary_are_told(summary: str, last: int) -> None:
    header, row = NFDUMP.splitlines()[:2]
    text = f"{header}\n{row}\n{row}\n{summary}{row[:40]}\n{row[:50]}\n"
    assert f"2 not of 19 columns (line {last + 1}: " in str(told(read(text)))


class TestZeekSeparator:
    def test_others(self) -> None:
        for told_as, separator in (("\\x2C", ","), ("|", "|"), ("\\x22", '"'), ("", "\t")):
            text = "#separator \\x09\n#fields\tid.orig_h\tid.resp_h\n192.0.2.1\t198.51.100.7\n"
            text = text.replace("\t", separator).replace("\\x09", told_as, 1)
            assert rows_of(read(text)) == [Row(A, B, 0, 0, IP4, 1, 0)]

    @pytest.mark.parametrize(
        "separator",
        [b"\\x0", b"\\N{foo}", b"\\xe9", b"\xe9", b"\xc3\xa9", b"\\x0a", b"\\x00", b"\\", b"ab"],
    )
    def test_one_that_is_none_fails_its_file_alone(self, separator: bytes, tmp_path: Path) -> None:
        log, good = tmp_path / "bad.log", tmp_path / "good.csv"
        log.write_bytes(b"#separator " + separator + b"\n#fields\tid.orig_h\tid.resp_h\n")
        good.write_text("src,dst\n192.0.2.1,198.51.100.7\n")
        result = analyze([log, good], RSS)
        assert [source.packets for source in result.sources] == [0, 1]
        (failed,) = result.failed
        assert failed.path == str(log)
        assert re.match("is a Zeek log (with #separator '|without #fields)", str(failed.error))


class TestCells:
    def arrow(self, **columns: Any) -> list[Row]:
        return rows_of(read_arrow(pa.table(columns)))

    @pytest.mark.parametrize(
        "source",
        [
            pa.array([A]),
            pa.array([A], pa.large_string()),
            pa.array([A], pa.string_view()),
            pa.array([A]).dictionary_encode(),
            pa.array([A.encode()], pa.binary()),
            pa.array([bytes([192, 0, 2, 1])], pa.binary()),
            pa.array([bytes([192, 0, 2, 1])], pa.binary(4)),
            pa.array([bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])], pa.binary(16)),
            pa.array([f"::ffff:{A}"]),
            pa.array([f" {A} "]),
            pa.array([0xC0000201], pa.uint32()),
            pa.array([0xC0000201 - (1 << 32)], pa.int32()),
            pa.array([0xC0000201], pa.int64()),
            pa.array([str(0xC0000201)]),
        ],
        ids=lambda array: str(array.type),
    )
    def test_addresses(self, source: Any) -> None:
        expected = [Row(A, B, 0, 0, IP4, 1, 0)]
        assert self.arrow(src=source, dst=[B]) == expected
        # Of a column with an offset, and none at all before it.
        double = pa.concat_arrays([pa.nulls(1, source.type), source])
        assert self.arrow(src=double.slice(1), dst=[B]) == expected
        assert self.arrow(src=double, dst=[B, B]) == expected

    @pytest.mark.parametrize("kind", [pa.binary(16), pa.binary()])
    def test_packed_ipv6(self, kind: Any) -> None:
        columns = {
            name: pa.array([ip_address(text).packed], kind)
            for name, text in (("src", SIX_A), ("dst", SIX_B))
        }
        assert self.arrow(**columns) == [Row(SIX_A, SIX_B, 0, 0, IP6, 1, 0)]

    def test_addresses_that_are_none(self) -> None:
        for source in (
            pa.array([1 << 32]),
            pa.array([-1]),
            pa.array([1.5]),
            pa.array([b"1234x"], pa.binary()),
            pa.array([bytes(5)], pa.binary(5)),
            pa.nulls(1),
            pa.array([[1]]).cast(pa.list_(pa.int64())).flatten().cast(pa.bool_()),
        ):
            assert self.arrow(src=source, dst=[B]) == []

    @given(
        st.lists(
            st.one_of(
                st.ip_addresses().map(str),
                st.text("0123456789.:af ", max_size=17),
                st.text(max_size=5),
                st.none(),
            )
        )
    )
    def test_addresses_as_one_by_one(self, texts: list[str | None]) -> None:
        from vnethash.analysis.tables.cells import addresses

        packed, family = addresses(pa.array(texts, pa.string()))
        for row, text in enumerate(texts):
            expected = None if text is None else parse_address(text)
            size = len(expected or b"")
            assert family[row] == {0: 0, 4: 4, 16: 6}[size]
            assert packed[row].tobytes() == (expected or b"").ljust(16, b"\0")

    @pytest.mark.parametrize(
        "ports",
        [
            pa.array([40000], pa.uint16()),
            pa.array([40000.0]),
            pa.array([40000], pa.decimal128(10, 2)),
            pa.array(["40000"]),
            pa.array([" 40000 "]),
            pa.array(["40000.0"]),
            pa.array(["40000"]).dictionary_encode(),
            pa.array([40000], pa.uint64()),
        ],
        ids=lambda array: str(array.type),
    )
    def test_numbers(self, ports: Any) -> None:
        rows = self.arrow(src=[A], dst=[B], sport=ports, dport=[443])
        assert rows == [Row(A, B, 40000, 443, TCP4, 1, 0)]

    def test_numbers_that_are_none(self) -> None:
        for count in (
            pa.array([2**64 - 1], pa.uint64()),
            pa.array([1.5]),
            pa.array([float("nan")]),
            pa.array([1e300]),
            pa.nulls(1),
            pa.array([True]),
        ):
            assert self.arrow(src=[A], dst=[B], packets=count) == []

    @pytest.mark.parametrize(
        ("protocol", "transport"),
        [
            (pa.array([6]), 1),
            (pa.array([17.0]), 2),
            (pa.array(["UDP"]), 2),
            (pa.array([" tcp "]), 1),
            (pa.array(["17"]), 2),
            (pa.array(["6.0"]), 1),
            (pa.array([1]), 0),
            (pa.array(["IPv6-ICMP"]), 0),
            (pa.array(["132"]), 0),
        ],
    )
    def test_protocols(self, protocol: Any, transport: int) -> None:
        (row,) = self.arrow(src=[A], dst=[B], sport=[7], dport=[9], proto=protocol)
        ports = (7, 9) if transport else (0, 0)
        assert (row.kind, row.source_port, row.destination_port) == (1 + transport, *ports)

    def test_without_a_protocol_rows_with_ports_are_tcp(self) -> None:
        rows = self.arrow(src=[A, A], dst=[B, B], sport=[7, None], dport=[9, None])
        assert [row.kind for row in rows] == [TCP4, IP4]

    def test_a_row_without_packets_is_no_flow(self) -> None:
        rows = self.arrow(src=[A, A], dst=[B, B], packets=[0, 0], bytes=[0, 9])
        assert rows == [Row(A, B, 0, 0, IP4, 0, 9)]

    @pytest.mark.parametrize(
        "time",
        [
            pa.array([NOON], pa.timestamp("ns")),
            pa.array([NOON // SECOND], pa.timestamp("s", "UTC")),
            pa.array([NOON // SECOND]),
            pa.array([NOON // 10**6]),
            pa.array([NOON // 10**3]),
            pa.array([NOON]),
            pa.array([NOON / SECOND]),
            pa.array([str(NOON // SECOND)]),
            pa.array(["1709294400.000"]),
            pa.array(["2024-03-01 12:00:00"]),
            pa.array(["2024-03-01T12:00:00.000"]).dictionary_encode(),
            pa.array(["2024-03-01T13:00:00+01:00"]),
            pa.array(["2024-03-01T12:00:00Z"]),
            pa.array(["2024/03/01T12:00:00"]),
        ],
        ids=str,
    )
    def test_times(self, time: Any) -> None:
        assert self.arrow(src=[A], dst=[B], ts=time) == [Row(A, B, 0, 0, IP4, 1, 0, NOON)]
        mixed = pa.concat_arrays([time, pa.nulls(1, time.type)])
        rows = self.arrow(src=[A, A], dst=[B, B], ts=mixed)
        assert [row.time for row in rows] == [NOON, None]

    def test_times_that_are_none(self) -> None:
        for time in (
            pa.array(["yesterday"]),
            pa.array([1e300]),
            pa.array([float("nan")]),
            pa.array([2**62], pa.timestamp("s")),
            pa.nulls(1),
            pa.array([True]),
        ):
            assert self.arrow(src=[A], dst=[B], ts=time) == [Row(A, B, 0, 0, IP4, 1, 0)]

    def test_the_lowest_number_is_no_time(self) -> None:
        for kind in (pa.int64(), pa.timestamp("ns"), pa.timestamp("s")):
            table = pa.table({"src": [A], "dst": [B], "ts": pa.array([-(2**63)], pa.int64())})
            table = table.set_column(2, "ts", table["ts"].cast(kind))
            assert rows_of(read_arrow(table))[0].time is None

    def test_the_unit_that_a_name_tells(self) -> None:
        rows = self.arrow(
            sourceIPv4Address=[A], destinationIPv4Address=[B], flowStartMilliseconds=[5]
        )
        assert rows[0].time == 5 * 10**6


MAPPED = ip_network("::ffff:0:0/96")
ADDRESSES = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
    st.tuples(*[st.ip_addresses(v=6).filter(lambda address: address not in MAPPED)] * 2),
)


@st.composite
def table_rows(draw: st.DrawFn) -> Row:
    source, destination = draw(ADDRESSES)
    transport = draw(st.integers(0, 2))
    port = st.integers(0, 65535) if transport else st.just(0)
    base = IP4 if source.version == 4 else IP6
    return Row(
        str(source),
        str(destination),
        draw(port),
        draw(port),
        ReportType(base + transport),
        draw(st.integers(1, 1 << 48)),
        draw(st.integers(0, 1 << 48)),
        draw(st.integers(0, 1 << 60)),
    )


def as_table(rows: list[Row]) -> Any:
    """In the columns of `flows_table`."""
    transports = [(row.kind - 1) % 3 for row in rows]
    ported = [bool(transport) for transport in transports]
    ports = (
        [port if there else None for port, there in zip(column, ported, strict=True)]
        for column in ([row.source_port for row in rows], [row.destination_port for row in rows])
    )
    source_ports, destination_ports = ports
    return pa.table(
        {
            "source": pa.array([row.source for row in rows], pa.string()),
            "destination": pa.array([row.destination for row in rows], pa.string()),
            "source_port": pa.array(source_ports, pa.uint16()),
            "destination_port": pa.array(destination_ports, pa.uint16()),
            "protocol": pa.array(
                [(None, "tcp", "udp")[transport] for transport in transports], pa.string()
            ),
            "packets": pa.array([row.packets for row in rows], pa.uint64()),
            "bytes": pa.array([row.bytes for row in rows], pa.uint64()),
            "time": pa.array([row.time for row in rows], pa.timestamp("ns", "UTC")),
        }
    )


@given(st.lists(table_rows(), min_size=1, max_size=20))
def test_round_trip(rows: list[Row]) -> None:
    table = as_table(rows)
    for write in (pa.csv.write_csv, pa.parquet.write_table):
        file = io.BytesIO()
        write(table, pa.PythonFile(file, mode="w"))
        batches = read(file.getvalue())
        assert told(batches) is None
        assert rows_of(batches) == rows
    assert rows_of(read_arrow(table)) == rows


def test_our_own_tables_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "zeek.log").write_text(ZEEK)
    before = analyze([tmp_path / "zeek.log"], RSS)
    table = flows_table(before)
    for name in ("flows.csv", "flows.parquet"):
        write_table(table, tmp_path / name)
        after = analyze([tmp_path / name], RSS)
        assert after.failed == ()
        assert np.array_equal(after.flows, before.flows)
    assert set(rows_of(read_arrow(table))) == {at(row, None) for row in ZEEK_ROWS}


class TestJsonLines:
    DNS = json.dumps({"event_type": "dns", "src_ip": A, "dest_ip": B, "src_port": 1})
    REST = '"src_port": 5353, "dst_port": 53, "proto": 17, "in_packets": 1, "in_bytes": 68}'
    EARLY = f'{{"src4_addr": "{A}", "dst4_addr": "{B}", {REST}'
    LATE = f'{{"src6_addr": "{SIX_A}", "dst6_addr": "{SIX_B}", {REST}'

    @pytest.mark.parametrize("lines", [3_000, 20_000])
    def test_columns_that_come_late(self, lines: int) -> None:
        dns = self.DNS.replace("}", ', "dest_port": 2}') + " " * 100 + "\n"
        flow = SURICATA.split("\n")[1]
        assert set(rows_of(read(dns * lines + flow))) == {FORWARD, BACKWARD}
        batches = read((self.EARLY + " " * 100 + "\n") * lines + self.LATE)
        assert told(batches) is None
        rows = rows_of(batches)
        assert (len(rows), rows[-1]) == (lines + 1, at(QUERY, None))

    def test_flows_behind_nothing_but_statistics(self) -> None:
        stats = json.dumps({"event_type": "stats", "stats": {"uptime": "x" * 1000}}) + "\n"
        assert set(rows_of(read(stats * 3000 + SURICATA))) == {FORWARD, BACKWARD}
        with pytest.raises(FlowTableError, match="no column is the source address"):
            read(stats * 3000)

    def test_objects_of_ecs(self) -> None:
        ends = [
            {"ip": A, "port": 1, "packets": 5, "bytes": 500},
            {"ip": B, "port": 2, "packets": 4, "bytes": 400},
        ]
        row = {"event": {"type": ["connection"]}, "network": {"transport": "udp", "packets": 9}}
        assert rows_of(read(json.dumps({**row, "source": ends[0], "destination": ends[1]}))) == [
            Row(A, B, 1, 2, ReportType.UDPv4, 5, 500),
            Row(B, A, 2, 1, ReportType.UDPv4, 4, 400),
        ]

    def test_names_that_are_data(self) -> None:
        lines = [json.dumps({"src": A, "dst": B, f"x{n}": 1, f"y{n}": 2}) for n in range(20_000)]
        assert len(rows_of(read("\n".join(lines)))) == 20_000


class TestOnlyFlows:
    def test_words_of_others_leave_nothing_out(self) -> None:
        pmacct = {"event_type": "purge", "ip_src": A, "ip_dst": B, "port_src": 1, "port_dst": 2}
        row = json.dumps(pmacct)
        assert len(rows_of(read(row))) == 1
        assert len(rows_of(read(f"src,dst,log_status\n{A},{B},done\n"))) == 1

    def test_nothing_but_what_is_left_out(self, tmp_path: Path) -> None:
        event = {"event_type": "dns", "src_ip": A, "dest_ip": B, "src_port": 1, "dest_port": 2}
        (tmp_path / "eve.json").write_text(json.dumps(event) + "\n\n" + json.dumps(event))
        (failed,) = analyze([tmp_path / "eve.json"], RSS, jobs=1).failed
        assert failed.error == "has 2 rows, and none of them says that it is a flow"


@given(st.binary(max_size=300), st.sampled_from(sorted(FORMATS)), st.integers(0, 2000))
def test_damage_is_told(noise: bytes, name: str, place: int) -> None:
    """Whatever the bytes, there are rows or a FlowTableError."""
    content = FORMATS[name][0].encode()
    try:
        for batch in read(content[:place] + noise + content[place:]):
            assert len(batch.flows) <= 2 * batch.rows
    except FlowTableError:
        pass


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pa.parquet.write_table(as_table([FORWARD] * 1000), path, row_group_size=100)
    content = bytearray(path.read_bytes())
    for end in (4, 8, 100, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(FlowTableError, match=r"x\.parquet: cannot be read further: "):
            list(open_flow_table(path))
    content[len(content) // 3 : len(content) // 3 + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(FlowTableError):
        rows_of(open_flow_table(path))


def test_parquet_of_which_a_name_or_a_cell_is_no_text(tmp_path: Path) -> None:
    """The others are analysed."""
    table = pa.table({"src": [A], "dst": [B], "naïve": [1], "proto": ["tc"]})
    pa.parquet.write_table(
        table.append_column("sport", [[1]]).append_column("dport", [[2]]),
        tmp_path / "x.parquet",
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
        compression="none",
    )
    content = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "good.csv").write_text(f"src,dst\n{A},{B}\n")
    for was, becomes in (("naïve".encode(), b"na\xff\xafve"), (b"tc", b"t\xff")):
        assert was in content
        (tmp_path / "x.parquet").write_bytes(content.replace(was, becomes))
        found = analyze([tmp_path / "x.parquet", tmp_path / "good.csv"], RSS, jobs=1)
        assert found.packets == 1
        (failed,) = found.failed
        assert "cannot be read further" in str(failed.error)


def test_a_word_that_is_a_time() -> None:
    far = pa.array([2**62], pa.timestamp("s"))
    table = pa.table({"src_ip": [A], "dest_ip": [B], "event_type": far})
    assert rows_of(read_arrow(table)) == []


@pytest.mark.parametrize("name", ["src", "sport", "proto", "packets"])
def test_times_that_python_has_not(name: str) -> None:
    good = {"src": [A], "dst": [B], "sport": [1], "dport": [2], "proto": [6], "packets": [1]}
    far = pa.array([2**62], pa.timestamp("s"))
    for column in (far, far.dictionary_encode()):
        table = pa.table({**good, name: column})
        assert rows_of(read_arrow(table)) == []


def test_a_directory_of_parquet(tmp_path: Path) -> None:
    for name, row in (("b/2.parquet", QUERY), ("a.parquet", FORWARD), ("_note.parquet", BACKWARD)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pa.parquet.write_table(as_table([row]), tmp_path / name)
    assert rows_of(open_flow_table(tmp_path)) == [FORWARD, QUERY]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FlowTableError, match="has no Parquet files"):
        list(open_flow_table(tmp_path / "empty"))


def test_a_table_in_memory_is_analysed() -> None:
    table = as_table([FORWARD, QUERY])
    found = analyze_table(table, RSS)
    assert (found.packets, found.failed) == (11, ())
    assert found.windows is not None
    assert len(found.windows.starts_ns) == 2
    bad = pa.table({"a": [A, None], "b": [B, B]})
    with pytest.raises(FlowTableError, match="no column is the source address"):
        analyze_table(bad)
    found = analyze_table(bad, columns=parse_columns("source=a,destination=b"))
    assert found.packets == 1
    assert found.failed[0].error == (
        "1 row cannot be read: 1 without a source address (row 2: nothing)"
    )
    assert analyze_table(as_table([])).packets == 0


@pytest.mark.parametrize("name", ["src", "sport", "proto", "packets", "ts", "event_type"])
def test_columns_of_types_that_say_nothing(name: str) -> None:
    good = {"src": [A], "dst": [B], "sport": [1], "dport": [2], "proto": [6], "packets": [1]}
    for column in (pa.array([[1]]), pa.array([{"a": 1}]), pa.array([True]), pa.nulls(1)):
        with suppress(FlowTableError):
            for batch in read_arrow(pa.table({**good, name: column})):
                assert len(batch.flows) <= batch.rows


def test_a_disk_that_fails() -> None:
    content = ("src,dst\n" + f"{A},{B}\n" * 200_000).encode()

    class Disk(io.BytesIO):
        def readinto(self, room: Any) -> int:
            if self.tell() > len(content) // 2:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().readinto(room)

    batches: list[FlowBatch] = []
    with pytest.raises(FlowTableError, match=r"^x: read failed: input/output error"):
        batches.extend(open_flow_table(Stream(Disk(content), "x", owned=False, size=None)))
    assert len(rows_of(batches)) > 90_000
    assert told(batches) is None


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DependencyMissing, match="flow tables need pyarrow") as caught:
        read(ZEEK)
    assert caught.value.hint == "pip install 'vnethash[analysis]'"
    (tmp_path / "conn.log").write_text(ZEEK)
    (failed,) = analyze([tmp_path / "conn.log"], RSS).failed
    assert "flow tables need pyarrow" in str(failed.error)


def test_structs() -> None:
    table = pa.table({"id": [{"orig_h": A, "resp_h": B}, None], "packets": [3, 3]})
    batches = list(read_arrow(table))
    assert rows_of(batches) == [Row(A, B, 0, 0, IP4, 3, 0)]
    assert "1 without a source address (row 2: nothing)" in str(told(batches))


def test_arrow_in_whatever_it_comes() -> None:
    table = as_table([FORWARD, QUERY])

    class Stream:
        def __arrow_c_stream__(self, schema: Any = None) -> Any:
            return table.__arrow_c_stream__(schema)

    for source in (table, table.to_batches()[0], table.to_reader(), Stream()):
        assert rows_of(read_arrow(source)) == [FORWARD, QUERY]


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"none\.csv: cannot open: no such file"):
        list(open_flow_table(tmp_path / "none.csv"))


def test_memory_stays_flat(tmp_path: Path) -> None:
    """Three times the table takes no more memory, of Python's and of Arrow's."""
    line = b"%d.0.2.1,198.51.100.7,40000,443,6,10,1220\n"
    peaks = []
    for blocks in (100, 300):
        path = tmp_path / f"{blocks}.csv"
        with open(path, "wb") as file:
            file.write(TestRejected.HEADER.encode())
            for block in range(blocks):
                file.write(line % (block % 200 + 1) * 10_000)
        pool = pa.system_memory_pool()
        before = pa.default_memory_pool()
        pa.set_memory_pool(pool)
        tracemalloc.start()
        try:
            packets = sum(int(batch.flows["packets"].sum()) for batch in open_flow_table(path))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            pa.set_memory_pool(before)
        assert packets == blocks * 100_000
        peaks.append(peak + pool.max_memory())
    assert peaks[1] < 1.2 * peaks[0]


def test_memory_stays_flat_with_the_row_groups_of_parquet(tmp_path: Path) -> None:
    peaks = []
    for rows in (500_000, 2_000_000):
        path = tmp_path / f"{rows}.parquet"
        counts = np.random.default_rng(1).integers(1, 1 << 40, rows)
        table = pa.table({"src": counts & 0xFFFF, "dst": counts & 0xFF, "packets": counts})
        pa.parquet.write_table(
            table, path, row_group_size=rows, use_dictionary=False, compression="none"
        )
        pool = pa.system_memory_pool()
        before = pa.default_memory_pool()
        pa.set_memory_pool(pool)
        tracemalloc.start()
        try:
            assert sum(batch.rows for batch in open_flow_table(path)) == rows
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            pa.set_memory_pool(before)
        peaks.append(peak + pool.max_memory())
    assert peaks[1] < 1.2 * peaks[0]
