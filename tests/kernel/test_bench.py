# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Benchmarks that need the kernel: each runs, and measures what it says."""

import resource
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import frames
from tests.kernel import programs
from vnethash.bench import adaptive, layouts, path, scale, stages, startup, tcp, vhost
from vnethash.bench.bitwise import BitwiseSteering
from vnethash.bench.frames import kinds, tcp4, tcp6
from vnethash.bench.kernel_memory import kernel_memory
from vnethash.bench.measure import Effort, Summary
from vnethash.bench.qemu import BINARY, QemuSteering, find_parts
from vnethash.errors import ConfigError, DeviceError, VnethashError
from vnethash.kernel import netns
from vnethash.kernel.bpf_map import Map, MapType
from vnethash.kernel.netns import Namespace
from vnethash.kernel.tun import Offload
from vnethash.native import STAGES_OBJECT
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.virtio.hash_types import HashType

# What is measured in a guest without JIT means nothing.
pytestmark = pytest.mark.host_only

TINY = Effort(rounds=1, work=0.001)
PLAIN_TYPES = HashType.ALL & ~(HashType.IP_EX | HashType.TCP_EX | HashType.UDP_EX)

ports = st.integers(0, 0xFFFF)


@st.composite
def plain_frames(draw: Any) -> bytes:
    """What the bit-by-bit programs were written for: no tags, no extension headers."""
    protocol = draw(st.sampled_from([frames.TCP, frames.UDP, 1, frames.NO_NEXT]))
    payload = {
        frames.TCP: lambda: frames.tcp(draw(ports), draw(ports)),
        frames.UDP: lambda: frames.udp(draw(ports), draw(ports)),
    }.get(protocol, lambda: bytes(8))()
    # A transport header cut short has no ports; of a test run's frame, so must say IP.
    payload = payload[: draw(st.sampled_from([4, 8, 19, 20]))] if draw(st.booleans()) else payload
    if draw(st.booleans()):
        addresses = [draw(st.binary(min_size=4, max_size=4)) for _ in range(2)]
        packet = frames.ipv4(
            payload,
            protocol,
            source=addresses[0],
            destination=addresses[1],
            options=b"\1" * 4 * draw(st.integers(0, 10)),
            fragment=draw(st.sampled_from([0, 0, 0x4000, 0x2000, 0x2001, 0x1FFF])),
        )
        return frames.ethernet(0x0800, packet)
    addresses = [draw(st.binary(min_size=16, max_size=16)) for _ in range(2)]
    packet = frames.ipv6(payload, protocol, source=addresses[0], destination=addresses[1])
    return frames.ethernet(0x86DD, packet)


@pytest.fixture(name="bitwise")
def _bitwise(no_leaks: None) -> Iterator[BitwiseSteering]:
    with BitwiseSteering.load(RssConfig.default(8)) as bitwise:
        yield bitwise


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    frame=plain_frames(),
    types=st.integers(0, PLAIN_TYPES).map(HashType),
    key=st.binary(min_size=40, max_size=40),
    entries=st.sampled_from([1, 8, 128]),
)
def test_bitwise_steers_as_the_reference(
    bitwise: BitwiseSteering, frame: bytes, types: HashType, key: bytes, entries: int
) -> None:
    config = RssConfig(
        8,
        hash_types=types,
        key=key,
        indirection_table=tuple(5 * entry % 8 for entry in range(entries)),
        unclassified_queue=5,
    )
    expected = reference.classify(frame, config).queue
    bitwise.configure(config)
    assert bitwise.program.test_run(frame).retval == expected
    assert bitwise.padded.test_run(frame).retval == expected


def test_bitwise_has_a_table_of_its_size() -> None:
    with pytest.raises(ConfigError, match="more than 128 entries"):
        BitwiseSteering.load(RssConfig.default(256))


