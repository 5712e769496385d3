# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The virtio-net header on the wire (virtio 5.1.6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnethash.errors import HeaderError
from vnethash.virtio.hash_types import ReportType
from vnethash.virtio.header import (
    GSO_ECN,
    HASH_SIZE,
    V1_SIZE,
    GsoType,
    Header,
    HeaderFlag,
)

U8, U16, U32 = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
HEADERS = st.builds(
    Header,
    flags=U8,
    gso_type=U8,
    hdr_len=U16,
    gso_size=U16,
    csum_start=U16,
    csum_offset=U16,
    num_buffers=U16,
    hash_value=U32,
    hash_report=st.sampled_from(ReportType),
)


def test_layout() -> None:
    header = Header(
        flags=HeaderFlag.NEEDS_CSUM | HeaderFlag.RSC_INFO,
        gso_type=GsoType.TCPV6 | GSO_ECN,
        hdr_len=0x0102,
        gso_size=0x0304,
        csum_start=0x0506,
        csum_offset=0x0708,
        num_buffers=0x090A,
        hash_value=0x0B0C0D0E,
        hash_report=ReportType.UDPv6_EX,
    )
    assert header.encode().hex(" ") == "05 84 02 01 04 03 06 05 08 07 0a 09 0e 0d 0c 0b 09 00 00 00"


def test_of_a_packet_without_anything() -> None:
    assert Header().encode() == bytes(10) + b"\x01" + bytes(9)


@given(HEADERS)
def test_there_and_back(header: Header) -> None:
    data = header.encode()
    assert len(data) == HASH_SIZE
    assert Header.decode(data) == header
    assert Header.decode(memoryview(bytearray(data))) == header


@given(HEADERS)
def test_without_hash(header: Header) -> None:
    data = header.encode_v1()
    assert len(data) == V1_SIZE
    assert data == header.encode()[:V1_SIZE]
    decoded = Header.decode(data)
    assert (decoded.hash_value, decoded.hash_report) == (0, ReportType.NONE)
    assert decoded.encode_v1() == data


@given(st.binary(min_size=HASH_SIZE, max_size=HASH_SIZE))
def test_any_twenty_bytes(data: bytes) -> None:
    report = int.from_bytes(data[16:18], "little")
    if report > ReportType.UDPv6_EX:
        with pytest.raises(HeaderError, match=f"hash_report {report}"):
            Header.decode(data)
    else:
        assert Header.decode(data).encode() == data[:18] + b"\0\0"


@pytest.mark.parametrize("size", [0, 10, 11, 13, 19, 21, 64])
def test_other_lengths(size: int) -> None:
    with pytest.raises(HeaderError, match=f"12 or 20 bytes, not {size}"):
        Header.decode(bytes(size))


@pytest.mark.parametrize(
    "header",
    [
        Header(flags=256),
        Header(gso_type=-1),
        Header(csum_start=0x10000),
        Header(num_buffers=-1),
    ],
)
def test_fields_that_do_not_fit(header: Header) -> None:
    for encode in (header.encode, header.encode_v1):
        with pytest.raises(HeaderError, match="does not fit"):
            encode()


def test_hash_that_does_not_fit() -> None:
    with pytest.raises(HeaderError, match="does not fit"):
        Header(hash_value=1 << 32).encode()


def test_correction_of_a_tso_packet() -> None:
    header = Header(
        flags=HeaderFlag.NEEDS_CSUM,
        gso_type=GsoType.TCPV4,
        hdr_len=66 + 8,
        gso_size=1448,
        csum_start=34 + 8,
        csum_offset=16,
        num_buffers=0x5A5A,
        hash_value=7,
        hash_report=ReportType.TCPv4,
    )
    corrected = header.corrected()
    assert corrected == Header(
        flags=HeaderFlag.NEEDS_CSUM,
        gso_type=GsoType.TCPV4,
        hdr_len=66,
        gso_size=1448,
        csum_start=34,
        csum_offset=16,
        num_buffers=1,
        hash_value=7,
        hash_report=ReportType.TCPv4,
    )


@pytest.mark.parametrize(
    "header",
    [
        Header(),
        # Stale bytes where the flag says that there is no checksum to do.
        Header(csum_start=3, flags=HeaderFlag.DATA_VALID),
        # Coalesced segments, not an offset.
        Header(csum_start=3, flags=HeaderFlag.NEEDS_CSUM | HeaderFlag.RSC_INFO),
    ],
)
def test_correction_leaves_what_is_no_offset(header: Header) -> None:
    assert header.corrected() == header


@pytest.mark.parametrize(
    "header", [Header(csum_start=7, flags=HeaderFlag.NEEDS_CSUM), Header(hdr_len=7)]
)
def test_correction_refuses_offsets_inside_the_prefix(header: Header) -> None:
    with pytest.raises(HeaderError, match="inside the 8 bytes"):
        header.corrected()


def test_segmentation() -> None:
    assert Header(gso_type=GsoType.TCPV4 | GSO_ECN).segmentation is GsoType.TCPV4
    assert Header(gso_type=GsoType.UDP_L4).segmentation is GsoType.UDP_L4
    with pytest.raises(HeaderError, match="gso_type 0x2 is not known"):
        _ = Header(gso_type=2).segmentation
