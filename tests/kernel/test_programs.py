# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Hash programs in the kernel: the examples judged by the reference, nonsense by the stage."""

import json
import os
import shutil
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests import frames
from tests.effort import examples
from tests.kernel.hash_programs import EXAMPLES, compiled, constant, example
from tests.kernel.test_stages import TC_ACT_UNSPEC, runnable
from tests.kernel.test_traffic import tagger
from tests.kernel.wire import collect, quiet_tap
from vnethash.cli import main
from vnethash.engines import stages as engine_stages
from vnethash.engines.stages import Stages
from vnethash.errors import VerifierError
from vnethash.kernel import link
from vnethash.kernel.egress import attach_egress
from vnethash.kernel.links import Links
from vnethash.kernel.netns import Namespace
from vnethash.packet import Packet
from vnethash.programs import compile_program, open_program
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.compiled import compile_config
from vnethash.rss.config import RssConfig
from vnethash.rss.dissect import dissect
from vnethash.virtio.hash_types import HashType, ReportType, TunnelType

QUEUES = 8
CONFIG = RssConfig.default(QUEUES)
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.c"))
UDP = frames.ethernet(0x0800, frames.ipv4(frames.udp()))


RSS = """
#include <vnet_hash.h>

VNET_HASH_PROGRAM(frame, verdict)
{
	struct vnet_headers headers;

	vnet_dissect(frame, &headers);
	vnet_rss(&headers, verdict);
}
"""


class Verdict(NamedTuple):
    """What a program made of a frame."""

    hash_value: int
    report: int
    queue: int


@pytest.mark.host_only  # the kernel of a guest has no compilers of its own
@pytest.mark.parametrize("name", [*NAMES, "stages"])
def test_what_the_clang_of_a_distribution_makes_is_accepted(name: str, tmp_path: Path) -> None:
    """Debian 12 has the version 14, which takes more care to please the verifier."""
    if shutil.which("clang-14") is None:
        pytest.skip("no clang-14")
    source = tmp_path / "stages.c"
    source.write_text(RSS)
    path = source if name == "stages" else EXAMPLES / f"{name}.c"
    image = compile_program(path, compiler="clang-14 -target bpf").image
    frame = frames.ethernet(0x0800, frames.ipv4(frames.tcp(), frames.TCP))
    with loaded(image) as stages:
        stages.maps.publish(compile_config(CONFIG, Reporting.RECORD))
        if name == "stages":
            assert run(stages, frame) == rss(frame)


@contextmanager
def loaded(image: bytes, config: RssConfig = CONFIG, *, l3: bool = False) -> Iterator[Stages]:
    with Stages.load(QUEUES, l3=l3, program=open_program(image)) as stages:
        stages.maps.publish(compile_config(config))
        yield stages


def run(stages: Stages, frame: bytes) -> Verdict:
    before = stages.maps.stats().queues
    done = stages.hash_stage.test_run(frame)
    assert done.retval == TC_ACT_UNSPEC
    value, report, mark = struct.unpack_from("<IH2s", done.data)
    assert (done.data[8:], mark) == (frame, b"\xb5\x1d")
    after = stages.maps.stats().queues
    (queue,) = (i for i in range(QUEUES) if after[i].total != before[i].total)
    return Verdict(value, report, queue)


def rss(frame: bytes, config: RssConfig = CONFIG, *, l3: bool = False) -> Verdict:
    """What the specification makes of it."""
    got = reference.classify(frame, config, l3=l3)
    return Verdict(got.hash_value, got.hash_report, got.queue)


def toeplitz(data: bytes) -> tuple[int, int]:
    """Hash and queue."""
    value = reference.toeplitz(CONFIG.key, data)
    return value, CONFIG.indirection_table[value % len(CONFIG.indirection_table)]


