# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Adaptive tables of served devices: only while the guest has not said how to steer."""

from pathlib import Path

import pytest

from tests.kernel import flows
from tests.kernel.flows import FLOWS, Got
from tests.kernel.served import QUEUES, serving
from tests.kernel.test_adaptive import skewed
from vnethash.balancer import Balancer
from vnethash.cli import main
from vnethash.errors import ConfigError, TableOwned
from vnethash.kernel.netns import Namespace
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.testing.driver import FakeDriver
from vnethash.vhost_user.adapting import Adapting
from vnethash.vhost_user.host_tap import HostTap
from vnethash.virtio.features import Feature
from vnethash.virtio.hash_types import HashType, ReportType

OWN = RssConfig.symmetric(QUEUES).replace(indirection_table=(3, 1, 3, 0))


def steered(rss: RssConfig) -> set[Got]:
    """FLOWS as the table has them, without hashes."""
    found = {(reference.classify(frame, rss).queue, frame) for frame in FLOWS}
    return {Got(queue, frame, 0, ReportType.NONE) for queue, frame in found}


def balance(tap: HostTap) -> Balancer:
    """Have a balancer move buckets once."""
    balancer = Balancer(tap)
    flows.send("tap0", skewed(8000))
    step = balancer.step()
    assert step.applied
    assert step.expected is not None
    assert step.expected < 1.1
    return balancer


def drain(driver: FakeDriver) -> None:
    """Take what came before out of the guest's rings."""
    while True:
        try:
            if not driver.receive_any(1, timeout=0.3):
                return
        except TimeoutError:
            return


def is_adapted(tap: HostTap) -> bool:
    return tap.adapts


# A table that is the same as the present one is the guest's too.
@pytest.mark.parametrize("programmed", [OWN, RssConfig.default(QUEUES)])
def test_a_table_the_guest_programs_is_never_touched(
    netns: Namespace, tmp_path: Path, programmed: RssConfig
) -> None:
    with serving(tmp_path, adaptive=True) as served, served.driver(Feature.HASH_REPORT) as driver:
        driver.queue_pairs(QUEUES)
        tap = served.tap
        assert is_adapted(tap)
        assert served.flows(driver) == steered(RssConfig.default(QUEUES))
        balancer = balance(tap)
        adapted = tap.observe().rss
        assert adapted.indirection_table != RssConfig.default(QUEUES).indirection_table
        drain(driver)
        assert served.flows(driver) == steered(adapted)

        driver.rss_config(programmed)
        assert not is_adapted(tap)
        with pytest.raises(TableOwned, match="as its guest wants"):
            balancer.step()
        with pytest.raises(TableOwned):
            tap.rebalance(adapted, adapted.indirection_table)
        assert served.flows(driver) == steered(programmed)

        driver.queue_pairs(QUEUES)  # back to automatic steering (virtio 1.3, 5.1.6.5.6)
        assert is_adapted(tap)


def test_a_guest_that_wants_hashes_has_the_tap_to_itself(netns: Namespace, tmp_path: Path) -> None:
    with serving(tmp_path, adaptive=True) as served, served.driver(Feature.RSS) as driver:
        assert not served.tap.adapts
        driver.hash_config(HashType.ALL, OWN.key)
        assert not served.tap.adapts
        with pytest.raises(TableOwned):
            Balancer(served.tap)


def test_only_queues_in_use(netns: Namespace, tmp_path: Path) -> None:
    with serving(tmp_path, adaptive=True) as served, served.driver(Feature.HASH_REPORT) as driver:
        driver.queue_pairs(2)
        assert served.tap.observe().rss == RssConfig.default(2)
        balance(served.tap)
        assert set(served.tap.observe().rss.indirection_table) == {0, 1}
        driver.queue_pairs(3)
        assert served.tap.observe().rss == RssConfig.default(3)


def test_not_unless_asked(netns: Namespace, tmp_path: Path) -> None:
    with serving(tmp_path) as served, served.driver(Feature.HASH_REPORT):
        assert not served.tap.adapts
        with pytest.raises(TableOwned):
            Balancer(served.tap)
    with pytest.raises(ConfigError, match="engine software does not count by bucket"):
        HostTap.open("tap0", QUEUES, engine="software", adaptive=True)


def test_looks_when_it_is_time_and_tells(netns: Namespace, tmp_path: Path) -> None:
    told = []
    now = [0.0]
    with serving(tmp_path, adaptive=True) as served:
        adapting = Adapting(
            served.tap,
            lambda event, values: told.append((event, values)),
            interval=5,
            clock=lambda: now[0],
        )
        adapting.tick()  # no guest
        with served.driver(Feature.HASH_REPORT) as driver:
            driver.queue_pairs(QUEUES)
            before = served.tap.observe().rss
            now[0] = 5
            adapting.tick()
            flows.send("tap0", skewed(8000))
            now[0] = 9.9
            adapting.tick()
            assert served.tap.observe().rss == before
            now[0] = 10
            adapting.tick()
            assert served.tap.observe().rss != before
            assert [event for event, _ in told] == ["balanced"]
            assert told[0][1]["moves"]
            driver.rss_config(OWN)
            now[0] = 15
            adapting.tick()
            assert len(told) == 1


def test_how_to_steer_and_adaptive_exclude_each_other(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    serve = ["serve", "-s", str(tmp_path / "s"), "--tap", "tap0", "--adaptive"]
    assert main.run([*serve, "--indirection", "0,1"]) == 2
    assert "adaptive: cannot be given together" in capsys.readouterr().err
