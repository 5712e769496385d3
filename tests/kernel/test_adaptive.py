# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Adaptive tables: counters by bucket, moves while packets pass, and whose the table is."""

import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests import frames
from tests.effort import examples
from tests.kernel import flows
from tests.kernel.hash_programs import compiled
from tests.kernel.pins import own_bpffs
from tests.kernel.test_stages import is_runnable
from vnethash.balancer import Balancer
from vnethash.engines.pinned import PinnedTap, attach, detach
from vnethash.engines.stages import Stages
from vnethash.errors import ConfigError, DeviceError, TableOwned
from vnethash.kernel import link
from vnethash.kernel.egress import attach_egress
from vnethash.kernel.netns import Namespace
from vnethash.kernel.tun import TunDevice
from vnethash.programs import open_program
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.balance import imbalance
from vnethash.rss.compiled import compile_config
from vnethash.rss.config import RssConfig
from vnethash.tap import Tap

CONFIG = RssConfig.default(4)
ARP = frames.ethernet(0x0806, bytes(46))
UDP = [
    frames.ethernet(0x0800, frames.ipv4(frames.udp(port, payload=bytes(20)))) for port in range(50)
]


def skewed(packets: int, seed: int = 3) -> list[bytes]:
    """UDP flows with the frequencies of Zipf's law."""
    weights = [1 / rank for rank in range(1, len(UDP) + 1)]
    return random.Random(seed).choices(UDP, weights, k=packets)


def expected(sent: Sequence[bytes], config: RssConfig) -> dict[int, tuple[int, int]]:
    """Packets and bytes of each bucket that has any, by the reference."""
    packets: Counter[int] = Counter()
    octets: Counter[int] = Counter()
    for frame, times in Counter(sent).items():
        index = reference.classify(frame, config).index
        if index is not None:
            packets[index] += times
            octets[index] += times * len(frame)
    return {bucket: (packets[bucket], octets[bucket]) for bucket in packets}


def counted(buckets: NDArray[np.int64]) -> dict[int, tuple[int, int]]:
    rows = [(packets, octets) for packets, octets in buckets.tolist()]
    return {bucket: row for bucket, row in enumerate(rows) if any(row)}


# The hash stage


@pytest.fixture(name="stages")
def _stages(no_leaks: None) -> Iterator[Stages]:
    with Stages.load(4, adaptive=True) as stages:
        yield stages


@settings(
    max_examples=examples(200),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    frame=frames.frames().filter(is_runnable),
    entries=st.sampled_from([1, 2, 128, 2048]),
    reporting=st.sampled_from([Reporting.OFF, Reporting.RECORD]),
)
def test_counts_what_the_reference_says(
    stages: Stages, frame: bytes, entries: int, reporting: Reporting
) -> None:
    table = tuple(entry % 4 for entry in range(entries))
    config = CONFIG.replace(indirection_table=table, unclassified_queue=3)
    stages.maps.publish(compile_config(config, reporting))
    before = stages.maps.buckets()
    stages.hash_stage.test_run(frame)
    assert counted(stages.maps.buckets() - before) == expected([frame], config)


def test_counts_nothing_unless_asked(stages: Stages) -> None:
    with Stages.load(4) as off:
        for each in (off, stages):
            each.maps.publish(compile_config(CONFIG, Reporting.OFF))
            each.hash_stage.test_run(ARP, repeat=3)
            each.hash_stage.test_run(UDP[0], repeat=5)
        assert len(off.maps.buckets()) == 0
        assert off.shared.buckets.max_entries == 1
        # Its only entry is where packets without a bucket are counted: not even these are.
        without = [
            sum(int.from_bytes(cpu[:8], "little") for cpu in each.shared.buckets.lookup_percpu(0))
            for each in (off, stages)
        ]
        assert without == [0, 3]
    assert len(stages.maps.buckets()) == stages.maps.max_indirection


def test_a_hash_program_is_counted_too_and_its_successor_goes_on(no_leaks: None) -> None:
    steers = compiled("vnet_steer(9, verdict); verdict->hash_report = VNET_REPORT_UDPV4;")
    with Stages.load(4, program=open_program(steers), adaptive=True) as stages:
        stages.maps.publish(compile_config(CONFIG, Reporting.OFF))
        stages.hash_stage.test_run(ARP, repeat=2)
        assert counted(stages.maps.buckets()) == {9: (2, 2 * len(ARP))}
        successor = open_program(compiled("vnet_steer(7, verdict);"))
        with Stages.load_successor(successor, stages.shared, l3=False) as after:
            after.hash_stage.test_run(UDP[0], repeat=3)
            assert {b: row[0] for b, row in counted(after.maps.buckets()).items()} == {7: 3, 9: 2}
    wrong = compiled("vnet_steer(9, verdict); verdict->queue = 77;")
    with Stages.load(4, program=open_program(wrong), adaptive=True) as stages:
        stages.maps.publish(compile_config(CONFIG, Reporting.OFF))
        stages.hash_stage.test_run(ARP, repeat=2)
        assert counted(stages.maps.buckets()) == {}  # it went to the unclassified queue
        assert stages.maps.stats().invalid["queue"] == 2


