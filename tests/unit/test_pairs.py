# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Queue pairs on a socket in the place of a tap: every header, and every refusal at its time."""

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import frames
from tests.effort import examples
from tests.kernel.queue_pairs import DriverQueue, ReceiveQueue, plain, settles
from tests.shared_memory import GUEST, SharedMemory
from vnethash.closing import Closing
from vnethash.engines.readers import History
from vnethash.errors import RingError
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.testing.ring import Buffer
from vnethash.vhost_user.memory import GuestMemory
from vnethash.vhost_user.pairs import Bases, PathSetup, QueuePair
from vnethash.vhost_user.rings import FaultReason
from vnethash.virtio.hash_types import ReportType
from vnethash.virtio.header import Header, HeaderFlag
from vnethash.virtio.receive_filter import ReceiveFilter

MIB = 1 << 20
RSS = RssConfig.default(1)
MARK = b"\xb5\x1d"


class Bench(Closing):
    """A pair between a driver and a socket, whose other end is ``host``."""

    def __init__(self, size: int = 256, regions: tuple[int, ...] = (16 * MIB,)) -> None:
        self._resources = ExitStack()
        enter = self._resources.enter_context
        self.host, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        enter(self.host)
        self.tap = enter(ours)
        ours.setblocking(False)
        self.host.settimeout(5)
        self.host.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.shared = enter(SharedMemory(regions))
        self.receive = enter(ReceiveQueue(self.shared, size))
        self.transmit = enter(DriverQueue(self.shared, size))
        self.history = History()
        self._resources.callback(self.history.close)
        self.pair = enter(QueuePair(0, self.history))

    def close(self) -> None:
        self._resources.close()

    def start(self, base: int = 0, **path: object) -> None:
        fd = self.tap.fileno()
        setup = PathSetup(receive_fd=fd, transmit_fd=fd, guest_header=12, mergeable=True)
        setup = replace(setup, **path)  # type: ignore[arg-type]
        self.receive.header = setup.guest_header
        with GuestMemory(self.shared.regions) as memory:
            receive, transmit = self.receive.setup(base=base), self.transmit.setup()
            self.pair.start(memory, receive, transmit, setup)

    def send(self, *packets: bytes) -> None:
        """The driver sends packets, each in one buffer."""
        for packet in packets:
            address = self.shared.allocate(len(packet))
            self.shared.write(address, packet)
            self.transmit.add([Buffer(address, len(packet))])
        self.transmit.publish()

    def ended(self) -> FaultReason:
        """Why the thread ended by itself."""
        assert select.select([self.pair], [], [], 5)[0]
        fault = self.pair.fault()
        assert fault is not None
        return fault.reason


@pytest.fixture(name="bench")
def _bench() -> Iterator[Bench]:
    with Bench() as bench:
        yield bench


headers = st.builds(
    Header,
    flags=st.sampled_from([0, HeaderFlag.NEEDS_CSUM, HeaderFlag.DATA_VALID]),
    gso_type=st.sampled_from([0, 1, 3, 4, 5, 0x81]),
    hdr_len=st.integers(8, 200),
    gso_size=st.integers(0, 9000),
    csum_start=st.integers(8, 200),
    csum_offset=st.integers(0, 200),
    num_buffers=st.integers(0, 0xFFFF),
)


