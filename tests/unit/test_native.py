# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The native core: judged by the reference, laid out as the headers say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import frames, vectors
from tests.effort import examples
from vnethash.errors import ConfigError
from vnethash.native import core
from vnethash.packet import PACKET_DTYPE
from vnethash.rss import reference
from vnethash.rss.compiled import compile_config
from vnethash.rss.config import RssConfig
from vnethash.rss.native import Hasher
from vnethash.virtio import header
from vnethash.virtio.hash_types import HashType, ReportType

CONFIG = RssConfig.default(16)
hash_types = st.integers(0, HashType.ALL).map(HashType)


def addresses(vector: vectors.Vector) -> bytes:
    from ipaddress import ip_address

    return ip_address(vector.source).packed + ip_address(vector.destination).packed


def ports(vector: vectors.Vector) -> bytes:
    return vector.source_port.to_bytes(2, "big") + vector.destination_port.to_bytes(2, "big")


@pytest.mark.parametrize("vector", vectors.VECTORS, ids=lambda vector: vector.source)
def test_microsoft_vectors(vector: vectors.Vector) -> None:
    hasher = Hasher(CONFIG.replace(key=vectors.KEY))
    assert hasher.hash(addresses(vector)) == vector.address_hash
    assert hasher.hash(addresses(vector) + ports(vector)) == vector.tcp_hash


@settings(max_examples=examples(1500), deadline=None)
@given(frames.frames(), hash_types, st.binary(min_size=40, max_size=40))
def test_agrees_with_the_reference(frame: bytes, types: HashType, key: bytes) -> None:
    config = CONFIG.replace(hash_types=types, key=key, unclassified_queue=3)
    assert Hasher(config).classify(frame) == reference.classify(frame, config)
    bare = frame[14:]
    assert Hasher(config, l3=True).classify(bare) == reference.classify(bare, config, l3=True)


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_agrees_at_every_cut(data: st.DataObject) -> None:
    frame = data.draw(frames.frames())
    hasher = Hasher(CONFIG)
    cuts = [frame[:length] for length in range(len(frame) + 1)]
    assert hasher.classify_many(cuts) == [reference.classify(cut, CONFIG) for cut in cuts]


