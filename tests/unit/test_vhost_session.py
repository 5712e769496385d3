# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What a front end may ask for, in any order, and what becomes of it."""

import os
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.unit.descriptors import none_leaked
from tests.unit.mutation import mutated
from vnethash.closing import Closing
from vnethash.errors import ConfigError, GuestMemoryError, RingError, VhostUserError
from vnethash.testing.front_end import FrontEnd
from vnethash.vhost_user.channel import Channel
from vnethash.vhost_user.memory import DirtyLog, Region
from vnethash.vhost_user.messages import (
    ConfigAccess,
    LogRegion,
    MemoryRegion,
    Message,
    MessageFlag,
    Payload,
    ProtocolFeature,
    Request,
    RingFlag,
    VhostFeature,
    VringAddress,
    VringFd,
    VringState,
    config_change,
)
from vnethash.vhost_user.rings import RingSetup
from vnethash.vhost_user.session import MAX_MEMORY_SLOTS, PROTOCOL_FEATURES, Session
from vnethash.virtio.features import Feature, feature_bits

FEATURES = feature_bits(
    {
        Feature.VERSION_1,
        Feature.MAC,
        Feature.MQ,
        Feature.CTRL_VQ,
        Feature.RSS,
        Feature.EVENT_IDX,
        Feature.INDIRECT_DESC,
    }
)
PROTOCOL = 1 << VhostFeature.PROTOCOL_FEATURES
LOG_ALL = 1 << VhostFeature.LOG_ALL
CONFIG = bytes(range(20))
ALL_PROTOCOL = sum(1 << feature for feature in PROTOCOL_FEATURES)


class RecordingDevice:
    """Keeps what it is told, and fails the test if it is told nonsense."""

    queues = 5

    def __init__(self) -> None:
        self.log: list[object] = []
        self.refuses: set[str] = set()
        self.running: dict[int, RingSetup] = {}
        self.bits: int | None = None
        self.memory: tuple[Region, ...] = ()
        self.dirty_log: DirtyLog | None = None

    def _told(self, name: str, *what: object) -> None:
        if name in self.refuses:
            raise ConfigError(name, "refused by the test")
        self.log.append((name, *what))

    def features(self) -> int:
        return FEATURES

    def set_features(self, bits: int) -> None:
        assert not self.running
        assert not bits & ~FEATURES
        self._told("set_features", bits)
        self.bits = bits

    def config_space(self) -> bytes:
        return CONFIG

    def set_mtu(self, mtu: int) -> None:
        self._told("set_mtu", mtu)

    def announce(self, mac: bytes) -> None:
        self._told("announce", mac)

    def reset(self) -> None:
        assert not self.running
        self.log.append("reset")
        self.bits = None

    def set_status(self, status: int) -> None:
        self._told("set_status", status)

    def set_memory(self, regions: tuple[Region, ...], log: DirtyLog | None) -> None:
        assert not self.running
        for region in regions:
            os.fstat(region.fd)
        if log:
            os.fstat(log.fd)
        if regions and ("set_memory" in self.refuses or (log and "log" in self.refuses)):
            raise GuestMemoryError("refused by the test", 0)
        self.log.append(("set_memory", len(regions)))
        self.memory, self.dirty_log = regions, log

    def start_ring(self, index: int, setup: RingSetup) -> None:
        assert 0 <= index < self.queues
        assert index not in self.running
        assert self.memory
        assert self.bits is not None
        assert setup.size
        for fd in (setup.kick, setup.call, setup.error):
            assert fd == -1 or os.fstat(fd)
        if setup.descriptors == BAD_ADDRESS:
            raise RingError("receive", "refused by the test")
        self._told("start", index)
        self.running[index] = setup

    def stop_ring(self, index: int) -> int:
        setup = self.running.pop(index)
        for fd in (setup.kick, setup.call, setup.error):
            assert fd == -1 or os.fstat(fd)
        self.log.append(("stop", index))
        return (setup.base + 7) & 0xFFFF


BAD_ADDRESS = 0xBAD0


class Connection(Closing):
    """A front end and a session on the two ends of a socket, in one thread."""

    def __init__(self) -> None:
        near, far = socket.socketpair()
        self.device = RecordingDevice()
        self.channel = Channel(near)
        self.session = Session(self.device)
        self.front_end = FrontEnd(far, timeout=0.2)

    def deliver(self, data: bytes, fds: int | Sequence[int] = 0) -> None:
        """Send bytes and have them dealt with. VhostUserError if the session ends."""
        if isinstance(fds, int):
            made = [os.eventfd(0) for _ in range(fds)]
            try:
                return self.deliver(data, made)
            finally:
                for fd in made:
                    os.close(fd)
        self.front_end.send_bytes(data, fds)
        there = True
        while there:
            there = False
            for message in self.channel.receive():
                there = True
                answer = self.session.receive(message)
                if answer is not None:
                    self.channel.send(answer)
        return None

    def ask(
        self,
        request: int,
        payload: Payload = None,
        fds: int | Sequence[int] = 0,
        *,
        need_reply: bool = False,
    ) -> Payload:
        """What a message is answered; "nothing" if it is not."""
        flags = MessageFlag.NEED_REPLY if need_reply else MessageFlag(0)
        self.deliver(Message(request, payload, (), flags).encode(), fds)
        try:
            message = self.front_end.receive()
        except TimeoutError:
            return b"nothing"
        assert message.request == request
        return message.payload

    def tell(self, request: int, payload: Payload = None, fds: int | Sequence[int] = 0) -> None:
        """A message that is not answered."""
        self.deliver(Message(request, payload).encode(), fds)

    def close(self) -> None:
        self.session.close()
        self.channel.close()
        self.front_end.close()
        assert not self.device.running
        assert self.device.memory == ()


