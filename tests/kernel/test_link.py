# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.least_privilege import RefusedError, with_only
from vnethash.errors import ConfigError, DeviceError, Unsupported
from vnethash.kernel import link
from vnethash.kernel.caps import Cap
from vnethash.kernel.links import Links
from vnethash.kernel.netns import Namespace
from vnethash.kernel.tun import Offload, TunDevice


@pytest.fixture
def tap(netns: Namespace) -> Iterator[TunDevice]:
    with TunDevice.create("tap0", 2) as device:
        yield device


@pytest.fixture
def links(netns: Namespace) -> Iterator[Links]:
    with Links() as opened:
        yield opened


def test_settings_of_a_link(tap: TunDevice) -> None:
    link.set_mtu("tap0", 9000)
    link.set_mac("tap0", "02:00:00:00:00:2a")
    link.set_up("tap0")
    info = link.link_info("tap0")
    assert (info.name, info.ifindex, info.mtu, info.up) == ("tap0", tap.ifindex, 9000, True)
    assert info == link.link_info(tap.ifindex)
    assert link.mac_of("tap0") == "02:00:00:00:00:2a"
    assert link.ifindex_of("tap0") == tap.ifindex
    link.set_down("tap0")
    assert not link.link_info("tap0").up


def test_a_link_that_is_no_tap(netns: Namespace) -> None:
    info = link.link_info("lo")
    assert info.tun is None
    assert info.up


@pytest.mark.parametrize("name", ["nope", 999])
def test_a_link_that_is_not_there(netns: Namespace, name: str | int) -> None:
    with pytest.raises(DeviceError, match=f"there is no link {name}"):
        link.link_info(name)


def test_what_the_kernel_refuses(tap: TunDevice) -> None:
    with pytest.raises(DeviceError, match="there is no link nope"):
        link.set_up("nope")
    with pytest.raises(DeviceError, match="there is no link nope"):
        link.ifindex_of("nope")
    with pytest.raises(DeviceError, match="set the MTU of tap0 to 1000000"):
        link.set_mtu("tap0", 1_000_000)
    with pytest.raises(ConfigError, match="'02:00' is no Ethernet address"):
        link.set_mac("tap0", "02:00")


def test_needs_net_admin_only(tap: TunDevice) -> None:
    def up() -> bool:
        link.set_up("tap0")
        return link.link_info("tap0").up

    with pytest.raises(RefusedError, match="CAP_NET_ADMIN") as caught:
        with_only({Cap.SYS_ADMIN}, up)
    assert caught.value.kind == "NotPermitted"
    assert with_only({Cap.NET_ADMIN}, up) is True


def test_quiet_links_send_nothing(tap: TunDevice, links: Links) -> None:
    link.quiet("tap0")
    link.set_up("tap0")
    links.add_address("tap0", "10.0.0.1/24")
    for fd in tap.fds:
        with pytest.raises(BlockingIOError):
            os.read(fd, 2048)


@pytest.mark.skipif(not Path("/proc/sys/net/ipv6").exists(), reason="the kernel has no IPv6")
def test_quiet_with_ipv6_lets_addresses_be_used(tap: TunDevice, links: Links) -> None:
    link.quiet("tap0", ipv6=True)
    link.set_up("tap0")
    links.add_address("tap0", "fd00::1/64")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as bound:
        bound.bind(("fd00::1", 0))
    link.quiet("tap0")
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as bound,
        pytest.raises(OSError, match="Cannot assign requested address"),
    ):
        bound.bind(("fd00::1", 0))


def test_features_by_the_names_of_ethtool(tap: TunDevice) -> None:
    assert not link.features("tap0")["tx-udp-segmentation"]
    tap.set_offloads(Offload.CSUM | Offload.TSO4)
    assert link.features("tap0")["tx-vlan-hw-insert"]
    link.set_features("tap0", {"tx-tcp-segmentation": False, "tx-vlan-hw-insert": False})
    features = link.features("tap0")
    assert not features["tx-tcp-segmentation"]
    assert not features["tx-vlan-hw-insert"]
    link.set_features("tap0", {"tx-tcp-segmentation": True})
    assert link.features("tap0")["tx-tcp-segmentation"]


def test_features_that_cannot_be_had(tap: TunDevice) -> None:
    with pytest.raises(ConfigError, match="the kernel knows no warp-drive"):
        link.set_features("tap0", {"warp-drive": True})
    with pytest.raises(Unsupported, match="tap0 keeps its setting") as caught:
        link.set_features("tap0", {"tx-tcp-segmentation": True})
    assert caught.value.feature == "changing tx-tcp-segmentation"


def test_makes_links(links: Links) -> None:
    links.add_veth("left", "right")
    links.add_bridge("br0")
    links.enslave("left", "br0")
    assert link.link_info("left").kind == "veth"
    assert link.link_info("br0").kind == "bridge"
    assert Path("/proc/sys/net/ipv4/conf/br0").is_dir()
    links.delete("left")
    with pytest.raises(DeviceError, match="there is no link right"):
        link.link_info("right")


def test_links_across_namespaces(links: Links) -> None:
    other = Namespace.create()
    try:
        links.add_veth("here", "there", peer_namespace=other)
        with other:
            assert link.link_info("there").kind == "veth"
        links.add_veth("moving", "staying")
        links.move("moving", other)
        with other:
            assert link.link_info("moving").kind == "veth"
    finally:
        other.close()


def test_addresses_neighbours_and_routes(links: Links) -> None:
    links.add_veth("left", "right")
    for name in ("left", "right"):
        link.set_up(name)
    links.add_address("left", "10.0.0.1/24")
    links.add_neighbour("left", "10.0.0.2", "02:00:00:00:00:02")
    links.add_neighbour("left", "10.0.0.2", "02:00:00:00:00:03")  # another answer replaces it
    assert "02:00:00:00:00:03" in Path("/proc/net/arp").read_text()
    links.add_route("10.9.0.0/16", via="10.0.0.2", name="left")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probing:
        probing.connect(("10.9.1.1", 9))
        assert probing.getsockname()[0] == "10.0.0.1"


def test_links_say_what_failed(links: Links) -> None:
    links.add_bridge("br0")
    with pytest.raises(DeviceError, match="make the bridge br0: file exists"):
        links.add_bridge("br0")
    with pytest.raises(DeviceError, match="there is no link nope"):
        links.delete("nope")


def test_links_need_net_admin(netns: Namespace) -> None:
    def make() -> None:
        with Links() as opened:
            opened.add_bridge("br1")

    with pytest.raises(RefusedError, match="CAP_NET_ADMIN") as caught:
        with_only({Cap.SYS_ADMIN}, make)
    assert caught.value.kind == "NotPermitted"
