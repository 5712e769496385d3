# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""How a packet's hash reaches the reader, by the way the packet comes to the tap."""

import errno
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from vnethash.demo.frames import TCP, UDP
from vnethash.errors import VnethashError
from vnethash.kernel import link
from vnethash.kernel.bpf import Program, ProgramType
from vnethash.kernel.egress import attach_egress
from vnethash.kernel.links import Links
from vnethash.kernel.packet_socket import PacketSocket
from vnethash.kernel.probe import probe
from vnethash.kernel.tun import Offload, TunDevice
from vnethash.lab.inside import frames
from vnethash.lab.inside.task import Task
from vnethash.lab.inside.wire import collect, offered, on_its_queue, quiet_tap, right
from vnethash.packet import Packet
from vnethash.rss.config import RssConfig
from vnethash.tap import Tap
from vnethash.virtio.hash_types import ReportType
from vnethash.virtio.header import GsoType, Header, HeaderFlag

_EACH = 16
_BRIDGE, _PEER, _NEAR, _FAR = "bridge", "peer", "near", "far"
_HERE, _THERE = "10.0.0.1", "10.0.0.2"
_WHOLE = Offload.CSUM | Offload.TSO4 | Offload.TSO6
_WITH_UDP = _WHOLE | Offload.USO4 | Offload.USO6
_UDP_SEGMENT = 103  # include/uapi/linux/udp.h
_SOL_PACKET, _QDISC_BYPASS = 263, 20  # include/uapi/linux/if_packet.h
_TAG = [  # a tc program that puts VLAN tag 10 beside the frame
    *((0xB7, 0x02, 0, 0x0081), (0xB7, 0x03, 0, 10)),
    *((0x85, 0x00, 0, 18), (0xB7, 0x00, 0, 0), (0x95, 0, 0, 0)),
]

Outcome = dict[str, Any]


class NotHere(Exception):
    """The kernel has no such journey."""


def measure(task: Task) -> dict[str, dict[str, Outcome]]:
    return {engine: _all(engine) for engine in task.engines if _works(engine)}


def _works(engine: str) -> bool:
    try:
        offered(engine)
    except VnethashError:
        return False
    return True


def _all(engine: str) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    types = offered(engine)
    for name, (journey, options) in _JOURNEYS.items():
        rss = RssConfig.default(int(options.get("queues", 4))).replace(hash_types=types)
        chosen = {name: value for name, value in options.items() if name != "queues"}
        try:
            with quiet_tap(rss=rss, engine=engine, **chosen) as tap:
                sent, packets = journey(tap)
                outcomes[name] = _outcome(sent, packets, tap.rss, l3=bool(options.get("l3")))
        except NotHere as reason:
            outcomes[name] = {"not_here": str(reason)}
    return outcomes


def _outcome(sent: int, packets: list[Packet], rss: RssConfig, *, l3: bool) -> Outcome:
    """sent        how many packets the tap should have handed out
    received    how many it did
    right       of these with hash and report type of the reference
    queue       on the queue of the reference
    from_kernel with the hash from the kernel: else the reader calculated it
    """
    return {
        "sent": sent,
        "received": len(packets),
        "right": sum(right(packet, rss, l3=l3) for packet in packets),
        "queue": on_its_queue(packets, rss, l3=l3),
        "from_kernel": sum(packet.has_record for packet in packets),
    }


def _flows(protocol: int = UDP, size: int = 20) -> list[bytes]:
    chance = random.Random(7)
    return [frames.packet(chance, frames.ipv4, protocol, size) for _ in range(_EACH)]


def _frames(protocol: int = UDP, size: int = 20) -> list[bytes]:
    return [frames.ethernet(packet) for packet in _flows(protocol, size)]


def _send(tap: Tap, sent: list[bytes]) -> tuple[int, list[Packet]]:
    with closing(PacketSocket(tap.name)) as wire:
        packets: list[Packet] = []
        for frame in sent:  # one by one: large ones fill a socket's buffer
            wire.send(frame)
            packets += collect(tap, 1)
    return len(sent), packets


def _plain(tap: Tap) -> tuple[int, list[Packet]]:
    return _send(tap, _frames())


def _large(tap: Tap) -> tuple[int, list[Packet]]:
    return _send(tap, _frames(size=40_000))