@pytest.fixture
def c() -> Iterator[Connection]:
    with none_leaked(), Connection() as connection:
        yield connection


@dataclass(frozen=True)
class Step:
    """One message of a transcript."""

    request: int
    payload: Payload = None
    fds: int = 0
    need_reply: bool = False

    def wire(self) -> bytes:
        flags = MessageFlag.NEED_REPLY if self.need_reply else MessageFlag(0)
        return Message(self.request, self.payload, (), flags).encode()


R = Request
GUEST = MemoryRegion(0x200000, 0x800000, 0x200000, 0x1000)
GUEST_2 = MemoryRegion(0x1_0000_0000, 0x800000, 0x7F00_0000_0000, 0)


def address(index: int, flags: RingFlag = RingFlag.NONE, log: int = 0) -> VringAddress:
    start = GUEST.user_address + 0x4000 * index
    return VringAddress(index, flags, start, start + 0x2000, start + 0x1000, log)


def _virtio_uml() -> list[Step]:
    """Linux's arch/um/drivers/virtio_uml.c: probe, then unbind of the driver and bind again."""
    acked = True

    def step(request: int, payload: Payload = None, fds: int = 0) -> Step:
        return Step(request, payload, fds, acked)

    start = [
        Step(R.GET_CONFIG, ConfigAccess(0, bytes(12))),
        step(R.SET_FEATURES, FEATURES | PROTOCOL),
        Step(R.GET_CONFIG, ConfigAccess(0, bytes(6))),
        step(R.SET_MEM_TABLE, (GUEST,), 1),
    ]
    for ring in range(5):
        start += [
            step(R.SET_VRING_CALL, VringFd(ring, True), 1),
            step(R.SET_VRING_NUM, VringState(ring, 256)),
            step(R.SET_VRING_BASE, VringState(ring, 0)),
            step(R.SET_VRING_ADDR, address(ring, log=(1 << 64) - 1)),
        ]
    for ring in range(5):
        start += [
            step(R.SET_VRING_KICK, VringFd(ring, True), 1),
            step(R.SET_VRING_ENABLE, VringState(ring, 1)),
        ]
    stop = [step(R.SET_VRING_ENABLE, VringState(ring, 0)) for ring in reversed(range(5))]
    return [
        Step(R.SET_OWNER),
        Step(R.GET_FEATURES),
        Step(R.GET_PROTOCOL_FEATURES),
        # With REPLY_ACK among them it waits for this one already.
        step(R.SET_PROTOCOL_FEATURES, 1 << 3 | 1 << 5 | 1 << 9),
        step(R.SET_BACKEND_REQ_FD, None, 1),
        *start,
        *stop,
        Step(R.GET_FEATURES),
        *start,
    ]


def _qemu() -> list[Step]:
    """QEMU 7.2's hw/net/vhost_net.c and hw/virtio/vhost.c, two pairs, with a migration."""
    protocol = ALL_PROTOCOL & ~(1 << ProtocolFeature.CONFIG)
    bits = (FEATURES & ~(1 << Feature.CTRL_VQ | 1 << Feature.MAC)) | PROTOCOL
    steps = []
    for pair in range(2):
        steps += [
            Step(R.GET_FEATURES),
            Step(R.GET_PROTOCOL_FEATURES),
            Step(R.SET_PROTOCOL_FEATURES, protocol),
            Step(R.GET_QUEUE_NUM),
            Step(R.GET_MAX_MEM_SLOTS),
            *([Step(R.SET_BACKEND_REQ_FD, None, 1, True), Step(R.SET_OWNER)] if not pair else []),
            Step(R.GET_FEATURES),
        ]
        for ring in (2 * pair, 2 * pair + 1):
            steps += [
                Step(R.SET_VRING_CALL, VringFd(ring, True), 1),
                Step(R.SET_VRING_ERR, VringFd(ring, True), 1),
            ]
    steps.append(Step(R.NET_SET_MTU, 1500, 0, True))
    for pair in range(2):
        steps += [
            Step(R.SET_FEATURES, bits),
            Step(R.GET_STATUS),
            Step(R.SET_STATUS, 8),
        ]
        if not pair:
            steps.append(Step(R.ADD_MEM_REG, GUEST, 1, True))
            steps.append(Step(R.ADD_MEM_REG, GUEST_2, 1, True))
        for ring in (2 * pair, 2 * pair + 1):
            steps += [
                Step(R.SET_VRING_NUM, VringState(ring, 256)),
                Step(R.SET_VRING_BASE, VringState(ring, 0)),
                Step(R.SET_VRING_ADDR, address(ring)),
                Step(R.SET_VRING_KICK, VringFd(ring, True), 1),
                Step(R.SET_VRING_CALL, VringFd(ring, True), 1),
            ]
        if pair:
            steps += [Step(R.GET_STATUS), Step(R.SET_STATUS, 15)]
        for ring in (2 * pair, 2 * pair + 1):
            steps.append(Step(R.SET_VRING_ENABLE, VringState(ring, 1), 0, True))
    # Memory is plugged in, an interrupt masked.
    plugged = replace(GUEST, guest_address=0x4000_0000, user_address=0x6000_0000)
    steps += [
        Step(R.ADD_MEM_REG, plugged, 1, True),
        Step(R.SET_VRING_CALL, VringFd(0, True), 1),
        Step(R.REM_MEM_REG, plugged, 0, True),
        # The guest moves away.
        Step(R.SET_LOG_BASE, LogRegion(0x100000, 0), 1),
        Step(R.SET_FEATURES, bits | LOG_ALL, 0, True),
    ]
    steps += [
        Step(R.SET_VRING_ADDR, address(ring, RingFlag.LOG, 0x201000), 0, True) for ring in range(4)
    ]
    steps += [Step(R.GET_VRING_BASE, VringState(ring, 0)) for ring in range(4)]
    return [*steps, Step(R.SET_STATUS, 0), Step(R.SEND_RARP, 0x060504030202)]


