# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Inner header hash on the packet's way: hash stage, live tap, replay."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.test_stages import is_runnable
from tests.kernel.test_stages import run as run_stage
from tests.kernel.wire import ENGINES, collect, quiet_tap, sender
from tests.tunnels import CASES
from vnethash.capture import write_pcap
from vnethash.cli import main
from vnethash.engines.select import TUN_RSS
from vnethash.engines.stages import Stages
from vnethash.kernel.netns import Namespace
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.compiled import compile_config
from vnethash.rss.config import RssConfig
from vnethash.virtio.hash_types import ReportType, TunnelType

RSS = RssConfig.default(4).replace(unclassified_queue=3, tunnels=TunnelType.ALL)
LOOKING = [name for name in ENGINES if name != TUN_RSS]
"""Engines that look into tunnels: not a fixed algorithm in the kernel."""
FRAMES = [case.frame for case in CASES]


@pytest.fixture(name="stages")
def _stages(no_leaks: None) -> Iterator[Stages]:
    with Stages.load(8) as stages:
        yield stages


@pytest.mark.parametrize(
    "types", [TunnelType.NONE, *TunnelType, TunnelType.ALL], ids=lambda types: types.name
)
def test_hash_stage(stages: Stages, types: TunnelType) -> None:
    """As the reference: each kind of packet, with each type enabled alone."""
    config = RssConfig.default(8).replace(tunnels=types, unclassified_queue=5)
    stages.maps.publish(compile_config(config))
    for frame in filter(is_runnable, FRAMES):
        assert run_stage(stages, frame) == reference.classify(frame, config)
    assert stages.maps.current()[0] == config


@pytest.mark.parametrize("engine", LOOKING)
@pytest.mark.parametrize("reporting", [Reporting.RECORD, Reporting.REHASH])
def test_live_tap(netns: Namespace, engine: str, reporting: Reporting) -> None:
    with quiet_tap(rss=RSS, engine=engine, reporting=reporting) as tap, sender(tap) as wire:
        for frame in FRAMES:
            wire.send(frame)
        packets = collect(tap, len(FRAMES))
        assert sorted(packet.frame for packet in packets) == sorted(FRAMES)
        for packet in packets:
            expected = reference.classify(packet.frame, RSS)
            got = (packet.hash_value, packet.hash_report, packet.queue)
            assert got == (expected.hash_value, expected.hash_report, expected.queue)


@pytest.mark.parametrize("engine", LOOKING)
def test_on_and_off_while_packets_pass(netns: Namespace, engine: str) -> None:
    with quiet_tap(rss=RSS, engine=engine) as tap, sender(tap) as wire:
        for types in (TunnelType.NONE, TunnelType.IPIP, TunnelType.ALL, TunnelType.NONE):
            config = RSS.replace(tunnels=types)
            tap.configure(config)
            for frame in FRAMES:
                wire.send(frame)
            for packet in collect(tap, len(FRAMES)):
                expected = reference.classify(packet.frame, config)
                assert (packet.hash_value, packet.queue) == (expected.hash_value, expected.queue)


def test_rehashed_by_the_configuration_that_steered(netns: Namespace) -> None:
    """Packets wait in the queues while types change: what explains the queue is the hash."""
    key = bytes(range(40))
    configs = [RSS, RSS.replace(tunnels=TunnelType.NONE), RSS.replace(key=key)]
    with quiet_tap(rss=RSS, engine="ebpf", reporting=Reporting.REHASH) as tap, sender(tap) as wire:
        for config in configs:
            tap.configure(config)
            for frame in FRAMES:
                wire.send(frame)
        packets = collect(tap, len(configs) * len(FRAMES))
        assert len(packets) == len(configs) * len(FRAMES)
        for packet in packets:
            verdicts = [reference.classify(packet.frame, config) for config in configs]
            assert (packet.hash_value, packet.queue) in {
                (verdict.hash_value, verdict.queue) for verdict in verdicts
            }


@pytest.mark.parametrize("engine", [*LOOKING, "native", "python"])
def test_replay(engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tunnels.pcap"
    write_pcap(path, FRAMES)
    options = ["--engine", engine, "--tunnels", "all", "-u", "3", "--json"]
    assert main.run(["replay", str(path), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, frame in zip(lines, FRAMES, strict=True):
        got, expected = json.loads(line), reference.classify(frame, RSS)
        assert got["hash_value"] == expected.hash_value
        assert got["queue"] == expected.queue
        assert ReportType[got["hash_report"]] is expected.hash_report