@pytest.mark.parametrize("qemu", [True, False])
def test_stages_have_their_rows(qemu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not qemu:
        monkeypatch.setenv("PATH", "/nowhere")
    elif shutil.which(BINARY) is None:
        pytest.skip(f"{BINARY} is not installed")
    bitwise = ["bit by bit", "bit by bit, padded", *(["QEMU's"] if qemu else [])]
    rounds: list[None] = []
    rows = stages.run(TINY, lambda: rounds.append(None))
    assert len(rounds) == stages.steps(TINY)
    told = [row for row in rows if row.case == "verifier"]  # not before Linux 5.16
    assert [row.variant for row in told if row.value.median > 1] == [
        *bitwise,
        "hash stage",
        "hash program",
        "steering stage",
    ]
    once = {"hash stage, once", "with record, once"}
    own = {"hash stage", "hash stage, tunnels on", "hash program", "steering stage", *once}
    both = own | set(bitwise)
    expected = dict.fromkeys(kinds(), both)
    tunnelled = ("4in4/TCP", "GRE/IPv4/TCP", "VXLAN/IPv4/TCP", "Geneve/IPv6/TCP")
    for case in ("VLAN/IPv4/TCP", "QinQ/IPv4/TCP", "IPv6/options/TCP", *tunnelled):
        expected[case] = own
    found: dict[str, set[str]] = {}
    for row in rows:
        # A run so short may find nothing above an empty program, and then no ratio.
        if row.case != "verifier" and row.unit != "times":
            found.setdefault(row.case, set()).add(row.variant)
    assert found == expected
    judged = {(row.case, row.variant) for row in rows if row.target}
    programs = {(case, "hash program") for case in kinds()}
    targets = {(case, f"{bitwise[-1]} / hash stage") for case in ("IPv4/TCP", "IPv6/TCP")}
    assert programs <= judged <= programs | targets


@pytest.mark.skipif(shutil.which(BINARY) is None, reason=f"{BINARY} is not installed")
def test_what_is_measured_as_qemu_s_steers(no_leaks: None) -> None:
    config = RssConfig.default(8)
    flows = [flow(i, 80) for flow in (tcp4, tcp6) for i in range(64)]
    with QemuSteering.load(config) as steering:
        queues = [steering.program.test_run(flow).retval for flow in flows]
    assert queues == [reference.classify(flow, config).queue for flow in flows]


def test_no_program_of_qemu_s(tmp_path: Path) -> None:
    other = tmp_path / "other"
    for contents in (b"no program", STAGES_OBJECT.read_bytes(), STAGES_OBJECT.read_bytes()[:200]):
        other.write_bytes(contents)
        assert find_parts(other) is None


def test_layouts_have_their_rows(no_leaks: None) -> None:
    rounds: list[None] = []
    rows = layouts.run(TINY, lambda: rounds.append(None))
    assert len(rounds) == layouts.steps(TINY)
    ways = ("one flow", "other flows", "cold L1", "cold L1, L2")
    names = {
        "IPv4/TCP": ["nibbles", "bytes", "11 bits", "16 bits"],
        "IPv6/TCP": ["nibbles", "bytes", "11 bits"],
    }
    assert [(row.case, row.variant) for row in rows] == [
        (f"{case}, {way}", name) for case in names for way in ways for name in names[case]
    ]


def test_verified_instructions_of_two() -> None:
    with programs.returning(0) as program:
        assert stages.verified_instructions(program) == 2


def test_path_has_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path, "TRAFFIC", path.TRAFFIC[::2])  # each sender, and TSO
    rounds: list[None] = []
    inode = netns.current_inode()
    rows = path.run(TINY, lambda: rounds.append(None))
    assert netns.current_inode() == inode
    assert len(rounds) == path.steps(TINY)
    assert [(row.case, row.variant) for row in rows] == [
        (traffic.name, variant) for traffic in path.traffic_here() for variant in path.variants()
    ]
    for row in rows:
        assert row.value.low > 0
        assert set(row.parts) == {"send", "receive"}
        assert row.ratio is not None
        if row.variant == path.BASE:
            assert row.ratio == Summary(1, 1, 1, 1)
    judged = {(row.case, row.variant) for row in rows if row.target}
    assert judged == {
        (traffic.name, variant)
        for traffic in path.traffic_here()
        if traffic.judged
        for variant in ("ebpf off", "ebpf record")
    }


