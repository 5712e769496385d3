# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Packets between a tap and a guest's rings, in every layout, and rings that break the rules."""

import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import frames
from tests.effort import examples
from tests.kernel.queue_pairs import (
    ADDRESSES,
    TAP,
    TYPE,
    DriverQueue,
    ReceiveQueue,
    lane,
    plain,
    settles,
)
from tests.shared_memory import GUEST, SharedMemory
from tests.tunnels import ARP, ETHERNET_TCP4, over_udp
from vnethash.engines.base import Setup
from vnethash.engines.ebpf import EbpfEngine
from vnethash.errors import RingError
from vnethash.kernel import link
from vnethash.kernel.links import Links
from vnethash.kernel.tun import Offload
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.testing.ring import NO_NOTIFY, Buffer, DescriptorFlag
from vnethash.vhost_user.memory import DirtyLog, GuestMemory
from vnethash.vhost_user.pairs import Bases, QueuePair
from vnethash.vhost_user.rings import FaultReason
from vnethash.virtio.hash_types import ReportType, TunnelType
from vnethash.virtio.header import GsoType, Header, HeaderFlag
from vnethash.virtio.receive_filter import ReceiveFilter

pytestmark = pytest.mark.usefixtures("netns")
MIB = 1 << 20
RSS = RssConfig.default(1)
WHOLE = Offload.CSUM | Offload.TSO4 | Offload.TSO6
MARK = b"\xb5\x1d"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a driver lends receive buffers, and what was negotiated."""

    mergeable: bool
    size: int
    lengths: list[int]
    """Of the buffers of each chain."""
    indirect: bool
    event_idx: bool
    header: int
    rehash: bool
    filter: bool


layouts = st.builds(
    Layout,
    mergeable=st.booleans(),
    size=st.sampled_from([1, 2, 16, 64]),
    lengths=st.lists(
        st.sampled_from([0, 1, 7, 12, 13, 20, 21, 60, 148, 149, 1514, 1536, 4096]),
        min_size=1,
        max_size=5,
    ).filter(any),
    indirect=st.booleans(),
    event_idx=st.booleans(),
    header=st.sampled_from([12, 20]),
    rehash=st.booleans(),
    filter=st.booleans(),
)
sizes = st.one_of(st.integers(18, 400), st.sampled_from([1500, 1514, 2040, 9000, 65535]))
sent = st.lists(st.one_of(sizes.map(plain), frames.frames()), min_size=1, max_size=12)


@given(layout=layouts, sent=sent)
@settings(max_examples=examples(150), deadline=None)
def test_receives_in_every_layout(layout: Layout, sent: list[bytes]) -> None:
    """What was sent arrives, or is dropped because the guest cannot hold it; the hash is right.

    Buffers and tables lie across the seams of memory regions.
    """
    with ExitStack() as resources:
        where = resources.enter_context(lane())
        shared = resources.enter_context(SharedMemory([64 << 10, *[4096 + 16] * 60, 8 * MIB]))
        size = layout.size if layout.indirect else max(8, layout.size)
        options = {"event_idx": layout.event_idx, "indirect": layout.indirect}
        queue = resources.enter_context(ReceiveQueue(shared, size, **options))
        queue.header = layout.header
        chains = queue.fill(layout.lengths)
        room = sum(layout.lengths) * (chains if layout.mergeable else 1)
        fitting = [frame for frame in sent if len(frame) + layout.header <= room]
        if layout.mergeable and queue.ring.free:
            sent = fitting  # or it would wait for more buffers, see below
        where.history.push(RSS, Reporting.REHASH)
        where.start(
            queue,
            mergeable=layout.mergeable,
            guest_header=layout.header,
            rehash=layout.rehash,
            filter=ReceiveFilter() if layout.filter else None,
        )
        for frame in sent:
            where.wire.send(frame)
        received = queue.receive(len(fitting))
        settles(lambda: where.pair.counters().receive.no_room, len(sent) - len(fitting))
        bases = where.pair.stop()
        assert where.pair.fault() is None
    assert [packet.frame for packet in received] == fitting
    assert bases.receive == sum(packet.chains for packet in received)
    for packet in received:
        assert packet.header.num_buffers == packet.chains
        if layout.header == 20 and layout.rehash:
            expected = reference.classify(packet.frame, RSS)
            assert packet.header.hash_value == expected.hash_value
            assert packet.header.hash_report is expected.hash_report
        else:
            assert packet.header == Header(num_buffers=packet.chains)


@given(
    cuts=st.lists(st.integers(0, 90), max_size=4),
    indirect=st.booleans(),
    event_idx=st.booleans(),
    header=st.sampled_from([12, 20]),
    lengths=st.lists(st.sampled_from([14, 60, 100, 1514, 9000, 65535]), min_size=1, max_size=8),
)
@settings(max_examples=examples(60), deadline=None)
def test_transmits_in_every_layout(
    cuts: list[int], indirect: bool, event_idx: bool, header: int, lengths: list[int]
) -> None:
    """A frame leaves as the guest wrote it, wherever its header and its pieces lie."""
    with ExitStack() as resources:
        where = resources.enter_context(lane())
        shared = resources.enter_context(SharedMemory([8 << 10, *[4096 + 16] * 60, MIB]))
        queue = resources.enter_context(
            DriverQueue(shared, 64, event_idx=event_idx, indirect=indirect)
        )
        sent = [plain(length, number) for number, length in enumerate(lengths)]
        for frame in sent:
            packet = bytes(12) + os.urandom(header - 12) + frame
            ends = sorted({cut for cut in cuts if 0 < cut < len(packet)} | {len(packet)})
            start = shared.allocate(len(packet))
            shared.write(start, packet)
            queue.add([Buffer(start + a, b - a) for a, b in pairwise([0, *ends])])
        where.start(None, queue, guest_header=header)
        queue.publish()
        assert where.heard(len(sent)) == sent
        settles(lambda: queue.ring.used_index, len(sent))
        assert [length for _, length in queue.used()] == [0] * len(sent)
        assert where.pair.stop() == Bases(0, len(sent))
        traffic = where.pair.counters().transmit
        assert (traffic.packets, traffic.bytes) == (len(sent), sum(lengths))
        assert traffic.dropped == 0


@pytest.fixture(name="shared")
def _shared() -> Iterator[SharedMemory]:
    with SharedMemory((16 * MIB,)) as shared:
        yield shared


def send(queue: DriverQueue, *packets: bytes) -> None:
    """The driver sends packets, each with its header in a buffer of its own."""
    for packet in packets:
        address = queue.memory.allocate(len(packet))
        queue.memory.write(address, packet)
        pieces = [Buffer(address, 12), Buffer(address + 12, len(packet) - 12)]
        queue.add(pieces if len(packet) > 12 else pieces[:1])
    queue.publish()


def test_a_packet_too_short_is_dropped_alone(shared: SharedMemory) -> None:
    good = plain(60)
    for header in (12, 20):
        with lane() as where, DriverQueue(shared) as queue:
            where.start(None, queue, guest_header=header)
            pad = bytes(header)
            send(queue, pad + bytes(13), pad[:1], bytes(12), pad + good, pad + good[:14])
            assert where.heard(2) == [good, good[:14]]
            settles(lambda: queue.ring.used_index, 5)
            assert where.pair.counters().transmit.malformed == 3
            assert where.pair.fault() is None


def test_what_the_tap_refuses_is_dropped_and_counted(shared: SharedMemory) -> None:
    good = bytes(12) + plain(60)
    wrong = Header(gso_type=GsoType.TCPV4, gso_size=0, hdr_len=54).encode_v1() + plain(60)
    with lane() as where, DriverQueue(shared) as queue:
        where.start(None, queue)
        send(queue, wrong, good)
        assert where.heard(1) == [good[12:]]
        settles(lambda: where.pair.counters().transmit.refused, 1)
        link.set_down(TAP)
        send(queue, good)
        settles(lambda: where.pair.counters().transmit.device, 1)
        link.set_up(TAP)
        send(queue, good)
        settles(lambda: where.pair.counters().transmit.packets, 2)
        assert where.pair.fault() is None


def segment(payload: int, *, mark: bytes = b"") -> tuple[Header, bytes]:
    """A TCP segment whose checksum and segmentation are left to others."""
    frame = frames.ethernet(0x0800, frames.ipv4(frames.tcp(payload=bytes(payload)), frames.TCP))
    header = Header(
        flags=HeaderFlag.NEEDS_CSUM,
        gso_type=GsoType.TCPV4 if payload > 1448 else GsoType.NONE,
        hdr_len=54,
        gso_size=1448 if payload > 1448 else 0,
        csum_start=34,
        csum_offset=16,
    )
    return header, mark + frame


@pytest.mark.parametrize("payload", [100, 30000, 65000])
def test_offloads_are_kept_both_ways(shared: SharedMemory, payload: int) -> None:
    """What is left to do on a packet stays so, and the record in front is counted out of it."""
    header, frame = segment(payload)
    with ExitStack() as resources:
        where = resources.enter_context(lane(WHOLE))
        attachment = EbpfEngine().attach(
            Setup(where.device, RSS, Reporting.RECORD, WHOLE, False, 128)
        )
        resources.callback(attachment.close)
        pair = resources.enter_context(QueuePair(0, attachment.history))
        receive = resources.enter_context(ReceiveQueue(shared))
        transmit = resources.enter_context(DriverQueue(shared))
        receive.header = 20
        receive.fill([1536])
        path = where.path(guest_header=20, records=True, rehash=True)
        with GuestMemory(shared.regions) as memory:
            pair.start(memory, receive.setup(), transmit.setup(), path)
        # Sockets with PACKET_VNET_HDR have the header of 10 bytes in front.
        where.wire.setsockopt(263, 15, 1)
        where.wire.send(header.encode_v1()[:10] + frame)
        (packet,) = receive.receive(1)
        expected = reference.classify(frame, RSS)
        assert packet.frame == frame
        assert packet.header == replace(
            header,
            hdr_len=packet.header.hdr_len,
            num_buffers=packet.chains,
            hash_value=expected.hash_value,
            hash_report=expected.hash_report,
        )
        assert packet.header.hdr_len in (0, 54) if payload == 100 else packet.header.hdr_len >= 54
        assert pair.counters().recorded == 1
        send(transmit, header.encode_v1() + bytes(8) + frame)
        (heard,) = where.heard(1)
        back = Header.decode(heard[:10] + b"\1\0")
        assert heard[10:] == frame
        assert replace(back, hdr_len=54) == header
        assert pair.stop() == Bases(packet.chains, 1)


RECORD = struct.Struct("<IH2s")


@pytest.mark.parametrize("lengths", [[1536], [12, 1514], [7, 13, 9, 4096], [70000]])
@pytest.mark.parametrize("header", [12, 20])
@pytest.mark.parametrize("filtered", [False, True])
def test_with_and_without_a_record(
    shared: SharedMemory, lengths: list[int], header: int, filtered: bool
) -> None:
    """A record's hash goes to the header; a frame without one is put right, and hashed here."""
    small = frames.ethernet(0x0800, frames.ipv4(frames.udp(7), frames.UDP))
    deep = frames.ethernet(
        0x86DD,
        frames.ipv6(*frames.chain([(60, frames.extension(40))] * 3, 17, frames.udp(9))[::-1]),
    )
    bare = [
        small,
        plain(1514),
        plain(20000),
        deep + bytes(500),
        plain(18),
        small[:14],
        plain(65535),
    ]
    with lane() as where, ReceiveQueue(shared, 1024) as queue:
        queue.header = header
        queue.fill(lengths, 60 if lengths == [70000] else None)
        where.history.push(RSS, Reporting.RECORD)
        where.start(
            queue,
            guest_header=header,
            records=True,
            rehash=True,
            filter=ReceiveFilter() if filtered else None,
        )
        for number, frame in enumerate(bare):
            where.wire.send(frame)
            where.wire.send((RECORD.pack(number + 1, 3, MARK) + frame)[:65535])
        packets = queue.receive(2 * len(bare))
        for number, frame in enumerate(bare):
            without, with_record = packets[2 * number : 2 * number + 2]
            assert without.frame == frame
            assert with_record.frame == frame[: 65535 - 8]
            if header == 20:
                expected = reference.classify(frame, RSS)
                assert without.header.hash_value == expected.hash_value
                assert without.header.hash_report is expected.hash_report
                assert with_record.header.hash_value == number + 1
                assert with_record.header.hash_report is ReportType.UDPv4
        assert where.pair.counters().recorded == len(bare)
        assert where.pair.counters().rehashed == (len(bare) if header == 20 else 0)


