# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The main job: frames through a real tap, each with its hash, on its queue."""

import asyncio
import selectors
import socket
import threading
import time
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import frames, vectors
from tests.effort import examples
from tests.kernel.wire import (
    ENGINES,
    KERNEL_ENGINES,
    collect,
    fitting,
    from_kernel,
    open_tap,
    quiet_tap,
    sender,
)
from vnethash.engines.select import LAB, TUN_RSS
from vnethash.engines.stages import Stages
from vnethash.errors import ConfigError, DeviceError
from vnethash.kernel import link, tc
from vnethash.kernel.egress import ClsactHook, attach_egress
from vnethash.kernel.netns import Namespace
from vnethash.packet import Packet
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.rss.dissect import dissect
from vnethash.rss.native import Hasher
from vnethash.tap import Tap
from vnethash.virtio.hash_types import ReportType
from vnethash.virtio.header import Header

pytestmark = pytest.mark.usefixtures("netns")
every_engine = pytest.mark.parametrize("engine", ENGINES)
every_reporting = pytest.mark.parametrize("reporting", list(Reporting))
FLOWS = [
    frames.ethernet(ethertype, packet, tags)
    for tags in ((), ((0x8100, 5),), ((0x88A8, 5), (0x8100, 6)))
    for port in range(8)
    for ethertype, packet in (
        (0x0800, frames.ipv4(frames.udp(port))),
        (0x0800, frames.ipv4(frames.tcp(port), frames.TCP)),
        (0x0800, frames.ipv4(b"ping", 1, source=bytes([10, 0, 0, port]))),
        (0x0800, frames.ipv4(frames.udp(port), fragment=0x2000)),
        (0x86DD, frames.ipv6(frames.udp(port))),
        (0x86DD, frames.ipv6(frames.tcp(port), frames.TCP)),
        (0x0806, bytes(28)),
    )
]


@every_engine
@every_reporting
def test_every_packet_has_the_hash_and_queue_of_the_reference(
    engine: str, reporting: Reporting
) -> None:
    with quiet_tap(queues=4, engine=engine, reporting=reporting) as tap, sender(tap) as wire:
        for frame in FLOWS:
            wire.send(frame)
        packets = collect(tap, len(FLOWS))
        assert sorted(packet.frame for packet in packets) == sorted(FLOWS)
        for packet in packets:
            expected = reference.classify(packet.frame, tap.rss)
            assert packet.queue == expected.queue
            if reporting is Reporting.OFF:
                assert packet.hash_report is ReportType.NONE
                assert packet.hash_value == 0
            else:
                assert packet.hash_value == expected.hash_value
                assert packet.hash_report is expected.hash_report
            assert packet.has_record == from_kernel(engine, reporting, packet.hash_report)
        stats = tap.stats()
        assert stats.total.packets == len(FLOWS)
        assert stats.total.bytes == sum(len(frame) for frame in FLOWS)
        # ARP; and where it is the reader who counts, what came to it without a hash
        counted = len(FLOWS) if engine == TUN_RSS and reporting is Reporting.OFF else 24
        assert stats.by_report[ReportType.NONE].packets == counted
        assert sum(stats.unmarked.values()) == 0


@every_engine
@pytest.mark.parametrize("vector", vectors.VECTORS, ids=lambda vector: vector.source)
def test_microsoft_vectors(engine: str, vector: vectors.Vector) -> None:
    rss = RssConfig.default(4).replace(key=vectors.KEY)
    with quiet_tap(rss=rss, engine=engine) as tap, sender(tap) as wire:
        for l4, expected in (
            (frames.TCP, vector.tcp_hash),
            (frames.UDP, vector.tcp_hash),
            (None, vector.address_hash),
        ):
            wire.send(vectors.frame(vector, l4))
            (packet,) = collect(tap, 1)
            assert packet.hash_value == expected


@pytest.mark.parametrize("engine", KERNEL_ENGINES)
def test_a_live_tap_agrees_with_the_reference_on_odd_frames(engine: str) -> None:
    with quiet_tap(queues=8, engine=engine) as tap, sender(tap) as wire:

        @settings(
            max_examples=examples(400),
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        )
        @given(st.lists(frames.frames(), min_size=8, max_size=32))
        def agree(sent: list[bytes]) -> None:
            if engine == TUN_RSS:  # the kernel's fixed algorithm does not look behind LLC
                sent = [frame for frame in sent if "SNAP" not in dissect(frame).seen]
            for frame in sent:
                wire.send(frame)
            packets = collect(tap, len(sent))
            assert sorted(packet.frame for packet in packets) == sorted(sent)
            for packet in packets:
                expected = reference.classify(packet.frame, tap.rss)
                got = (packet.hash_value, packet.hash_report, packet.queue)
                assert got == (expected.hash_value, expected.hash_report, expected.queue)
                assert packet.has_record == from_kernel(engine, tap.reporting, packet.hash_report)

        agree()