def generated(count: int) -> settings:
    """How hypothesis goes about a test that keeps its stages."""
    return settings(
        max_examples=examples(count),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@pytest.fixture
def stages(request: pytest.FixtureRequest, no_leaks: None) -> Iterator[Stages]:
    """The example that a test is parametrized with, loaded."""
    with loaded(example(request.param)) as program:
        yield program


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("stages", [name], indirect=True)


# The examples


@pytest.mark.parametrize("name", NAMES)
def test_the_verifier_takes_every_example_lightly(name: str) -> None:
    with loaded(example(name)) as stages:
        assert stages.hash_stage.verified < 200_000  # of a million


@of("xor")
@generated(300)
@given(frame=runnable)
def test_xor(stages: Stages, frame: bytes) -> None:
    assert run(stages, frame) == (3, 2, 1)


class Flow(NamedTuple):
    """The endpoints of a packet, and the same the other way."""

    there: bytes
    back: bytes


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    """Between few addresses and ports, so that some are equal."""
    ports = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    make, protocol = draw(
        st.sampled_from([(frames.tcp, frames.TCP), (frames.udp, frames.UDP), (None, 1)])
    )
    there, back = (make(*p) if make else b"icmp" * 5 for p in (ports, ports[::-1]))
    size = draw(st.sampled_from([4, 16]))
    addresses = st.sampled_from([0, size // 2, size - 1]).flatmap(
        lambda place: st.integers(0, 255).map(
            lambda byte: bytes(byte if i == place else 0x20 for i in range(size))
        )
    )
    one, other = draw(addresses), draw(addresses)
    ip, kind = (frames.ipv4, 0x0800) if size == 4 else (frames.ipv6, 0x86DD)
    return Flow(
        frames.ethernet(kind, ip(there, protocol, source=one, destination=other)),
        frames.ethernet(kind, ip(back, protocol, source=other, destination=one)),
    )


def ordered(flow: Flow) -> bytes:
    """The direction that symmetric.c hashes."""

    def endpoints(frame: bytes) -> tuple[tuple[int, ...], int]:
        headers = reference.dissect(frame)
        words = f"<{len(headers.source) // 4}I"
        port = int.from_bytes(headers.ports[:2], "little")
        return struct.unpack(words, headers.source), port

    return min(flow, key=endpoints)


@of("symmetric")
@generated(300)
@given(flow=flows())
def test_symmetric(stages: Stages, flow: Flow) -> None:
    expected = rss(ordered(flow))
    assert run(stages, flow.there) == run(stages, flow.back) == expected


@of("symmetric")
def test_symmetric_for_a_mobile_node(stages: Stages) -> None:
    """It sends from a care-of address with its home address, and is sent to likewise."""
    care_of, home, peer = (bytes([prefix]) * 16 for prefix in (9, 7, 8))
    there, sent = frames.chain(
        [(frames.OPTIONS, frames.home_address(home))], frames.UDP, frames.udp(5, 6)
    )
    back, received = frames.chain(
        [(frames.ROUTING, frames.route(home))], frames.UDP, frames.udp(6, 5)
    )
    flow = Flow(
        frames.ethernet(0x86DD, frames.ipv6(sent, there, source=care_of, destination=peer)),
        frames.ethernet(0x86DD, frames.ipv6(received, back, source=peer, destination=care_of)),
    )
    results = set()
    for types in (HashType.ALL, HashType.ALL & ~HashType.UDP_EX & ~HashType.IP_EX):
        config = CONFIG.replace(hash_types=types)
        stages.maps.publish(compile_config(config))
        result = run(stages, flow.there)
        assert result == run(stages, flow.back) == rss(flow.there, config)
        results.add(result.report)
    assert results == {ReportType.UDPv6_EX, ReportType.UDPv6}


def test_plain_rss_is_not_symmetric() -> None:
    there = frames.ethernet(0x0800, frames.ipv4(frames.udp(5, 6)))
    back = frames.ethernet(
        0x0800,
        frames.ipv4(frames.udp(6, 5), source=b"\x0a\0\0\2", destination=b"\x0a\0\0\1"),
    )
    assert rss(there).hash_value != rss(back).hash_value


VXLAN = bytes.fromhex("0800000000002a00")


def gre(protocol: int, payload: bytes, flags: int = 0) -> bytes:
    """A GRE header with the optional words its flags announce."""
    words = sum(bool(flags & bit) for bit in (0x8000, 0x2000, 0x1000))
    return struct.pack("!HH", flags, protocol) + b"\xee" * 4 * words + payload


def outside(
    payload: bytes, protocol: int, version: int, tags: tuple[tuple[int, int], ...]
) -> bytes:
    if version == 4:
        options = bytes(4 * (protocol % 3))
        return frames.ethernet(0x0800, frames.ipv4(payload, protocol, options=options), tags)
    return frames.ethernet(0x86DD, frames.ipv6(payload, protocol), tags)


versions = st.sampled_from([4, 6])
tag_lists = st.sampled_from([(), ((0x8100, 5),), ((0x88A8, 5), (0x8100, 6))])
gre_flags = st.sampled_from([0, 0x8000, 0x2000, 0x3000, 0xB000])


def is_ip(frame: bytes) -> bool:
    """Whether it is of an EtherType that inner.c goes into."""
    offset = 12
    for _ in range(2):
        if frame[offset : offset + 2] in (b"\x81\x00", b"\x88\xa8"):
            offset += 4
    return frame[offset : offset + 2] in (b"\x08\x00", b"\x86\xdd")


@of("inner")
@generated(300)
@given(inner=runnable, version=versions, tags=tag_lists, flags=st.none() | gre_flags)
def test_inner_of_ethernet(
    stages: Stages, inner: bytes, version: int, tags: tuple[tuple[int, int], ...], flags: int | None
) -> None:
    """VXLAN, and GRE with Ethernet in it."""
    assume(is_ip(inner))
    if flags is None:
        frame = outside(frames.udp(9, 4789, VXLAN + inner), frames.UDP, version, tags)
    else:
        frame = outside(gre(0x6558, inner, flags), 47, version, tags)
    assert run(stages, frame) == rss(inner)


@of("inner")
@generated(100)
@given(flow=flows(), version=versions, flags=gre_flags)
def test_inner_of_ip(stages: Stages, flow: Flow, version: int, flags: int) -> None:
    protocol, packet = int.from_bytes(flow.there[12:14], "big"), flow.there[14:]
    frame = outside(gre(protocol, packet, flags), 47, version, ())
    assert run(stages, frame) == rss(packet, l3=True)


@of("inner")
@generated(200)
@given(frame=runnable)
def test_inner_leaves_other_packets_alone(stages: Stages, frame: bytes) -> None:
    assume(not dissect(frame, tunnels=TunnelType.ALL).tunnel)
    assert run(stages, frame) == rss(frame)


NO_TUNNEL = {
    "another port": frames.ipv4(frames.udp(9, 4790, VXLAN + UDP)),
    "VXLAN without an identifier": frames.ipv4(frames.udp(9, 4789, bytes(8) + UDP)),
    "ARP inside": frames.ipv4(frames.udp(9, 4789, VXLAN + frames.ethernet(0x0806, bytes(28)))),
    "cut short": frames.ipv4(frames.udp(9, 4789, VXLAN + UDP[:13])),
    "a fragment": frames.ipv4(frames.udp(9, 4789, VXLAN + UDP), fragment=0x2000),
    "GRE with routing": frames.ipv4(gre(0x6558, UDP, 0x4000), 47),
    "another version of GRE": frames.ipv4(gre(0x6558, UDP, 1), 47),
    "PPP in GRE": frames.ipv4(gre(0x880B, UDP), 47),
}


@pytest.mark.parametrize("case", NO_TUNNEL)
@of("inner")
def test_inner_falls_back_to_the_outer_headers(stages: Stages, case: str) -> None:
    frame = frames.ethernet(0x0800, NO_TUNNEL[case])
    assert run(stages, frame) == rss(frame)
    assert rss(frame).report != ReportType.NONE


def mix(value: int, queue: int) -> int:
    """The weight of a queue, as quic.c has it."""
    x = queue << 32 | value
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x = (x ^ x >> 33) * factor & 0xFFFFFFFFFFFFFFFF
    return (x ^ x >> 33) & ~0xFF


def rendezvous(connection: bytes, queues: int = QUEUES) -> tuple[int, int]:
    value, _ = toeplitz(connection)
    return value, max(range(queues), key=lambda queue: (mix(value, queue), queue))


def long_header(connection: bytes, rest: bytes = b"\x04src!" + bytes(30)) -> bytes:
    """RFC 9000, 17.2: an Initial packet."""
    return b"\xc3\0\0\0\1" + bytes([len(connection)]) + connection + rest


def short_header(connection: bytes) -> bytes:
    """RFC 9000, 17.3."""
    return b"\x41" + connection + bytes(20)


def to_server(packet: bytes, version: int = 4, *, source: bytes = b"\x0a\0\0\1") -> bytes:
    """A datagram to the QUIC server; ``source`` is for IPv4, which has options here."""
    udp = frames.udp(5000, 443, packet)
    if version == 4:
        return frames.ethernet(0x0800, frames.ipv4(udp, options=bytes(4), source=source))
    return frames.ethernet(0x86DD, frames.ipv6(udp))


@of("quic")
@generated(200)
@given(connection=st.binary(min_size=8, max_size=20), version=versions, is_long=st.booleans())
def test_quic(stages: Stages, connection: bytes, version: int, is_long: bool) -> None:
    packet = long_header(connection) if is_long else short_header(connection)
    value, queue = rendezvous(connection[:8])
    report = ReportType.UDPv4 if version == 4 else ReportType.UDPv6
    assert run(stages, to_server(packet, version)) == (value, report, queue)


@of("quic")
def test_quic_follows_a_client_to_its_next_address(stages: Stages) -> None:
    for number in range(50):
        connection = number.to_bytes(8, "big")
        at_home = to_server(long_header(connection))
        away = to_server(short_header(connection), source=b"\xc0\0\2" + bytes([number]))
        assert run(stages, at_home) == run(stages, away)


@of("quic")
def test_quic_moves_few_connections_when_a_queue_joins(stages: Stages) -> None:
    def queues_of(queues: int) -> list[int]:
        config = RssConfig.default(queues)
        stages.maps.publish(compile_config(config))
        return [
            run(stages, to_server(short_header(bytes([8, *number.to_bytes(7, "big")])))).queue
            for number in range(2000)
        ]

    before, after = queues_of(4), queues_of(5)
    assert set(before) == set(range(4))
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {4}  # to the one that joined, never among the others
    assert 330 < len(moved) < 470  # a fifth
    assert min(after.count(queue) for queue in range(5)) > 330


@of("quic")
@generated(200)
@given(frame=runnable)
def test_quic_leaves_other_packets_alone(stages: Stages, frame: bytes) -> None:
    assert run(stages, frame) == rss(frame)


@pytest.mark.parametrize(
    "packet",
    [b"", b"\x41", b"\x41" + bytes(7), long_header(b"short"), long_header(bytes(8))[:13]],
)
@of("quic")
def test_quic_without_a_connection_goes_by_rss(stages: Stages, packet: bytes) -> None:
    frame = to_server(packet)
    assert run(stages, frame) == rss(frame)


@of("quic")
def test_quic_reports_no_type_that_is_off(stages: Stages) -> None:
    config = CONFIG.replace(hash_types=HashType.IPv4 | HashType.UDPv6)
    stages.maps.publish(compile_config(config))
    frame = to_server(short_header(bytes(8)))
    assert run(stages, frame) == rss(frame, config)
    assert run(stages, to_server(short_header(bytes(8)), 6)).report == ReportType.UDPv6


@of("vlan")
@generated(200)
@given(frame=runnable)
def test_vlan(stages: Stages, frame: bytes) -> None:
    if frame[12:14] in (b"\x81\x00", b"\x88\xa8") and len(frame) >= 16:
        vlan = int.from_bytes(frame[14:16], "big") & 0xFFF
        _, queue = toeplitz(vlan.to_bytes(4, "little"))
        assert run(stages, frame) == (0, ReportType.NONE, queue)
    else:
        assert run(stages, frame) == rss(frame)


@of("vlan")
def test_vlan_keeps_to_one_queue(stages: Stages) -> None:
    queues = {
        vlan: {
            run(stages, frames.ethernet(0x0800, frames.ipv4(frames.udp(port)), ((tpid, tci),)))
            for port in range(4)
            for tpid in (0x8100, 0x88A8)
            for tci in (vlan, vlan | 0xE000)
        }
        for vlan in range(1, 40)
    }
    assert all(len(verdicts) == 1 for verdicts in queues.values())
    assert len(set.union(*queues.values())) > 4


def test_vlan_with_the_tag_beside_the_frame(netns: Namespace) -> None:
    """As a bridge hands it over: the kernel keeps the tag out of the frame."""
    with (
        quiet_tap(queues=QUEUES, program=example("vlan")) as tap,
        Links() as links,
        tagger(1) as program,
    ):
        links.add_veth("near", "far")
        links.add_bridge("bridge")
        for name in ("near", "far", "bridge"):
            link.quiet(name)
            link.set_up(name)
        links.enslave("far", "bridge")
        links.enslave(tap.name, "bridge")
        with (
            closing(attach_egress(program.fd, link.ifindex_of("near"))),
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire,
        ):
            wire.bind(("near", 0))
            received: list[Packet] = []
            for _ in range(50):  # a bridge takes its time until it forwards
                wire.send(UDP)
                if received := collect(tap, 1, timeout=0.1):
                    break
    (packet,) = received
    assert packet.frame[12:16] == b"\x81\x00\x00\x0a"
    assert packet.queue == toeplitz((10).to_bytes(4, "little"))[1]
    assert packet.hash_report is ReportType.NONE


def test_without_ethernet_headers(no_leaks: None) -> None:
    """On a device of network packets (IFF_TUN) each example does what it can."""
    packet = frames.ipv4(frames.udp(5000, 443, short_header(b"01234567")))
    # A test run starts a tc program at an Ethernet header: this one reads as a packet.
    shift = frames.ipv4(frames.udp())
    with loaded(example("vlan"), l3=True) as stages:
        assert run(stages, packet) == rss(packet, l3=True)
    with loaded(example("inner"), l3=True) as stages:
        assert run(stages, shift) == rss(shift, l3=True)
    with loaded(example("quic"), l3=True) as stages:
        value, queue = rendezvous(b"01234567")
        assert run(stages, packet) == (value, ReportType.UDPv4, queue)


# What a program says that cannot be


@pytest.mark.parametrize("queue", [QUEUES, 255, 256, 0xFFFFFFFF])
def test_a_queue_that_is_not_there(no_leaks: None, queue: int) -> None:
    config = CONFIG.replace(unclassified_queue=5)
    with loaded(constant(7, ReportType.TCPv6, queue), config) as stages:
        assert run(stages, UDP) == (7, ReportType.TCPv6, 5)
        invalid = stages.maps.stats().queues[5].invalid
    assert invalid == {"queue": 1, "report": 0}


@pytest.mark.parametrize("report", [len(ReportType), 77, 0xFFFFFFFF])
def test_a_report_type_that_does_not_exist(no_leaks: None, report: int) -> None:
    with loaded(constant(7, report, 3)) as stages:
        assert run(stages, UDP) == (0, ReportType.NONE, 3)
        stats = stages.maps.stats()
    assert stats.queues[3].invalid == {"queue": 0, "report": 1}
    assert stats.by_report[ReportType.NONE].packets == 1


def test_a_hash_without_a_type_is_passed_on(no_leaks: None) -> None:
    with loaded(constant(7, ReportType.NONE, 3)) as stages:
        assert run(stages, UDP) == (7, ReportType.NONE, 3)
        assert stages.maps.stats().queues[3].invalid == {"queue": 0, "report": 0}


def test_both_at_once(no_leaks: None) -> None:
    with loaded(constant(7, 77, 77), CONFIG.replace(unclassified_queue=2)) as stages:
        assert run(stages, UDP) == (0, ReportType.NONE, 2)
        assert stages.maps.stats().queues[2].invalid == {"queue": 1, "report": 1}


def test_a_program_that_says_nothing(no_leaks: None) -> None:
    with loaded(compiled(""), CONFIG.replace(unclassified_queue=6)) as stages:
        assert run(stages, UDP) == (0, ReportType.NONE, 6)


def test_counters_maps_and_variables_of_its_own(no_leaks: None) -> None:
    image = compiled(
        "__u32 key = frame->length; __u64 one = 1, *seen = bpf_map_lookup_elem(&lengths, &key);"
        "if (seen) ++*seen; else bpf_map_update_elem(&lengths, &key, &one, 0);"
        "vnet_count(15); vnet_count(16); last = key; verdict->queue = chosen;",
        before="struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64);"
        '__type(key, __u32); __type(value, __u64); } lengths SEC(".maps");'
        "int last; int chosen = 3;",
    )
    with loaded(image) as stages:
        for _ in range(3):
            assert run(stages, UDP).queue == 3
        own = stages.own_maps()
        assert own["lengths"].lookup(struct.pack("=I", len(UDP))) == struct.pack("=Q", 3)
        assert own["program.bss"].lookup(0)[:4] == struct.pack("=I", len(UDP))
        assert stages.maps.stats().counts == (*[0] * 15, 3)


# The verifier's word

UNSAFE = """#include <vnet_hash.h>

VNET_HASH_PROGRAM(frame, verdict)
{
\tverdict->hash_value = *(const __u32 *)(frame->data + 14);
}
"""


@pytest.fixture
def unsafe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unsafe.c").write_text(UNSAFE)
    return tmp_path


def test_a_rejected_program_leads_to_its_line(
    unsafe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["build", "unsafe.c", "--load"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith(
        "vnethash: error: load hash_stage of unsafe: invalid access to packet, off=14 size=4 ("
    )
    assert error.endswith("verdict->hash_value = *(const __u32 *)(frame->data + 14);)")
    assert hint == "vnethash: hint: --verifier-log FILE keeps all that the verifier said"
    assert not (unsafe / "unsafe.o").exists()

    assert main.run(["build", "unsafe.c", "--load", "--verifier-log", "log"]) == 1
    assert "all that the verifier said is in log" in capsys.readouterr().err
    log = (unsafe / "log").read_text()
    assert "offset is outside of the packet" in log
    assert main.run(["build", "unsafe.c", "--load", "--verifier-log", "-"]) == 1
    assert capsys.readouterr().err.startswith(log.partition("\n")[0])


def test_the_log_of_our_own_object_names_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is loaded without its lines, and with them once it is refused."""
    path = tmp_path / "ours.o"
    path.write_bytes(compiled("verdict->hash_value = *(const __u32 *)(frame->data + 14);"))
    monkeypatch.setattr(engine_stages, "STAGES_OBJECT", path)
    with pytest.raises(VerifierError, match=r"invalid access to packet.*frame->data \+ 14"):
        Stages.load(4)


def test_a_program_under_another_licence_may_call_less() -> None:
    image = compiled(
        'static const char text[] = "x"; char to[8]; bpf_snprintf(to, sizeof(to), text, 0, 0);',
        before="static long (*const bpf_snprintf)(char *, __u32, const char *, __u64 *, __u32) = "
        "(void *)BPF_FUNC_snprintf;",
        license="Proprietary",
    )
    with (
        pytest.raises(VerifierError, match="cannot call GPL-restricted function"),
        loaded(image),
    ):
        pass


def test_build_tells_what_the_verifier_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.run(["build", str(EXAMPLES / "xor.c"), "--load", "--json"]) == 0
    verified = json.loads(capsys.readouterr().out)["verified"]
    assert verified.keys() == {"hash_stage", "hash_stage_adaptive", "steering_stage"}
    assert all(100 < verified[name] < 100_000 for name in ("hash_stage", "hash_stage_adaptive"))
    assert main.run(["build", str(EXAMPLES / "xor.c"), "--load"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"{name}: the verifier went through {count:,} instructions"
        for name, count in verified.items()
    ]
    assert os.listdir(tmp_path) == ["xor.o"]