def _dpdk() -> list[Step]:
    """DPDK 22.11's drivers/net/virtio/virtio_user, two pairs: start, more memory, stop."""
    bits = (FEATURES & ~(1 << Feature.CTRL_VQ | 1 << Feature.MAC)) | PROTOCOL
    protocol = 1 << 0 | 1 << 3 | 1 << 16
    rings = (0, 2, 1, 3)
    steps = [
        Step(R.SET_OWNER),
        Step(R.GET_FEATURES),
        Step(R.GET_PROTOCOL_FEATURES),
        Step(R.SET_PROTOCOL_FEATURES, protocol),
        Step(R.GET_QUEUE_NUM),
    ]
    steps += [Step(R.SET_VRING_CALL, VringFd(ring, True), 1) for ring in rings]
    steps += [
        Step(R.SET_FEATURES, bits),
        Step(R.SET_STATUS, 11, 0, True),
        Step(R.GET_STATUS),
        Step(R.SET_MEM_TABLE, (GUEST, GUEST_2), 2, True),
    ]
    for ring in rings:
        steps += [
            Step(R.SET_VRING_NUM, VringState(ring, 256)),
            Step(R.SET_VRING_BASE, VringState(ring, 0)),
            Step(R.SET_VRING_ADDR, address(ring)),
            Step(R.SET_VRING_KICK, VringFd(ring, True), 1),
        ]
    steps += [Step(R.SET_VRING_ENABLE, VringState(ring, 1)) for ring in range(4)]
    steps += [Step(R.SET_STATUS, 15, 0, True)]
    steps += [Step(R.SET_VRING_ENABLE, VringState(ring, 0)) for ring in range(4)]
    steps += [Step(R.SET_MEM_TABLE, (GUEST_2, GUEST), 2, True)]
    steps += [Step(R.SET_VRING_ENABLE, VringState(ring, 1)) for ring in range(4)]
    steps += [Step(R.SET_VRING_ENABLE, VringState(ring, 0)) for ring in range(4)]
    return [*steps, *(Step(R.GET_VRING_BASE, VringState(ring, 0)) for ring in range(4))]


def _plain() -> list[Step]:
    """A front end from before protocol features: rings run once they are kicked off."""
    steps = [
        Step(R.SET_OWNER),
        Step(R.SET_FEATURES, FEATURES),
        Step(R.SET_MEM_TABLE, (GUEST,), 1),
    ]
    for ring in range(2):
        steps += [
            Step(R.SET_VRING_NUM, VringState(ring, 128)),
            Step(R.SET_VRING_ADDR, address(ring)),
            Step(R.SET_VRING_KICK, VringFd(ring, True), 1),
        ]
    return [*steps, Step(R.RESET_OWNER)]


TRANSCRIPTS = {
    "virtio_uml": _virtio_uml(),
    "qemu": _qemu(),
    "dpdk": _dpdk(),
    "plain": _plain(),
}


def run(connection: Connection, steps: Sequence[Step]) -> None:
    for step in steps:
        connection.deliver(step.wire(), step.fds)
        assert connection.session.refused is None


def replies(connection: Connection) -> int:
    """How many are there; the socket is empty afterwards."""
    count = 0
    while True:
        try:
            answer = connection.front_end.receive()
        except TimeoutError:
            return count
        assert answer.flags == MessageFlag.REPLY
        count += 1


# Whole sessions


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_front_ends_there_are(c: Connection, name: str) -> None:
    steps = TRANSCRIPTS[name]
    run(c, steps)
    asked = [step for step in steps if step.need_reply or step.request in ANSWERED]
    assert replies(c) == len(asked)


ANSWERED = {
    R.GET_FEATURES,
    R.GET_PROTOCOL_FEATURES,
    R.GET_QUEUE_NUM,
    R.GET_MAX_MEM_SLOTS,
    R.GET_STATUS,
    R.GET_CONFIG,
    R.GET_VRING_BASE,
    R.SET_LOG_BASE,
}


def test_virtio_uml_runs_all_rings_twice(c: Connection) -> None:
    run(c, TRANSCRIPTS["virtio_uml"])
    assert set(c.device.running) == set(range(5))
    assert {setup.base for setup in c.device.running.values()} == {0}
    assert all(setup.log_address is None for setup in c.device.running.values())
    # The driver was bound twice, and the device told so although the bits are the same.
    assert [told[0] for told in c.device.log if isinstance(told, tuple)].count("set_features") == 2


def test_qemu_stops_where_it_was(c: Connection) -> None:
    run(c, TRANSCRIPTS["qemu"])
    assert not c.device.running
    assert c.device.log[-4:] == [("stop", 3), "reset", ("set_status", 0), ("announce", RARP_MAC)]
    assert dirty_log(c) == (0, 0x100000)


RARP_MAC = bytes.fromhex("020203040506")


# Features


def test_features_of_the_protocol_are_added(c: Connection) -> None:
    assert c.ask(R.GET_FEATURES) == FEATURES | PROTOCOL | LOG_ALL
    assert c.ask(R.GET_PROTOCOL_FEATURES) == ALL_PROTOCOL


