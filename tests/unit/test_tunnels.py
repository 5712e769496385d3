# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Inner header hash (virtio 1.3, 5.1.6.4.4): the reference by hand, the native core by it."""

import pytest

from tests.tunnels import CASES, Case, over4
from vnethash.errors import ConfigError
from vnethash.rss.config import RssConfig
from vnethash.rss.native import Hasher
from vnethash.rss.reference import explain
from vnethash.virtio.hash_types import (
    HashType,
    ReportType,
    TunnelType,
    format_tunnel_types,
    parse_tunnel_types,
)

CONFIG = RssConfig.default(8).replace(unclassified_queue=5)
CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@CASE
def test_which_tunnel(case: Case) -> None:
    """The types it is of, and only these, have it hashed by what is inside."""
    outer = explain(case.frame, CONFIG)
    for tunnel in TunnelType:
        got = explain(case.frame, CONFIG.replace(tunnels=tunnel))
        if tunnel in case.types:
            assert (got.classified.hash_report, got.data) == (case.report, case.hashed)
            assert got.headers.tunnel == case.types
        else:
            assert got.data == outer.data
            assert got.classified == outer.classified
            assert got.headers.tunnel == TunnelType.NONE


@CASE
def test_any_enabled_type_counts(case: Case) -> None:
    got = explain(case.frame, CONFIG.replace(tunnels=TunnelType.ALL))
    assert got.headers.tunnel == case.types
    others = explain(case.frame, CONFIG.replace(tunnels=TunnelType.ALL & ~case.types))
    assert others.headers.tunnel == TunnelType.NONE


@CASE
def test_outer_and_inner_differ(case: Case) -> None:
    """Otherwise the other tests could not fail."""
    if case.types:
        assert explain(case.frame, CONFIG).data != case.hashed


@CASE
def test_the_native_core_agrees_at_every_cut(case: Case) -> None:
    for tunnels in (TunnelType.NONE, *TunnelType, TunnelType.ALL):
        config = CONFIG.replace(tunnels=tunnels)
        hasher = Hasher(config)
        cuts = [case.frame[:end] for end in range(len(case.frame) + 1)]
        expected = [explain(cut, config).classified for cut in cuts]
        assert hasher.classify_many(cuts) == expected


@CASE
def test_without_ethernet(case: Case) -> None:
    config = CONFIG.replace(tunnels=TunnelType.ALL)
    got = explain(case.frame[14:], config, l3=True)
    assert got.classified == explain(case.frame, config).classified
    assert Hasher(config, l3=True).classify(case.frame[14:]) == got.classified


def test_a_tunnel_without_ip_inside_has_no_hash() -> None:
    """It matches, so its outer headers do not count: the unclassified queue."""
    (arp,) = (case for case in CASES if case.name == "ARP in VXLAN")
    got = explain(arp.frame, CONFIG.replace(tunnels=TunnelType.VXLAN)).classified
    assert (got.hash_report, got.hash_value, got.index, got.queue) == (ReportType.NONE, 0, None, 5)


def test_hash_types_count_for_what_is_inside() -> None:
    (vxlan,) = (case for case in CASES if case.name == "VXLAN")
    config = CONFIG.replace(tunnels=TunnelType.VXLAN, hash_types=HashType.UDPv4)
    assert explain(vxlan.frame, config).classified.hash_report is ReportType.NONE
    config = config.replace(hash_types=HashType.TCPv4)
    assert explain(vxlan.frame, config).classified.hash_report is ReportType.TCPv4


def test_flows_of_one_tunnel_spread() -> None:
    """What it is for: all of them have the same outer headers."""
    (case,) = (case for case in CASES if case.name == "4in4")
    inner = case.frame[34:]
    flows = [over4(4, inner[:20] + port.to_bytes(2, "big") + inner[22:]) for port in range(64)]
    together = {explain(flow, CONFIG).classified.queue for flow in flows}
    apart = {explain(flow, CONFIG.replace(tunnels=TunnelType.IPIP)).classified for flow in flows}
    assert len(together) == 1
    assert len({flow.queue for flow in apart}) == 8
    assert len(apart) == 64


def test_the_explanation_names_the_tunnel() -> None:
    (case,) = (case for case in CASES if case.name == "NVGRE")
    got = explain(case.frame, CONFIG.replace(tunnels=TunnelType.NVGRE)).to_json()
    assert got["headers"] == ["Ethernet", "IPv4", "GRE", "Ethernet", "IPv4", "TCP"]
    assert got["tunnel"] == ["GRE_2890", "NVGRE"]


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("VXLAN", TunnelType.VXLAN),
        ("vxlan-gpe, geneve", TunnelType.VXLAN_GPE | TunnelType.GENEVE),
        ("gre_2784,GRE_2890,Gre-7676", TunnelType(7)),
        ("all", TunnelType.ALL),
        ("none", TunnelType.NONE),
    ],
)
def test_names(text: str, types: TunnelType) -> None:
    assert parse_tunnel_types(text) == types
    assert parse_tunnel_types(",".join(format_tunnel_types(types)) or "none") == types


@pytest.mark.parametrize(
    ("text", "rule"), [("L2TP", "'L2TP' is not a tunnel type"), ("VXLAN,", "a name is missing")]
)
def test_names_refused(text: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tunnel_types(text)
    assert (caught.value.field, caught.value.rule) == ("tunnels", rule)
    assert caught.value.hint is not None
    assert "VXLAN_GPE,GENEVE" in caught.value.hint


@pytest.mark.parametrize("tunnels", [-1, 512])
def test_bits_that_are_no_tunnel(tunnels: int) -> None:
    with pytest.raises(ConfigError, match="tunnels"):
        CONFIG.replace(tunnels=tunnels)


def test_values_are_those_of_the_specification() -> None:
    """5.1.6.4.4: bits 0 to 8 in this order."""
    order = "GRE_2784 GRE_2890 GRE_7676 GRE_UDP VXLAN VXLAN_GPE GENEVE IPIP NVGRE"
    assert [tunnel.name for tunnel in TunnelType] == order.split()
    assert [int(tunnel) for tunnel in TunnelType] == [1 << bit for bit in range(9)]
