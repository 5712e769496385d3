# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What the kernel's own stacks send through a tap: offloads, tags, and changes on the way."""

import errno
import hashlib
import os
import socket
import threading
import time
from collections import Counter
from contextlib import closing

import pytest

from tests import frames
from tests.kernel.hosts import Wire, two_hosts
from tests.kernel.wire import (
    ENGINES,
    KERNEL_ENGINES,
    collect,
    fitting,
    from_kernel,
    quiet_tap,
    sender,
)
from tests.tunnels import CASES, ETHERNET_UDP6
from vnethash.engines.select import LAB
from vnethash.kernel import link
from vnethash.kernel.bpf import Program, ProgramType
from vnethash.kernel.egress import attach_egress
from vnethash.kernel.links import Links
from vnethash.kernel.probe import probe
from vnethash.kernel.tun import Offload
from vnethash.packet import Packet
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.virtio.hash_types import ReportType, TunnelType
from vnethash.virtio.header import GsoType, HeaderFlag

pytestmark = pytest.mark.usefixtures("netns")
UDP_SEGMENT = 103  # include/uapi/linux/udp.h
WHOLE = Offload.CSUM | Offload.TSO4 | Offload.TSO6


def check(packet: Packet, rss: RssConfig) -> None:
    """A packet as it should be: hash and queue of the reference, a header that fits the frame."""
    expected = reference.classify(packet.frame, rss)
    assert packet.queue == expected.queue
    assert packet.hash_value == expected.hash_value
    assert packet.hash_report is expected.hash_report
    header = packet.header
    assert header.num_buffers == 1
    if header.flags & HeaderFlag.NEEDS_CSUM:
        transport = transport_offset(packet.frame)
        assert header.csum_start == transport
        assert header.csum_offset in (6, 16)
    if header.gso_type != GsoType.NONE:
        assert 0 < header.hdr_len <= len(packet.frame)
        assert header.gso_size > 0


def transport_offset(frame: bytes) -> int:
    offset = 14
    while frame[offset - 2 : offset] in (b"\x81\x00", b"\x88\xa8"):
        offset += 4
    return offset + (40 if frame[offset] >> 4 == 6 else (frame[offset] & 15) * 4)


def bulk_tcp(wire: Wire, family: socket.AddressFamily) -> None:
    """Three megabytes from one host to the other, which must arrive whole."""
    payload = os.urandom(3 << 20)
    address = "10.0.0.2" if family == socket.AF_INET else "fd00::2"
    with wire.far_namespace:
        listener = socket.create_server((address, 5000), family=family)
    received = hashlib.sha256()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(1 << 20):
                received.update(data)
            connection.send(b"done")

    with listener:
        server = threading.Thread(target=serve)
        server.start()
        with socket.create_connection((address, 5000), timeout=20) as client:
            client.sendall(payload)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(10) == b"done"
        server.join()
    assert received.digest() == hashlib.sha256(payload).digest()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reporting", [Reporting.RECORD, Reporting.REHASH])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_tcp_with_segmentation_offload(
    engine: str, reporting: Reporting, family: socket.AddressFamily
) -> None:
    """Bulk TCP: the payload arrives, in packets larger than the MTU, each as it should be."""
    with two_hosts(queues=4, engine=engine, reporting=reporting, offloads=WHOLE) as wire:
        bulk_tcp(wire, family)
    assert len(wire.seen) > 20
    for rss, packet in wire.seen:
        check(packet, rss)
        assert packet.has_record == from_kernel(engine, reporting, packet.hash_report)
    segmented = [p for _, p in wire.seen if p.header.gso_type != GsoType.NONE]
    assert segmented
    # Two segments at least: a slow sender has no more ready at once.
    assert max(len(packet.frame) for packet in segmented) > 2000