def test_only_one_of_both_hash_stages_on_a_device(netns: Namespace, stages: Stages) -> None:
    with TunDevice.create("tap0", 2) as tap, Stages.load(2) as plain:
        hook = attach_egress(stages.hash_stage.fd, tap.ifindex)
        with pytest.raises(DeviceError, match="has a hash_stage already"):
            attach_egress(plain.hash_stage.fd, tap.ifindex)
        hook.close()


# Taps of this process


@contextmanager
def opened(**options: object) -> Iterator[Tap]:
    options = {"queues": 4, "reporting": "off", "adaptive": True, **options}
    with Tap.open("tap0", up=False, **options) as tap:  # type: ignore[arg-type]
        link.quiet("tap0")
        link.set_up("tap0")
        yield tap


def pass_through(tap: Tap, sent: Sequence[bytes]) -> list[int]:
    """Send frames and read them; how many came to each queue."""
    came = [0] * len(tap.queues)
    for first in range(0, len(sent), 100):
        flows.send(tap.name, sent[first : first + 100])
        for queue in tap.queues:
            came[queue.index] += len(queue.receive_batch(100, 0))
    assert sum(came) == len(sent)
    return came


@pytest.mark.parametrize("reporting", ["off", "record"])
def test_a_tap_is_balanced_while_packets_pass(netns: Namespace, reporting: str) -> None:
    with opened(reporting=reporting) as tap:
        balancer = tap.balancer()
        sent = skewed(8000)
        before = pass_through(tap, sent)
        assert imbalance(before) > 1.5
        assert counted(tap.observe().buckets) == expected(sent, CONFIG)
        step = balancer.step()
        assert step.applied
        assert step.plan is not None
        assert step.packets == len(sent)
        assert step.imbalance == pytest.approx(imbalance(before))
        assert tap.rss.indirection_table == step.plan.apply(CONFIG.indirection_table)
        tables = zip(tap.rss.indirection_table, CONFIG.indirection_table, strict=True)
        assert sum(now != then for now, then in tables) == len(step.plan.moves) <= 10
        after = pass_through(tap, sent)
        assert imbalance(after) == pytest.approx(step.expected)
        assert imbalance(after) < 1.06
        again = balancer.step()
        assert again.plan is not None
        assert not again.plan.moves
        assert not again.applied


def test_bytes_may_count_instead(netns: Namespace) -> None:
    """Few packets of a queue are large: by packets all is even, by bytes it is not."""
    large = [frame + bytes(1400) for frame in UDP if reference.classify(frame, CONFIG).queue == 0]
    small = [frame for frame in UDP if reference.classify(frame, CONFIG).queue != 0]
    with opened() as tap:
        balancer = tap.balancer(by="bytes")
        pass_through(tap, random.Random(1).choices(large, k=2000))
        pass_through(tap, random.Random(1).choices(small, k=6000))
        step = balancer.step()
        assert step.applied
        assert step.plan is not None
        assert {move.source for move in step.plan.moves} == {0}
    with opened() as tap, pytest.raises(ConfigError, match="by: must be one of packets, bytes"):
        tap.balancer(by="flows")


def test_packets_without_a_hash_stay_and_count(netns: Namespace) -> None:
    with opened(rss=CONFIG.replace(unclassified_queue=2)) as tap:
        balancer = tap.balancer()
        pass_through(tap, [*skewed(4000), *[ARP] * 4000])
        step = balancer.step()
        assert step.applied
        assert step.plan is not None
        loads = [load * step.seconds for load in step.plan.before]
        assert loads[2] > 4000
        assert {move.source for move in step.plan.moves} == {2}


def test_too_few_packets_move_nothing(netns: Namespace) -> None:
    with opened() as tap:
        balancer = tap.balancer()
        assert balancer.step().plan is None  # idle
        pass_through(tap, skewed(3500))
        step = balancer.step()
        assert (step.plan, step.packets, step.imbalance) == (None, 3500, None)
        pass_through(tap, skewed(100))  # the look goes on
        assert balancer.step().packets == 3600
        assert tap.rss != CONFIG


def test_a_dry_run_moves_nothing(netns: Namespace) -> None:
    with opened() as tap:
        balancer = Balancer(tap, dry_run=True)
        pass_through(tap, skewed(4000))
        step = balancer.step()
        assert step.plan is not None
        assert step.plan.moves
        assert not step.applied
        assert tap.rss == CONFIG


def test_a_table_that_was_set_is_not_touched(netns: Namespace) -> None:
    with opened() as tap:
        balancer = tap.balancer()
        pass_through(tap, skewed(4000))
        tap.configure(CONFIG.replace(key=bytes(range(40))))  # no table: it goes on, anew
        assert tap.adaptive
        step = balancer.step()
        assert (step.plan, step.packets) == (None, 0)
        owned = CONFIG.replace(indirection_table=(0, 0, 0, 1))
        tap.configure(owned)
        pass_through(tap, skewed(4000))
        with pytest.raises(TableOwned, match="was set by configure"):
            balancer.step()
        with pytest.raises(TableOwned):
            tap.rebalance(owned, (3, 2, 1, 0))
        assert tap.rss == owned


