# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A tap, a driver with a pair of queues in shared memory, and the thread between them."""

import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from tests.shared_memory import SharedMemory
from vnethash.closing import Closing
from vnethash.engines.readers import History
from vnethash.kernel import link
from vnethash.kernel.tun import Offload, TunDevice
from vnethash.testing.ring import Buffer, DriverRing, bytes_needed, encode_table
from vnethash.vhost_user.memory import DirtyLog, GuestMemory
from vnethash.vhost_user.pairs import PathSetup, QueuePair
from vnethash.vhost_user.rings import RingSetup
from vnethash.virtio.header import Header

TAP = "tap0"
TYPE = b"\x88\xb5"
"""EtherType for experiments (RFC 5342)."""

ADDRESSES = bytes.fromhex("020000000002020000000001")


def plain(length: int, number: int = 0) -> bytes:
    """A frame of at least 18 bytes that no stack answers."""
    content = number.to_bytes(4, "big") + os.urandom(32) * (length // 32)
    return (ADDRESSES + TYPE + content)[:length].ljust(length, b"\0")


def settles(what: Callable[[], object], expected: object, timeout: float = 5) -> None:
    """Wait until it is as expected."""
    deadline = time.monotonic() + timeout
    while what() != expected and time.monotonic() < deadline:
        time.sleep(0.001)
    assert what() == expected


@dataclass(frozen=True, slots=True)
class Received:
    """A packet as the driver found it."""

    header: Header
    frame: bytes
    chains: int


class DriverQueue(Closing):
    """A ring of the driver, and the notifications both ways."""

    def __init__(
        self,
        memory: SharedMemory,
        size: int = 256,
        *,
        event_idx: bool = False,
        indirect: bool = False,
    ) -> None:
        self.memory = memory
        self.indirect = indirect
        address = memory.allocate(bytes_needed(size), 16)
        self._view = memory.view(address, bytes_needed(size))
        self.ring = DriverRing(self._view, address, size, event_idx=event_idx)
        self.kick = os.eventfd(0, os.EFD_CLOEXEC)
        self.call = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.error = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.kicks = 0
        self._lent: dict[int, tuple[Buffer, ...]] = {}

    def close(self) -> None:
        self.ring.release()
        self._view.release()
        for fd in (self.kick, self.call, self.error):
            os.close(fd)

    def setup(self, **changes: object) -> RingSetup:
        setup = RingSetup(
            size=self.ring.size,
            descriptors=self.memory.user(self.ring.descriptors),
            available=self.memory.user(self.ring.available),
            used=self.memory.user(self.ring.used_ring),
            kick=self.kick,
            call=self.call,
            error=self.error,
            event_idx=self.ring.event_idx,
            indirect=True,
        )
        return replace(setup, **changes)  # type: ignore[arg-type]

    def add(self, buffers: Sequence[Buffer]) -> None:
        """Lend a chain, in an indirect table if the queue has them so."""
        if not self.indirect:
            head = self.ring.add(buffers)
        else:
            table = encode_table(buffers)
            address = self.memory.allocate(len(table), 16)
            self.memory.write(address, table)
            head = self.ring.add_table(address, len(table))
        self._lent[head] = tuple(buffers)

    def publish(self) -> None:
        """Let the device see what was added, and kick it if it wants to hear."""
        self.ring.publish()
        if self.ring.should_kick():
            self.kicks += 1
            os.eventfd_write(self.kick, 1)

    def used(self, timeout: float = 5) -> list[tuple[tuple[Buffer, ...], int]]:
        """What came back, and how many bytes were written; waits for a call if nothing did."""
        deadline = time.monotonic() + timeout
        while True:
            found = [(self._lent.pop(used.head), used.length) for used in self.ring.used()]
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            if not self.ring.want_calls(True) and self.called(left):
                os.eventfd_read(self.call)

    def called(self, timeout: float = 0) -> bool:
        return bool(select.select([self.call], [], [], timeout)[0])


class ReceiveQueue(DriverQueue):
    """Packets as they came, put together of their buffers."""

    header = 12
    recycles = True
    """Buffers are lent again."""

    def fill(self, lengths: Sequence[int], chains: int | None = None) -> int:
        """Lend chains of buffers of these lengths, as many as the ring takes; returns how many."""
        count = self.ring.free // (1 if self.indirect else len(lengths))
        count = count if chains is None else chains
        for _ in range(count):
            self.add([Buffer(self.memory.allocate(length), length, True) for length in lengths])
        self.publish()
        return count

    def receive(self, count: int, timeout: float = 5) -> list[Received]:
        """Packets that came, at least ``count`` unless the time is up."""
        packets: list[Received] = []
        deadline = time.monotonic() + timeout
        data, chains = b"", 0
        while len(packets) < count or chains:
            came = self.used(max(0, deadline - time.monotonic()))
            if not came:
                break
            for buffers, length in came:
                data += self._written(buffers, length)
                chains += 1
                if self.recycles:
                    self.add(buffers)
                if len(data) >= self.header and chains == int.from_bytes(data[10:12], "little"):
                    header, frame = data[: self.header], data[self.header :]
                    packets.append(Received(Header.decode(header), frame, chains))
                    data, chains = b"", 0
            self.publish()
        return packets

    def _written(self, buffers: Sequence[Buffer], length: int) -> bytes:
        data = b""
        for buffer in buffers:
            data += self.memory.read(buffer.address, min(buffer.length, length - len(data)))
        assert len(data) == length
        return data


class Lane:
    """One pair on the queue of a tap."""

    def __init__(self, device: TunDevice, wire: socket.socket, resources: ExitStack) -> None:
        self.device = device
        self.wire = wire
        """A packet socket on the tap: sends to the guest, receives from it."""
        self.history = History()
        resources.callback(self.history.close)
        self.pair = resources.enter_context(QueuePair(0, self.history))

    def path(self, **changes: object) -> PathSetup:
        fd = self.device.fds[0]
        path = PathSetup(receive_fd=fd, transmit_fd=fd, guest_header=12, mergeable=True)
        return replace(path, **changes)  # type: ignore[arg-type]

    def start(
        self,
        receive: DriverQueue | None,
        transmit: DriverQueue | None = None,
        *,
        log: DirtyLog | None = None,
        base: int = 0,
        **path: object,
    ) -> None:
        """Start the pair over the rings' memory; what is not said of the path is as in path()."""
        queues = [queue for queue in (receive, transmit) if queue is not None]
        with GuestMemory(queues[0].memory.regions, log) as memory:
            self.pair.start(
                memory,
                None if receive is None else receive.setup(base=base),
                None if transmit is None else transmit.setup(base=base),
                self.path(**path),
            )

    def heard(self, count: int) -> list[bytes]:
        """The next frames that came out of the guest."""
        return [self.wire.recv(1 << 17) for _ in range(count)]

    def ended(self, timeout: float = 5) -> bool:
        """Whether the thread ended by itself within the time."""
        return bool(select.select([self.pair], [], [], timeout)[0])


@contextmanager
def lane(offloads: Offload = Offload.NONE, **options: object) -> Iterator[Lane]:
    """A quiet tap with the largest MTU, and a pair that is not started."""
    with ExitStack() as resources:
        device = resources.enter_context(
            TunDevice.create(TAP, 1, offloads=offloads, **options)  # type: ignore[arg-type]
        )
        link.quiet(TAP)
        link.set_mtu(TAP, 65521)
        link.set_up(TAP)
        every = socket.htons(3)  # ETH_P_ALL
        wire = resources.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, every))
        wire.bind((TAP, 3))
        wire.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
        wire.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE: it loses none
        wire.settimeout(5)
        yield Lane(device, wire, resources)
