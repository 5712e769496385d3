# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Packets between a tap and a guest's rings, in every layout, and rings that break the rules."""

import os
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

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
    Lane,
    ReceiveQueue,
    lane,
    plain,
)
from tests.shared_memory import GUEST, SharedMemory
from vnethash.engines.base import Setup
from vnethash.engines.ebpf import EbpfEngine
from vnethash.errors import RingError
from vnethash.kernel import link
from vnethash.kernel.tun import Offload
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.testing.ring import NO_NOTIFY, Buffer, DescriptorFlag
from vnethash.vhost_user.memory import DirtyLog, GuestMemory
from vnethash.vhost_user.pairs import Bases
from vnethash.vhost_user.rings import FaultReason, RingFault
from vnethash.virtio.hash_types import ReportType
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


def settles(what: Callable[[], object], expected: object, timeout: float = 5) -> None:
    deadline = time.monotonic() + timeout
    while what() != expected and time.monotonic() < deadline:
        time.sleep(0.001)
    assert what() == expected