def test_features_that_were_not_offered(c: Connection) -> None:
    with pytest.raises(VhostUserError, match="SET_FEATURES: bits 0x1 were not offered"):
        c.tell(R.SET_FEATURES, FEATURES | 1)


def test_protocol_features_that_were_not_offered(c: Connection) -> None:
    with pytest.raises(VhostUserError, match="SET_PROTOCOL_FEATURES: bits 0x1000 "):
        c.tell(R.SET_PROTOCOL_FEATURES, ALL_PROTOCOL | 1 << ProtocolFeature.INFLIGHT_SHMFD)


def test_the_device_refuses_features(c: Connection) -> None:
    acknowledging(c)
    c.device.refuses.add("set_features")
    assert c.ask(R.SET_FEATURES, FEATURES, need_reply=True) == 1
    assert str(c.session.refused) == "vhost-user SET_FEATURES: set_features: refused by the test"


def test_the_number_of_queues(c: Connection) -> None:
    """Pairs to QEMU and DPDK, virtqueues to those that take the configuration space."""
    c.tell(R.SET_PROTOCOL_FEATURES, 1)
    assert c.ask(R.GET_QUEUE_NUM) == 2
    c.tell(R.SET_PROTOCOL_FEATURES, 1 | 1 << ProtocolFeature.CONFIG)
    assert c.ask(R.GET_QUEUE_NUM) == 5


def test_same_features_again_while_rings_run(c: Connection) -> None:
    running(c)
    before = list(c.device.log)
    c.tell(R.SET_FEATURES, FEATURES | PROTOCOL)
    assert c.device.log == before


def test_same_features_again_before_any_ring_runs(c: Connection) -> None:
    """QEMU sends them for each pair; a driver begins once."""
    for _ in range(3):
        c.tell(R.SET_FEATURES, FEATURES | PROTOCOL)
    assert c.device.log == [("set_features", FEATURES)]


def test_same_features_again_once_all_rings_stopped(c: Connection) -> None:
    """Linux's virtio_uml says no more when a driver is bound again."""
    running(c)
    for ring in range(2):
        c.tell(R.SET_VRING_ENABLE, VringState(ring, 0))
    del c.device.log[:]
    c.tell(R.SET_FEATURES, FEATURES | PROTOCOL)
    assert c.device.log == [("set_features", FEATURES)]


def test_other_features_while_rings_run(c: Connection) -> None:
    running(c)
    del c.device.log[:]
    c.tell(R.SET_FEATURES, PROTOCOL | feature_bits({Feature.VERSION_1}))
    assert c.device.log == [
        ("stop", 0),
        ("stop", 1),
        ("set_features", feature_bits({Feature.VERSION_1})),
        ("start", 0),
        ("start", 1),
    ]
    assert not c.device.running[0].event_idx
    assert not c.device.running[0].indirect


def acknowledging(c: Connection) -> None:
    c.tell(R.SET_PROTOCOL_FEATURES, ALL_PROTOCOL)


def running(c: Connection, *, features: int = FEATURES | PROTOCOL) -> None:
    """Rings 0 and 1 run."""
    acknowledging(c)
    c.tell(R.SET_FEATURES, features)
    c.tell(R.SET_MEM_TABLE, (GUEST,), 1)
    for ring in range(2):
        c.tell(R.SET_VRING_NUM, VringState(ring, 256))
        c.tell(R.SET_VRING_BASE, VringState(ring, 100))
        c.tell(R.SET_VRING_ADDR, address(ring, RingFlag.LOG, 0x5000))
        c.tell(R.SET_VRING_CALL, VringFd(ring, True), 1)
        c.tell(R.SET_VRING_KICK, VringFd(ring, True), 1)
        c.tell(R.SET_VRING_ENABLE, VringState(ring, 1))
    assert set(c.device.running) == {0, 1}


# Rings


NEEDED = [
    Step(R.SET_FEATURES, FEATURES | PROTOCOL),
    Step(R.SET_MEM_TABLE, (GUEST,), 1),
    Step(R.SET_VRING_NUM, VringState(0, 256)),
    Step(R.SET_VRING_BASE, VringState(0, 3)),
    Step(R.SET_VRING_ADDR, address(0)),
    Step(R.SET_VRING_KICK, VringFd(0, True), 1),
    Step(R.SET_VRING_ENABLE, VringState(0, 1)),
]


@pytest.mark.parametrize("seed", range(30))
def test_a_ring_runs_once_all_is_known_in_any_order(c: Connection, seed: int) -> None:
    order = random.Random(seed).sample(NEEDED, len(NEEDED))
    needed = {step.request for step in NEEDED} - {R.SET_VRING_BASE}
    for step in order:
        c.deliver(step.wire(), step.fds)
        needed.discard(Request(step.request))
        assert bool(c.device.running) == (not needed)
    setup = c.device.running[0]
    assert (setup.size, setup.base, setup.call, setup.error) == (256, 3, -1, -1)
    assert setup.kick >= 0
    assert setup.event_idx
    assert setup.indirect
    assert (setup.descriptors, setup.available, setup.used) == (0x200000, 0x201000, 0x202000)


def test_without_protocol_features_a_ring_needs_no_enabling(c: Connection) -> None:
    run(c, [replace(step, payload=FEATURES) if step == NEEDED[0] else step for step in NEEDED[:-1]])
    assert set(c.device.running) == {0}


