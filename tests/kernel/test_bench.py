# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Benchmarks that need the kernel: each runs, and measures what it says."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import frames
from tests.kernel import programs
from vnethash.bench import path, stages, startup
from vnethash.bench.bitwise import BitwiseSteering
from vnethash.bench.frames import kinds
from vnethash.bench.measure import Effort, Summary
from vnethash.errors import ConfigError, DeviceError
from vnethash.kernel import netns
from vnethash.kernel.netns import Namespace
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
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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


def test_stages_have_their_rows() -> None:
    rounds: list[None] = []
    rows = stages.run(TINY, lambda: rounds.append(None))
    assert len(rounds) == stages.steps(TINY)
    told = [row for row in rows if row.case == "verifier"]  # not before Linux 5.16
    assert [row.variant for row in told if row.value.median > 1] == [
        "bit by bit",
        "bit by bit, padded",
        "hash stage",
        "hash program",
        "steering stage",
    ]
    once = {"hash stage, once", "with record, once"}
    own = {"hash stage", "hash program", "steering stage", *once}
    both = own | {"bit by bit", "bit by bit, padded"}
    expected = dict.fromkeys(kinds(), both)
    expected["VLAN/IPv4/TCP"] = expected["IPv6/options/TCP"] = own
    found: dict[str, set[str]] = {}
    for row in rows:
        if row.case != "verifier":
            found.setdefault(row.case, set()).add(row.variant)
    assert found == expected
    judged = {(row.case, row.variant) for row in rows if row.target}
    programs = {(case, "hash program") for case in kinds()}
    assert judged == {("IPv4/TCP", "hash stage"), ("IPv6/TCP", "hash stage"), *programs}


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
        (traffic.name, variant) for traffic in path.TRAFFIC for variant in path.variants()
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
        for traffic in path.TRAFFIC
        if traffic.judged
        for variant in ("ebpf off", "ebpf record")
    }


@pytest.fixture(name="lanes")
def _lanes(no_leaks: None) -> Iterator[Any]:
    from contextlib import ExitStack

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


def test_startup_has_its_rows(netns: Namespace) -> None:
    rows = startup.run(TINY, lambda: None)
    assert [row.variant for row in rows] == ["Tap.open", "Tap.configure", "vnethash --help"]
    for row in rows:
        assert row.value.low > 0
        assert row.target is not None
