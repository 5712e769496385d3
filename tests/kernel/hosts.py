# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Two hosts whose wire is a pair of taps and this process between them."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.kernel.wire import open_tap
from vnethash.kernel import link
from vnethash.kernel.links import Links
from vnethash.kernel.netns import Namespace
from vnethash.packet import Packet
from vnethash.rss.config import RssConfig
from vnethash.tap import Tap


class Wire:
    """Carries what each tap hands out into the other, and keeps what it saw."""

    def __init__(self, near: Tap, far: Tap, far_namespace: Namespace) -> None:
        self.near = near
        self.far = far
        self.far_namespace = far_namespace
        self.seen: list[tuple[RssConfig, Packet]] = []
        self._failures: list[BaseException] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if not self._carry(self.near, self.far) | self._carry(self.far, self.near):
                    time.sleep(0.0002)
        except BaseException as error:
            self._failures.append(error)

    def _carry(self, source: Tap, destination: Tap) -> bool:
        packets = [packet for queue in source for packet in queue.receive_batch(timeout=0)]
        for packet in packets:
            self.seen.append((source.rss, packet))
            destination.queues[packet.queue].send(packet.frame, packet.header)
        return bool(packets)

    def __enter__(self) -> "Wire":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self._failures == []


@contextmanager
def two_hosts(**options: object) -> Iterator[Wire]:
    """10.0.0.1 and fd00::1 here, 10.0.0.2 and fd00::2 in a namespace of their own."""
    with ExitStack() as stack:
        namespace = stack.enter_context(_closing(Namespace.create()))
        near = stack.enter_context(_host(1, **options))
        with namespace:
            far = stack.enter_context(_host(2, **options))
        yield stack.enter_context(Wire(near, far, namespace))


@contextmanager
def _closing(namespace: Namespace) -> Iterator[Namespace]:
    try:
        yield namespace
    finally:
        namespace.close()


@contextmanager
def _host(number: int, **options: object) -> Iterator[Tap]:
    peer = 3 - number
    with open_tap("tap0", **options) as tap:  # type: ignore[arg-type]
        link.quiet(tap.name, ipv6=True)
        link.set_mac(tap.name, f"02:00:00:00:00:0{number}")
        link.set_up(tap.name)
        with Links() as links:
            for network, bits in (("10.0.0.", 24), ("fd00::", 64)):
                links.add_address(tap.name, f"{network}{number}/{bits}")
                links.add_neighbour(tap.name, f"{network}{peer}", f"02:00:00:00:00:0{peer}")
        yield tap