@pytest.mark.parametrize("inner", [ETHERNET_TCP4, ARP], ids=["IP", "ARP"])
def test_large_packets_of_a_tunnel(shared: SharedMemory, inner: bytes) -> None:
    """Their headers are looked at before the rest is there; of a tunnel these reach further."""
    options = bytes(252)
    deep = over_udp(6081, frames.geneve(0x6558, inner + bytes(20000), options=options))
    rss = RssConfig.default(1).replace(tunnels=TunnelType.ALL)
    with lane() as where, ReceiveQueue(shared, 256) as queue:
        queue.header = 20
        queue.fill([4096])
        where.history.push(RSS, Reporting.REHASH)
        where.history.push(rss, Reporting.REHASH)
        where.start(queue, guest_header=20, rehash=True)
        for frame in (plain(30000), deep, deep, plain(30000)):
            where.wire.send(frame)
        for packet in queue.receive(4):
            expected = reference.classify(packet.frame, rss)
            assert packet.header.hash_value == expected.hash_value
            assert packet.header.hash_report is expected.hash_report
        assert where.pair.counters().rehashed == 4


def test_what_looks_like_a_record_where_none_can_be_is_a_frame(shared: SharedMemory) -> None:
    frame = RECORD.pack(5, 3, MARK) + plain(60)
    with lane() as where, ReceiveQueue(shared) as queue:
        queue.fill([1536])
        where.history.push(RSS, Reporting.REHASH)
        where.start(queue, records=True)
        where.wire.send(frame)
        assert [packet.frame for packet in queue.receive(1)] == [frame]