def test_a_kick_without_descriptor_means_polling(c: Connection) -> None:
    run(c, NEEDED)
    c.tell(R.SET_VRING_KICK, VringFd(0, False))
    assert c.device.running[0].kick == -1


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (Step(R.SET_VRING_NUM, VringState(1, 64)), {"size": 64}),
        (Step(R.SET_VRING_BASE, VringState(1, 5)), {"base": 5}),
        (
            Step(R.SET_VRING_ADDR, address(2).__class__(1, RingFlag.NONE, 16, 32, 48, 0)),
            {"used": 32},
        ),
        (Step(R.SET_VRING_CALL, VringFd(1, False)), {"call": -1}),
    ],
    ids=["size", "base", "address", "call"],
)
def test_a_change_of_a_running_ring(c: Connection, step: Step, expected: dict[str, int]) -> None:
    running(c)
    del c.device.log[:]
    c.deliver(step.wire(), step.fds)
    assert c.device.log == [("stop", 1), ("start", 1)]
    setup = c.device.running[1]
    for name, value in ({"base": 107} | expected).items():
        assert getattr(setup, name) == value


def test_new_descriptors_of_a_running_ring(c: Connection) -> None:
    running(c)
    for request in (R.SET_VRING_CALL, R.SET_VRING_KICK, R.SET_VRING_ERR):
        ours = os.eventfd(0)
        c.tell(request, VringFd(0, True), [ours])
        setup = c.device.running[0]
        theirs = {R.SET_VRING_CALL: setup.call, R.SET_VRING_KICK: setup.kick}.get(
            request, setup.error
        )
        os.eventfd_write(theirs, 5)
        assert os.eventfd_read(ours) == 5
        os.close(ours)


@pytest.mark.parametrize("request_", [R.SET_VRING_KICK, R.SET_VRING_CALL, R.SET_VRING_ERR])
def test_descriptors_that_are_no_events(c: Connection, request_: Request) -> None:
    running(c)
    for open_it in EVENTS_NOT:
        fd = open_it()
        try:
            with pytest.raises(VhostUserError, match="no eventfd, pipe or Unix socket"):
                c.tell(request_, VringFd(0, True), [fd])
        finally:
            os.close(fd)
    assert set(c.device.running) == {0, 1}


EVENTS_NOT: list[Callable[[], int]] = [
    lambda: os.memfd_create("no event"),
    lambda: os.open("/dev/zero", os.O_RDWR),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach(),
    lambda: os.open("/", os.O_RDONLY),
    lambda: os.pidfd_open(os.getpid()),
]


def test_a_socket_or_a_pipe_is_an_event(c: Connection) -> None:
    running(c)
    near, far = socket.socketpair()
    reader, writer = os.pipe()
    with near, far:
        c.tell(R.SET_VRING_CALL, VringFd(0, True), [near.fileno()])
    c.tell(R.SET_VRING_CALL, VringFd(1, True), [writer])
    os.close(reader)
    os.close(writer)
    assert set(c.device.running) == {0, 1}


def test_get_base_stops_a_ring_until_it_is_kicked_off_again(c: Connection) -> None:
    running(c)
    assert c.ask(R.GET_VRING_BASE, VringState(0, 0)) == VringState(0, 107)
    assert set(c.device.running) == {1}
    assert c.ask(R.GET_VRING_BASE, VringState(0, 0)) == VringState(0, 107)
    c.tell(R.SET_VRING_ENABLE, VringState(0, 1))
    assert set(c.device.running) == {1}
    c.tell(R.SET_VRING_KICK, VringFd(0, True), 1)
    assert c.device.running[0].base == 107


def test_the_base_of_a_ring_that_never_ran(c: Connection) -> None:
    c.tell(R.SET_VRING_BASE, VringState(4, 9))
    assert c.ask(R.GET_VRING_BASE, VringState(4, 0)) == VringState(4, 9)


def test_disabling_stops_and_enabling_goes_on(c: Connection) -> None:
    running(c)
    del c.device.log[:]
    c.tell(R.SET_VRING_ENABLE, VringState(1, 1))
    assert c.device.log == []
    c.tell(R.SET_VRING_ENABLE, VringState(1, 0))
    c.tell(R.SET_VRING_ENABLE, VringState(1, 1))
    assert c.device.log == [("stop", 1), ("start", 1)]
    assert c.device.running[1].base == 107


def test_a_ring_that_cannot_start_leaves_the_others_alone(c: Connection) -> None:
    running(c)
    bad = VringAddress(1, RingFlag.NONE, BAD_ADDRESS, 0, 0, 0)
    assert c.ask(R.SET_VRING_ADDR, bad, need_reply=True) == 1
    assert set(c.device.running) == {0}
    # It is nobody else's failure.
    assert c.ask(R.SET_VRING_CALL, VringFd(0, False), need_reply=True) == 0
    assert c.ask(R.SET_VRING_NUM, VringState(1, 128), need_reply=True) == 1
    assert c.ask(R.SET_VRING_ADDR, address(1), need_reply=True) == 0
    assert set(c.device.running) == {0, 1}


@pytest.mark.parametrize(
    "step",
    [
        Step(R.SET_VRING_NUM, VringState(5, 256)),
        Step(R.SET_VRING_BASE, VringState(0xFFFFFFFF, 0)),
        Step(R.SET_VRING_ADDR, address(5)),
        Step(R.SET_VRING_ENABLE, VringState(5, 1)),
        Step(R.GET_VRING_BASE, VringState(5, 0)),
        Step(R.SET_VRING_KICK, VringFd(5, True), 1),
        Step(R.SET_VRING_CALL, VringFd(255, True), 1),
        Step(R.SET_VRING_ERR, VringFd(5, False)),
        Step(R.SET_VRING_NUM, VringState(0, 0)),
        Step(R.SET_VRING_NUM, VringState(0, 100)),
        Step(R.SET_VRING_NUM, VringState(0, 65536)),
        Step(R.SET_VRING_BASE, VringState(0, 65536)),
        Step(R.SET_VRING_ENABLE, VringState(0, 2)),
    ],
    ids=lambda step: f"{Request(step.request).name} {step.payload}",
)
def test_values_a_ring_cannot_have(c: Connection, step: Step) -> None:
    running(c)
    with pytest.raises(VhostUserError, match=f"^vhost-user {Request(step.request).name}: "):
        c.deliver(step.wire(), step.fds)
    assert set(c.device.running) == {0, 1}


