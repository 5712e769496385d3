# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Hash types, report types and their names (virtio 5.1.6.4.3.1, 5.1.6.4.5)."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnethash.errors import ConfigError
from vnethash.virtio.hash_types import (
    HashType,
    ReportType,
    format_hash_types,
    parse_hash_types,
)

NAMES = ["IPv4", "TCPv4", "UDPv4", "IPv6", "TCPv6", "UDPv6", "IP_EX", "TCP_EX", "UDP_EX"]
REPORTS = ["NONE", *NAMES[:6], "IPv6_EX", "TCPv6_EX", "UDPv6_EX"]
KERNEL_HEADER = Path("/usr/include/linux/virtio_net.h")


def test_values() -> None:
    assert {t.name: int(t) for t in HashType} == {name: 1 << n for n, name in enumerate(NAMES)}
    assert {r.name: int(r) for r in ReportType} == {name: n for n, name in enumerate(REPORTS)}
    assert (int(HashType.ALL), int(HashType.NONE)) == (0x1FF, 0)


@pytest.mark.skipif(not KERNEL_HEADER.exists(), reason="needs the kernel's user headers")
def test_values_are_those_of_the_kernel() -> None:
    text = KERNEL_HEADER.read_text(encoding="utf-8")
    types = re.findall(r"VIRTIO_NET_RSS_HASH_TYPE_(\w+)\s+\(1 << (\d+)\)", text)
    assert {name.lower(): 1 << int(bit) for name, bit in types} == {
        str(t.name).lower(): int(t) for t in HashType
    }
    reports = re.findall(r"VIRTIO_NET_HASH_REPORT_(\w+)\s+(\d+)", text)
    assert {name.lower(): int(value) for name, value in reports} == {
        r.name.lower(): int(r) for r in ReportType
    }


@pytest.mark.parametrize("hash_type", list(HashType))
def test_relation_of_types_and_reports(hash_type: HashType) -> None:
    report = hash_type.report
    assert hash_type == 1 << (report - 1)
    assert report.hash_type is hash_type


def test_no_hash_has_no_type() -> None:
    assert ReportType.NONE.hash_type is None


@pytest.mark.parametrize(
    "types", [HashType.NONE, HashType.ALL, HashType.IPv4 | HashType.IPv6, HashType(0x200)]
)
def test_only_a_single_type_has_a_report(types: HashType) -> None:
    with pytest.raises(ConfigError, match="not a single hash type"):
        _ = types.report


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("all", HashType.ALL),
        ("none", HashType.NONE),
        ("NONE", HashType.NONE),
        ("TCPv4,IPv4", HashType.TCPv4 | HashType.IPv4),
        (" tcpV4 , udp_ex ", HashType.TCPv4 | HashType.UDP_EX),
        ("IPv4,IPv4", HashType.IPv4),
        (",".join(NAMES), HashType.ALL),
    ],
)
def test_parse(text: str, types: HashType) -> None:
    assert parse_hash_types(text) == types


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("TCPv5", "'TCPv5' is not a hash type"),
        ("IPv4,IPv6_EX", "'IPv6_EX' is not a hash type"),  # that is a report type
        ("", "a name is missing"),
        ("IPv4,", "a name is missing"),
        ("0x3f", "'0x3f' is not a hash type"),
    ],
)
def test_parse_refuses(text: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_hash_types(text)
    assert (caught.value.field, caught.value.rule) == ("hash_types", rule)
    assert "TCP_EX" in str(caught.value.hint)


@given(st.integers(0, HashType.ALL).map(HashType))
def test_names_and_back(types: HashType) -> None:
    names = format_hash_types(types)
    assert names == [name for name in NAMES if name in names]
    assert parse_hash_types(",".join(names) or "none") == types
