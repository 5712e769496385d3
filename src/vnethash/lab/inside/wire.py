# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Taps that carry nothing but what is sent here, and what comes off their queues."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vnethash.errors import ConfigError
from vnethash.kernel import link, netns
from vnethash.packet import Packet
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.tap import Tap
from vnethash.virtio.hash_types import HashType

MTU = 65521
WITHOUT_EX = HashType(0x3F)
"""What a fixed algorithm may be content with."""


@contextmanager
def quiet_tap(**options: Any) -> Iterator[Tap]:
    """A tap of `Tap.open`'s options in a network namespace of its own, up, with the largest MTU."""
    with netns.fresh(), Tap.open("tap0", up=False, **options) as tap:
        link.quiet(tap.name)
        link.set_mtu(tap.name, MTU)
        link.set_up(tap.name)
        yield tap


def collect(tap: Tap, count: int, timeout: float = 3) -> list[Packet]:
    """The next ``count`` packets of all queues; fewer where no more come in time."""
    packets: list[Packet] = []
    deadline = time.monotonic() + timeout
    while len(packets) < count and time.monotonic() < deadline:
        for queue in tap:
            packets += queue.receive_batch(timeout=0)
    return packets


def offered(engine: str) -> HashType:
    """The hash types the engine can do here. Raises VnethashError where it does not work."""
    for types in (HashType.ALL, WITHOUT_EX):
        rss = RssConfig.default(2).replace(hash_types=types)
        try:
            with netns.fresh(), Tap.open("tap0", rss=rss, engine=engine, up=False):
                return types
        except ConfigError:
            if types is WITHOUT_EX:
                raise
    raise AssertionError("unreachable")


def right(packet: Packet, rss: RssConfig, *, l3: bool = False) -> bool:
    """Whether hash and report type are those of the reference."""
    expected = reference.classify(packet.frame, rss, l3=l3)
    return (packet.hash_value, packet.hash_report) == (expected.hash_value, expected.hash_report)


def on_its_queue(packets: Sequence[Packet], rss: RssConfig, *, l3: bool = False) -> int:
    """How many are on the queue of the reference."""
    return sum(
        packet.queue == reference.classify(packet.frame, rss, l3=l3).queue for packet in packets
    )