def test_the_history_explains_the_queue(shared: SharedMemory) -> None:
    """Rehashed by the configuration that steered the packet, or by one that explains all."""
    two = RssConfig.default(2)
    key = bytes(range(40))
    other = two.replace(key=key)
    frame = frames.ethernet(0x0800, frames.ipv4(frames.tcp(1), frames.TCP))
    steered = [config for config in (two, other) if reference.classify(frame, config).queue == 0]
    with lane() as where, ReceiveQueue(shared) as queue:
        queue.header = 20
        queue.fill([1536])
        where.history.push(two, Reporting.REHASH)
        where.history.push(other, Reporting.REHASH)
        where.start(queue, guest_header=20, rehash=True)
        where.wire.send(frame)
        where.history.push(other, Reporting.REHASH, automatic=True)
        where.wire.send(frame)
        first, second = (packet.header for packet in queue.receive(2))
    assert first.hash_value in {reference.classify(frame, c).hash_value for c in [*steered, other]}
    assert second.hash_value == reference.classify(frame, other).hash_value


def test_packets_wait_in_the_tap_for_buffers(shared: SharedMemory) -> None:
    sent = [plain(60 + number, number) for number in range(20)]
    for event_idx in (False, True):
        with lane() as where, ReceiveQueue(shared, event_idx=event_idx) as queue:
            where.start(queue)
            for frame in sent:
                where.wire.send(frame)
            time.sleep(0.05)
            assert where.pair.counters().receive.system_calls == 0
            queue.recycles = False
            for _ in range(10):
                queue.fill([1536], 2)
                queue.receive(2)
            settles(lambda: where.pair.counters().receive.packets, 20)
            assert where.pair.stop() == Bases(20, 0)