# Memory and its log


def test_a_table_is_replaced_while_rings_run(c: Connection) -> None:
    running(c)
    del c.device.log[:]
    with none_leaked():
        c.tell(R.SET_MEM_TABLE, (GUEST_2,), 1)
    assert c.device.log == [("stop", 0), ("stop", 1), ("set_memory", 1), ("start", 0), ("start", 1)]
    assert c.device.memory[0].guest_address == GUEST_2.guest_address


def test_memory_that_is_refused_leaves_the_old(c: Connection) -> None:
    running(c)
    old = c.device.memory
    c.device.refuses.add("set_memory")
    with none_leaked():
        for request, payload in ((R.SET_MEM_TABLE, (GUEST_2,)), (R.ADD_MEM_REG, GUEST_2)):
            assert c.ask(request, payload, 1, need_reply=True) == 1
    assert c.device.memory == old
    assert set(c.device.running) == {0, 1}
    c.device.refuses.clear()
    assert c.ask(R.ADD_MEM_REG, GUEST_2, 1, need_reply=True) == 0
    assert len(c.device.memory) == 2


def test_regions_one_by_one(c: Connection) -> None:
    acknowledging(c)
    assert c.ask(R.GET_MAX_MEM_SLOTS) == MAX_MEMORY_SLOTS
    regions = [
        MemoryRegion(at * 0x100000, 0x1000, at * 0x200000, 0) for at in range(MAX_MEMORY_SLOTS)
    ]
    for region in regions:
        c.tell(R.ADD_MEM_REG, region, 1)
    assert len(c.device.memory) == MAX_MEMORY_SLOTS
    with pytest.raises(VhostUserError, match="ADD_MEM_REG: more than"):
        c.tell(R.ADD_MEM_REG, GUEST, 1)
    with none_leaked():
        # The offset does not count, a descriptor is closed.
        c.tell(R.REM_MEM_REG, replace(regions[3], mmap_offset=0x5000), 1)
        c.tell(R.ADD_MEM_REG, regions[3], 1)
    assert [region.guest_address for region in c.device.memory][-1] == 0x300000
    for region in regions:
        c.tell(R.REM_MEM_REG, region)
    assert c.device.memory == ()


@pytest.mark.parametrize("field", ["guest_address", "size", "user_address"])
def test_a_region_that_is_not_there_is_gone_already(c: Connection, field: str) -> None:
    running(c)
    del c.device.log[:]
    other = replace(GUEST, **{field: 0x2000})
    assert c.ask(R.REM_MEM_REG, other, need_reply=True) == 0
    assert c.device.log == []


def test_a_region_that_is_there_already(c: Connection) -> None:
    """QEMU 7.2 sends each once for each queue pair."""
    running(c)
    file, other = os.memfd_create("file"), os.memfd_create("other")
    c.tell(R.ADD_MEM_REG, GUEST_2, [file])
    del c.device.log[:]
    with none_leaked():
        assert c.ask(R.ADD_MEM_REG, GUEST_2, [file], need_reply=True) == 0
    assert c.device.log == []
    # Another file, or another part of it, is another region: for the device to refuse.
    c.device.refuses.add("set_memory")
    assert c.ask(R.ADD_MEM_REG, GUEST_2, [other], need_reply=True) == 1
    moved = replace(GUEST_2, mmap_offset=0x1000)
    assert c.ask(R.ADD_MEM_REG, moved, [file], need_reply=True) == 1
    os.close(file)
    os.close(other)


def test_without_memory_nothing_runs(c: Connection) -> None:
    running(c)
    c.tell(R.REM_MEM_REG, GUEST)
    assert not c.device.running
    c.tell(R.ADD_MEM_REG, GUEST, 1)
    assert set(c.device.running) == {0, 1}


def test_the_log_of_dirty_pages(c: Connection) -> None:
    running(c)
    assert c.ask(R.SET_LOG_BASE, LogRegion(0x10000, 0x2000), 1) == 0
    assert dirty_log(c) is None
    assert c.device.running[0].log_address is None
    del c.device.log[:]
    c.tell(R.SET_FEATURES, FEATURES | PROTOCOL | LOG_ALL)
    assert [told for told in c.device.log if told[0] == "set_features"] == []  # type: ignore[index]
    assert dirty_log(c) == (0x2000, 0x10000)
    assert [setup.log_address for setup in c.device.running.values()] == [0x5000, 0x5000]
    c.tell(R.SET_VRING_ADDR, address(0))
    assert [setup.log_address for setup in c.device.running.values()] == [0x5000, None]
    with none_leaked():
        assert c.ask(R.SET_LOG_BASE, LogRegion(0x20000, 0), 1) == 0
    assert dirty_log(c) == (0, 0x20000)
    c.tell(R.SET_FEATURES, FEATURES | PROTOCOL)
    assert dirty_log(c) is None


def dirty_log(c: Connection) -> tuple[int, int] | None:
    """Offset and size."""
    log = c.device.dirty_log
    return (log.offset, log.size) if log else None