@given(
    st.lists(
        st.tuples(
            headers,
            st.booleans(),
            st.sampled_from([18, 60, 1514, 4070, 4097, 9000, 65000]),
            st.integers(1, 0xFFFFFFFF),
            st.sampled_from([report for report in ReportType if report]),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([12, 20]),
    st.sampled_from([12, 20]),
    st.booleans(),
)
@settings(max_examples=examples(100), deadline=None)
def test_headers(
    packets: list[tuple[Header, bool, int, int, ReportType]],
    guest: int,
    tap: int,
    filtered: bool,
) -> None:
    """Every field reaches the guest; what the record moved is put right, for all sizes in turn."""
    expected = []
    with Bench(64) as bench:
        bench.receive.fill([1536, 8192])
        bench.history.push(RSS, Reporting.RECORD)
        bench.start(
            guest_header=guest,
            tap_header=tap,
            records=True,
            rehash=True,
            filter=ReceiveFilter() if filtered else None,
        )
        for header, marked, length, value, report in packets:
            frame = plain(length)
            classified = reference.classify(frame, RSS)
            right = replace(
                header, hash_value=classified.hash_value, hash_report=classified.hash_report
            )
            if marked:
                right = replace(header, hash_value=value, hash_report=report)
            if tap == 20:
                bench.host.send((right if marked else header).encode() + frame)
            else:
                record = right.encode()[12:18] + MARK if marked else b""
                bench.host.send(header.encode_v1() + record + frame)
                if marked:
                    right = right.corrected()
            if guest == 12:
                right = replace(right, hash_value=0, hash_report=ReportType.NONE)
            expected.append((right, frame))
            (packet,) = bench.receive.receive(1)
            assert packet.frame == frame
            assert packet.header == replace(right, num_buffers=packet.chains)
        counters = bench.pair.counters()
    marked_ones = sum(marked for _, marked, *_ in packets) if tap == 12 else 0
    assert counters.recorded == marked_ones


@pytest.mark.parametrize("records", [False, True])
@pytest.mark.parametrize("lengths", [[1536], [12, 1514], [7, 13, 9, 4096], [70000], [300, 9000]])
@pytest.mark.parametrize("mergeable", [False, True])
def test_frames_of_all_sizes_in_turn(records: bool, lengths: list[int], mergeable: bool) -> None:
    """Large and small ones, with headers that reach far: each whole, each hashed."""
    extensions = [(60, frames.extension(40))] * 3
    number, payload = frames.chain(extensions, frames.UDP, frames.udp(9))
    deep = frames.ethernet(0x86DD, frames.ipv6(payload, number)) + bytes(8000)
    shallow = frames.ethernet(0x0800, frames.ipv4(frames.tcp(5), frames.TCP))
    sizes = [9000, 9000, 65000, 60, 20000, 65000, 5000, *[60] * 90, 30000, 65000, 1514]
    sent = [(shallow + os.urandom(size))[:size] for size in sizes]
    sent[1:1] = sent[9:9] = [deep, deep]
    with Bench(512) as bench:
        chains = bench.receive.fill(lengths, 60 if lengths == [70000] else None)
        room = sum(lengths) * (chains if mergeable else 1)
        bench.history.push(RSS, Reporting.RECORD)
        bench.start(guest_header=20, records=records, rehash=True, mergeable=mergeable)
        for frame in sent:
            bench.host.send(bytes(12) + frame)
            if len(frame) + 20 > room:
                continue
            (packet,) = bench.receive.receive(1)
            assert packet.frame == frame
            expected = reference.classify(frame, RSS)
            assert packet.header.hash_value == expected.hash_value
            assert packet.header.hash_report is expected.hash_report
        lost = sum(len(frame) + 20 > room for frame in sent)
        settles(lambda: bench.pair.counters().receive.no_room, lost)
        assert bench.pair.counters().rehashed == len(sent)
        assert bench.pair.fault() is None


def test_many_chains_ahead(bench: Bench) -> None:
    """After a large packet many buffers are fetched ahead; small ones then take one each."""
    bench.receive.fill([400])
    bench.start()
    sent = [plain(60000), plain(60000), *(plain(60 + n % 300, n) for n in range(600))]
    received = []
    for frame in sent:
        bench.host.send(bytes(12) + frame)
        received += [packet.frame for packet in bench.receive.receive(1)]
    assert received == sent


@pytest.mark.parametrize("junk", [b"\0", bytes(11), bytes(12)])
def test_too_short_for_a_header(bench: Bench, junk: bytes) -> None:
    good = plain(60)
    bench.receive.fill([1536])
    bench.start()
    bench.host.send(junk)
    bench.host.send(bytes(12) + good)
    assert [packet.frame for packet in bench.receive.receive(1)] == [good]
    assert bench.pair.counters().receive.malformed == 1


def test_a_record_alone_is_no_packet(bench: Bench) -> None:
    bench.receive.fill([1536])
    bench.history.push(RSS, Reporting.RECORD)
    bench.start(records=True, guest_header=20)
    bench.host.send(bytes(12) + bytes(6) + MARK)
    settles(lambda: bench.pair.counters().receive.malformed, 1)


@pytest.mark.parametrize("guest", [12, 20])
@pytest.mark.parametrize("tap", [12, 20])
@pytest.mark.parametrize("size", [14, 60, 4096, 4097, 60000])
@pytest.mark.parametrize("cuts", [(), (12,), (5, 12, 20, 21), (20,), (16,)])
def test_headers_to_the_tap(
    bench: Bench, guest: int, tap: int, size: int, cuts: tuple[int, ...]
) -> None:
    header = Header(flags=1, gso_type=1, hdr_len=54, gso_size=1448, csum_start=34, csum_offset=16)
    frame = plain(size)
    packet = (header.encode_v1() + os.urandom(8))[:guest] + frame
    address = bench.shared.allocate(len(packet))
    bench.shared.write(address, packet)
    ends = [0, *cuts, len(packet)]
    bench.transmit.add([Buffer(address + a, b - a) for a, b in pairwise(ends)])
    bench.start(guest_header=guest, tap_header=tap)
    bench.transmit.publish()
    heard = bench.host.recv(1 << 17)
    assert heard[:12] == header.encode_v1()
    assert len(heard) == tap + size
    assert heard[tap:] == frame
    if guest == 12:
        assert not any(heard[12:tap])


def test_a_tap_that_takes_nothing_for_now(bench: Bench) -> None:
    """The packet waits until there is room, and what follows it stays behind it."""
    sent = [plain(100, number) for number in range(200)]
    bench.tap.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    bench.start()
    bench.send(*(bytes(12) + frame for frame in sent))
    settles(lambda: bench.transmit.ring.used_index > 0, True)
    # The socket holds some; then the thread sleeps, and the rest is not lost.
    before = -1
    while before != (before := bench.pair.counters().transmit.packets):
        select.select([], [], [], 0.05)
    assert 0 < before < len(sent)
    assert bench.pair.stop() == Bases(0, before)
    with GuestMemory(bench.shared.regions) as memory:
        setup = bench.transmit.setup(base=before)
        bench.pair.start(
            memory,
            None,
            setup,
            PathSetup(receive_fd=-1, transmit_fd=bench.tap.fileno(), guest_header=12),
        )
    assert [bench.host.recv(1 << 17)[12:] for _ in sent] == sent
    settles(lambda: bench.transmit.ring.used_index, len(sent))
    assert bench.pair.counters().transmit.dropped == 0


def test_an_error_of_the_tap_drops_the_packet(bench: Bench) -> None:
    """Whatever the kernel says that is no end: here that nobody listens."""
    bench.host.close()
    bench.start()
    bench.send(bytes(12) + plain(60))
    settles(lambda: bench.pair.counters().transmit.device, 1)


@pytest.mark.parametrize("size", [100, 60000])
@pytest.mark.parametrize("pieces", [1, 2])
def test_what_is_sent_goes_away(size: int, pieces: int) -> None:
    """The rings stay, the buffers do not."""
    with Bench(regions=(MIB, 16 * MIB)) as bench:
        bench.shared.allocate(MIB - (bench.shared.allocate(0) - GUEST))
        address = bench.shared.allocate(size)
        half = size // pieces
        bench.transmit.add([Buffer(address + i * half, half) for i in range(pieces)])
        bench.start()
        os.ftruncate(bench.shared.fd, MIB)
        bench.transmit.publish()
        os.eventfd_write(bench.transmit.kick, 1)
        assert bench.ended() is FaultReason.MEMORY


@pytest.mark.parametrize("sizes", [[100], [9000, 9000, 100], [9000, 9000, 9000, 9000]])
def test_where_to_receive_goes_away(sizes: list[int]) -> None:
    with Bench(64, regions=(MIB, 16 * MIB)) as bench:
        bench.shared.allocate(MIB - (bench.shared.allocate(0) - GUEST))
        bench.receive.fill([2000])
        bench.start()
        for size in sizes[:-1]:
            bench.host.send(bytes(12) + plain(size))
            assert len(bench.receive.receive(1)) == 1
        os.ftruncate(bench.shared.fd, MIB)
        bench.host.send(bytes(12) + plain(sizes[-1]))
        assert bench.ended() is FaultReason.MEMORY
        assert bench.pair.stop().receive < 64


def test_two_pairs_with_one_memory(bench: Bench) -> None:
    """One ends with a fault, the other goes on; closing the memory harms neither."""
    with Bench() as other, GuestMemory(bench.shared.regions) as memory:
        path = PathSetup(receive_fd=bench.tap.fileno(), transmit_fd=-1, guest_header=12)
        bench.receive.fill([1536])
        bench.pair.start(memory, bench.receive.setup(), None, path)
        second = PathSetup(receive_fd=-1, transmit_fd=other.tap.fileno(), guest_header=12)
        other.pair.start(memory, None, bench.transmit.setup(), second)
        memory.close()
        bench.transmit.ring.make_available(999)
        bench.transmit.ring.publish()
        os.eventfd_write(bench.transmit.kick, 1)
        assert other.ended() is FaultReason.HEAD
        frame = plain(60)
        bench.host.send(bytes(12) + frame)
        assert [packet.frame for packet in bench.receive.receive(1)] == [frame]


@pytest.mark.parametrize("faulty", [False, True])
def test_a_call_that_waits_for_ever_does_not_keep_stop_waiting(bench: Bench, faulty: bool) -> None:
    """The front end shares the file: it may have it wait again, and fill it."""
    if not faulty:
        bench.receive.fill([1536])
    bench.start()
    full = bench.receive.error if faulty else bench.receive.call
    for fd in (bench.receive.call, bench.receive.error):
        os.set_blocking(fd, True)
    os.eventfd_write(full, 0xFFFF_FFFF_FFFF_FFFE)
    if faulty:
        bench.receive.ring.set_available_index(999)
        os.eventfd_write(bench.receive.kick, 1)
    bench.host.send(bytes(12) + plain(60))
    time.sleep(0.5)
    begin = time.monotonic()
    bench.pair.stop()
    assert time.monotonic() - begin < 2
    assert (bench.pair.fault() is None) != faulty


def test_start_and_stop_are_ordered(bench: Bench) -> None:
    assert bench.pair.stop() == Bases(0, 0)
    bench.start()
    with pytest.raises(RingError, match="busy"):
        bench.start()
    assert bench.pair.running
    bench.pair.stop()
    bench.pair.close()
    bench.pair.close()