def test_a_packet_waits_for_buffers_also_across_a_restart(shared: SharedMemory) -> None:
    large, small = plain(9000), plain(100)
    with lane() as where, ReceiveQueue(shared) as queue:
        queue.fill([1536], 2)
        where.wire.send(large)
        where.wire.send(small)
        where.start(queue)
        settles(lambda: where.pair.counters().receive.system_calls, 1)
        assert where.pair.stop() == Bases(0, 0)
        where.start(queue)
        queue.fill([1536], 10)
        assert [packet.frame for packet in queue.receive(2)] == [large, small]
        assert where.pair.counters().receive.no_room == 0


def test_a_packet_that_no_buffers_come_for_is_dropped_in_the_end(shared: SharedMemory) -> None:
    small = plain(100)
    with lane() as where, ReceiveQueue(shared) as queue:
        queue.fill([1536], 2)
        where.start(queue)
        where.wire.send(plain(9000))
        where.wire.send(small)
        assert [packet.frame for packet in queue.receive(1)] == [small]
        assert where.pair.counters().receive.no_room == 1


def test_stopped_and_started_under_traffic(shared: SharedMemory) -> None:
    """A new memory table each time: nothing is lost, doubled, or out of order."""
    count = 3000
    with lane() as where, ReceiveQueue(shared, 64) as queue, ExitStack() as resources:
        queue.fill([1536])
        received: list[bytes] = []

        def sender() -> None:
            for number in range(count):
                while number - len(received) > 200:  # a tap's queue holds 500
                    time.sleep(0.0005)
                where.wire.send(plain(60 + number % 1400, number))

        thread = threading.Thread(target=sender)
        thread.start()
        resources.callback(thread.join)
        base, restarts = 0, 0
        while len(received) < count:
            where.start(queue, base=base)
            for _ in range(3):
                received += [p.frame for p in queue.receive(min(20, count - len(received)), 1)]
            base = where.pair.stop().receive
            restarts += 1
        numbers = [int.from_bytes(frame[14:18], "big") for frame in received]
    assert numbers == list(range(count))
    assert restarts > 10


