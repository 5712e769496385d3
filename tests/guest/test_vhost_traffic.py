# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Traffic between the host and a guest: bulk with offloads, datagrams, echoes, MTU, filters."""

import re
from collections.abc import Callable, Iterator

import pytest

from tests import frames
from tests.guest import agent
from tests.guest.vhost import GUEST, GUEST6, HOST, HOST6, MAC, Guest, Wire, served

pytestmark = [pytest.mark.guest, pytest.mark.kernel]

_BULK = 8_000_000
_SEEDS = [1, 2, 3, 4]
_COUNTERS = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")

ADDRESSES = pytest.mark.parametrize(
    ("host", "guest_address"), [(HOST, GUEST), (HOST6, GUEST6)], ids=["ipv4", "ipv6"]
)


@pytest.fixture(name="wire", scope="module")
def _wire(guest: Guest) -> Iterator[Wire]:
    """A device with all there is, four queue pairs and RSS."""
    with served(guest) as wire:
        wire.ethtool("-L", "combined", "4")
        wire.ethtool("-K", "rxhash", "on")
        wire.ethtool("-X", "equal", "4")
        yield wire


def sizes(wire: Wire, action: Callable[[], None]) -> tuple[float, float]:
    """Bytes per packet the guest received, and sent, while something was done."""
    before = [wire.statistic(name) for name in _COUNTERS]
    action()
    now = [wire.statistic(name) - start for name, start in zip(_COUNTERS, before, strict=True)]
    return now[1] / now[0], now[3] / now[2]


@ADDRESSES
def test_tcp_bulk(wire: Wire, host: str, guest_address: str) -> None:
    """Segments stay whole in both directions."""
    assert sizes(wire, lambda: wire.to_guest(_SEEDS, _BULK, guest_address))[0] > 3000
    assert sizes(wire, lambda: wire.to_host(_SEEDS, _BULK, host))[1] > 3000


def test_tcp_bulk_without_offloads(wire: Wire) -> None:
    """The driver gives up what it receives whole, and takes it back."""
    wire.ethtool("-K", "rx-gro-hw", "off", "tx", "off")
    assert wire.backend.controls()[-1]["command"] == "GUEST_OFFLOADS_SET"
    assert sizes(wire, lambda: wire.to_guest(_SEEDS, _BULK))[0] <= 1514
    assert sizes(wire, lambda: wire.to_host(_SEEDS, _BULK))[1] <= 1514
    wire.ethtool("-K", "rx-gro-hw", "on", "tx", "on", "tso", "on")
    assert sizes(wire, lambda: wire.to_guest(_SEEDS, _BULK))[0] > 3000
    assert sizes(wire, lambda: wire.to_host(_SEEDS, _BULK))[1] > 3000


@ADDRESSES
def test_datagrams(wire: Wire, host: str, guest_address: str) -> None:
    """Short ones, full ones and fragments come back as they went, whoever begins."""
    for port, size in enumerate((1, 100, 1452, 8000), 6000):
        echoing = wire.guest.begin("udp_echo", address=guest_address, port=port, count=64)
        assert agent.udp_exchange(guest_address, port, 64, size, window=8) == 64
        assert echoing.result() == 64


@ADDRESSES
def test_datagrams_sent_as_one(wire: Wire, host: str, guest_address: str) -> None:
    """The driver takes no such super-packet, so the host's kernel cuts it up before."""
    echoing = wire.guest.begin("udp_echo", address=guest_address, port=6000, count=64)
    assert agent.udp_exchange(guest_address, 6000, 64, 1000, segment=True) == 64
    assert echoing.result() == 64


@ADDRESSES
def test_echo(wire: Wire, host: str, guest_address: str) -> None:
    for size in (0, 56, 1400, 5000):
        assert agent.ping(guest_address, 3, size) == 3
        assert wire.guest.call("ping", address=host, count=3, size=size) == 3


def test_every_transmit_queue(wire: Wire) -> None:
    """Connections choose one at random; all of them reach the host."""
    wire.to_host(list(range(64)), 1000)
    counters = dict(re.findall(r"tx_queue_(\d)_packets: (\d+)", wire.ethtool("-S")))
    assert set(counters) == {"0", "1", "2", "3"}
    assert min(map(int, counters.values())) > 0


ONE = b"\x08\x00" + frames.ipv4(frames.udp())
"""Every frame of a test is of one flow, so that one cannot overtake another."""


def test_addresses(wire: Wire) -> None:
    """The device hands over what is for the guest, and in promiscuous mode all."""
    stranger, group = "02:00:00:00:00:99", "01:00:5e:01:02:03"
    with wire.capture(32) as capture:

        def send(mac: str, *, expect: bool) -> None:
            capture.send([ONE], mac=mac, expect=expect)
            capture.send([ONE], mac="ff:ff:ff:ff:ff:ff")  # behind it, so it was decided on

        send(MAC, expect=True)
        send(stranger, expect=False)
        send(group, expect=False)
        wire.guest.run("ip", "maddress", "add", group, "dev", "eth0")
        send(group, expect=True)
        wire.guest.run("ip", "maddress", "del", group, "dev", "eth0")
        send(group, expect=False)
        wire.guest.run("ip", "link", "set", "eth0", "allmulticast", "on")
        send(group, expect=True)
        send(stranger, expect=False)
        wire.guest.run("ip", "link", "set", "eth0", "allmulticast", "off", "promisc", "on")
        send(stranger, expect=True)
        send(group, expect=True)
        wire.guest.run("ip", "link", "set", "eth0", "promisc", "off", "address", stranger)
        send(stranger, expect=True)
        send(MAC, expect=False)
        wire.guest.run("ip", "link", "set", "eth0", "address", MAC)
        send(MAC, expect=True)


def test_vlans(wire: Wire) -> None:
    """Of tagged frames those of the guest's VLANs come; the others and all untagged as ever."""
    with wire.capture(32) as capture:

        def send(vlan: int | None, *, expect: bool) -> None:
            tag = b"" if vlan is None else b"\x81\x00" + vlan.to_bytes(2, "big")
            capture.send([tag + ONE], expect=expect)
            capture.send([ONE])

        send(5, expect=False)
        wire.guest.run(
            *["ip", "link", "add", "link", "eth0", "name", "eth0.5", "type", "vlan", "id", "5"]
        )
        send(5, expect=True)
        send(6, expect=False)
        send(0x2000, expect=True)  # no VLAN, but a priority
        wire.guest.run("ip", "link", "del", "eth0.5")
        send(5, expect=False)
