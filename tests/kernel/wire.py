# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Frames onto a tap's wire, and packets off its queues."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vnethash.kernel import link
from vnethash.packet import Packet
from vnethash.tap import Tap

SOL_PACKET = 263
PACKET_QDISC_BYPASS = 20  # include/uapi/linux/if_packet.h


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
    with Tap.open("tap0", up=False, **options) as tap:  # type: ignore[arg-type]
        link.quiet(tap.name)
        link.set_mtu(tap.name, 65521)
        link.set_up(tap.name)
        yield tap


def collect(tap: Tap, count: int, timeout: float = 5) -> list[Packet]:
    """The next ``count`` packets of all queues, in the order of the queues; fewer in the end."""
    packets: list[Packet] = []
    deadline = time.monotonic() + timeout
    while len(packets) < count and time.monotonic() < deadline:
        for queue in tap:
            packets += queue.receive_batch(timeout=0)
    return packets