def test_both_ways_at_once(shared: SharedMemory) -> None:
    count = 2000
    with (
        lane() as where,
        ReceiveQueue(shared, 128, event_idx=True) as receive,
        DriverQueue(shared, 128, event_idx=True) as transmit,
    ):
        receive.fill([1536])
        where.start(receive, transmit)
        heard: list[bytes] = []
        listener = threading.Thread(target=lambda: heard.extend(where.heard(count)))
        listener.start()
        received = []
        for first in range(0, count, 50):
            for number in range(first, first + 50):
                where.wire.send(plain(60, number))
            send(transmit, *(bytes(12) + plain(80, number) for number in range(first, first + 50)))
            received += receive.receive(50)
            while transmit.ring.outstanding:
                transmit.used()
        listener.join()
        counters = where.pair.counters()
    for got in ([packet.frame for packet in received], heard):
        assert [int.from_bytes(frame[14:18], "big") for frame in got] == list(range(count))
    assert counters.receive.calls <= counters.receive.packets == count
    assert counters.transmit.kicks <= transmit.kicks


def test_it_sleeps_when_there_is_nothing_to_do(shared: SharedMemory) -> None:
    with lane() as where, ReceiveQueue(shared) as receive, DriverQueue(shared) as transmit:
        receive.fill([1536])
        where.start(receive, transmit)
        where.wire.send(plain(60))
        receive.receive(1)
        time.sleep(0.05)
        before = where.pair.counters()
        time.sleep(0.3)
        assert where.pair.counters() == before
        # Kicks for what there is nothing to be done with are not asked for.
        assert receive.ring.flags == NO_NOTIFY
        assert transmit.ring.flags == 0


def test_a_ring_without_kicks_is_looked_at(shared: SharedMemory) -> None:
    with lane() as where, DriverQueue(shared) as queue:
        with GuestMemory(shared.regions) as memory:
            where.pair.start(memory, None, queue.setup(kick=-1, call=-1), where.path())
        for number in range(3):
            frame = plain(60, number)
            send(queue, bytes(12) + frame)
            assert where.heard(1) == [frame]


@given(data=st.data())
@settings(max_examples=examples(25), deadline=None)
def test_filters_as_the_device_model_does(data: st.DataObject) -> None:
    address = st.sampled_from(
        [bytes([first, 0, 0, 0, 0, last]) for first in (1, 2, 3) for last in (1, 2)]
    )
    table = st.frozensets(address)
    wanted = data.draw(
        st.builds(
            ReceiveFilter,
            promiscuous=st.sampled_from([False, False, False, True]),
            allmulti=st.booleans(),
            alluni=st.booleans(),
            nomulti=st.booleans(),
            nouni=st.booleans(),
            nobcast=st.booleans(),
            mac=st.one_of(st.none(), address),
            unicast=table,
            multicast=table,
            vlans=st.one_of(st.none(), st.frozensets(st.sampled_from([1, 2, 63, 64, 4094]))),
        )
    )
    tags = st.sampled_from(
        [b"", b"", *(b"\x81\0" + tci.to_bytes(2, "big") for tci in (0, 1, 2, 64, 0xE001, 4094))]
    )
    sent = data.draw(
        st.lists(
            st.tuples(st.one_of(address, st.just(b"\xff" * 6)), tags).map(
                lambda drawn: drawn[0] + ADDRESSES[6:] + drawn[1] + TYPE + os.urandom(30)
            ),
            min_size=30,
            max_size=30,
        )
    )
    last = b"\xff" * 6 + ADDRESSES[6:] + TYPE + b"last" + bytes(40)
    with ExitStack() as resources:
        where = resources.enter_context(lane())
        shared = resources.enter_context(SharedMemory())
        queue = resources.enter_context(ReceiveQueue(shared))
        queue.fill([1536])
        where.start(queue, filter=wanted)
        for frame in sent:
            where.wire.send(frame)
        expected = [frame for frame in sent if wanted.accepts(frame)]
        received = [packet.frame for packet in queue.receive(len(expected))]
        settles(lambda: where.pair.counters().receive.filtered, len(sent) - len(expected))
        base = where.pair.stop().receive
        where.start(queue, base=base)  # without a filter again
        where.wire.send(last)
        received += [packet.frame for packet in queue.receive(1)]
    assert received == [*expected, last]