@pytest.mark.parametrize("engine", KERNEL_ENGINES)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_tcp_segmented_by_the_kernel(engine: str, family: socket.AddressFamily) -> None:
    """A reader without offloads: segmented behind the hook, each segment with the hash."""
    with two_hosts(queues=4, engine=engine) as wire:
        bulk_tcp(wire, family)
    assert len(wire.seen) > 2000
    for rss, packet in wire.seen:
        check(packet, rss)
        assert packet.has_record == from_kernel(engine, Reporting.RECORD, packet.hash_report)
        assert packet.header.gso_type == GsoType.NONE
        assert not packet.header.flags & HeaderFlag.NEEDS_CSUM
        assert len(packet.frame) <= 1514


@pytest.mark.parametrize("engine", KERNEL_ENGINES)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("offloads", [Offload.NONE, WHOLE, WHOLE | Offload.USO4 | Offload.USO6])
def test_udp_segmentation_loses_nothing(
    engine: str, family: socket.AddressFamily, offloads: Offload
) -> None:
    """The kernel's software segmentation drops marked UDP packets: they must pass unmarked.

    A kernel of the lab marks none, and each segment has its hash.
    """
    if Offload.USO4 in offloads and not (uso := probe("USO offloads")):
        pytest.skip(f"USO not supported: {uso.reason}")
    address = "10.0.0.2" if family == socket.AF_INET else "fd00::2"
    with quiet_tap(queues=4, engine=engine, offloads=offloads) as tap:
        link.set_mtu(tap.name, 1500)
        link.quiet(tap.name, ipv6=True)
        with Links() as links:
            links.add_address(tap.name, "10.0.0.1/24")
            links.add_address(tap.name, "fd00::1/64")
            links.add_neighbour(tap.name, address, "02:00:00:00:00:02")
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
            try:
                client.sendto(bytes(range(256)) * 40, (address, 7))
            except OSError as error:
                # Before 6.11 the kernel does not segment UDP for such a device at all.
                if error.errno != errno.EIO or offloads:
                    raise
                return
        packets = [
            packet
            for packet in collect(tap, 20, timeout=0.5)
            if packet.hash_report in (ReportType.UDPv4, ReportType.UDPv6)
        ]
        headers = 42 if family == socket.AF_INET else 62
        payload = b"".join(packet.frame[headers:] for packet in packets)
        assert payload == bytes(range(256)) * 40
        for packet in packets:
            check(packet, tap.rss)
        if Offload.USO4 in offloads:
            assert [packet.has_record for packet in packets] == [True]
            assert packets[0].header.gso_type == GsoType.UDP_L4
        else:
            assert len(packets) == 11
            assert {packet.has_record for packet in packets} == {engine in LAB}
            assert tap.stats().unmarked["udp_gso"] == (engine == "ebpf")


def tagger(depth: int) -> Program:
    """A tc program that pushes VLAN tags 10, 11, ...; the last one stays beside the frame."""
    push = [
        instruction
        for tag in range(depth)
        for instruction in (
            (0xBF, 0x61, 0, 0),  # r1 = r6, the packet
            (0xB7, 0x02, 0, 0x0081),  # r2 = htons(ETH_P_8021Q)
            (0xB7, 0x03, 0, 10 + tag),
            (0x85, 0x00, 0, 18),  # bpf_skb_vlan_push()
        )
    ]
    code = [(0xBF, 0x16, 0, 0), *push, (0xB7, 0x00, 0, 0), (0x95, 0, 0, 0)]
    return Program.from_instructions(ProgramType.SCHED_CLS, "tagger", code)