@every_engine
def test_large_frames_whose_headers_are_not_linear(engine: str) -> None:
    """Above a page a packet socket keeps only 14 bytes linear; above 16 kB no record fits."""
    with quiet_tap(queues=4, engine=engine) as tap, sender(tap) as wire:
        for size in (4200, 9000, 15000, 17000, 40000, 65000):
            for frame in (
                frames.ethernet(0x0800, frames.ipv4(frames.udp(payload=bytes(size)))),
                frames.ethernet(0x86DD, frames.ipv6(frames.tcp(payload=bytes(size)), frames.TCP)),
            ):
                wire.send(frame)
                (packet,) = collect(tap, 1)
                expected = reference.classify(frame, tap.rss)
                assert packet.frame == frame
                assert packet.hash_value == expected.hash_value
                assert packet.queue == expected.queue
                room = engine in LAB or size < 16000
                assert packet.has_record == (engine != "software" and room)
        assert tap.stats().unmarked["too_large"] == (6 if engine == "ebpf" else 0)


@every_engine
def test_packets_past_the_hook_have_their_hash(engine: str) -> None:
    """The reader hashes them; a kernel of the lab has no hook that they could pass."""
    with quiet_tap(queues=4, engine=engine) as tap, sender(tap, bypass=True) as wire:
        sent = FLOWS[:40]
        for frame in sent:
            wire.send(frame)
        packets = collect(tap, len(sent))
        assert sorted(packet.frame for packet in packets) == sorted(sent)
        for packet in packets:
            expected = reference.classify(packet.frame, tap.rss)
            hashed = from_kernel(engine, tap.reporting, packet.hash_report)
            assert packet.has_record == (engine in LAB and hashed)
            assert packet.queue == expected.queue or engine == "ebpf"
            assert packet.hash_value == expected.hash_value
            assert packet.hash_report is expected.hash_report


@every_engine
def test_device_without_ethernet_headers(engine: str) -> None:
    with open_tap("tun0", engine, l3=True) as tap:
        link.quiet(tap.name)
        link.set_up(tap.name)
        with sender(tap) as wire:
            packets = [frames.ipv4(frames.udp(port)) for port in range(8)] + [
                frames.ipv6(frames.tcp(port), frames.TCP) for port in range(8)
            ]
            for packet in packets:
                number = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
                wire.sendto(packet, (tap.name, number))
            got = collect(tap, len(packets))
            assert sorted(packet.frame for packet in got) == sorted(packets)
            for received in got:
                expected = reference.classify(received.frame, tap.rss, l3=True)
                assert received.hash_value == expected.hash_value
                assert received.queue == expected.queue


@every_engine
def test_configure_takes_effect_at_once(engine: str) -> None:
    frame = frames.ethernet(0x0800, frames.ipv4(frames.udp()))
    with quiet_tap(queues=4, engine=engine) as tap, sender(tap) as wire:
        for new in (RssConfig.symmetric(4), RssConfig.random(4), RssConfig.weighted([0, 0, 0, 1])):
            rss = fitting(engine, new)
            tap.configure(rss)
            wire.send(frame)
            (packet,) = collect(tap, 1)
            expected = reference.classify(frame, rss)
            assert (packet.hash_value, packet.queue) == (expected.hash_value, expected.queue)
        for reporting in (Reporting.OFF, Reporting.RECORD, Reporting.REHASH):
            tap.configure(reporting=reporting)
            wire.send(frame)
            (packet,) = collect(tap, 1)
            assert packet.frame == frame
            assert (packet.hash_report is ReportType.NONE) == (reporting is Reporting.OFF)