@pytest.fixture(name="lanes")
def _lanes(no_leaks: None) -> Iterator[Any]:
    with ExitStack() as resources:
        yield lambda variant: path.Lane(variant, path.TRAFFIC[0], path.Buffers(), resources)


@pytest.mark.parametrize("variant", path.VARIANTS)
def test_each_variant_does_what_it_is_called(lanes: Any, variant: str) -> None:
    lane = lanes(variant)
    lane.check()
    packets = lane.sample()
    assert len(packets) == path.BURST
    reported = {int(report) for report in packets["hash_report"]}
    assert reported == ({2} if variant in ("ebpf record", "ebpf rehash", "software") else {0})
    assert {bool(has) for has in packets["has_record"]} == {variant == "ebpf record"}
    assert len(set(packets["queue"])) > 1


def test_loss_is_noticed(lanes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = lanes(path.BASE)
    monkeypatch.setattr(lane, "_burst", 4000)  # more than four rings hold
    with pytest.raises(DeviceError, match=r"4000 packets sent, [0-9]+ received"):
        lane.turn(1)


def test_vhost_has_its_rows() -> None:
    rounds: list[None] = []
    inode = netns.current_inode()
    rows = vhost.run(TINY, lambda: rounds.append(None))
    assert netns.current_inode() == inode
    assert len(rounds) == vhost.steps(TINY)
    variants = [variant.name for variant in vhost.VARIANTS]
    assert [(row.case, row.variant) for row in rows] == [
        *(
            (f"receive, {traffic.name}", variant)
            for traffic in vhost.TRAFFIC
            for variant in (vhost.BASE, "bare, spread", "bare, records", *variants)
        ),
        *(
            (f"transmit, {traffic.name}", variant)
            for traffic in vhost.TRAFFIC
            for variant in (vhost.BASE, "off", "record")
        ),
        *(("round trip, 64 B", variant) for variant in (vhost.BASE, *variants[:3])),
        *(("pairs, 64 B", name) for name in (vhost.BASE, "1 pair", "2 pairs", "4 pairs")),
    ]
    for row in rows:
        assert row.value.low > 0
        assert row.parts["cpu"].low > 0
        assert ("kpps" in row.parts) == (row.unit == "ns")
        assert row.ratio is not None
        if row.variant == vhost.BASE:
            assert row.ratio == Summary(1, 1, 1, 1)
        assert ("of off" in row.parts) == (row.variant in variants)
        judged = row.case.startswith("receive") and row.variant in variants
        assert (row.target is not None) == judged


@pytest.fixture(name="resources")
def _resources(no_leaks: None) -> Iterator[ExitStack]:
    with ExitStack() as resources:
        yield resources


def lane_of(variant: vhost.Variant, resources: ExitStack, queues: int = 1) -> vhost.Lane:
    return vhost.Lane(variant.reporting, queues, resources)


@pytest.mark.parametrize("variant", vhost.VARIANTS, ids=lambda variant: variant.name)
@pytest.mark.parametrize("traffic", vhost.TRAFFIC, ids=lambda traffic: traffic.name)
def test_a_guest_gets_each_burst_whole(
    resources: ExitStack, variant: vhost.Variant, traffic: vhost.Traffic
) -> None:
    lane = lane_of(variant, resources)
    guest = lane.guest(variant, traffic, resources)
    guest.start()
    burst = lane.receiving(guest, traffic)
    for _ in range(2):
        moved = burst()
        assert moved.packets == traffic.burst
        assert moved.bytes == traffic.burst * (variant.header + traffic.length)
        assert moved.hashed == (0 if variant.reporting is Reporting.OFF else traffic.burst)
    [counters] = guest.counters()
    assert (counters.receive.packets, counters.receive.dropped) == (2 * traffic.burst, 0)
    guest.stop()
    guest.start()  # its rings begin anew
    assert burst().packets == guest.transmit(traffic.burst).packets == traffic.burst


def test_each_pair_of_a_guest_gets_its_share(resources: ExitStack) -> None:
    variant = vhost.VARIANTS[1]
    lane = lane_of(variant, resources, 4)
    guest = lane.guest(variant, vhost.TRAFFIC[0], resources)
    guest.start()
    lane.receiving(guest, vhost.TRAFFIC[0])()
    assert {counters.receive.packets for counters in guest.counters()} == {96}


def test_a_packet_that_does_not_come_is_missed(resources: ExitStack) -> None:
    lane, traffic = lane_of(vhost.VARIANTS[0], resources), vhost.TRAFFIC[0]
    guest = lane.guest(vhost.VARIANTS[0], traffic, resources)
    guest.start()
    with pytest.raises(DeviceError, match=r"^off, 64 B: not all packets came$"):
        guest.receive(1)
    guest.stop()
    loop = lane.bare(traffic, resources)
    loop.start()
    with pytest.raises(DeviceError, match=r"^bare, 64 B: resource temporarily unavailable$"):
        loop.receive(1)


def test_what_is_not_as_the_variant_says_is_not_timed(resources: ExitStack) -> None:
    off, record, _ = vhost.VARIANTS[:3]
    lane, traffic = lane_of(record, resources), vhost.TRAFFIC[0]
    guest = lane.guest(record, traffic, resources)
    whole = traffic.burst, traffic.burst * (record.header + traffic.length), traffic.burst
    work = vhost.Work(guest, lane.receiving(guest, traffic), whole)
    vhost.check(guest, work, record.reporting)
    with pytest.raises(VnethashError, match="recorded is wrong"):
        vhost.check(guest, work, off.reporting)
    with pytest.raises(VnethashError, match="packets, bytes, hashes is wrong"):
        vhost.Work(guest, work.burst, (*whole[:2], 0)).turn(1)


def test_scale_has_its_rows(no_leaks: None) -> None:
    attached: list[None] = []
    rows = scale.run(TINY, lambda: attached.append(None))
    assert len(attached) == scale.steps(TINY)
    sizes = ["1 tap", "10 taps", "1 queue", "256 queues", "table of 128", "table of 32768"]
    assert [(row.case, row.variant) for row in rows] == [
        *((scale.ATTACH, size) for size in sizes),
        (scale.MEMORY, "10 taps"),
        *((scale.RECONFIGURE, size) for size in sizes),
        *((scale.PACKET, size) for size in sizes),
        *((scale.AGAIN, size) for size in sizes),
    ]
    (memory,) = (row for row in rows if row.case == scale.MEMORY)
    assert memory.target is not None
    # A tap has its tables, and no second set of them.
    assert 36 < memory.parts["maps"].median < 72
    for row in rows:
        if row.case in (scale.ATTACH, scale.RECONFIGURE):
            assert row.value.low > 0


def test_scale_cut_short_leaves_nothing(no_leaks: None) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    groups = Path("/proc/self/cgroup").read_text()
    attached: list[None] = []

    def interrupt() -> None:
        attached.append(None)
        if len(attached) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scale.run(TINY, interrupt)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limit
    assert Path("/proc/self/cgroup").read_text() == groups
    assert not [*Path("/sys/fs/cgroup").rglob("vnethash-bench-*")]


def test_scale_says_how_many_files_it_needs(
    no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 128))
    with pytest.raises(VnethashError, match="10 taps need 728 open files, the limit is 128"):
        scale.run(TINY, lambda: None)


