# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The fake front end and driver, against the backend and its native data path."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.unit.descriptors import none_leaked
from tests.unit.socket_tap import FEATURES, MAC, Served, serving
from vnethash.errors import CommandError, HeaderError, VhostUserClosed, VhostUserError
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.testing.driver import FakeDriver
from vnethash.testing.front_end import FrontEnd, Virtqueue
from vnethash.testing.memory import PAGE, SharedMemory
from vnethash.vhost_user.messages import (
    BackendRequest,
    Message,
    ProtocolFeature,
    Request,
    VhostFeature,
)
from vnethash.virtio.control import RxMode, VqPairsSet
from vnethash.virtio.features import Feature, feature_bits
from vnethash.virtio.hash_types import HashType, ReportType
from vnethash.virtio.header import GsoType, Header, HeaderFlag

RSS = RssConfig.symmetric(2)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with none_leaked(), serving(tmp_path) as served:
        yield served


@pytest.fixture
def front_end(served: Served) -> Iterator[FrontEnd]:
    with FrontEnd.connect(served.path) as front_end:
        yield front_end


def frame(number: int, size: int = 100) -> bytes:
    """IPv4 and UDP, to the device's address, ``number`` in ports and payload."""
    udp = number.to_bytes(2) + (7).to_bytes(2) + (size - 34).to_bytes(2) + bytes(2)
    ip = (
        bytes.fromhex("4500")
        + (size - 14).to_bytes(2)
        + bytes.fromhex("00004000401100000a0000010a000002")
    )
    head = MAC + bytes.fromhex("020000000001") + b"\x08\x00" + ip + udp
    return head + bytes(number % 256 for _ in range(size - len(head)))


def arrive(served: Served, queue: int, data: bytes, header: Header | None = None) -> None:
    """A packet comes out of a queue of the tap."""
    served.tap.host[queue].send((header or Header()).encode_v1() + data)


FORMS: dict[str, frozenset[Feature]] = {
    "all": FEATURES,
    "not mergeable": FEATURES - {Feature.MRG_RXBUF},
    "no hash": FEATURES - {Feature.HASH_REPORT, Feature.RSS},
    "no hash, not mergeable": FEATURES - {Feature.HASH_REPORT, Feature.RSS, Feature.MRG_RXBUF},
    "plain rings": FEATURES - {Feature.INDIRECT_DESC, Feature.EVENT_IDX},
    "no offloads": FEATURES
    - {Feature.MRG_RXBUF, Feature.GUEST_TSO4, Feature.GUEST_CSUM, Feature.CTRL_GUEST_OFFLOADS},
    "least": frozenset({Feature.VERSION_1}),
}


@pytest.mark.parametrize("form", FORMS)
def test_frames_both_ways(served: Served, front_end: FrontEnd, form: str) -> None:
    pairs = 2 if Feature.MQ in FORMS[form] else 1
    with FakeDriver(front_end, features=FORMS[form], pairs=pairs, ring_size=64) as driver:
        if pairs > 1:
            driver.queue_pairs(pairs)
        for number in range(300):
            pair = number % pairs
            arrive(served, pair, frame(number))
            (received,) = driver.receive(pair)
            assert received.frame == frame(number)
            assert received.buffers == received.header.num_buffers == 1
            driver.send(pair, frame(number, 60 + number))
            assert served.tap.host[pair].recv(4096) == Header(num_buffers=0).encode_v1() + frame(
                number, 60 + number
            )
        driver.flush()


def test_nothing_arrives(served: Served, front_end: FrontEnd) -> None:
    with FakeDriver(front_end, timeout=0.05) as driver:
        assert driver.receive(0) == []
        assert driver.receive_any() == []