@every_engine
def test_configure_refuses_and_changes_nothing(engine: str) -> None:
    frame = frames.ethernet(0x0800, frames.ipv4(frames.udp()))
    with quiet_tap(queues=4, engine=engine, max_indirection=128) as tap, sender(tap) as wire:
        before = tap.rss
        with pytest.raises(ConfigError, match="queues: is 2, but tap0 has 4"):
            tap.configure(RssConfig.default(2))
        if engine not in (TUN_RSS, "software"):
            longer = RssConfig(4, indirection_table=(0, 1, 2, 3) * 64)
            with pytest.raises(ConfigError, match="256 entries, this tap was set up for"):
                tap.configure(longer)
        with pytest.raises(ConfigError, match="reporting: must be one of off, rehash, record"):
            tap.configure(reporting="loud")
        assert tap.rss == before
        wire.send(frame)
        assert collect(tap, 1)[0].hash_value == reference.classify(frame, before).hash_value


@every_engine
def test_queues_work_with_selectors(engine: str) -> None:
    frame = frames.ethernet(0x0800, frames.ipv4(frames.udp()))
    with quiet_tap(queues=2, engine=engine) as tap, selectors.DefaultSelector() as selector:
        for queue in tap:
            selector.register(queue, selectors.EVENT_READ, queue)
        assert selector.select(0) == []
        with sender(tap) as wire:
            wire.send(frame)
        packets: list[Packet] = []
        while not packets:
            for key, _ in selector.select(2):
                packets += key.data.receive_batch(timeout=0)
        assert packets[0].queue == reference.classify(frame, tap.rss).queue


