# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Frames onto a tap's wire, and packets off its queues."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vnethash.engines.select import LAB, TUN_RSS
from vnethash.kernel import link, probe
from vnethash.kernel.tun_ioctl import read_hash_types
from vnethash.packet import Packet
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig
from vnethash.tap import Tap
from vnethash.virtio.hash_types import ReportType, TunnelType

LAB_HERE = [name for name in LAB if probe.probe(name)]
"""Engines that the running kernel has because it is one of the lab's."""

KERNEL_ENGINES = [*LAB_HERE, "ebpf"]
"""Engines that report from the kernel."""

ENGINES = [*KERNEL_ENGINES, "software"]

SOL_PACKET = 263
PACKET_QDISC_BYPASS = 20  # include/uapi/linux/if_packet.h


def fitting(engine: str, rss: RssConfig) -> RssConfig:
    """The same with the types that the engine knows: one of the lab's does not know all."""
    if engine != TUN_RSS:
        return rss
    types = rss.hash_types & read_hash_types()
    return rss.replace(hash_types=types, tunnels=TunnelType.NONE)


def from_kernel(engine: str, reporting: Reporting, report: ReportType) -> bool:
    """Whether a packet whose hash is of type ``report`` brings it along."""
    if reporting is not Reporting.RECORD:
        return False
    if engine in LAB:
        return report is not ReportType.NONE
    return engine == "ebpf"


@contextmanager
def sender(tap: Tap, *, bypass: bool = False) -> Iterator[socket.socket]:
    """A packet socket on the tap; what is sent leaves through the egress hook, or past it."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((tap.name, 0))
        if bypass:
            wire.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        yield wire


@contextmanager
def quiet_tap(**options: object) -> Iterator[Tap]:
    """A tap that carries nothing but what a test sends, with the largest MTU."""
    with open_tap("tap0", **options) as tap:  # type: ignore[arg-type]
        link.quiet(tap.name)
        link.set_mtu(tap.name, 65521)
        link.set_up(tap.name)
        yield tap


def open_tap(
    name: str,
    engine: str = "auto",
    queues: int = 4,
    rss: RssConfig | None = None,
    **options: object,
) -> Tap:
    """A tap that is still down, with hash types that the engine knows."""
    config = fitting(engine, rss or RssConfig.default(queues))
    return Tap.open(name, engine=engine, rss=config, up=False, **options)  # type: ignore[arg-type]


def collect(tap: Tap, count: int, timeout: float = 5) -> list[Packet]:
    """The next ``count`` packets of all queues, in the order of the queues; fewer in the end."""
    packets: list[Packet] = []
    deadline = time.monotonic() + timeout
    while len(packets) < count and time.monotonic() < deadline:
        for queue in tap:
            packets += queue.receive_batch(timeout=0)
    return packets
