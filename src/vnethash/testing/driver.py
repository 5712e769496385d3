# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A virtio-net driver without a guest (virtio 1.3, 5.1), for any vhost-user back end."""

import os
import select
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress

from vnethash.closing import Closing
from vnethash.errors import CommandError, VhostUserError
from vnethash.rss.config import RssConfig
from vnethash.testing.front_end import FrontEnd, Virtqueue
from vnethash.testing.memory import PAGE, SharedMemory
from vnethash.testing.queues import (
    MAX_FRAME,
    ControlQueue,
    Received,
    ReceiveQueue,
    SendQueue,
)
from vnethash.vhost_user.messages import ProtocolFeature, VhostFeature
from vnethash.virtio.config_space import ConfigSpace
from vnethash.virtio.control import (
    ACK_OK,
    AnnounceAck,
    Command,
    GuestOffloadsSet,
    HashConfigSet,
    HashTunnelSet,
    MacAddrSet,
    MacTableSet,
    RssConfigSet,
    RxMode,
    RxModeSet,
    VlanAdd,
    VlanDel,
    VqPairsSet,
)
from vnethash.virtio.features import Feature, feature_bits, feature_set
from vnethash.virtio.hash_types import HashType, TunnelType
from vnethash.virtio.header import HASH_SIZE, V1_SIZE, Header

SUPPORTED = frozenset(
    {
        Feature.CSUM,
        Feature.GUEST_CSUM,
        Feature.CTRL_GUEST_OFFLOADS,
        Feature.MTU,
        Feature.MAC,
        Feature.GUEST_TSO4,
        Feature.GUEST_TSO6,
        Feature.GUEST_ECN,
        Feature.HOST_TSO4,
        Feature.HOST_TSO6,
        Feature.HOST_ECN,
        Feature.MRG_RXBUF,
        Feature.STATUS,
        Feature.CTRL_VQ,
        Feature.CTRL_RX,
        Feature.CTRL_VLAN,
        Feature.CTRL_RX_EXTRA,
        Feature.GUEST_ANNOUNCE,
        Feature.MQ,
        Feature.CTRL_MAC_ADDR,
        Feature.GUEST_USO4,
        Feature.GUEST_USO6,
        Feature.HOST_USO,
        Feature.HASH_REPORT,
        Feature.RSS,
        Feature.SPEED_DUPLEX,
        Feature.INDIRECT_DESC,
        Feature.EVENT_IDX,
        Feature.VERSION_1,
    }
)
"""Features the driver takes if the device offers them and it was not told otherwise."""

_GUEST_GSO = frozenset(
    {Feature.GUEST_TSO4, Feature.GUEST_TSO6, Feature.GUEST_USO4, Feature.GUEST_USO6}
)
_PLAIN_FRAME = 1518
_MERGEABLE_BUFFER = 2048
_CONTROL_SIZE = 64
_CONFIG_SIZE = 28
_NO_HEADER = Header()