@every_engine
def test_queues_work_with_asyncio(engine: str) -> None:
    async def read(tap: Tap, count: int) -> list[bytes]:
        received: list[bytes] = []
        done = asyncio.Event()

        async def drain(index: int) -> None:
            async for packet in tap.queues[index]:
                assert packet.queue == index
                received.append(packet.frame)
                if len(received) == count:
                    done.set()

        tasks = [asyncio.create_task(drain(index)) for index in range(4)]
        with sender(tap) as wire:
            for frame in FLOWS:
                wire.send(frame)
                await asyncio.sleep(0)
        await asyncio.wait_for(done.wait(), 5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return received

    with quiet_tap(queues=4, engine=engine) as tap:
        assert sorted(asyncio.run(read(tap, len(FLOWS)))) == sorted(FLOWS)


def test_batches_are_views_and_copies_outlive_them() -> None:
    with quiet_tap(queues=1) as tap, sender(tap) as wire:
        for port in range(5):
            wire.send(frames.ethernet(0x0800, frames.ipv4(frames.udp(port))))
        batch = tap.queues[0].receive_batch(timeout=1)
        assert batch.length.tolist() == [42] * 5
        assert batch.hash_report.tolist() == [ReportType.UDPv4] * 5
        assert batch.hash_value.tolist() == [packet.hash_value for packet in batch]
        verdicts = Hasher(tap.rss).classify_frames(batch.arena, batch.offset, batch.length)
        assert verdicts["hash_value"].tolist() == batch.hash_value.tolist()
        assert len(set(batch.hash_value.tolist())) == 5
        copies = batch.packets()
        assert batch.frame(2).tobytes() == copies[2].frame
        with pytest.raises(TimeoutError, match="no packet on queue 0 within 0 s"):
            tap.queues[0].receive(timeout=0)
        assert [copy.frame[34:36] for copy in copies] == [bytes([0, port]) for port in range(5)]


@every_engine
def test_send_reaches_the_kernel(engine: str) -> None:
    with quiet_tap(queues=2, engine=engine) as tap:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as wire:
            wire.bind((tap.name, 0x88B5))
            wire.settimeout(2)
            frame = frames.ethernet(0x88B5, b"hello".ljust(46, b"\0"))
            tap.queues[1].send(frame)
            assert wire.recv(2000) == frame
        with pytest.raises(DeviceError, match="send 3 bytes on queue 0"):
            tap.queues[0].send(b"abc")
        with pytest.raises(DeviceError, match="send 60 bytes on queue 1"):
            tap.queues[1].send(bytes(60), Header(flags=1, csum_start=4000))


@every_engine
def test_a_tap_that_goes_away_ends_the_read(engine: str, netns: Namespace) -> None:
    from vnethash.kernel.links import Links

    with quiet_tap(queues=2, engine=engine) as tap:
        with Links() as links:
            links.delete(tap.name)
        with pytest.raises(DeviceError, match="read queue 1"):
            tap.queues[1].receive(timeout=2)


def test_open_validates_before_it_touches_anything() -> None:
    for options, message in (
        ({"queues": 2, "rss": RssConfig.default(4)}, "queues: is 2, but rss is for 4"),
        ({"queues": 257}, "a tap has"),
        ({"reporting": "sometimes"}, "reporting: must be one of"),
        ({"engine": "magic"}, "engine: must be one of auto, ebpf, software"),
        ({"name": "a" * 16}, "name"),
    ):
        with pytest.raises(ConfigError, match=message):
            Tap.open(**options)
    assert [name for _, name in socket.if_nameindex()] == ["lo"]


@pytest.mark.parametrize("where", ["load", "attach", "steer", "up"])
def test_a_failed_open_leaves_nothing(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DeviceError(f"made to fail at {where}")

    target = {
        "load": "vnethash.engines.ebpf.Stages.load",
        "attach": "vnethash.engines.ebpf.attach_egress",
        "steer": "vnethash.kernel.tun.TunDevice.set_steering",
        "up": "vnethash.tap.set_up",
    }[where]
    with monkeypatch.context() as patch:
        patch.setattr(target, fail)
        with pytest.raises(DeviceError, match=f"made to fail at {where}"):
            Tap.open("tap0", engine="ebpf")
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    with Tap.open("tap0", engine="ebpf"):
        pass


def test_steering_is_gone_after_close() -> None:
    """A persistent tap is left without our programs."""
    from vnethash.kernel.tun import TunDevice

    with TunDevice.create("tap0", 2, persist=True) as device:
        link.quiet(device.name)
    try:
        with Tap.open("tap0", queues=2, engine="ebpf") as tap:
            assert tap.name == device.name
        with Tap.open("tap0", queues=2, engine="software") as tap, sender(tap) as wire:
            frame = frames.ethernet(0x0800, frames.ipv4(frames.udp()))
            wire.send(frame)
            assert next(iter(collect(tap, 1))).frame == frame
    finally:
        with TunDevice.create("tap0", 2) as device:
            device.set_persist(False)


@pytest.mark.parametrize("point", ["tcx", "clsact"])
def test_a_second_hash_stage_is_refused(point: str) -> None:
    with quiet_tap(queues=2, engine="software") as tap, Stages.load(2) as stages:
        if point == "tcx":
            first = attach_egress(stages.hash_stage.fd, tap.ifindex)
        else:
            first = ClsactHook(tc.attach(stages.hash_stage.fd, tap.ifindex))
        with closing(first), pytest.raises(DeviceError, match="has a hash_stage already"):
            attach_egress(stages.hash_stage.fd, tap.ifindex)
        with closing(attach_egress(stages.hash_stage.fd, tap.ifindex)):
            pass


@pytest.mark.parametrize("reporting", [Reporting.OFF, Reporting.REHASH])
def test_a_frame_that_looks_like_a_record_is_a_frame(reporting: Reporting) -> None:
    """Without records none is looked for, however the source address begins."""
    frame = bytearray(frames.ethernet(0x0800, frames.ipv4(frames.udp())))
    frame[0:8] = bytes.fromhex("1122334402 00b51d")
    with quiet_tap(queues=2, engine="ebpf", reporting=reporting) as tap, sender(tap) as wire:
        wire.send(frame)
        (packet,) = collect(tap, 1)
        assert packet.frame == frame
        assert not packet.has_record


def test_records_are_still_taken_after_they_were_switched_off() -> None:
    frame = frames.ethernet(0x0800, frames.ipv4(frames.udp()))
    with quiet_tap(queues=2, engine="ebpf") as tap, sender(tap) as wire:
        wire.send(frame)
        tap.configure(reporting=Reporting.OFF)
        (packet,) = collect(tap, 1)
        assert (packet.frame, packet.has_record) == (frame, True)


@every_engine
def test_closed_queues_say_so(engine: str) -> None:
    with quiet_tap(queues=2, engine=engine) as tap:
        queue = tap.queues[0]
        failures: list[BaseException] = []

        def wait() -> None:
            try:
                queue.receive()
            except DeviceError as error:
                failures.append(error)

        reader = threading.Thread(target=wait)
        reader.start()
        time.sleep(0.05)
    reader.join(5)
    assert [str(failure) for failure in failures] == ["queue 0 is closed"]
    for use in (queue.fileno, queue.receive, lambda: queue.send(bytes(60))):
        with pytest.raises(DeviceError, match="queue 0 is closed"):
            use()
    tap.close()
