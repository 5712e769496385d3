# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The same flows without any rights: frames made here, through the native core."""

from collections.abc import Iterator

from vnethash.demo import frames
from vnethash.demo.ledger import Ledger
from vnethash.demo.plan import FAR4, FAR6, NEAR4, NEAR6, Exchange, Plan, tagged_frames
from vnethash.packet import Packet
from vnethash.rss.config import RssConfig
from vnethash.rss.native import Hasher
from vnethash.virtio.header import GsoType, Header, HeaderFlag

_NEAR_MAC = bytes.fromhex("020000000001")
_FAR_MAC = bytes.fromhex("020000000002")
_MSS = 1400
_SUPER_PACKET = 46 * _MSS
"""Bytes of data that TSO puts in one packet."""


def run_library(plan: Plan, rss: RssConfig) -> Ledger:
    """Classify the frames of `plan` in the native core, and check each."""
    hasher = Hasher(rss)
    ledger = Ledger(rss)
    for frame, offload in _traffic(plan):
        classified = hasher.classify(frame)
        header = Header(
            flags=HeaderFlag.NEEDS_CSUM if offload else 0,
            gso_type=offload,
            gso_size=_MSS if offload else 0,
            hash_value=classified.hash_value,
            hash_report=classified.hash_report,
        )
        ledger.check(Packet(header, frame, classified.queue, has_record=False))
    return ledger


def _traffic(plan: Plan) -> Iterator[tuple[bytes, GsoType]]:
    """Frames, and how a sender with offloads would mark them."""
    for flow in plan.tcp:
        for offset in range(0, len(flow.payload), _SUPER_PACKET):
            data = flow.payload[offset : offset + _SUPER_PACKET]
            segment = frames.tcp(flow.near, flow.far, flow.ports, data)
            yield (
                _frame(flow, frames.TCP, segment),
                (GsoType.TCPV6 if flow.is_ipv6 else GsoType.TCPV4),
            )
    for flow in plan.udp:
        yield _frame(flow, frames.UDP, _datagram(flow)), GsoType.NONE
    for flow in plan.fragmented:
        for packet in frames.fragments(flow.near, flow.far, frames.UDP, _datagram(flow)):
            yield frames.ethernet(_NEAR_MAC, _FAR_MAC, packet), GsoType.NONE
    flow = plan.options
    behind_options = frames.destination_options(frames.UDP) + _datagram(flow)
    yield _frame(flow, frames.DESTINATION_OPTIONS, behind_options), GsoType.NONE
    for frame in tagged_frames(plan, _NEAR_MAC, _FAR_MAC):
        yield frame, GsoType.NONE
    for near, far, protocol in ((NEAR4, FAR4, frames.ICMP), (NEAR6, FAR6, frames.ICMPV6)):
        echo = frames.icmp_echo(near, far, plan.ping_identifier)
        packet = frames.ip(near, far, protocol, echo)
        yield frames.ethernet(_NEAR_MAC, _FAR_MAC, packet), GsoType.NONE


def _datagram(flow: Exchange) -> bytes:
    return frames.udp(flow.near, flow.far, flow.ports, flow.payload)


def _frame(flow: Exchange, protocol: int, payload: bytes) -> bytes:
    packet = frames.ip(flow.near, flow.far, protocol, payload)
    return frames.ethernet(_NEAR_MAC, _FAR_MAC, packet)
