# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Demands of the specification that have no other test (docs/conformance.md)."""

import pytest

from tests import frames
from tests.kernel.wire import ENGINES, collect, quiet_tap, sender
from vnethash import Reporting, ReportType, RssConfig
from vnethash.rss import reference

REPORTS = (Reporting.RECORD, Reporting.REHASH)

pytestmark = pytest.mark.usefixtures("netns")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reporting", REPORTS)
def test_hash_of_zero_is_a_hash(engine: str, reporting: Reporting) -> None:
    """With a key of zeros every hash is 0, and yet calculated (virtio 1.3, 5.1.6.4.5)."""
    rss = RssConfig.default(4).replace(key=bytes(40), unclassified_queue=3)
    with quiet_tap(rss=rss, engine=engine, reporting=reporting) as tap, sender(tap) as wire:
        wire.send(frames.ethernet(0x0800, frames.ipv4(frames.udp())))
        wire.send(frames.ethernet(0x0806, bytes(28)))
        hashed, unhashed = sorted(collect(tap, 2), key=lambda packet: packet.queue)
    assert (hashed.hash_value, hashed.hash_report, hashed.queue) == (0, ReportType.UDPv4, 0)
    assert (unhashed.hash_value, unhashed.hash_report, unhashed.queue) == (0, ReportType.NONE, 3)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reporting", REPORTS)
def test_one_queue_has_hashes(engine: str, reporting: Reporting) -> None:
    """The kernel has nothing to steer, and the hash is there all the same (5.1.6.4.3)."""
    frame = frames.ethernet(0x0800, frames.ipv4(frames.udp()))
    with quiet_tap(queues=1, engine=engine, reporting=reporting) as tap, sender(tap) as wire:
        wire.send(frame)
        (packet,) = collect(tap, 1)
        expected = reference.classify(frame, tap.rss)
    assert (packet.hash_value, packet.hash_report) == (expected.hash_value, ReportType.UDPv4)
    if engine == "ebpf":
        assert packet.has_record == (reporting is Reporting.RECORD)
