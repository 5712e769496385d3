# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A backend that serves a fake driver, in a thread of the test."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kernel.flows import FLOWS, Got, send
from tests.running import running
from vnethash.kernel import link
from vnethash.rss.config import RssConfig
from vnethash.testing.driver import FakeDriver
from vnethash.testing.front_end import FrontEnd
from vnethash.vhost_user.backend import Backend
from vnethash.vhost_user.host_tap import HostTap
from vnethash.vhost_user.offer import available
from vnethash.vhost_user.server import Server
from vnethash.virtio.device import DeviceState, NetDevice, Offer
from vnethash.virtio.features import Feature
from vnethash.virtio.hash_types import ReportType

QUEUES = 4
MAC = bytes.fromhex("020000000002")


class Served:
    """A server that runs, its tap, and what it told."""

    def __init__(self, server: Server, tap: HostTap, path: Path, events: list[Any]) -> None:
        self.server = server
        self.tap = tap
        self.path = path
        self.events: list[tuple[str, Mapping[str, Any]]] = events

    @property
    def backend(self) -> Backend:
        return self.server.backend

    def of(self, name: str) -> list[Mapping[str, Any]]:
        """The events of that name, oldest first."""
        return [values for event, values in self.events if event == name]

    def wait_for(self, name: str, count: int = 1) -> Mapping[str, Any]:
        """The latest event of that name, when there have been so many."""
        deadline = time.monotonic() + 5
        while len(found := self.of(name)) < count:
            assert time.monotonic() < deadline, f"no {name}: {self.events}"
            time.sleep(0.005)
        return found[-1]

    @contextmanager
    def driver(self, *without: Feature, **options: Any) -> Iterator[FakeDriver]:
        """A driver that took all features but these; packets can come when this returns."""
        with FrontEnd.connect(self.path) as front_end:
            offered = {feature for feature in Feature if front_end.features() >> feature & 1}
            features = options.pop("features", offered - set(without))
            with FakeDriver(
                front_end, features=features, pairs=options.pop("pairs", QUEUES), **options
            ) as driver:
                self.settle(front_end)
                yield driver

    def settle(self, front_end: FrontEnd) -> None:
        """Wait until all messages took effect and the host's kernel sends into the tap."""
        front_end.features()
        deadline = time.monotonic() + 5
        while "qdisc noop" in link_line(self.tap.name):
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def flows(self, driver: FakeDriver) -> set[Got]:
        """What the driver gets of FLOWS."""
        send(self.tap.name)
        return {
            Got(pair, packet.frame, packet.header.hash_value, packet.header.hash_report)
            for pair, packet in driver.receive_any(len(FLOWS))
        }


def link_line(name: str) -> str:
    """What ip(8) says of a link."""
    command = ["ip", "-o", "link", "show", name]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def unhashed(packets: set[Got]) -> set[Got]:
    """The same without hashes."""
    return {Got(got.queue, got.frame, 0, ReportType.NONE) for got in packets}


@contextmanager
def serving(
    folder: Path,
    *,
    without: frozenset[Feature] = frozenset(),
    state: DeviceState | None = None,
    mtu: int | None = None,
    unasked: RssConfig | None = None,
    **options: Any,
) -> Iterator[Served]:
    """A server on a tap with QUEUES queues that carries nothing but what a test sends."""
    with HostTap.open("tap0", QUEUES, mtu=mtu, **options) as tap:
        link.quiet(tap.name)
        offer = Offer(
            features=available(tap, mtu=mtu is not None) - without,
            queue_pairs=QUEUES,
            mac=MAC,
            mtu=mtu,
        )
        device = NetDevice(offer, state)
        events: list[tuple[str, Mapping[str, Any]]] = []
        path = folder / "vhost"
        with (
            Server(
                path,
                lambda selector, journal: Backend(device, tap, selector, journal, unasked=unasked),
                lambda event, values: events.append((event, values)),
            ) as server,
            running(server),
        ):
            yield Served(server, tap, path, events)
