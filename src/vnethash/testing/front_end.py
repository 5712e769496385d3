# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The VMM's side of vhost-user: a client that does as told, also what no VMM should do.

QEMU's docs/interop/vhost-user.rst. ``FrontEnd`` speaks the protocol;
``driver.FakeDriver`` is a virtio-net driver on top of it.
"""

import os
import select
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from vnethash.closing import Closing
from vnethash.errors import VhostUserClosed, VhostUserError
from vnethash.testing.memory import SharedMemory, SharedRegion
from vnethash.testing.ring import DriverRing, Used, bytes_needed
from vnethash.vhost_user.messages import (
    HEADER_SIZE,
    MAX_TABLE,
    BackendRequest,
    ConfigAccess,
    LogRegion,
    Message,
    MessageFlag,
    MessageHeader,
    Payload,
    ProtocolFeature,
    Request,
    RingFlag,
    VhostFeature,
    VringAddress,
    VringFd,
    VringState,
    request_name,
)

LOG_PAGE = 4096
"""Bytes of guest memory to one bit of the log ("Migration")."""

KNOWN = frozenset(ProtocolFeature) - {
    ProtocolFeature.INBAND_NOTIFICATIONS,
    ProtocolFeature.PAGEFAULT,
    ProtocolFeature.CROSS_ENDIAN,
}
"""Protocol features it takes if they are offered."""


class Virtqueue(Closing):
    """A ring in shared memory, with the event descriptors that go with it."""

    def __init__(
        self, memory: SharedMemory, index: int, size: int, *, event_idx: bool = False
    ) -> None:
        self.index = index
        address = memory.allocate(bytes_needed(size), align=4096)
        self.ring = DriverRing(
            memory.view(address, bytes_needed(size)), address, size, event_idx=event_idx
        )
        self.kick_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.call_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def publish(self) -> None:
        """Show the device what was added, and wake it if it wants that."""
        self.ring.publish()
        if self.ring.should_kick():
            self.kick()

    def kick(self) -> None:
        os.eventfd_write(self.kick_fd, 1)

    def used(self, timeout: float) -> list[Used]:
        """What the device has used, at least one; empty if ``timeout`` seconds brought none."""
        deadline = time.monotonic() + timeout
        while True:
            if used := list(self.ring.used()):
                return used
            if self.ring.want_calls(True):
                continue
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.call_fd], [], [], left)[0]:
                return list(self.ring.used())
            os.eventfd_read(self.call_fd)

    def close(self) -> None:
        if self.kick_fd >= 0:
            os.close(self.kick_fd)
            os.close(self.call_fd)
            self.ring.release()
        self.kick_fd = self.call_fd = -1


class FrontEnd(Closing):
    """A connection to a back end. Everything waits ``timeout`` seconds at most, TimeoutError.

    VhostUserError if the back end answers with failure; VhostUserClosed, which
    is one too, if it closes the connection.

        with FrontEnd.connect("/run/vm0.sock") as front_end, SharedMemory() as memory:
            front_end.negotiate(front_end.features())
            front_end.share(memory)
            queue = Virtqueue(memory, 0, 256)
            front_end.start(queue, memory)
    """

    def __init__(self, sock: socket.socket, *, timeout: float = 5.0) -> None:
        """Takes over ``sock``."""
        self._socket = sock
        self._socket.settimeout(timeout)
        self._backend_channel: socket.socket | None = None
        self._log: SharedRegion | None = None
        self.protocol_features: frozenset[ProtocolFeature] = frozenset()
        self.negotiated = 0
        """The bits last sent with SET_FEATURES."""

    @classmethod
    def connect(cls, path: str | Path, *, timeout: float = 5.0) -> Self:
        """To a back end that listens on ``path``. Raises OSError if none does."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(os.fspath(path))
        except BaseException:
            sock.close()
            raise
        return cls(sock, timeout=timeout)

    def fileno(self) -> int:
        return self._socket.fileno()

    # Messages as they are

    def send(self, message: Message) -> None:
        """Send any message, whatever the protocol says of it."""
        self.send_bytes(message.encode(), message.fds)

    def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send any bytes; the descriptors go with the first of them, and stay the caller's."""
        try:
            sent = socket.send_fds(self._socket, [data], fds)
            self._socket.sendall(data[sent:])
        except (BrokenPipeError, ConnectionResetError):
            raise VhostUserClosed("send") from None

    def receive(self) -> Message:
        """The next reply."""
        header = MessageHeader.decode(self._read(HEADER_SIZE, "reply"))
        name = request_name(header.request)
        return Message.decode_reply(header, self._read(header.size, name))

    def ask(self, request: Request, payload: Payload = None) -> Payload:
        """Send a request that has a reply of its own; returns what the reply says."""
        self.send(Message(request, payload))
        return self._reply(request)

    def tell(self, request: Request, payload: Payload = None, fds: Sequence[int] = ()) -> None:
        """Send a request and wait until it is done, if the back end acknowledges (REPLY_ACK)."""
        acknowledged = ProtocolFeature.REPLY_ACK in self.protocol_features
        flags = MessageFlag.NEED_REPLY if acknowledged else MessageFlag(0)
        self.send(Message(request, payload, fds, flags))
        if acknowledged and (result := self._reply(request)):
            raise VhostUserError(request.name, f"answered with {result!r}")

    # Negotiation

    def features(self) -> int:
        """What the back end offers, VHOST_USER_F_PROTOCOL_FEATURES included."""
        return self._number(Request.GET_FEATURES)

    def negotiate(
        self, features: int, protocol_features: Iterable[ProtocolFeature] | None = None
    ) -> None:
        """Become the owner, agree on protocol features (None: all KNOWN), then on ``features``."""
        self.tell(Request.SET_OWNER)
        if features >> VhostFeature.PROTOCOL_FEATURES & 1:
            self.negotiate_protocol(protocol_features)
        self.set_features(features)

    def negotiate_protocol(self, wanted: Iterable[ProtocolFeature] | None = None) -> None:
        offered = self._number(Request.GET_PROTOCOL_FEATURES)
        accepted = frozenset(KNOWN if wanted is None else wanted)
        accepted = frozenset(f for f in accepted if offered >> f & 1)
        self.tell(Request.SET_PROTOCOL_FEATURES, sum(1 << f for f in accepted))
        self.protocol_features = accepted

    def set_features(self, features: int) -> None:
        self.tell(Request.SET_FEATURES, features)
        self.negotiated = features

    def queue_pairs(self) -> int:
        return self._number(Request.GET_QUEUE_NUM)

    def status(self) -> int:
        return self._number(Request.GET_STATUS)

    def set_status(self, status: int) -> None:
        self.tell(Request.SET_STATUS, status)

    def reset_device(self) -> None:
        self.tell(Request.RESET_DEVICE)

    def set_mtu(self, mtu: int) -> None:
        self.tell(Request.NET_SET_MTU, mtu)

    def send_rarp(self, mac: bytes) -> None:
        """Have the back end announce the guest's address."""
        self.tell(Request.SEND_RARP, int.from_bytes(mac.ljust(8, b"\0"), sys.byteorder))

    # Configuration space

    def config(self, size: int, offset: int = 0) -> bytes:
        """VhostUserError if the back end has an error instead."""
        answer = self.ask(Request.GET_CONFIG, ConfigAccess(offset, bytes(size)))
        if not isinstance(answer, ConfigAccess) or (answer.offset, len(answer.data)) != (
            offset,
            size,
        ):
            raise VhostUserError("GET_CONFIG", f"{size} bytes at {offset} were not given")
        return answer.data

    def set_config(self, data: bytes, offset: int = 0) -> None:
        self.tell(Request.SET_CONFIG, ConfigAccess(offset, data))

    # Memory

    def share(self, memory: SharedMemory) -> None:
        """Give the back end all regions: one by one if it takes them so, otherwise as a table."""
        if ProtocolFeature.CONFIGURE_MEM_SLOTS in self.protocol_features:
            for region in memory.regions:
                self.add_region(region)
        else:
            self.share_table(memory)

    def unshare(self, memory: SharedMemory) -> None:
        """Have all regions given back, if the back end takes them one by one."""
        if ProtocolFeature.CONFIGURE_MEM_SLOTS in self.protocol_features:
            for region in memory.regions:
                self.remove_region(region)

    def share_table(self, memory: SharedMemory) -> None:
        """In one table, 8 regions at most."""
        regions = memory.regions[:MAX_TABLE]
        self.tell(Request.SET_MEM_TABLE, tuple(r.region for r in regions), [r.fd for r in regions])

    def memory_slots(self) -> int:
        return self._number(Request.GET_MAX_MEM_SLOTS)

    def add_region(self, region: SharedRegion) -> None:
        self.tell(Request.ADD_MEM_REG, region.region, [region.fd])

    def remove_region(self, region: SharedRegion) -> None:
        self.tell(Request.REM_MEM_REG, region.region)

    # Rings

    def start(self, queue: Virtqueue, memory: SharedMemory, *, base: int = 0) -> None:
        """Set a ring up, kick it off and enable it."""
        index = queue.index
        self.tell(Request.SET_VRING_CALL, VringFd(index, True), [queue.call_fd])
        self.tell(Request.SET_VRING_NUM, VringState(index, queue.ring.size))
        self.tell(Request.SET_VRING_BASE, VringState(index, base))
        self.set_address(queue, memory)
        self.tell(Request.SET_VRING_KICK, VringFd(index, True), [queue.kick_fd])
        if self.negotiated >> VhostFeature.PROTOCOL_FEATURES & 1:
            self.enable(index)

    def set_address(self, queue: Virtqueue, memory: SharedMemory, *, logged: bool = False) -> None:
        """Say where a ring lies, and whether its used ring is logged."""
        ring = queue.ring
        self.tell(
            Request.SET_VRING_ADDR,
            VringAddress(
                index=queue.index,
                flags=RingFlag.LOG if logged else RingFlag.NONE,
                descriptors=memory.user_address(ring.descriptors),
                used=memory.user_address(ring.used_ring),
                available=memory.user_address(ring.available),
                log=ring.used_ring,
            ),
        )

    def enable(self, index: int, on: bool = True) -> None:
        self.tell(Request.SET_VRING_ENABLE, VringState(index, int(on)))

    def stop(self, index: int) -> int:
        """Stop a ring; returns the next available index the device would have looked at."""
        answer = self.ask(Request.GET_VRING_BASE, VringState(index, 0))
        if not isinstance(answer, VringState) or answer.index != index:
            raise VhostUserError("GET_VRING_BASE", f"{answer!r} is not about ring {index}")
        return answer.num

    # The log of dirty pages

    def start_logging(self, memory: SharedMemory, queues: Iterable[Virtqueue] = ()) -> None:
        """As at the start of a migration: also used rings of ``queues`` are logged."""
        pages = -(-memory.end // LOG_PAGE)
        size = -(-pages // 8 // LOG_PAGE) * LOG_PAGE + LOG_PAGE
        self._close_log()
        self._log = SharedMemory((size,)).regions[0]
        self.send(
            Message(
                Request.SET_LOG_BASE,
                LogRegion(size, self._log.region.mmap_offset),
                [self._log.fd],
            )
        )
        self._reply(Request.SET_LOG_BASE)
        self.set_features(self.negotiated | 1 << VhostFeature.LOG_ALL)
        for queue in queues:
            self.set_address(queue, memory, logged=True)

    def stop_logging(self) -> None:
        self.set_features(self.negotiated & ~(1 << VhostFeature.LOG_ALL))

    def dirty_pages(self) -> set[int]:
        """Numbers of the pages of LOG_PAGE bytes of guest memory written to so far."""
        if self._log is None:
            return set()
        region = self._log.region
        with self._log.view(region.guest_address, region.size) as view:
            return {
                8 * at + bit
                for at, byte in enumerate(bytes(view))
                if byte
                for bit in range(8)
                if byte >> bit & 1
            }

    # The back end's own requests

    def open_backend_channel(self) -> None:
        """Give the back end a way to make requests."""
        ours, theirs = socket.socketpair()
        with theirs:
            ours.settimeout(self._socket.gettimeout())
            if self._backend_channel:
                self._backend_channel.close()
            self._backend_channel = ours
            self.tell(Request.SET_BACKEND_REQ_FD, None, [theirs.fileno()])

    def backend_request(self) -> BackendRequest:
        """The next one; TimeoutError if none comes."""
        if self._backend_channel is None:
            raise VhostUserError("backend request", "there is no channel for it")
        header = MessageHeader.decode(_read(self._backend_channel, HEADER_SIZE, "backend request"))
        _read(self._backend_channel, header.size, "backend request")
        return BackendRequest(header.request)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
        if self._backend_channel:
            self._backend_channel.close()
        self._close_log()

    def _close_log(self) -> None:
        if self._log:
            self._log.close()
        self._log = None

    def _number(self, request: Request) -> int:
        answer = self.ask(request)
        if not isinstance(answer, int):
            raise VhostUserError(request.name, f"{answer!r} is no number")
        return answer

    def _reply(self, request: Request) -> Payload:
        message = self.receive()
        if message.request != request:
            raise VhostUserError(request.name, f"answered with a reply to {message.name}")
        return message.payload

    def _read(self, size: int, name: str) -> bytes:
        return _read(self._socket, size, name)


def _read(sock: socket.socket, size: int, name: str) -> bytes:
    data = bytearray()
    while len(data) < size:
        try:
            part = sock.recv(size - len(data))
        except ConnectionResetError:
            part = b""
        if not part:
            raise VhostUserClosed(name)
        data += part
    return bytes(data)
