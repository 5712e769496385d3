# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A served device whose tap is a pair of sockets for each queue: no rights are needed."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from tests.running import running
from vnethash.closing import Closing
from vnethash.engines.readers import History
from vnethash.errors import Unsupported
from vnethash.reporting import Reporting
from vnethash.vhost_user.backend import Backend
from vnethash.vhost_user.host_tap import HostTap, Wanted
from vnethash.vhost_user.server import Server
from vnethash.virtio.device import NetDevice, Offer
from vnethash.virtio.features import Feature

FEATURES = frozenset(
    {
        Feature.VERSION_1,
        Feature.INDIRECT_DESC,
        Feature.EVENT_IDX,
        Feature.MRG_RXBUF,
        Feature.MAC,
        Feature.STATUS,
        Feature.CSUM,
        Feature.HOST_TSO4,
        Feature.GUEST_CSUM,
        Feature.GUEST_TSO4,
        Feature.GUEST_ANNOUNCE,
        Feature.CTRL_VQ,
        Feature.CTRL_RX,
        Feature.CTRL_RX_EXTRA,
        Feature.CTRL_VLAN,
        Feature.CTRL_MAC_ADDR,
        Feature.CTRL_GUEST_OFFLOADS,
        Feature.MQ,
        Feature.HASH_REPORT,
        Feature.RSS,
    }
)
MAC = bytes.fromhex("020000000002")


class SocketTap(Closing):
    """Stands in for a HostTap; ``host`` has the other end of each queue.

    Nobody steers: a test writes a packet to the queue it should come from.
    """

    steers = True
    takes_records = False
    rehashes = True

    def __init__(self, queue_pairs: int) -> None:
        self.queue_pairs = queue_pairs
        self.history = History()
        self.in_use: list[int] = []
        self.refuses_rss = False
        kinds = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
        pairs = [socket.socketpair(socket.AF_UNIX, kinds) for _ in range(queue_pairs)]
        self._device = [device for device, _ in pairs]
        self.host = [host for _, host in pairs]
        for host in self.host:
            host.settimeout(5)
        self.apply(Wanted.at_reset(queue_pairs))

    def fd(self, queue: int) -> int:
        return self._device[queue].fileno()

    def apply(self, wanted: Wanted) -> None:
        if self.refuses_rss and not wanted.automatic:
            raise Unsupported("RSS", "the test says so")
        self.history.push(
            wanted.rss,
            Reporting.REHASH if wanted.reports else Reporting.OFF,
            automatic=wanted.automatic,
        )

    def keep_to(self, count: int) -> None:
        """Nothing: who sends here says which queue."""

    def use_queues(self, count: int) -> None:
        self.in_use.append(count)

    def close(self) -> None:
        for end in (*self._device, *self.host):
            end.close()
        self.history.close()


class Served:
    """A server that runs."""

    def __init__(self, server: Server, tap: SocketTap, path: Path) -> None:
        self.server = server
        self.tap = tap
        self.path = path
        self.events: list[tuple[str, Mapping[str, Any]]] = []


@contextmanager
def serving(
    folder: Path, *, queue_pairs: int = 2, features: frozenset[Feature] = FEATURES
) -> Iterator[Served]:
    """A server in a thread; what goes wrong there is raised here."""
    with ExitStack() as resources:
        tap = resources.enter_context(SocketTap(queue_pairs))
        device = NetDevice(Offer(features=features, queue_pairs=queue_pairs, mac=MAC))
        events: list[tuple[str, Mapping[str, Any]]] = []
        server = resources.enter_context(
            Server(
                folder / "vhost",
                lambda selector, journal: Backend(device, cast(HostTap, tap), selector, journal),
                lambda event, values: events.append((event, values)),
            )
        )
        served = Served(server, tap, folder / "vhost")
        served.events = events
        resources.enter_context(running(server))
        yield served