def test_a_log_that_is_refused(c: Connection) -> None:
    running(c)
    c.ask(R.SET_LOG_BASE, LogRegion(0x10000, 0), 1)
    c.device.refuses.add("log")
    assert c.ask(R.SET_FEATURES, FEATURES | PROTOCOL | LOG_ALL, need_reply=True) == 1
    assert dirty_log(c) is None
    assert set(c.device.running) == {0, 1}
    c.device.refuses.clear()
    assert c.ask(R.SET_FEATURES, FEATURES | PROTOCOL | LOG_ALL, need_reply=True) == 0
    assert dirty_log(c) == (0, 0x10000)
    c.device.refuses.add("log")
    with none_leaked(), pytest.raises(VhostUserError, match="SET_LOG_BASE: "):
        c.ask(R.SET_LOG_BASE, LogRegion(0x20000, 0), 1)
    assert dirty_log(c) == (0, 0x10000)


# What is answered, and how


def test_no_answer_without_reply_ack(c: Connection) -> None:
    assert c.ask(R.SET_OWNER, need_reply=True) == b"nothing"


def test_protocol_features_are_acknowledged_by_what_they_say(c: Connection) -> None:
    # Linux's virtio_uml waits for it.
    assert c.ask(R.SET_PROTOCOL_FEATURES, ALL_PROTOCOL, need_reply=True) == 0
    assert c.ask(R.SET_PROTOCOL_FEATURES, 1, need_reply=True) == b"nothing"


def test_one_answer_where_there_is_one_anyway(c: Connection) -> None:
    running(c)
    for request, payload in (
        (R.GET_FEATURES, None),
        (R.GET_CONFIG, ConfigAccess(0, bytes(4))),
        (R.GET_VRING_BASE, VringState(0, 0)),
    ):
        assert c.ask(request, payload, need_reply=True) != b"nothing"
        assert replies(c) == 0
    assert c.ask(R.SET_LOG_BASE, LogRegion(4096, 0), 1, need_reply=True) == 0
    assert replies(c) == 0


@pytest.mark.parametrize("request_", [99, R.SET_INFLIGHT_FD, R.POSTCOPY_ADVISE, R.VRING_KICK, 0])
def test_requests_that_are_not_supported(c: Connection, request_: int) -> None:
    acknowledging(c)
    assert c.ask(request_, bytes(8), 3, need_reply=True) == 1
    with pytest.raises(VhostUserError, match="not supported"):
        c.tell(request_, bytes(8), 3)


@pytest.mark.parametrize(
    ("step", "feature"),
    [
        (Step(R.SET_LOG_BASE, LogRegion(4096, 0), 1), "LOG_SHMFD"),
        (Step(R.SEND_RARP, 1), "RARP"),
        (Step(R.NET_SET_MTU, 1500), "NET_MTU"),
        (Step(R.SET_BACKEND_REQ_FD, None, 1), "BACKEND_REQ"),
        (Step(R.GET_CONFIG, ConfigAccess(0, b"1")), "CONFIG"),
        (Step(R.SET_CONFIG, ConfigAccess(0, b"1")), "CONFIG"),
        (Step(R.RESET_DEVICE), "RESET_DEVICE"),
        (Step(R.GET_MAX_MEM_SLOTS), "CONFIGURE_MEM_SLOTS"),
        (Step(R.ADD_MEM_REG, GUEST, 1), "CONFIGURE_MEM_SLOTS"),
        (Step(R.REM_MEM_REG, GUEST), "CONFIGURE_MEM_SLOTS"),
        (Step(R.SET_STATUS, 1), "STATUS"),
        (Step(R.GET_STATUS), "STATUS"),
    ],
    ids=lambda value: value if isinstance(value, str) else Request(value.request).name,
)
def test_what_has_to_be_negotiated(c: Connection, step: Step, feature: str) -> None:
    with pytest.raises(VhostUserError, match=f"{feature} was not negotiated"):
        c.deliver(step.wire(), step.fds)


def test_the_configuration_space(c: Connection) -> None:
    acknowledging(c)
    assert c.ask(R.GET_CONFIG, ConfigAccess(0, bytes(6))) == ConfigAccess(0, CONFIG[:6])
    assert c.ask(R.GET_CONFIG, ConfigAccess(4, bytes(4), 1)) == ConfigAccess(4, CONFIG[4:8], 1)
    # Front ends know longer structures.
    assert c.ask(R.GET_CONFIG, ConfigAccess(0, bytes(256))) == ConfigAccess(
        0, CONFIG + bytes(256 - 20)
    )
    assert c.ask(R.GET_CONFIG, ConfigAccess(1, bytes(256))) is None
    assert c.ask(R.GET_CONFIG, ConfigAccess(0xFFFFFFFF, bytes(1))) is None
    assert c.ask(R.GET_CONFIG, ConfigAccess(0, b"")) is None


def test_the_configuration_space_is_not_written(c: Connection) -> None:
    acknowledging(c)
    assert c.ask(R.SET_CONFIG, ConfigAccess(0, b"123456"), need_reply=True) == 1
    assert c.ask(R.SET_CONFIG, ConfigAccess(0, b"123456")) == b"nothing"
    assert "no field can be written" in str(c.session.refused)


def test_the_mtu(c: Connection) -> None:
    acknowledging(c)
    assert c.ask(R.NET_SET_MTU, 9000, need_reply=True) == 0
    assert c.ask(R.NET_SET_MTU, 67, need_reply=True) == 1
    assert c.ask(R.NET_SET_MTU, 65536, need_reply=True) == 1
    c.device.refuses.add("set_mtu")
    assert c.ask(R.NET_SET_MTU, 9000, need_reply=True) == 1
    assert c.device.log == [("set_mtu", 9000)]


