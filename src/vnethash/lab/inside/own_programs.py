# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Another hash without another kernel: programs of docs/examples, run and judged."""

import random
import struct
from typing import Any

from vnethash.demo import frames as build
from vnethash.demo.frames import TCP, UDP
from vnethash.errors import VnethashError
from vnethash.kernel.packet_socket import PacketSocket
from vnethash.lab.inside import frames
from vnethash.lab.inside.task import Task
from vnethash.lab.inside.wire import collect, quiet_tap
from vnethash.rss import reference
from vnethash.rss.config import RssConfig

_EACH = 32
_VXLAN = 4789
_GRE = 47

Verdict = tuple[int, int, int]
"""Hash value, report type, queue."""


def measure(task: Task) -> dict[str, Any]:
    """By program: how many frames were judged as the program says, and of how many."""
    engine = task.way or "program"
    judged = {"xor": _flipped, "inner": _tunnelled}
    return {name: _run(engine, path, judged[name](RSS)) for name, path in task.programs}


RSS = RssConfig.default(4)


def _run(engine: str, path: str, wanted: dict[bytes, Verdict]) -> dict[str, Any]:
    try:
        with quiet_tap(rss=RSS, engine=engine, program=path) as tap:
            wire = PacketSocket(tap.name)
            try:
                for frame in wanted:
                    wire.send(frame)
            finally:
                wire.close()
            packets = collect(tap, len(wanted))
    except VnethashError as error:
        return {"works": False, "why": error.message}
    right = sum(
        (packet.hash_value, packet.hash_report, packet.queue) == wanted.get(packet.frame)
        for packet in packets
    )
    return {"works": True, "frames": [right, len(wanted)]}


def _flipped(rss: RssConfig) -> dict[bytes, Verdict]:
    """What xor.c makes of each frame: bits flipped of no hash, on the unclassified queue."""
    verdict = (3, 2, rss.unclassified_queue ^ 1)
    return {frame: verdict for sent in frames.groups(_EACH // 8).values() for frame in sent}


def _tunnelled(rss: RssConfig) -> dict[bytes, Verdict]:
    """Flows of one tunnel in VXLAN, of one in GRE, and some of none."""
    chance = random.Random(3)
    verdicts: dict[bytes, Verdict] = {}
    for number in range(_EACH):
        addresses = (frames.ipv4, frames.ipv6)[number & 1]
        packet = frames.packet(chance, addresses, (TCP, UDP)[number >> 1 & 1])
        inner = frames.ethernet(packet)
        told = reference.classify(inner, rss)
        for frame in (_vxlan(inner), _gre(packet), inner):
            verdicts[frame] = (told.hash_value, told.hash_report, told.queue)
    return verdicts


def _vxlan(inner: bytes) -> bytes:
    """RFC 7348: always the same outer flow."""
    near, far = frames.ipv4(random.Random(11))
    header = struct.pack("!BxxxI", 8, 5 << 8)
    datagram = build.udp(near, far, (50000, _VXLAN), header + inner)
    return frames.ethernet(build.ip(near, far, UDP, datagram))


def _gre(packet: bytes) -> bytes:
    """RFC 2784."""
    near, far = frames.ipv4(random.Random(12))
    kind = build.ETHERTYPE_IPV4 if packet[0] >> 4 == 4 else build.ETHERTYPE_IPV6
    return frames.ethernet(build.ip(near, far, _GRE, struct.pack("!HH", 0, kind) + packet))