@pytest.mark.parametrize("engine", KERNEL_ENGINES)
@pytest.mark.parametrize("reporting", list(Reporting))
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("size", [64, 1400, 20000])
def test_offloaded_vlan_tags(engine: str, reporting: Reporting, depth: int, size: int) -> None:
    """A tag the kernel keeps beside the frame ends up where it belongs, record or not."""
    rss = RssConfig.default(4).replace(tunnels=TunnelType.ALL)
    with (
        quiet_tap(rss=rss, engine=engine, reporting=reporting) as tap,
        Links() as links,
        tagger(depth) as program,
    ):
        links.add_veth("near", "far")
        links.add_bridge("bridge")
        for name in ("near", "far", "bridge"):
            link.quiet(name)
            link.set_mtu(name, 65000)
            link.set_up(name)
        links.enslave("far", "bridge")
        links.enslave(tap.name, "bridge")
        # What is inside has two tags of its own, whatever is beside the frame.
        vxlan = frames.vxlan(ETHERNET_UDP6 + bytes(size))
        packet = frames.ipv4(frames.udp(dport=4789, payload=vxlan))
        with (
            closing(attach_egress(program.fd, link.ifindex_of("near"))),
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire,
        ):
            wire.bind(("near", 0))
            received: list[Packet] = []
            for _ in range(50):  # a bridge takes its time until it forwards
                wire.send(frames.ethernet(0x0800, packet))
                if received := collect(tap, 1, timeout=0.1):
                    break
        (got,) = received
        tags = tuple((0x8100, 10 + tag) for tag in reversed(range(depth)))
        assert got.frame == frames.ethernet(0x0800, packet, tags)
        expected = reference.classify(got.frame, tap.rss)
        assert got.queue == expected.queue
        room = engine in LAB or (depth < 3 and size < 16000)
        marked = room and from_kernel(engine, reporting, got.hash_report)
        assert got.has_record == marked
        if reporting is Reporting.OFF:
            assert got.hash_report is ReportType.NONE
        else:
            assert got.hash_value == expected.hash_value
            assert got.hash_report is expected.hash_report
        unmarked = tap.stats().unmarked
        if engine == "ebpf" and reporting is Reporting.RECORD and not marked:
            assert sum(unmarked.values()) == 1
            assert unmarked["vlan" if depth == 3 else "too_large"] == 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reporting", [Reporting.RECORD, Reporting.REHASH])
def test_no_packet_mixes_two_configurations(engine: str, reporting: Reporting) -> None:
    """All of it changes all the time; hash and queue of each packet fit one configuration."""
    configs = [
        fitting(
            engine,
            RssConfig(
                4,
                key=os.urandom(40),
                indirection_table=tuple(b % 4 for b in os.urandom(128)),
                tunnels=tunnels,
            ),
        )
        for tunnels in (TunnelType.ALL, TunnelType.NONE, TunnelType.VXLAN) * 2
    ]
    flows = [frames.ethernet(0x0800, frames.ipv4(frames.udp(port))) for port in range(48)]
    # Of those with a hash by any configuration: none reported is not told from none at all.
    tunnels = TunnelType.VXLAN | TunnelType.IPIP
    flows += [case.frame for case in CASES if case.types & tunnels and case.report]
    verdicts = {
        frame: {
            (verdict.hash_value, verdict.queue)
            for verdict in (reference.classify(frame, config) for config in configs)
        }
        for frame in flows
    }
    with quiet_tap(rss=configs[0], engine=engine, reporting=reporting) as tap, sender(tap) as wire:
        stop = threading.Event()
        changes = allowed = 0

        def change() -> None:
            nonlocal changes
            while not stop.is_set():
                if changes < allowed:
                    changes += 1
                    tap.configure(configs[changes % len(configs)])
                time.sleep(0.0005)

        changer = threading.Thread(target=change)
        changer.start()
        seen: Counter[tuple[int, int]] = Counter()
        try:
            sent = received = 0
            begun = time.monotonic()
            while time.monotonic() < begun + (2 if changes > 100 else 60):
                # A reader knows 64 configurations back, however long it was kept waiting.
                allowed = changes + 40
                for frame in flows:
                    wire.send(frame)
                sent += len(flows)
                for packet in collect(tap, len(flows)):
                    verdict = (packet.hash_value, packet.queue)
                    assert verdict in verdicts[packet.frame]
                    assert packet.has_record == from_kernel(engine, reporting, packet.hash_report)
                    seen[verdict] += 1
                    received += 1
        finally:
            stop.set()
            changer.join()
        assert received == sent
        assert changes > 100
        assert len(seen) > len(flows)  # more than one configuration was met