def test_kernel_memory_sees_a_map_come_and_go() -> None:
    with kernel_memory() as memory:
        before = memory.read()
        with Map.create(MapType.ARRAY, "large", key_size=4, value_size=1 << 20, max_entries=4):
            assert 3 << 20 < memory.read() - before < 6 << 20


def test_startup_has_its_rows(netns: Namespace) -> None:
    rows = startup.run(TINY, lambda: None)
    assert [row.variant for row in rows] == ["Tap.open", "Tap.configure", "vnethash --help"]
    for row in rows:
        assert row.value.low > 0
        assert row.target is not None


def test_tcp_has_its_rows() -> None:
    rounds: list[None] = []
    rows = tcp.run(TINY, lambda: rounds.append(None))
    assert len(rounds) == tcp.steps(TINY)
    whole, segments = "TCP bulk, TSO", "TCP bulk, no offloads"
    expected = [(case, variant) for case in (whole, segments) for variant in tcp.variants()]
    assert [(row.case, row.variant) for row in rows] == expected
    for row in rows:
        assert row.value.low > 0
        # A MiB in segments of an MTU, or in packets that TSO left together.
        least, most = (3, 100) if row.case == whole else (700, 800)
        assert least < row.parts["packets"].median < most


def test_tcp_sees_a_byte_that_is_missing() -> None:
    with ExitStack() as resources:
        lane = tcp.Lane("ebpf record", Offload.CSUM | Offload.TSO4, tcp.Buffers(), resources)
        lane.check()
        lane.connections[0].received += 1  # as if one had not come
        with pytest.raises(DeviceError, match="ebpf record, TCP: bad message"):
            lane.check()