MOBILE = [
    (frames.OPTIONS, frames.home_address(b"H" * 16)),
    (frames.ROUTING, frames.route(b"R" * 16)),
]
# A packet of each kind, and the types that may hash it in the order of virtio 1.3, 5.1.6.4.3.2
# to .4.
KINDS = {
    "TCPv4": (frames.ipv4(frames.tcp(), frames.TCP), "TCPv4 IPv4"),
    "UDPv4": (frames.ipv4(frames.udp()), "UDPv4 IPv4"),
    "IPv4": (frames.ipv4(b"ping", 1), "IPv4"),
    "TCPv6": (frames.ipv6(frames.tcp(), frames.TCP), "TCPv6 IPv6"),
    "UDPv6": (frames.ipv6(frames.udp()), "UDPv6 IPv6"),
    "IPv6": (frames.ipv6(b"ping", 58), "IPv6"),
    **{
        f"{name} behind extension headers": (
            frames.ipv6(payload, number),
            f"{types} IP_EX {types.replace('_EX', 'v6')} IPv6".strip(),
        )
        for name, types, (number, payload) in (
            ("TCP", "TCP_EX", frames.chain(MOBILE, frames.TCP, frames.tcp())),
            ("UDP", "UDP_EX", frames.chain(MOBILE, frames.UDP, frames.udp())),
            ("nothing", "", frames.chain(MOBILE, frames.NO_NEXT, b"")),
        )
    },
    "not IP": (bytes(28), ""),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_set_of_hash_types(kind: str) -> None:
    """All 512: the first type that applies is reported, over what the reference hashes."""
    packet, order = KINDS[kind]
    frame = frames.ethernet({4: 0x0800, 6: 0x86DD}.get(packet[0] >> 4, 0x0806), packet)
    reports = set()
    for types in map(HashType, range(HashType.ALL + 1)):
        config = CONFIG.replace(hash_types=types, unclassified_queue=3)
        got = Hasher(config).classify(frame)
        assert got == reference.classify(frame, config)
        first = next((HashType[name] for name in order.split() if HashType[name] in types), None)
        assert got.hash_report is (first.report if first else ReportType.NONE)
        reports.add(got.hash_report)
    assert len(reports) == len(order.split()) + 1


@pytest.mark.parametrize("width", [0, 1, 4, 8, 12, 13, 32, 35, 36])
def test_batch_agrees_with_the_reference(width: int) -> None:
    rows = np.random.default_rng(width).integers(0, 256, (50, width), np.uint8)
    expected = [reference.toeplitz(CONFIG.key, row.tobytes()) for row in rows]
    assert Hasher(CONFIG).hash_batch(rows).tolist() == expected


def test_batch_takes_views_and_nothing() -> None:
    rows = np.random.default_rng(1).integers(0, 256, (40, 24), np.uint8)
    hasher = Hasher(CONFIG)
    view = rows[::2, ::2]
    assert not view.flags.c_contiguous
    assert hasher.hash_batch(view).tolist() == [hasher.hash(row.tobytes()) for row in view]
    assert hasher.hash_batch(np.empty((0, 12), np.uint8)).shape == (0,)
    assert hasher.classify_many([]) == []


@pytest.mark.parametrize(
    "inputs",
    [np.zeros((2, 37), np.uint8), np.zeros(12, np.uint8), np.zeros((2, 12), np.uint16)],
    ids=["wide", "flat", "words"],
)
def test_batch_refuses_other_shapes(inputs: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="inputs: must be uint8 of shape"):
        Hasher(CONFIG).hash_batch(inputs)


def test_hash_refuses_more_than_the_key_covers() -> None:
    with pytest.raises(ConfigError, match="has 37 bytes"):
        Hasher(CONFIG).hash(bytes(37))


def test_layout_is_the_compilers() -> None:
    """cffi and numpy see the structures as the C compiler laid them out."""
    ffi, lib = core()
    layout = ffi.new("struct vh_layout *")
    lib.vh_layout(layout)
    assert layout.record == ffi.sizeof("struct vnet_record") == 8
    assert layout.hdr == ffi.sizeof("struct vnet_hdr") == header.HASH_SIZE
    assert layout.config == ffi.sizeof("struct vnet_config")
    assert layout.config_toeplitz == ffi.offsetof("struct vnet_config", "toeplitz")
    assert layout.state == ffi.sizeof("struct vnet_state")
    assert layout.state_tables == ffi.offsetof("struct vnet_state", "tables")
    assert layout.counters == ffi.sizeof("struct vnet_counters")
    assert layout.verdict == ffi.sizeof("struct vh_verdict")
    assert layout.packet == ffi.sizeof("struct vh_packet") == PACKET_DTYPE.itemsize
    assert layout.packet_header == ffi.offsetof("struct vh_packet", "header")
    fields = dict(ffi.typeof("struct vh_packet").fields)
    inner = dict(fields.pop("header").type.fields)
    offsets = {name: field.offset for name, field in fields.items()}
    offsets |= {name: layout.packet_header + field.offset for name, field in inner.items()}
    assert PACKET_DTYPE.fields is not None
    assert {name: field[1] for name, field in PACKET_DTYPE.fields.items()} == offsets


def test_numbers_are_pythons() -> None:
    """The enumerators of the C header are the enums of virtio/."""
    _, lib = core()
    ours = {"IPV6_EX": "IP_EX", "TCPV6_EX": "TCP_EX", "UDPV6_EX": "UDP_EX"}
    for report in ReportType:
        name = report.name.upper()
        assert getattr(lib, f"VNET_REPORT_{name}") == report
        if report.hash_type is not None:
            kind = getattr(lib, f"VNET_HASH_{ours.get(name, name)}")
            assert kind == report.hash_type
    assert lib.VNET_HASH_ALL == HashType.ALL
    assert len(ReportType) == lib.VNET_REPORTS
    assert lib.VNET_HDR_LEN == header.V1_SIZE
    assert lib.VNET_HDR_HASH_LEN == header.HASH_SIZE


def test_compiled_configuration() -> None:
    config = RssConfig.weighted([1, 3], entries=8).replace(unclassified_queue=1)
    compiled = compile_config(config)
    assert list(compiled.table[0:8]) == list(config.indirection_table)
    assert compiled.rss.table_mask == 7
    assert bytes(compiled.rss.key) == config.key
    assert (compiled.rss.queues, compiled.rss.unclassified) == (2, 1)


@pytest.mark.parametrize("types", [HashType.ALL, HashType.IPv4 | HashType.TCPv6, HashType.NONE])
def test_what_is_reported_of_a_kind(types: HashType) -> None:
    """Of a packet of each kind, as when it is classified."""
    hasher = Hasher(RssConfig.default(4).replace(hash_types=types))
    for hash_type in HashType.ALL:
        alone = Hasher(RssConfig.default(4).replace(hash_types=hash_type))
        assert alone.report_of(hash_type.report) is hash_type.report
        if hash_type in types:
            assert hasher.report_of(hash_type.report) is hash_type.report
    assert hasher.report_of(ReportType.NONE) is ReportType.NONE
    addresses_alone = ReportType.IPv4 if HashType.IPv4 in types else ReportType.NONE
    expected = ReportType.UDPv4 if types == HashType.ALL else addresses_alone
    assert hasher.report_of(ReportType.UDPv4) is expected


def test_calls_of_the_core_get_the_configuration_and_its_key() -> None:
    ffi = core().ffi
    hasher = Hasher(RssConfig.default(4).replace(indirection_table=(3, 2)))
    config, bulk = hasher.native
    assert (ffi.typeof(config).item.cname, ffi.typeof(bulk).item.cname) == (
        "struct vh_config",
        "struct vnet_bulk",
    )
    assert list(config.table[0:2]) == [3, 2]
    assert bulk.config == ffi.addressof(config, "rss")