def test_status(c: Connection) -> None:
    running(c)
    c.tell(R.SET_STATUS, 15)
    assert c.ask(R.GET_STATUS) == 15
    assert c.ask(R.SET_STATUS, 256, need_reply=True) == 1
    c.tell(R.SET_STATUS, 0)
    assert c.ask(R.GET_STATUS) == 0
    assert c.device.log[-4:] == [("stop", 0), ("stop", 1), "reset", ("set_status", 0)]


@pytest.mark.parametrize("step", [Step(R.RESET_DEVICE), Step(R.SET_STATUS, 0)])
def test_a_ring_runs_again_after_a_reset(c: Connection, step: Step) -> None:
    """What QEMU sends then: all but the call descriptors, which stay."""
    running(c)
    c.tell(R.SET_STATUS, 15)
    c.deliver(step.wire())
    assert not c.device.running
    assert "reset" in c.device.log
    c.tell(R.SET_VRING_KICK, VringFd(0, True), 1)
    c.tell(R.SET_VRING_ENABLE, VringState(0, 1))
    assert not c.device.running
    c.tell(R.SET_FEATURES, FEATURES | PROTOCOL)
    assert set(c.device.running) == {0}
    assert c.device.running[0].call >= 0


def test_reset_owner_stops_rings_and_resets_nothing(c: Connection) -> None:
    running(c)
    c.tell(R.RESET_OWNER)
    assert not c.device.running
    assert "reset" not in c.device.log


def test_config_change(c: Connection) -> None:
    near, far = socket.socketpair()
    with near, far:
        assert not c.session.notify_config_change()
        c.tell(R.SET_PROTOCOL_FEATURES, 1 << ProtocolFeature.BACKEND_REQ)
        c.tell(R.SET_BACKEND_REQ_FD, None, [far.fileno()])
        assert not c.session.notify_config_change()
        acknowledging(c)
        assert c.session.notify_config_change()
        assert near.recv(64) == config_change()
        with none_leaked():
            c.tell(R.SET_BACKEND_REQ_FD, None, [far.fileno()])
        near.close()
        assert not c.session.notify_config_change()


def test_closing_twice(c: Connection) -> None:
    running(c)
    c.session.close()
    c.session.close()


# Hostile front ends


def test_what_the_device_does_not_expect_goes_through() -> None:
    """A mistake of ours is not taken for the front end's, and leaks nothing."""
    with none_leaked(), Connection() as c:
        acknowledging(c)

        def broken(mtu: int) -> None:
            raise ZeroDivisionError

        c.device.set_mtu = broken  # type: ignore[method-assign]
        with pytest.raises(ZeroDivisionError):
            c.tell(R.NET_SET_MTU, 1500)


requests = st.sampled_from([*Request, 0, 77])
numbers = st.integers(0, 300) | st.sampled_from([1 << 31, (1 << 32) - 1])
longs = st.integers(0, 0x10000) | st.sampled_from(
    [FEATURES | PROTOCOL, ALL_PROTOCOL, (1 << 64) - 1]
)
states = st.builds(VringState, st.integers(0, 6), numbers)
regions = st.sampled_from([GUEST, GUEST_2, replace(GUEST, size=0), replace(GUEST, mmap_offset=1)])
payloads: st.SearchStrategy[Payload] = st.one_of(
    st.none(),
    longs,
    states,
    st.builds(VringFd, st.integers(0, 6), st.booleans()),
    st.integers(0, 5).map(address),
    regions,
    st.lists(regions, max_size=9).map(tuple),
    st.builds(LogRegion, longs, longs),
    st.builds(ConfigAccess, numbers, st.binary(max_size=300), st.integers(0, 4)),
    st.binary(max_size=100),
)
any_steps = st.builds(Step, requests, payloads, st.integers(0, 3), st.booleans())


def survive(c: Connection, wires: Sequence[tuple[bytes, int]]) -> None:
    """All is answered, or the session ends; what the device asserts holds."""
    for wire, fds in wires:
        try:
            c.deliver(wire, fds)
        except VhostUserError:
            return


@settings(max_examples=examples(400), deadline=None)
@given(
    st.sampled_from(sorted(TRANSCRIPTS)),
    st.integers(0, 100),
    st.lists(any_steps, max_size=20),
    st.sets(st.sampled_from(["set_features", "set_memory", "start", "set_mtu", "set_status"])),
)
def test_any_messages_behind_a_part_of_a_session(
    name: str, length: int, more: list[Step], refuses: set[str]
) -> None:
    with none_leaked(), Connection() as c:
        survive(c, [(step.wire(), step.fds) for step in TRANSCRIPTS[name][:length]])
        c.device.refuses |= refuses
        survive(c, [(step.wire(), step.fds) for step in more])


def _mutated(steps: list[Step], seed: str) -> list[tuple[bytes, int]]:
    return mutated(
        [(step.wire(), step.fds) for step in steps],
        random.Random(seed),
        lambda randomness: randomness.randrange(4),
    )


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_mutated_sessions(name: str) -> None:
    for seed in range(examples(400)):
        wires = _mutated(TRANSCRIPTS[name], f"{name} {seed}")
        with none_leaked(), Connection() as c:
            survive(c, wires)


def test_a_mutation_changes_something() -> None:
    steps = TRANSCRIPTS["qemu"]
    plain = [(step.wire(), step.fds) for step in steps]
    changed = sum(_mutated(steps, str(seed)) != plain for seed in range(100))
    assert changed > 90