def test_adaptive_has_its_rows(no_leaks: None) -> None:
    rounds: list[None] = []
    rows = adaptive.run(TINY, lambda: rounds.append(None))
    assert len(rounds) == adaptive.steps(TINY) == len(adaptive.CASES) + len(adaptive.KINDS)
    cases = (*adaptive.CASES, *adaptive.KINDS, "verifier")
    assert [row.key[1:] for row in rows] == [
        (case, variant) for case in cases for variant in adaptive.VARIANTS
    ]
    for row in rows[: len(adaptive.CASES) * len(adaptive.VARIANTS)]:
        assert row.ratio is not None
        assert row.value.low >= 1
        even = row.variant != adaptive.BASE
        assert (row.target is not None) == even
        assert (row.parts["moved"].median > 0) == even
        assert (row.parts["changes"].median > 0) == even
        assert row.parts["before"].median > 1.1  # or the scenario shows nothing


def test_moving_a_bucket_that_waits_reorders(no_leaks: None) -> None:
    """And nothing else does: seed 3 overloads a queue by a half."""
    backlogged = adaptive.CASES["backlogged"]
    fixed = adaptive.scenario(3, backlogged, packets=20_000, adaptive=False)
    assert fixed.reordered == fixed.moved == 0
    moved = adaptive.scenario(3, backlogged, packets=20_000, adaptive=True)
    assert moved.moved > 0
    assert moved.reordered > 0
    assert moved.after < fixed.after - 0.2


def test_reordered_packets_are_counted_as_the_rfc_says() -> None:
    assert adaptive.reordered([(0, 0), (1, 0), (0, 1), (0, 2), (1, 1)]) == 0
    # RFC 4737, section 3: a packet below the next expected one; the expectation stays.
    assert adaptive.reordered([(0, 0), (0, 3), (0, 1), (0, 2), (0, 4)]) == 2
    assert adaptive.reordered([(0, 1), (1, 0), (0, 0), (1, 1)]) == 1


def test_flows_of_a_schedule_are_skewed_as_zipf_says() -> None:
    heads, order = adaptive.schedule(1, 100_000)
    assert adaptive.schedule(1, 100_000) == (heads, order)
    assert len(heads) == adaptive.FLOWS
    harmonic = sum(1 / rank for rank in range(1, adaptive.FLOWS + 1))
    for rank in (1, 2, 10):
        expected = 100_000 / rank / harmonic
        assert abs(order.count(rank - 1) - expected) < 5 * expected**0.5
