# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""One booted guest, many devices: whatever is offered of hashing and control, packets go well."""

import pytest

from tests.guest import agent
from tests.guest.vhost import GUEST, TAP, Guest, served
from tests.guest.vhost_device import Case, try_device
from vnethash.kernel import link

pytestmark = [pytest.mark.guest, pytest.mark.kernel]

CONTROL = (
    "-ctrl-vq,-ctrl-rx,-ctrl-rx-extra,-ctrl-vlan,-ctrl-mac-addr,-ctrl-guest-offloads,"
    "-guest-announce,-mq,-rss,-hash-report"
)

CASES = [
    Case("report without rss", "-rss", rss=False),
    Case("rss without report", "-hash-report", report=False),
    Case("neither", "-rss,-hash-report", rss=False, report=False),
    # Without MQ the driver has no command to use more than one pair.
    Case("rss alone", "-hash-report,-mq", report=False, queues=1),
    Case("no control queue", CONTROL, rss=False, report=False, queues=1),
    Case("one queue pair", "-mq,-rss", rss=False, queues=1),
    Case("eight queue pairs", queues=8, pairs=8),
    Case("hashed again by the reader", options=("--reporting", "rehash")),
    Case("no bpf", rss=False, options=("--engine", "software")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_device(guest: Guest, case: Case) -> None:
    try_device(guest, case)


def test_mtu(guest: Guest) -> None:
    """The guest is told, and packets of that size pass whole."""
    with served(guest, "--mtu", "9000") as wire:
        assert wire.guest.call("read", path="/sys/class/net/eth0/mtu").strip() == "9000"
        assert link.link_info(TAP).mtu == 9000
        wire.guest.run("ip", "link", "set", "eth0", "mtu", "9001", status=2)
        echoing = wire.guest.begin("udp_echo", address=GUEST, port=6000, count=32)
        before = wire.statistic("rx_packets"), wire.statistic("rx_bytes")
        assert agent.udp_exchange(GUEST, 6000, 32, 8900, window=8) == 32
        assert echoing.result() == 32
        packets = wire.statistic("rx_packets") - before[0]
        size = (wire.statistic("rx_bytes") - before[1]) / packets
        assert size > 8900 * 32 / (32 + 8)  # but for those that found the echo