class FakeDriver(Closing):
    """Negotiates, sets all rings up, configures the device, sends and receives.

    ``features``: those to accept, None for all offered that are SUPPORTED.
    ``pairs``: queue pairs to set up; the device begins to use them with
    rss_config() or queue_pairs(). ``buffers``: lengths of the descriptors of
    one receive chain, None for what a driver would choose: 2 KiB with
    MRG_RXBUF, otherwise one for the longest frame there can be. ``memory`` and
    ``front_end`` stay the caller's. Whatever waits does so for ``timeout``
    seconds. Raises as FrontEnd does, and MemoryError if ``memory`` is short.

        with FrontEnd.connect("/run/vm0.sock") as front_end:
            with FakeDriver(front_end, pairs=4) as driver:
                driver.rss_config(RssConfig.random(4))
                driver.send(0, frame)
                for received in driver.receive(2):
                    print(received.header.hash_value)
    """

    def __init__(
        self,
        front_end: FrontEnd,
        *,
        features: Iterable[Feature] | None = None,
        protocol_features: Iterable[ProtocolFeature] | None = None,
        pairs: int = 1,
        ring_size: int = 256,
        buffers: Sequence[int] | None = None,
        memory: SharedMemory | None = None,
        timeout: float = 5.0,
    ) -> None:
        self.front_end = front_end
        self.pairs = pairs
        self.timeout = timeout
        offer = front_end.features()
        self._offered = feature_set(offer)
        self.features = SUPPORTED & self._offered if features is None else frozenset(features)
        front_end.negotiate(
            feature_bits(self.features) | offer & 1 << VhostFeature.PROTOCOL_FEATURES,
            protocol_features,
        )
        self.header_size = HASH_SIZE if Feature.HASH_REPORT in self.features else V1_SIZE
        self.buffers = tuple(buffers) if buffers else self._usual_buffers()
        self.control_index = self._control_index()
        with ExitStack() as resources:
            self.memory = memory or resources.enter_context(
                SharedMemory((self._memory_needed(ring_size),))
            )
            self.queues: list[Virtqueue] = []
            for index in self._indices():
                size = _CONTROL_SIZE if index == self.control_index else ring_size
                queue = Virtqueue(
                    self.memory, index, size, event_idx=Feature.EVENT_IDX in self.features
                )
                self.queues.append(resources.enter_context(queue))
            self._make_queues()
            front_end.share(self.memory)
            for queue in self.queues:
                front_end.start(queue, self.memory)
            self._resources = resources.pop_all()

    # Frames

    def send(
        self,
        pair: int,
        frame: bytes,
        header: Header = _NO_HEADER,
        *,
        pieces: Sequence[int] = (),
    ) -> None:
        """Send a frame through a pair, header and frame in one descriptor.

        ``pieces`` cuts them into descriptors of these lengths and one for the
        rest. TimeoutError if the ring stays full.
        """
        self._senders[pair].send(frame, header, pieces, self.timeout)

    def flush(self) -> None:
        """Wait until the device is done with all frames sent; TimeoutError if it is not."""
        for sender in self._senders:
            sender.flush(self.timeout)

    def receive(self, pair: int, count: int = 1, *, timeout: float | None = None) -> list[Received]:
        """What arrived at a pair: ``count`` frames or more, fewer if no more come in time."""
        return self._receivers[pair].receive(count, self._time(timeout))

    def receive_any(
        self, count: int = 1, *, timeout: float | None = None
    ) -> list[tuple[int, Received]]:
        """As receive(), from all pairs; with the pair each frame came from."""
        deadline = time.monotonic() + self._time(timeout)
        frames: list[tuple[int, Received]] = []
        while len(frames) < count:
            for pair, receiver in enumerate(self._receivers):
                frames += [(pair, received) for received in receiver.receive(1, 0)]
            left = deadline - time.monotonic()
            if left <= 0:
                break
            if len(frames) < count:
                # receive() with nothing there has asked for a call.
                calls = [receiver.queue.call_fd for receiver in self._receivers]
                for fd in select.select(calls, [], [], left)[0]:
                    os.eventfd_read(fd)
        return frames

    # Control commands: CommandError if the device refuses

    def command(self, command: Command | bytes, pieces: Sequence[int] = (2,)) -> int:
        """Any command, also bytes that are none; returns the acknowledgement.

        ``pieces`` as in send(). TimeoutError if the device does not answer,
        CommandError if there is no control virtqueue.
        """
        if self._control is None:
            raise CommandError("CTRL_VQ was not negotiated")
        data = command if isinstance(command, bytes) else command.encode()
        return self._control.command(data, pieces, self.timeout)

    def rss_config(self, config: RssConfig, *, max_tx_vq: int | None = None) -> None:
        """RSS, in place of automatic steering."""
        self._must(
            RssConfigSet(
                hash_types=config.hash_types,
                indirection_table=config.indirection_table,
                unclassified_queue=config.unclassified_queue,
                max_tx_vq=max_tx_vq or self.pairs,
                hash_key=config.key,
            )
        )

    def hash_config(self, hash_types: HashType, key: bytes) -> None:
        """What is hashed under automatic steering."""
        self._must(HashConfigSet(hash_types=hash_types, hash_key=key))

    def hash_tunnel(self, tunnel_types: TunnelType) -> None:
        """The tunnels whose packets are hashed by their inner headers."""
        self._must(HashTunnelSet(tunnel_types))

    def queue_pairs(self, pairs: int) -> None:
        """Automatic steering over the first ``pairs`` pairs."""
        self._must(VqPairsSet(pairs))

    def guest_offloads(self, offloads: Iterable[Feature]) -> None:
        """The offloads the driver takes from now on."""
        self._must(GuestOffloadsSet(feature_bits(offloads)))

    def rx_mode(self, mode: RxMode, on: bool) -> None:
        self._must(RxModeSet(mode, on))

    def mac_table(self, unicast: Iterable[bytes] = (), multicast: Iterable[bytes] = ()) -> None:
        """Addresses to receive beside its own."""
        self._must(MacTableSet(tuple(unicast), tuple(multicast)))

    def mac_address(self, mac: bytes) -> None:
        self._must(MacAddrSet(mac))

    def vlan(self, vlan: int, on: bool = True) -> None:
        """Receive a VLAN, or no longer."""
        self._must(VlanAdd(vlan) if on else VlanDel(vlan))

    def announce_ack(self) -> None:
        self._must(AnnounceAck())

    # The device

    def config(self) -> ConfigSpace:
        """The configuration space as it is now."""
        return ConfigSpace.decode(self.front_end.config(_CONFIG_SIZE), self._offered)

    def close(self) -> None:
        """Stop the rings and take the memory back; no error if the back end is gone."""
        with suppress(VhostUserError, OSError):
            for queue in self.queues:
                self.front_end.stop(queue.index)
            self.front_end.unshare(self.memory)
        self.queues = []
        self._resources.close()

    def _must(self, command: Command) -> None:
        ack = self.command(command)
        if ack != ACK_OK:
            raise CommandError(f"{command.name} was answered with {ack}")

    def _time(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else timeout

    def _usual_buffers(self) -> tuple[int, ...]:
        if Feature.MRG_RXBUF in self.features:
            return (_MERGEABLE_BUFFER,)
        longest = MAX_FRAME if self.features & _GUEST_GSO else _PLAIN_FRAME
        return (self.header_size + longest,)

    def _control_index(self) -> int | None:
        """Of the control virtqueue: behind all pairs there could be (5.1.2)."""
        if Feature.CTRL_VQ not in self.features:
            return None
        if not self.features & {Feature.MQ, Feature.RSS}:
            return 2
        if ProtocolFeature.CONFIG in self.front_end.protocol_features:
            return 2 * (self.config().max_virtqueue_pairs or 1)
        return 2 * self.front_end.queue_pairs()

    def _indices(self) -> list[int]:
        data = list(range(2 * self.pairs))
        return data if self.control_index is None else [*data, self.control_index]

    def _make_queues(self) -> None:
        indirect = Feature.INDIRECT_DESC in self.features
        mergeable = Feature.MRG_RXBUF in self.features
        data = self.queues[: 2 * self.pairs]
        self._receivers = [
            ReceiveQueue(
                queue,
                self.memory,
                header_size=self.header_size,
                mergeable=mergeable,
                # As drivers do: a table for one descriptor is of no use.
                indirect=indirect and len(self.buffers) > 1,
                lengths=self.buffers,
            )
            for queue in data[::2]
        ]
        self._senders = [
            SendQueue(queue, self.memory, header_size=self.header_size, indirect=indirect)
            for queue in data[1::2]
        ]
        self._control = (
            ControlQueue(self.queues[-1], self.memory, indirect=indirect)
            if self.control_index is not None
            else None
        )

    def _memory_needed(self, ring_size: int) -> int:
        """Enough for everything, in whole pages."""
        receive = ring_size * (sum(self.buffers) + 64 * len(self.buffers))
        return (self.pairs * (receive + (8 << 20)) + (1 << 20)) // PAGE * PAGE
