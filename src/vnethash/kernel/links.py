# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Making links, addresses, neighbours and routes, through pyroute2."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface
from typing import Any

from vnethash.closing import Closing
from vnethash.errors import DeviceError, NotPermitted
from vnethash.kernel.link import ifindex_of
from vnethash.kernel.netns import Namespace

_EPERM = 1
_DOOMED = 0x766E
"""The group that links to be removed are put into."""


class Links(Closing):
    """One rtnetlink socket in the network namespace it was opened in.

    Links go by name. All methods raise DeviceError, or NotPermitted without
    CAP_NET_ADMIN.
    """

    def __init__(self) -> None:
        # A quarter of a second, which only those who make links should pay.
        from pyroute2 import IPRoute

        self._route: Any = IPRoute()

    def close(self) -> None:
        """Close the socket."""
        self._route.close()

    def add_veth(self, name: str, peer: str, *, peer_namespace: Namespace | None = None) -> None:
        """A pair of connected links; the second may be born in another namespace."""
        there: dict[str, object] = {"ifname": peer}
        if peer_namespace is not None:
            there["net_ns_fd"] = peer_namespace.fileno()
        with _errors(f"make the veth pair {name} and {peer}"):
            self._route.link("add", ifname=name, kind="veth", peer=there)

    def add_bridge(self, name: str) -> None:
        """A bridge without spanning tree, that forwards at once and floods no queries."""
        with _errors(f"make the bridge {name}"):
            self._route.link(
                "add", ifname=name, kind="bridge", br_forward_delay=0, br_mcast_snooping=0
            )

    def add_vxlan(self, name: str, identifier: int, port: int = 4789) -> None:
        """A VXLAN device that has no peers yet."""
        with _errors(f"make the VXLAN device {name}"):
            self._route.link("add", ifname=name, kind="vxlan", vxlan_id=identifier, vxlan_port=port)

    def delete(self, name: str) -> None:
        """Remove a link."""
        with _errors(f"remove {name}"):
            self._route.link("del", index=ifindex_of(name))

    def delete_all(self, indices: Iterable[int]) -> None:
        """Remove links together, which takes hardly longer than to remove one."""
        with _errors("remove links"):
            for index in indices:
                self._route.link("set", index=index, group=_DOOMED)
            self._route.link("del", group=_DOOMED)

    def enslave(self, name: str, bridge: str) -> None:
        """Make the link a port of the bridge."""
        with _errors(f"make {name} a port of {bridge}"):
            self._route.link("set", index=ifindex_of(name), master=ifindex_of(bridge))

    def move(self, name: str, namespace: Namespace) -> None:
        """Move the link into another network namespace."""
        with _errors(f"move {name} to another namespace"):
            self._route.link("set", index=ifindex_of(name), net_ns_fd=namespace.fileno())

    def add_address(self, name: str, address: str) -> None:
        """Give the link an address with its prefix length: ``10.0.0.1/24``, ``fd00::1/64``."""
        interface = ip_interface(address)
        flags = {} if interface.version == 4 else {"flags": 0x02}  # IFA_F_NODAD: usable at once
        with _errors(f"add {address} to {name}"):
            self._route.addr(
                "add",
                index=ifindex_of(name),
                address=str(interface.ip),
                prefixlen=interface.network.prefixlen,
                **flags,
            )

    def add_neighbour(self, name: str, address: str, mac: str) -> None:
        """A permanent neighbour, so that no ARP or ND is sent for it."""
        with _errors(f"add the neighbour {address} to {name}"):
            self._route.neigh(
                "replace",
                dst=str(ip_address(address)),
                lladdr=mac,
                ifindex=ifindex_of(name),
                state=0x80,  # NUD_PERMANENT
            )

    def add_route(self, destination: str, *, via: str | None = None, name: str) -> None:
        """A route through the link, by a gateway or direct."""
        gateway = {} if via is None else {"gateway": via}
        with _errors(f"add the route {destination}"):
            self._route.route("add", dst=destination, oif=ifindex_of(name), **gateway)


@contextmanager
def _errors(action: str) -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code == _EPERM:
            raise NotPermitted(action, "CAP_NET_ADMIN") from error
        reason = str(error.args[1] if len(error.args) > 1 else error).lower()
        raise DeviceError(f"{action}: {reason}") from error