def _past_the_qdisc(tap: Tap) -> tuple[int, list[Packet]]:
    """PACKET_QDISC_BYPASS: past the hook too."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind((tap.name, 0))
        wire.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)
        for frame in _frames():
            wire.send(frame)
    return _EACH, collect(tap, _EACH)


def _without_ethernet(tap: Tap) -> tuple[int, list[Packet]]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        for packet in _flows():
            wire.sendto(packet, (tap.name, 0x0800))
    return _EACH, collect(tap, _EACH)


def _from_another_tap(tap: Tap) -> tuple[int, list[Packet]]:
    return _over_bridge(tap, [Header().encode_v1() + frame for frame in _frames()])


def _tcp_whole(tap: Tap) -> tuple[int, list[Packet]]:
    """Segmentation that the reader does itself: 40 kB in one."""
    header = Header(
        flags=HeaderFlag.NEEDS_CSUM,
        gso_type=GsoType.TCPV4,
        hdr_len=54,
        gso_size=1448,
        csum_start=34,
        csum_offset=16,
    )
    sent = [header.encode_v1() + frame for frame in _frames(TCP, 40_000)]
    return _over_bridge(tap, sent)


def _over_bridge(tap: Tap, messages: list[bytes]) -> tuple[int, list[Packet]]:
    with _bridged(tap), TunDevice.create(_PEER, 1) as peer:
        _join(_PEER)
        packets: list[Packet] = []
        for message in messages:
            os.write(peer.fds[0], message)
            packets += collect(tap, 1)
        return len(messages), packets


def _udp_segments(tap: Tap) -> tuple[int, list[Packet]]:
    """One large write to a UDP socket with UDP_SEGMENT, 10 datagrams for each flow."""
    link.set_mtu(tap.name, 1500)
    with Links() as links, ExitStack() as resources:
        links.add_address(tap.name, f"{_HERE}/24")
        links.add_neighbour(tap.name, _THERE, frames.FAR.hex(":"))
        for port in range(_EACH):
            client = resources.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            client.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 1000)
            try:
                client.sendto(bytes(10_000), (_THERE, 5000 + port))
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                raise NotHere("the kernel does not segment UDP for such a device") from error
        udp: list[Packet] = []
        wanted = _EACH * (1 if _takes_udp(tap) else 10)
        while len(udp) < wanted and (some := collect(tap, 1, timeout=1)):
            udp += [packet for packet in some if packet.hash_report is ReportType.UDPv4]
        return wanted, udp


def _takes_udp(tap: Tap) -> bool:
    return link.features(tap.name).get("tx-udp-segmentation", False)


def _udp_whole(tap: Tap) -> tuple[int, list[Packet]]:
    if not _takes_udp(tap):
        raise NotHere("the tun driver does not take UDP whole")
    return _udp_segments(tap)


def _tag_beside(tap: Tap) -> tuple[int, list[Packet]]:
    """A VLAN tag that the kernel keeps beside the frame until the last moment."""
    with (
        _bridged(tap) as links,
        Program.from_instructions(ProgramType.SCHED_CLS, "tag", _TAG) as program,
    ):
        links.add_veth(_NEAR, _FAR)
        link.quiet(_NEAR)
        link.set_up(_NEAR)
        _join(_FAR)
        with closing(attach_egress(program.fd, link.ifindex_of(_NEAR))):
            with closing(PacketSocket(_NEAR)) as wire:
                for frame in _frames():
                    wire.send(frame)
            return _EACH, collect(tap, _EACH)


@contextmanager
def _bridged(tap: Tap) -> Iterator[Links]:
    """The tap is a port of a bridge, which floods."""
    with Links() as links:
        links.add_bridge(_BRIDGE)
        link.quiet(_BRIDGE)
        link.set_up(_BRIDGE)
        links.enslave(tap.name, _BRIDGE)
        yield links


def _join(name: str) -> None:
    link.quiet(name)
    link.set_mtu(name, 1500)
    with Links() as links:
        links.enslave(name, _BRIDGE)
    link.set_up(name)


_Journey = Callable[[Tap], tuple[int, list[Packet]]]
_JOURNEYS: dict[str, tuple[_Journey, dict[str, Any]]] = {
    "packet socket": (_plain, {}),
    "another tap, by a bridge": (_from_another_tap, {}),
    "TCP, 40 kB segmentation left to the reader": (_tcp_whole, {"offloads": _WHOLE}),
    "UDP, 10 kB segmentation left to the reader": (
        _udp_whole,
        {"offloads": _WITH_UDP if probe("USO offloads") else _WHOLE},
    ),
    "UDP, segmented by the kernel": (_udp_segments, {}),
    "frame of 40 kB, no segmentation": (_large, {}),
    "VLAN tag beside the frame": (_tag_beside, {}),
    "past the qdisc (PACKET_QDISC_BYPASS)": (_past_the_qdisc, {}),
    "single queue": (_plain, {"queues": 1}),
    "IFF_TUN, no Ethernet header": (_without_ethernet, {"l3": True}),
}
