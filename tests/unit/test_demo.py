# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The demonstration without a tap: its frames, its ledger, the command's failures."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from vnethash.cli import main, output
from vnethash.demo import frames, through_library
from vnethash.demo.flow import Flow, Kind, describe
from vnethash.demo.ledger import Ledger
from vnethash.demo.plan import FAR4, FAR6, NEAR4, NEAR6, Plan, tagged_frames
from vnethash.demo.through_library import run_library
from vnethash.packet import Packet
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.virtio.hash_types import ReportType
from vnethash.virtio.header import GsoType, Header

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # scapy's own
    from scapy.layers.inet import ICMP, IP, TCP, UDP, defragment
    from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, defragment6
    from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
    from scapy.packet import Raw

MACS = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
ENDS: dict[int, tuple[frames.Address, frames.Address]] = {4: (NEAR4, FAR4), 6: (NEAR6, FAR6)}
RSS = RssConfig.default(4)


@pytest.fixture(autouse=True)
def _fresh_console(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of 80 columns, and on the stdout of this test."""
    monkeypatch.setenv("COLUMNS", "80")
    output.console.cache_clear()
    yield
    output.console.cache_clear()


def packet(frame: bytes, queue: int | None = None, **header: Any) -> Packet:
    """A packet as the reference would have it, but for what is given."""
    said = reference.classify(frame, RSS)
    values = {"hash_value": said.hash_value, "hash_report": said.hash_report} | header
    return Packet(Header(**values), frame, said.queue if queue is None else queue, False)


def datagram(version: int = 4, tags: tuple[tuple[int, int], ...] = ()) -> bytes:
    near, far = ENDS[version]
    payload = frames.ip(near, far, frames.UDP, frames.udp(near, far, (1000, 53), b"hello"))
    return frames.ethernet(*MACS, payload, tags=tags)


def rebuilt(parsed: Any) -> bytes:
    """The same packet with checksums and lengths calculated by scapy."""
    layer = parsed
    while layer and layer.name != "NoPayload":
        for field in ("chksum", "cksum", "len", "plen", "ihl", "dataofs"):
            if field in layer.fields:
                delattr(layer, field)
        layer = layer.payload
    return bytes(parsed)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [0, 1, 512, 1401])
def test_frames_have_the_checksums_scapy_calculates(version: int, size: int) -> None:
    near, far = ENDS[version]
    data = bytes(range(256)) * 6
    for protocol, payload in (
        (frames.TCP, frames.tcp(near, far, (1, 2), data[:size])),
        (frames.UDP, frames.udp(near, far, (1, 2), data[:size])),
        (frames.ICMP if version == 4 else frames.ICMPV6, frames.icmp_echo(near, far, 7, data[:9])),
    ):
        built = frames.ip(near, far, protocol, payload)
        assert rebuilt((IP if version == 4 else IPv6)(built)) == built


def test_a_checksum_of_zero_is_written_as_ones() -> None:
    for tail in range(0x10000):
        data = tail.to_bytes(2, "big")
        message = frames.udp(NEAR4, FAR4, (1, 2), data)
        if message[6:8] == b"\xff\xff":
            built = frames.ip(NEAR4, FAR4, frames.UDP, message)
            assert rebuilt(IP(built)) == built
            return
    pytest.fail("no datagram has that sum")


def test_tags_and_options_are_where_scapy_finds_them() -> None:
    tags = ((frames.TPID_8021AD, 7), (frames.TPID_8021Q, 42))
    parsed = Ether(datagram(6, tags))
    assert (parsed[Dot1AD].vlan, parsed[Dot1Q].vlan, parsed[UDP].dport) == (7, 42, 53)
    segment = frames.udp(NEAR6, FAR6, (1000, 500))
    behind = frames.destination_options(frames.UDP) + segment
    parsed = IPv6(frames.ip(NEAR6, FAR6, frames.DESTINATION_OPTIONS, behind))
    assert parsed[IPv6ExtHdrDestOpt].nh == frames.UDP
    assert parsed[UDP].dport == 500


def test_fragments_are_put_together_by_scapy() -> None:
    data = bytes(range(256)) * 16
    message = frames.udp(NEAR4, FAR4, (1, 2), data)
    packets = [IP(part) for part in frames.fragments(NEAR4, FAR4, frames.UDP, message)]
    assert len(packets) == 3
    (whole,) = defragment(packets)
    assert bytes(IP(bytes(whole))[UDP].payload) == data

    message = frames.udp(NEAR6, FAR6, (1, 2), data)
    whole6 = defragment6([IPv6(part) for part in frames.fragments(NEAR6, FAR6, 17, message)])
    assert bytes(whole6[UDP].payload) == data


def test_echo_requests_are_what_they_say() -> None:
    assert IP(frames.ip(NEAR4, FAR4, 1, frames.icmp_echo(NEAR4, FAR4, 7, b"x")))[ICMP].id == 7
    parsed = IPv6(frames.ip(NEAR6, FAR6, 58, frames.icmp_echo(NEAR6, FAR6, 7, b"x")))
    assert parsed[ICMPv6EchoRequest].id == 7


SINGLE, DOUBLE = ((0x8100, 7),), ((0x88A8, 7), (0x8100, 42))


@pytest.mark.parametrize(
    ("frame", "flow", "label", "kinds"),
    [
        (
            datagram(),
            Flow((), "UDP", "10.0.0.1:1000", "10.0.0.2:53"),
            "UDP",
            {Kind.UDP},
        ),
        (
            datagram(6, SINGLE),
            Flow((7,), "UDP", "[fd00::1]:1000", "[fd00::2]:53", is_ipv6=True),
            "VLAN UDP",
            {Kind.UDP, Kind.IPV6, Kind.VLAN},
        ),
        (
            datagram(4, DOUBLE),
            Flow((7, 42), "UDP", "10.0.0.1:1000", "10.0.0.2:53"),
            "QinQ UDP",
            {Kind.UDP, Kind.VLAN},
        ),
        (
            bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP()),
            Flow((), "ICMP", "10.0.0.1", "10.0.0.2"),
            "ICMP",
            {Kind.ICMP},
        ),
        (
            bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.2", flags="MF") / TCP()),
            Flow((), "fragment", "10.0.0.1", "10.0.0.2"),
            "fragment",
            {Kind.FRAGMENT},
        ),
        (
            bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.2", flags="DF", proto=47) / Raw(b"x")),
            Flow((), "IPv4", "10.0.0.1", "10.0.0.2"),
            "IPv4",
            set(),
        ),
        (bytes(12) + b"\x08\x06" + bytes(28), Flow((), "ARP", "", ""), "ARP", set()),
        (bytes(12) + b"\x88\xcc", Flow((), "EtherType 0x88cc", "", ""), "EtherType 0x88cc", set()),
    ],
)
def test_describe(frame: bytes, flow: Flow, label: str, kinds: set[Kind]) -> None:
    assert describe(packet(frame)) == (flow, frozenset(kinds))
    assert flow.label == label


def test_segmentation_offload_is_a_kind() -> None:
    segment = frames.ip(NEAR4, FAR4, frames.TCP, frames.tcp(NEAR4, FAR4, (1, 2), bytes(3000)))
    frame = frames.ethernet(*MACS, segment)
    assert describe(packet(frame))[1] == {Kind.TCP}
    assert describe(packet(frame, gso_type=GsoType.TCPV4))[1] == {Kind.TCP, Kind.TSO}


@pytest.mark.parametrize(
    "wrong",
    [{"hash_value": 1}, {"hash_report": ReportType.TCPv4}, {"queue": 3}],
    ids=["hash", "type", "queue"],
)
def test_the_ledger_sees_what_differs(wrong: dict[str, Any]) -> None:
    ledger = Ledger(RSS)
    ledger.check(packet(datagram()))
    ledger.check(packet(datagram()))
    assert (ledger.packets, ledger.disagreements) == (2, 0)
    assert ledger.kinds == {Kind.UDP}
    ledger.check(packet(datagram(), **wrong))
    assert (ledger.packets, ledger.disagreements) == (3, 1)
    bad, good = ledger.rows()
    assert (good.packets, good.agrees, good.bytes) == (2, True, 2 * len(datagram()))
    assert (bad.packets, bad.agrees, bad.expected) == (1, False, good.got)


def test_the_plan_follows_the_seed() -> None:
    assert Plan.from_seed(3) == Plan.from_seed(3)
    assert Plan.from_seed(3) != Plan.from_seed(4)
    plan = Plan.from_seed(0)
    exchanges = [*plan.tcp, *plan.udp, *plan.fragmented, plan.options, *plan.tagged]
    assert len({exchange.ports[0] for exchange in exchanges}) == len(exchanges)
    assert {ip_address(exchange.near).version for exchange in plan.tcp} == {4, 6}
    assert len(tagged_frames(plan, *MACS)) == 12


def test_through_the_library() -> None:
    ledger = run_library(Plan.from_seed(1), RSS)
    assert ledger.kinds == set(Kind)
    assert ledger.disagreements == 0
    reports = {row.got.hash_report.name for row in ledger.rows()}
    assert reports == {"TCPv4", "UDPv4", "IPv4", "TCPv6", "UDPv6", "IPv6", "IPv6_EX", "UDPv6_EX"}


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["demo", "--engine", "native"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert all(len(line.rstrip()) <= 80 for line in out.splitlines())
    assert "10.0.0.1" in out
    assert "every one as the Python reference" in out


def test_command_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["demo", "--engine", "native", "--json", "--queues", "6"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["agrees"] is True
    assert result["engine"] == "native"
    assert all(result["kinds"].values())
    assert len(result["queues"]) == 6
    assert sum(result["queues"]) == result["packets"]
    assert sum(flow["packets"] for flow in result["flows"]) == result["packets"]


def test_a_packet_that_differs_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def one_wrong(plan: Plan, rss: RssConfig) -> Ledger:
        ledger = run_library(plan, rss)
        wrong = packet(datagram())
        ledger.check(replace(wrong, queue=wrong.queue ^ 1))
        return ledger

    monkeypatch.setattr(through_library, "run_library", one_wrong)
    assert main.run(["demo", "--engine", "native"]) == 1
    out = capsys.readouterr().out
    assert "1 packets differ from the Python reference" in out
    assert "the reference says" in out
    assert "every one" not in out
    assert main.run(["demo", "--engine", "native", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["disagreements"] == 1


def test_a_kind_that_did_not_come_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(through_library, "run_library", lambda plan, rss: Ledger(rss))
    assert main.run(["demo", "--engine", "native"]) == 1
    assert "not seen: TCP, TSO, UDP, ICMP, IPv6, VLAN, fragments" in capsys.readouterr().out


@pytest.mark.parametrize(
    "args", [["--queues", "0"], ["--queues", "x"], ["--engine", "qemu"], ["extra"]]
)
def test_wrong_use(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["demo", *args]) == 2
    assert capsys.readouterr().err.startswith("vnethash: error: ")
