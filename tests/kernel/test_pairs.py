# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Packets between a tap and a guest's rings, in every layout, and rings that break the rules."""

import os
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

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

layouts = st.fixed_dictionaries(
    {
        "mergeable": st.booleans(),
        "size": st.sampled_from([1, 2, 16, 64]),
        "lengths": st.lists(
            st.sampled_from([0, 1, 7, 12, 13, 20, 21, 60, 148, 149, 1514, 1536, 4096]),
            min_size=1,
            max_size=5,
        ).filter(any),
        "indirect": st.booleans(),
        "event_idx": st.booleans(),
        "header": st.sampled_from([12, 20]),
        "rehash": st.booleans(),
        "filter": st.booleans(),
    }
)
lengths = st.one_of(st.integers(18, 400), st.sampled_from([1500, 1514, 2040, 9000, 65535]))


@given(layout=layouts, sizes=st.lists(lengths, min_size=1, max_size=12), data=st.data())
@settings(max_examples=examples(150), deadline=None)
def _receive(where: Lane, layout: dict[str, object], sizes: list[int], data: st.DataObject) -> None:
    sent = [
        data.draw(frames.frames()) if layout["rehash"] and size < 200 else plain(size)
        for size in sizes
    ]
    regions = [64 << 10] + [4096 + 16] * 800
    with ExitStack() as resources:
        shared = resources.enter_context(SharedMemory(regions))
        queue = resources.enter_context(
            ReceiveQueue(
                shared,
                layout["size"] if layout["indirect"] else max(8, layout["size"]),  # type: ignore
                event_idx=bool(layout["event_idx"]),
                indirect=bool(layout["indirect"]),
            )
        )
        queue.header = layout["header"]  # type: ignore[assignment]
        each: list[int] = layout["lengths"]  # type: ignore[assignment]
        chains = queue.fill(each)
        room = sum(each) * (chains if layout["mergeable"] else 1)
        where.history.push(RSS, Reporting.REHASH)
        before = where.pair.counters().receive
        where.start(
            queue,
            mergeable=layout["mergeable"],
            guest_header=layout["header"],
            rehash=layout["rehash"],
            filter=ReceiveFilter() if layout["filter"] else None,
        )
        for frame in sent:
            where.wire.send(frame)
        fitting = [frame for frame in sent if len(frame) + queue.header <= room]
        received = queue.receive(len(fitting))
        _settled(
            lambda: where.pair.counters().receive.no_room - before.no_room, len(sent) - len(fitting)
        )
        bases = where.pair.stop()
    assert where.pair.fault() is None
    assert [packet.frame for packet in received] == fitting
    assert bases.receive == sum(packet.chains for packet in received)
    for packet in received:
        assert packet.header.num_buffers == packet.chains
        if layout["header"] == 20 and layout["rehash"]:
            expected = reference.classify(packet.frame, RSS)
            assert packet.header.hash_value == expected.hash_value
            assert packet.header.hash_report is expected.hash_report
        else:
            assert packet.header == Header(num_buffers=packet.chains)


def _settled(what: Callable[[], object], expected: object, timeout: float = 5) -> None:
    deadline = time.monotonic() + timeout
    while what() != expected and time.monotonic() < deadline:
        time.sleep(0.001)
    assert what() == expected


def test_receives_in_every_layout() -> None:
    with lane() as where:
        _receive(where)