def test_written_pages_are_marked(shared: SharedMemory) -> None:
    with lane() as where, ReceiveQueue(shared, 16) as queue, ExitStack() as resources:
        log = os.memfd_create("log")
        resources.callback(os.close, log)
        size = (GUEST + 16 * MIB) // 4096 // 8
        os.ftruncate(log, size)
        shared.allocate(0, 4096)
        shared.allocate(4096)
        buffers = [shared.allocate(8192, 4096) for _ in range(16)]
        for address in buffers:
            queue.add([Buffer(address + 4090, 4102, True)])
        queue.publish()
        where.start(queue, log=DirtyLog(log, 0, size))
        queue.recycles = False
        where.wire.send(plain(60))
        where.wire.send(plain(9000))
        first, second = queue.receive(2)
        assert (first.chains, second.chains) == (1, 3)
        marked = os.pread(log, size, 0)

    def is_marked(address: int) -> int:
        return marked[address // 4096 // 8] >> address // 4096 % 8 & 1

    assert [is_marked(address) + is_marked(address + 4096) for address in buffers[:5]] == [
        2,
        2,
        2,
        2,
        0,
    ]
    assert not any(marked[: GUEST // 4096 // 8])


NEXT, WRITE, INDIRECT = DescriptorFlag
ENDS: dict[FaultReason, Callable[[DriverQueue], None]] = {
    FaultReason.AVAILABLE: lambda queue: queue.ring.set_available_index(queue.ring.size + 1),
    FaultReason.HEAD: lambda queue: chain(queue, (0, 64, WRITE, 0), head=64),
    FaultReason.NEXT: lambda queue: chain(queue, (0, 64, NEXT, 64)),
    FaultReason.CHAIN: lambda queue: chain(queue, (0, 64, NEXT, 0)),
    FaultReason.INDIRECT: lambda queue: chain(queue, (0, 65, INDIRECT, 0)),
    FaultReason.BUFFER: lambda queue: chain(queue, (16 * MIB - 1, 2, 0, 0)),
    FaultReason.MEMORY: lambda queue: os.ftruncate(queue.memory.fd, 0),
}


def chain(queue: DriverQueue, descriptor: tuple[int, int, int, int], head: int = 0) -> None:
    address, length, flags, following = descriptor
    if isinstance(queue, ReceiveQueue) and not flags & INDIRECT:
        flags |= WRITE
    queue.ring.write_descriptor(0, GUEST + address, length, flags, following)
    queue.ring.make_available(head)
    queue.ring.publish()


@pytest.mark.parametrize("reason", ENDS, ids=lambda reason: reason.name)
@pytest.mark.parametrize("direction", ["receive", "transmit"])
def test_a_broken_ring_ends_the_thread(direction: str, reason: FaultReason) -> None:
    """It says why, tells the front end, and can start again with a ring that is right."""
    with (
        lane() as where,
        SharedMemory((16 * MIB,)) as shared,
        ReceiveQueue(shared, 64) as receive,
        DriverQueue(shared, 64) as transmit,
    ):
        where.start(receive, transmit)
        queue = receive if direction == "receive" else transmit
        ENDS[reason](queue)
        if reason is not FaultReason.MEMORY:
            os.eventfd_write(queue.kick, 1)
        else:
            os.eventfd_write(receive.kick, 1)
        assert where.ended()
        fault = where.pair.fault()
        assert fault is not None
        assert fault.reason is reason
        if reason is not FaultReason.MEMORY:
            assert fault.queue == direction
            assert os.eventfd_read(queue.error) == 1
        assert where.pair.running
        where.pair.stop()
        assert not where.ended(0)
        assert where.pair.fault() == fault
        with SharedMemory((MIB,)) as other, ReceiveQueue(other) as again:
            again.fill([1536])
            where.start(again)
            assert where.pair.fault() is None
            frame = plain(77)
            where.wire.send(frame)
            assert [packet.frame for packet in again.receive(1)] == [frame]
            where.pair.stop()


def test_buffers_of_the_wrong_kind_end_it(shared: SharedMemory) -> None:
    for queue_type, buffer, reason in (
        (ReceiveQueue, Buffer(GUEST, 100), FaultReason.DIRECTION),
        (ReceiveQueue, Buffer(GUEST, 0, True), FaultReason.EMPTY),
        (DriverQueue, Buffer(GUEST, 100, True), FaultReason.DIRECTION),
    ):
        with lane() as where, queue_type(shared) as queue:
            queue.add([buffer])
            queue.publish()
            if queue_type is ReceiveQueue:
                where.start(queue)
            else:
                where.start(None, queue)
            assert where.ended()
            fault = where.pair.fault()
            assert fault is not None
            assert fault.reason is reason
            assert str(fault)


def test_memory_that_goes_away_under_traffic() -> None:
    """Rings stay, buffers go: the system call notices, or our own copying; nothing crashes."""
    for length in (60, 1400, 9000):
        with (
            lane() as where,
            SharedMemory((MIB, 16 * MIB)) as shared,
            ReceiveQueue(shared, 64) as queue,
        ):
            shared.allocate(MIB - (shared.allocate(0) - GUEST))
            queue.fill([2000])
            where.start(queue)
            os.ftruncate(shared.fd, MIB)
            where.wire.send(plain(length))
            assert where.ended()
            fault = where.pair.fault()
            assert fault is not None
            assert (fault.queue, fault.reason) == ("receive", FaultReason.MEMORY)


def test_a_tap_that_goes_away(shared: SharedMemory) -> None:
    with lane() as where, ReceiveQueue(shared) as queue, Links() as links:
        queue.fill([1536])
        where.start(queue)
        links.delete(TAP)
        assert where.ended()
        fault = where.pair.fault()
        assert fault is not None
        assert (fault.queue, fault.reason) == ("receive", FaultReason.DEVICE)
        assert "the tap failed" in str(fault)


def test_without_a_tap_queue_the_receive_ring_is_left_alone(shared: SharedMemory) -> None:
    with lane() as where, ReceiveQueue(shared) as receive, DriverQueue(shared) as transmit:
        receive.fill([1536])
        where.start(receive, transmit, receive_fd=-1)
        frame = plain(60)
        where.wire.send(frame)
        send(transmit, bytes(12) + frame)
        assert where.heard(1) == [frame]
        assert where.pair.counters().receive.system_calls == 0
        assert where.pair.stop() == Bases(0, 1)


def test_a_ring_that_cannot_be_is_refused(shared: SharedMemory) -> None:
    with lane() as where, ReceiveQueue(shared) as queue, GuestMemory(shared.regions) as memory:
        with pytest.raises(RingError, match="transmit ring: 3 is no size of a ring"):
            where.pair.start(memory, queue.setup(), queue.setup(size=3), where.path())
        with pytest.raises(RingError, match="receive ring: the system refused"):
            where.pair.start(memory, queue.setup(kick=0xFFFF), None, where.path())
        assert not where.pair.running
        assert where.pair.stop() == Bases(0, 0)


def test_stop_comes_soon_under_a_flood(shared: SharedMemory) -> None:
    with lane() as where, ReceiveQueue(shared, 64) as queue, ExitStack() as resources:
        queue.fill([1536])
        where.start(queue)
        done = threading.Event()

        def flood() -> None:
            frame = plain(60)
            while not done.is_set():
                where.wire.send(frame)

        thread = threading.Thread(target=flood)
        thread.start()
        resources.callback(thread.join)
        resources.callback(done.set)
        queue.receive(500)
        begin = time.monotonic()
        where.pair.stop()
        assert time.monotonic() - begin < 1