def test_what_is_not_for_balancing(netns: Namespace) -> None:
    with opened(adaptive=False) as tap, pytest.raises(ConfigError, match="opened without it"):
        tap.balancer()
    with pytest.raises(ConfigError, match="engine software does not count by bucket"):
        Tap.open("tap0", engine="software", adaptive=True)
    with opened() as tap:
        with pytest.raises(ConfigError, match="tolerance"):
            tap.balancer(tolerance=0)
        with pytest.raises(ConfigError, match="entry 0 is queue 4"):
            tap.rebalance(tap.rss, [4] * 128)
        assert tap.rss == CONFIG


# Taps of others


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with own_bpffs(tmp_path / "bpffs", monkeypatch) as folder:
        yield folder


@pytest.fixture
def device(netns: Namespace, pins: Path) -> Iterator[TunDevice]:
    with TunDevice.create("tap0", 4) as tap:
        link.quiet(tap.name)
        link.set_up(tap.name)
        yield tap


def test_an_attached_tap_is_balanced(device: TunDevice) -> None:
    attach("tap0", adaptive=True).close()
    with PinnedTap.open("tap0") as tap:
        assert tap.adaptive
        balancer = Balancer(tap)
        sent = skewed(8000)
        flows.send("tap0", sent)
        assert counted(tap.observe().buckets) == expected(sent, CONFIG)
        step = balancer.step()
        assert step.applied
        assert step.imbalance is not None
        assert step.expected is not None
        assert step.imbalance > 1.5
        flows.send("tap0", sent)
        assert balancer.step().imbalance == pytest.approx(step.expected)
        tap.configure(reporting=Reporting.REHASH)  # not the table: it goes on
        rss, reporting = tap.current()
        assert tap.rebalance(rss, CONFIG.indirection_table)
        assert tap.current() == (CONFIG, reporting) == (CONFIG, Reporting.REHASH)
        tap.detach()


def test_the_owner_of_an_attached_tap_decides(device: TunDevice) -> None:
    attach("tap0").close()
    with PinnedTap.open("tap0") as tap:
        with pytest.raises(ConfigError, match="was attached without it"):
            Balancer(tap)
        with pytest.raises(ConfigError, match="was attached without it"):
            tap.update(None, adaptive=True)
        tap.detach()
    with attach("tap0", adaptive=True) as tap:
        balancer = Balancer(tap)
        tap.update(lambda rss: rss.replace(key=bytes(range(40))))
        assert balancer.step().plan is None
        tap.configure(tap.current()[0])  # the same table, but set
        with pytest.raises(TableOwned, match="set by its owner"):
            balancer.step()
        tap.update(None, adaptive=True)
        balancer.step()
        tap.update(lambda rss: rss.replace(indirection_table=(1,)))
        with pytest.raises(TableOwned):
            tap.rebalance(tap.current()[0], (0,))
        tap.detach()


def test_what_was_seen_is_not_what_is(device: TunDevice) -> None:
    """A plan made for another configuration is not put in force."""
    with attach("tap0", adaptive=True) as tap:
        seen = tap.observe().rss
        tap.update(lambda rss: rss.replace(unclassified_queue=1))
        now = tap.current()
        assert not tap.rebalance(seen, (3,) * 128)
        assert tap.current() == now
        tap.detach()


def test_no_bucket_goes_to_a_queue_that_was_closed(device: TunDevice) -> None:
    with attach("tap0", adaptive=True) as tap:
        device.use_queues(2)
        seen = tap.observe().rss
        with pytest.raises(ConfigError, match="has only 2 queues now"):
            tap.rebalance(seen, (3,) * 128)
        tap.detach()


def test_a_balancer_and_an_owner_at_once(device: TunDevice) -> None:
    """Whoever is first: in the end the table is the owner's."""
    attach("tap0", adaptive=True).close()
    dice = random.Random(1)
    for attempt in range(examples(30)):
        changes: list[bool] = []
        begun, ended = threading.Event(), threading.Event()

        def balance(changes: list[bool], begun: threading.Event, ended: threading.Event) -> None:
            with PinnedTap.open("tap0") as tap:
                while True:
                    try:
                        table = [(queue + 1) % 4 for queue in tap.observe().rss.indirection_table]
                        changes.append(tap.rebalance(tap.current()[0], table))
                    except TableOwned:
                        ended.set()
                        return
                    finally:
                        begun.set()

        with PinnedTap.open("tap0") as tap:
            tap.update(None, adaptive=True)
            thread = threading.Thread(target=balance, args=[changes, begun, ended])
            thread.start()
            begun.wait(5)
            ended.wait(dice.random() / 100)
            owned = CONFIG.replace(indirection_table=(attempt % 4,), unclassified_queue=1)
            tap.configure(owned)
            thread.join(5)
            assert ended.is_set()
            assert any(changes)
            assert tap.current()[0] == owned
    detach("tap0")
