# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A driver with one pair of queues in shared memory, and what serves it."""

import os
import select
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from tests.shared_memory import SharedMemory
from vnethash.closing import Closing
from vnethash.testing.ring import Buffer, DriverRing, Table, bytes_needed
from vnethash.vhost_user.rings import RingSetup
from vnethash.virtio.header import Header


@dataclass(slots=True)
class Notifier(Closing):
    """A kick and a call."""

    kick: int = field(default_factory=lambda: os.eventfd(0, os.EFD_CLOEXEC))
    call: int = field(
        default_factory=lambda: os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    )

    def close(self) -> None:
        os.close(self.kick)
        os.close(self.call)


class DriverQueue:
    """A ring of the driver, its buffers, and the notifications both ways."""

    def __init__(
        self,
        memory: SharedMemory,
        resources: ExitStack,
        size: int = 256,
        *,
        event_idx: bool = False,
        indirect: bool = False,
    ) -> None:
        self.memory = memory
        address = memory.allocate(bytes_needed(size), 16)
        self.ring = DriverRing(
            memory.view(address, bytes_needed(size)), address, size, event_idx=event_idx
        )
        resources.callback(self.ring.release)
        self.notifier = resources.enter_context(Notifier())
        self.indirect = indirect
        self.chains: dict[int, list[Buffer]] = {}
        self.kicks = 0

    def setup(self, **changes: object) -> RingSetup:
        setup = RingSetup(
            size=self.ring.size,
            descriptors=self.memory.user(self.ring.descriptors),
            available=self.memory.user(self.ring.available),
            used=self.memory.user(self.ring.used_ring),
            kick=self.notifier.kick,
            call=self.notifier.call,
            event_idx=self.ring.event_idx,
            indirect=True,
        )
        return replace(setup, **changes)  # type: ignore[arg-type]

    def add(self, buffers: Sequence[Buffer], *, indirect: bool | None = None) -> None:
        """Add a chain, in a table if the queue has them so."""
        table = None
        if self.indirect if indirect is None else indirect:
            address = self.memory.allocate(16 * len(buffers), 16)
            table = Table(self.memory.view(address, 16 * len(buffers)), address)
        self.chains[self.ring.add(buffers, table)] = list(buffers)

    def publish(self) -> None:
        """Let the device see what was added, and kick it if it wants to hear."""
        self.ring.publish()
        if self.ring.should_kick():
            self.kicks += 1
            os.eventfd_write(self.notifier.kick, 1)

    def used(self, timeout: float = 5) -> list[tuple[list[Buffer], int]]:
        """What came back: buffers, and how many bytes were written; waits for a call if nothing."""
        deadline = time.monotonic() + timeout
        while True:
            found = [(self.chains.pop(used.head), used.length) for used in self.ring.used()]
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            if self.ring.want_calls(True):
                continue
            if select.select([self.notifier.call], [], [], left)[0]:
                os.eventfd_read(self.notifier.call)


class ReceiveQueue(DriverQueue):
    """Packets as they came, put together of their buffers."""

    header = 12

    def fill(self, lengths: Sequence[int], chains: int | None = None) -> None:
        """Lend chains with buffers of these lengths, as many as the ring takes."""
        needed = 1 if self.indirect else len(lengths)
        count = self.ring.free // needed if chains is None else chains
        for _ in range(count):
            self.add(
                [Buffer(self.memory.allocate(length), length, True) for length in lengths]
            )
        self.publish()

    def lend_again(self, buffers: list[Buffer]) -> None:
        """Give buffers back to the device, in a chain of the same form."""
        self.add(buffers)

    def receive(
        self, count: int, timeout: float = 5, *, again: bool = True
    ) -> list[tuple[Header, bytes]]:
        """Packets that came, at least ``count`` unless the time is up."""
        packets: list[tuple[Header, bytes]] = []
        deadline = time.monotonic() + timeout
        data, missing = b"", 0
        while len(packets) < count or missing:
            came = self.used(deadline - time.monotonic())
            if not came:
                break
            for buffers, length in came:
                data += self._written(buffers, length)
                if not missing:
                    missing = int.from_bytes(data[10:12], "little")
                missing -= 1
                if again:
                    self.lend_again(buffers)
                if not missing:
                    packets.append((Header.decode(data[: self.header]), data[self.header :]))
                    data = b""
            self.publish()
        return packets

    def _written(self, buffers: list[Buffer], length: int) -> bytes:
        data = b""
        for buffer in buffers:
            data += self.memory.read(buffer.address, min(buffer.length, length - len(data)))
        assert len(data) == length
        return data