@pytest.mark.parametrize("buffers", [(2048,), (128,), (64, 64, 512)])
@pytest.mark.parametrize("indirect", [True, False])
def test_a_frame_over_many_buffers(
    served: Served, front_end: FrontEnd, buffers: tuple[int, ...], indirect: bool
) -> None:
    features = FEATURES if indirect else FEATURES - {Feature.INDIRECT_DESC}
    header = Header(
        flags=HeaderFlag.NEEDS_CSUM,
        gso_type=GsoType.TCPV4,
        hdr_len=54,
        gso_size=1400,
        csum_start=34,
        csum_offset=16,
    )
    with FakeDriver(front_end, features=features, buffers=buffers) as driver:
        for size in (60, 1000, 9000, 17000):
            arrive(served, 0, frame(1, size), header)
            (received,) = driver.receive(0)
            assert received.frame == frame(1, size)
            assert received.buffers == received.header.num_buffers
            assert received.buffers == -(-(size + 20) // sum(buffers))
            assert received.header.csum_start == 34
            assert received.header.gso_size == 1400


@pytest.mark.parametrize("buffers", [(20, 65550), (12, 8, 1000, 65000), (70000,)])
def test_without_merging_a_chain_takes_all(
    served: Served, front_end: FrontEnd, buffers: tuple[int, ...]
) -> None:
    features = FEATURES - {Feature.MRG_RXBUF}
    with FakeDriver(front_end, features=features, buffers=buffers, ring_size=16) as driver:
        for size in (60, 1514, 60000):
            arrive(served, 0, frame(1, size))
            (received,) = driver.receive(0)
            assert (received.frame, received.buffers) == (frame(1, size), 1)


@pytest.mark.parametrize("pieces", [(), (20,), (1, 2, 3), (20, 14, 20), (500,), (20, 0, 5)])
@pytest.mark.parametrize("indirect", [True, False])
def test_a_frame_in_pieces(
    served: Served, front_end: FrontEnd, pieces: tuple[int, ...], indirect: bool
) -> None:
    features = FEATURES if indirect else FEATURES - {Feature.INDIRECT_DESC}
    header = Header(flags=HeaderFlag.NEEDS_CSUM, csum_start=34, csum_offset=6)
    with FakeDriver(front_end, features=features) as driver:
        driver.send(0, frame(5), header, pieces=pieces)
        sent = served.tap.host[0].recv(4096)
        assert sent[12:] == frame(5)
        assert Header.decode(sent[:12]).csum_start == 34
        driver.flush()
        with pytest.raises(ValueError, match="too many"):
            driver.send(0, bytes(65551))
        with pytest.raises(ValueError, match="too many"):
            driver.send(0, frame(5), pieces=[1] * 64)


def test_a_full_ring(served: Served, front_end: FrontEnd) -> None:
    """What the tap does not take stays in the ring; then it goes on."""
    with FakeDriver(front_end, ring_size=4, timeout=0.2) as driver:
        # Nobody reads the sockets of the tap: their buffers fill up.
        sent: list[bytes] = []

        def fill() -> None:
            while len(sent) < 60000:
                driver.send(0, frame(len(sent), 1500))
                sent.append(frame(len(sent), 1500))

        with pytest.raises(TimeoutError):
            fill()
        driver.timeout = 5
        assert [served.tap.host[0].recv(2048)[12:] for _ in sent] == sent
        driver.flush()


def test_reports(served: Served, front_end: FrontEnd) -> None:
    with FakeDriver(front_end, pairs=2) as driver:
        arrive(served, 0, frame(1))
        assert driver.receive(0)[0].header.hash_report is ReportType.NONE
        driver.rss_config(RSS)
        for number in range(50):
            judged = reference.classify(frame(number), RSS)
            arrive(served, judged.queue, frame(number))
            ((pair, received),) = driver.receive_any()
            assert pair == judged.queue
            assert received.header.hash_value == judged.hash_value
            assert received.header.hash_report is ReportType.UDPv4


def test_hash_config(served: Served, front_end: FrontEnd) -> None:
    with FakeDriver(front_end, features=FEATURES - {Feature.RSS}) as driver:
        driver.hash_config(HashType.IPv4, RSS.key)
        arrive(served, 0, frame(1))
        assert driver.receive(0)[0].header.hash_report is ReportType.IPv4


COMMANDS: dict[str, Callable[[FakeDriver], None]] = {
    "rss_config": lambda driver: driver.rss_config(RSS),
    "queue_pairs": lambda driver: driver.queue_pairs(2),
    "guest_offloads": lambda driver: driver.guest_offloads({Feature.GUEST_CSUM}),
    "rx_mode": lambda driver: driver.rx_mode(RxMode.PROMISC, True),
    "mac_table": lambda driver: driver.mac_table([bytes.fromhex("020000000009")], []),
    "mac_address": lambda driver: driver.mac_address(bytes.fromhex("020000000009")),
    "vlan": lambda driver: driver.vlan(5),
    "no vlan": lambda driver: driver.vlan(5, on=False),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(served: Served, front_end: FrontEnd, name: str) -> None:
    with FakeDriver(front_end, pairs=2) as driver:
        COMMANDS[name](driver)
    (event,) = [values for event, values in served.events if event == "control"]
    assert event["answer"] == "ok"


@pytest.mark.parametrize("pieces", [(), (1,), (2,), (2, 1), (1, 1, 1, 1), (100,), (4,)])
def test_a_command_in_pieces(served: Served, front_end: FrontEnd, pieces: tuple[int, ...]) -> None:
    for features in (FEATURES, FEATURES - {Feature.INDIRECT_DESC}):
        with FakeDriver(front_end, features=features, pairs=2) as driver:
            assert driver.command(VqPairsSet(2), pieces) == 0
            assert driver.command(VqPairsSet(3), pieces) == 1
            assert driver.command(b"", pieces) == 1
            assert driver.command(b"\4", pieces) == 1
            assert driver.command(b"\4\0" + bytes(1 << 18), pieces) == 1
            with pytest.raises(ValueError, match="a command of"):
                driver.command(bytes(1 << 20))
            assert driver.command(VqPairsSet(1), pieces) == 0


def test_a_command_that_is_refused(served: Served, front_end: FrontEnd) -> None:
    served.tap.refuses_rss = True
    with FakeDriver(front_end, pairs=2) as driver:
        with pytest.raises(CommandError, match="VQ_PAIRS_SET was answered with 1"):
            driver.queue_pairs(3)
        with pytest.raises(CommandError, match="RSS_CONFIG was answered with 1"):
            driver.rss_config(RSS)
        served.tap.refuses_rss = False
        driver.rss_config(RSS)


def test_no_control_queue(served: Served, front_end: FrontEnd) -> None:
    with (
        FakeDriver(front_end, features={Feature.VERSION_1}) as driver,
        pytest.raises(CommandError, match="CTRL_VQ was not negotiated"),
    ):
        driver.queue_pairs(1)


@pytest.mark.parametrize(
    ("without", "index"), [(set(), 4), ({Feature.MQ, Feature.RSS}, 2), ({Feature.MQ}, 4)]
)
def test_where_the_control_queue_is(
    served: Served, front_end: FrontEnd, without: set[Feature], index: int
) -> None:
    with FakeDriver(front_end, features=FEATURES - without) as driver:
        assert driver.control_index == index
        driver.rx_mode(RxMode.ALLMULTI, True)


def test_the_configuration_space(served: Served, front_end: FrontEnd) -> None:
    with FakeDriver(front_end) as driver:
        config = driver.config()
        assert (config.mac, config.max_virtqueue_pairs, config.status) == (MAC, 2, 1)
        assert front_end.config(4, 2) == MAC[2:]
        with pytest.raises(VhostUserError, match="GET_CONFIG"):
            front_end.config(257)
        with pytest.raises(VhostUserError, match="SET_CONFIG: answered with 1"):
            front_end.set_config(b"\0")


def test_a_change_of_the_configuration_is_heard(served: Served, front_end: FrontEnd) -> None:
    with FakeDriver(front_end) as driver:
        front_end.open_backend_channel()
        served.server.backend.set_link(False)
        assert front_end.backend_request() is BackendRequest.CONFIG_CHANGE_MSG
        assert driver.config().status == 0


def test_a_second_driver_on_the_same_connection(served: Served, front_end: FrontEnd) -> None:
    for number in range(3):
        with FakeDriver(front_end, pairs=2) as driver:
            arrive(served, 0, frame(number))
            assert driver.receive(0)[0].frame == frame(number)


def test_memory_of_the_caller(served: Served, front_end: FrontEnd) -> None:
    """In many regions: frames, rings and tables lie in all of them."""
    with SharedMemory([4 << 20] * 12) as memory:
        with FakeDriver(front_end, memory=memory, ring_size=64, buffers=(70000,)) as driver:
            for number in range(200):
                arrive(served, 0, frame(number, 3000))
                assert driver.receive(0)[0].frame == frame(number, 3000)
            driver.send(0, frame(1))
            assert served.tap.host[0].recv(4096)[12:] == frame(1)
        assert memory.regions
        with pytest.raises(MemoryError):
            FakeDriver(front_end, memory=memory, ring_size=1024, buffers=(70000,))


def test_memory_comes_and_goes_while_frames_arrive(served: Served, front_end: FrontEnd) -> None:
    with FakeDriver(front_end) as driver:
        stop = threading.Event()
        sent: list[int] = []

        def send() -> None:
            while not stop.is_set():
                arrive(served, 0, frame(len(sent) % 60000))
                sent.append(1)

        sender = threading.Thread(target=send)
        sender.start()
        received = 0
        try:
            for _ in range(20):
                region = driver.memory.add(16 * PAGE)
                front_end.add_region(region)
                received += len(driver.receive(0, 20))
                front_end.remove_region(region)
                driver.memory.remove(region)
        finally:
            stop.set()
            while sender.is_alive():
                received += len(driver.receive(0, timeout=0.01))
            sender.join()
        while received < len(sent) and (more := driver.receive(0)):
            received += len(more)
        assert received == len(sent)


def test_the_base_of_a_ring(served: Served, front_end: FrontEnd) -> None:
    with FakeDriver(front_end, features={Feature.VERSION_1}, ring_size=4) as driver:
        for number in range(10):
            arrive(served, 0, frame(number))
            driver.receive(0)
            driver.send(0, frame(number))
            driver.flush()
        assert front_end.stop(0) == 10
        assert front_end.stop(1) == 10
        front_end.start(driver.queues[0], driver.memory, base=10)
        arrive(served, 0, frame(99))
        assert driver.receive(0)[0].frame == frame(99)


def test_dirty_pages(served: Served, front_end: FrontEnd) -> None:
    with FakeDriver(front_end, features={Feature.VERSION_1}) as driver:
        table = driver.queues[0].ring.table
        buffers = [int.from_bytes(table[16 * at : 16 * at + 8], "little") for at in range(20)]
        front_end.start_logging(driver.memory, driver.queues)
        rings = {queue.ring.used_ring // 4096 for queue in driver.queues}
        for number in range(10):
            arrive(served, 0, frame(number))
            driver.receive(0)
        written = {at // 4096 for start in buffers[:10] for at in range(start, start + 112)}
        assert front_end.dirty_pages() == written | rings
        front_end.stop_logging()
        for number in range(10):
            arrive(served, 0, frame(number))
            driver.receive(0)
        assert front_end.dirty_pages() == written | rings


def test_status_and_reset(served: Served, front_end: FrontEnd) -> None:
    with FakeDriver(front_end):
        front_end.set_status(15)
        assert front_end.status() == 15
        front_end.reset_device()
        assert front_end.status() == 0
        assert front_end.queue_pairs() == 5
        assert front_end.memory_slots() >= 8


def test_without_protocol_features(served: Served, front_end: FrontEnd) -> None:
    """Nothing is acknowledged then, and a ring needs no enabling."""
    assert front_end.features() >> VhostFeature.PROTOCOL_FEATURES & 1
    front_end.negotiate(feature_bits({Feature.VERSION_1}))
    assert front_end.protocol_features == frozenset()
    with SharedMemory() as memory, Virtqueue(memory, 1, 16) as queue:
        front_end.share(memory)
        front_end.start(queue, memory)
        assert front_end.stop(1) == 0


def test_a_table_of_memory(served: Served, front_end: FrontEnd) -> None:
    protocol = {ProtocolFeature.REPLY_ACK, ProtocolFeature.CONFIG}
    with FakeDriver(front_end, protocol_features=protocol) as driver:
        arrive(served, 0, frame(1))
        assert driver.receive(0)[0].frame == frame(1)


def test_a_connection_that_was_closed(served: Served, front_end: FrontEnd) -> None:
    with FakeDriver(front_end) as driver:
        front_end.send_bytes(b"this is no message of vhost-user")
        with pytest.raises(VhostUserClosed):
            front_end.features()
        with pytest.raises(VhostUserError):
            driver.front_end.tell(Request.SET_OWNER)


def test_nobody_listens(tmp_path: Path) -> None:
    with none_leaked(), pytest.raises(FileNotFoundError):
        FrontEnd.connect(tmp_path / "nothing")


def test_a_back_end_that_says_nothing() -> None:
    near, far = socket.socketpair()
    with near, FrontEnd(far, timeout=0.05) as front_end:
        with pytest.raises(TimeoutError):
            front_end.features()
        near.sendall(Message(Request.SET_OWNER).encode())
        with pytest.raises(VhostUserError, match="not those of a reply"):
            front_end.features()


def test_regions_do_not_look_alike() -> None:
    with none_leaked(), SharedMemory((PAGE, 2 * PAGE)) as memory:
        first, second = (shared.region for shared in memory.regions)
        assert first.guest_address + first.size < second.guest_address
        assert first.mmap_offset != second.mmap_offset
        address = memory.allocate(16, region=memory.regions[1])
        assert memory.user_address(address) == second.user_address
        memory.view(address, 4)[:] = b"mark"
        os.lseek(memory.regions[1].fd, second.mmap_offset, os.SEEK_SET)
        assert os.read(memory.regions[1].fd, 4) == b"mark"
        with pytest.raises(ValueError, match="not in the memory"):
            memory.view(0, 1)
        with pytest.raises(ValueError, match="not in one region"):
            memory.view(address, 4 * PAGE)
        with pytest.raises(MemoryError):
            memory.allocate(4 * PAGE)


# A driver that does what none may do


@settings(max_examples=examples(60), deadline=None)
@given(data=st.data())
def test_any_commands_are_answered(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        none_leaked(),
        serving(tmp_path_factory.mktemp("any")) as served,
        FrontEnd.connect(served.path) as front_end,
        FakeDriver(front_end, pairs=2, ring_size=16) as driver,
    ):
        for command in data.draw(
            st.lists(
                st.builds(
                    lambda head, rest: bytes(head) + rest,
                    st.tuples(st.integers(0, 8), st.integers(0, 6)),
                    st.binary(max_size=100),
                ),
                max_size=10,
            )
        ):
            pieces = data.draw(st.lists(st.integers(0, 20), max_size=10))
            assert driver.command(command, pieces) in (0, 1)
        driver.queue_pairs(2)


def test_memory_that_is_cut_off_under_a_running_driver(served: Served, front_end: FrontEnd) -> None:
    """The file behind guest memory shrinks: that connection suffers, not the server."""
    driver = FakeDriver(front_end)
    for region in driver.memory.regions:
        os.ftruncate(region.fd, 0)
    arrive(served, 0, frame(1))
    driver.queues[0].kick()
    front_end.features()
    front_end.close()
    with FrontEnd.connect(served.path) as other, FakeDriver(other) as healthy:
        arrive(served, 0, frame(2))
        assert frame(2) in [received.frame for received in healthy.receive(0, 2, timeout=1)]
    with pytest.raises((OSError, VhostUserError)):
        front_end.features()
    driver.queues = []
    driver.close()


def test_a_header_that_no_device_may_write(served: Served, front_end: FrontEnd) -> None:
    with FakeDriver(front_end) as driver:
        for queue in driver.queues:
            front_end.stop(queue.index)
        # The test is the device: it uses a chain as a merged one, without saying with what.
        ring = driver.queues[0].ring
        address = int.from_bytes(ring.table[:8], "little")
        with driver.memory.view(address, 20) as view:
            view[:] = Header(num_buffers=0).encode()
        with driver.memory.view(ring.used_ring, 12) as used:
            used[4:12] = (0).to_bytes(4, "little") + (60).to_bytes(4, "little")
            used[2:4] = (1).to_bytes(2, "little")
        with pytest.raises(HeaderError, match="num_buffers 0"):
            driver.receive(0)
