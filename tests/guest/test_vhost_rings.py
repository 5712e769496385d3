# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""One booted guest, many devices: whatever rings, buffers and offloads are agreed on."""

import pytest

from tests.guest import agent
from tests.guest.vhost import GUEST, TAP, Guest, served
from tests.guest.vhost_device import Case, try_device
from vnethash.kernel import link

pytestmark = [pytest.mark.guest, pytest.mark.kernel]

GUEST_OFFLOADS = "-guest-csum,-guest-tso4,-guest-tso6,-guest-ecn,-guest-uso4,-guest-uso6"
HOST_OFFLOADS = "-csum,-host-tso4,-host-tso6,-host-ecn,-host-uso"

CASES = [
    Case("big buffers", "-mrg-rxbuf"),
    Case("small buffers", f"-mrg-rxbuf,-ctrl-guest-offloads,{GUEST_OFFLOADS}"),
    Case("small buffers, short header", f"-mrg-rxbuf,-hash-report,{GUEST_OFFLOADS}", report=False),
    Case("neither indirect nor event index", "-indirect-desc,-event-idx"),
    Case("plain rings, big buffers", "-mrg-rxbuf,-indirect-desc,-event-idx"),
    Case("eight queue pairs", queues=8, pairs=8),
    Case("no segmentation", f"{GUEST_OFFLOADS},{HOST_OFFLOADS}"),
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
