# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Every engine against the published vectors and the reference, through a real tap."""

from typing import Any

from vnethash.demo.frames import TCP, UDP
from vnethash.errors import VnethashError
from vnethash.kernel.packet_socket import PacketSocket
from vnethash.lab.inside import frames
from vnethash.lab.inside.task import Task
from vnethash.lab.inside.wire import collect, offered, quiet_tap
from vnethash.rss import reference, vectors
from vnethash.rss.config import RssConfig
from vnethash.tap import Tap
from vnethash.virtio.hash_types import HashType, format_hash_types

_EACH = 32


def measure(task: Task) -> dict[str, Any]:
    return {engine: _engine(engine, 4 if task.quick else _EACH) for engine in task.engines}


def _engine(name: str, each: int) -> dict[str, Any]:
    try:
        types = offered(name)
    except VnethashError as error:
        return {"works": False, "why": error.message}
    rss = RssConfig.default(4).replace(hash_types=types)
    with quiet_tap(rss=rss.replace(key=vectors.KEY), engine=name) as tap:
        point = tap.attach_point
        published = _vectors(tap)
        tap.configure(rss)
        groups = {kind: _group(tap, sent) for kind, sent in frames.groups(each).items()}
    missing = format_hash_types(HashType.ALL & ~types)
    return {
        "works": True,
        "point": point,
        "types_missing": missing,
        "vectors": published,
        "groups": groups,
    }


def _vectors(tap: Tap) -> list[int]:
    """How many hashes are those that were published, and of how many."""
    right = 0
    wanted = [
        (frames.vector(flow, protocol), hashed)
        for flow in vectors.VECTORS
        for protocol, hashed in (
            (TCP, flow.tcp_hash),
            (UDP, flow.tcp_hash),
            (None, flow.address_hash),
        )
    ]
    wire = PacketSocket(tap.name)
    try:
        for frame, hashed in wanted:
            wire.send(frame)
            right += [packet.hash_value for packet in collect(tap, 1)] == [hashed]
    finally:
        wire.close()
    return [right, len(wanted)]


def _group(tap: Tap, sent: list[bytes]) -> list[int]:
    """How many have hash, report type and queue of the reference, and of how many."""
    wire = PacketSocket(tap.name)
    try:
        for frame in sent:
            wire.send(frame)
    finally:
        wire.close()
    left = set(sent)
    right = 0
    for packet in collect(tap, len(sent)):
        if packet.frame not in left:
            continue
        left.remove(packet.frame)
        told = reference.classify(packet.frame, tap.rss)
        right += (packet.hash_value, packet.hash_report, packet.queue) == (
            told.hash_value,
            told.hash_report,
            told.queue,
        )
    return [right, len(sent)]
