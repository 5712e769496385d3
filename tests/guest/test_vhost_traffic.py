# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Traffic between the host and a guest: bulk with offloads, datagrams, echoes, MTU, filters."""

import re
import time
from collections.abc import Iterator

import pytest

from tests import frames
from tests.guest import agent
from tests.guest.vhost import GUEST, GUEST6, HOST, HOST6, MAC, TAP, Guest, Wire, served
from vnethash.kernel import link

pytestmark = [pytest.mark.guest, pytest.mark.kernel]

_BULK = 8_000_000
_SEEDS = [1, 2, 3, 4]

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


def statistic(wire: Wire, name: str) -> int:
    return int(wire.guest.call("read", path=f"/sys/class/net/eth0/statistics/{name}"))


def mean_size(wire: Wire, direction: str, before: tuple[int, int]) -> float:
    """Bytes per packet since ``before`` (packets, bytes)."""
    packets = statistic(wire, f"{direction}_packets") - before[0]
    return (statistic(wire, f"{direction}_bytes") - before[1]) / packets


def to_guest(wire: Wire, address: str) -> float:
    """Bulk to the guest over several connections; bytes per packet it got."""
    before = statistic(wire, "rx_packets"), statistic(wire, "rx_bytes")
    receiving = wire.guest.begin("tcp_receive", address=address, port=5001, connections=4)
    wanted = [agent.digest(seed, _BULK) for seed in _SEEDS]
    assert agent.tcp_send(address, 5001, _SEEDS, _BULK) == wanted
    assert sorted(receiving(20)) == sorted(wanted)
    return mean_size(wire, "rx", before)


def to_host(wire: Wire, address: str) -> float:
    """Bulk from the guest over several connections; bytes per packet it sent."""
    before = statistic(wire, "tx_packets"), statistic(wire, "tx_bytes")
    sending = wire.guest.begin("tcp_send", address=address, port=5002, seeds=_SEEDS, size=_BULK)
    wanted = sorted(agent.digest(seed, _BULK) for seed in _SEEDS)
    assert sorted(agent.tcp_receive(address, 5002, 4)) == wanted
    assert sorted(sending(20)) == wanted
    return mean_size(wire, "tx", before)


@ADDRESSES
def test_tcp_bulk(wire: Wire, host: str, guest_address: str) -> None:
    """Segments stay whole in both directions."""
    assert to_guest(wire, guest_address) > 3000
    assert to_host(wire, host) > 3000


def test_tcp_bulk_without_offloads(wire: Wire) -> None:
    """The driver gives up what it receives whole, and takes it back."""
    wire.ethtool("-K", "rx-gro-hw", "off", "tx", "off")
    offloads = wire.backend.controls()[-1]
    assert offloads["command"] == "GUEST_OFFLOADS_SET"
    assert to_guest(wire, GUEST) <= 1514
    assert to_host(wire, HOST) <= 1514
    wire.ethtool("-K", "rx-gro-hw", "on", "tx", "on", "tso", "on")
    assert to_guest(wire, GUEST) > 3000


@ADDRESSES
def test_datagrams(wire: Wire, host: str, guest_address: str) -> None:
    """Short ones, full ones and fragments come back as they went, whoever begins."""
    for port, size in enumerate((1, 100, 1452, 8000), 6000):
        echoing = wire.guest.begin("udp_echo", address=guest_address, port=port, count=64)
        time.sleep(0.1)  # the socket of the echo
        assert agent.udp_exchange(guest_address, port, 64, size, window=8) == 64
        assert echoing(10) == 64


@ADDRESSES
def test_echo(wire: Wire, host: str, guest_address: str) -> None:
    for size in (0, 56, 1400, 5000):
        assert agent.ping(guest_address, 3, size) == 3
        assert wire.guest.call("ping", address=host, count=3, size=size) == 3


def test_every_transmit_queue(wire: Wire) -> None:
    """Connections choose one at random; all of them reach the host."""
    seeds = list(range(64))
    sending = wire.guest.begin("tcp_send", address=HOST, port=5002, seeds=seeds, size=1000)
    assert len(agent.tcp_receive(HOST, 5002, len(seeds))) == len(seeds)
    sending(20)
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


def test_mtu(guest: Guest) -> None:
    """The guest is told, and packets of that size pass whole."""
    with served(guest, "--mtu", "9000") as wire:
        assert wire.guest.call("read", path="/sys/class/net/eth0/mtu").strip() == "9000"
        assert link.link_info(TAP).mtu == 9000
        wire.guest.run("ip", "link", "set", "eth0", "mtu", "9001", status=2)
        before = statistic(wire, "rx_packets"), statistic(wire, "rx_bytes")
        echoing = wire.guest.begin("udp_echo", address=GUEST, port=6000, count=32)
        time.sleep(0.1)
        assert agent.udp_exchange(GUEST, 6000, 32, 8900, window=8) == 32
        assert echoing(10) == 32
        assert mean_size(wire, "rx", before) == 14 + 20 + 8 + 8900
