# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Two kernels' network stacks and a tap for each.

The near tap is the steered one. What it hands out, a VMM would give its
guest; here it goes to the far tap, behind which another namespace stands in
for the guest.
"""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from vnethash.demo.frames import Address
from vnethash.demo.plan import FAR4, FAR6, NEAR4, NEAR6
from vnethash.errors import DeviceError, NotPermitted
from vnethash.kernel import link, netns
from vnethash.kernel.links import Links
from vnethash.kernel.netns import Namespace
from vnethash.kernel.tun import Offload
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig
from vnethash.tap import Tap

_OFFLOADS = Offload.CSUM | Offload.TSO4 | Offload.TSO6 | Offload.TSO_ECN


@dataclass(frozen=True, slots=True)
class Lab:
    """Both ends; the calling thread is in the near one."""

    near: Tap
    far: Tap
    far_namespace: Namespace

    def near_socket(
        self, address: Address, kind: socket.SocketKind, protocol: int = 0
    ) -> socket.socket:
        """A non-blocking socket of the near end, for the family of ``address``."""
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        try:
            made = socket.socket(family, kind, protocol)
        except PermissionError as error:
            raise NotPermitted("open a raw socket", "CAP_NET_RAW") from error
        made.setblocking(False)
        return made

    def far_socket(self, address: Address, kind: socket.SocketKind) -> socket.socket:
        """The same at the far end."""
        with self.far_namespace:
            return self.near_socket(address, kind)

    @property
    def near_mac(self) -> bytes:
        return link.parse_mac(link.mac_of(self.near.name))

    @property
    def far_mac(self) -> bytes:
        with self.far_namespace:
            return link.parse_mac(link.mac_of(self.far.name))


@contextmanager
def open_lab(rss: RssConfig, engine: str) -> Iterator[Lab]:
    """Both ends for the block, which must stay in its thread.

    Raises what `Tap.open` does, and NotPermitted without CAP_SYS_ADMIN.
    """
    with (
        netns.fresh(),
        Tap.open("tap0", rss=rss, engine=engine, offloads=_OFFLOADS, up=False) as near,
        closing(Namespace.create()) as far_namespace,
    ):
        _start(near, NEAR4, NEAR6)
        with far_namespace:
            far = Tap.open(
                "tap0",
                queues=1,
                engine="software",
                reporting=Reporting.OFF,
                offloads=_OFFLOADS,
                up=False,
            )
        with far:
            with far_namespace:
                _start(far, FAR4, FAR6)
            yield Lab(near, far, far_namespace)


def _start(tap: Tap, ipv4: Address, ipv6: Address) -> None:
    # Where /proc/sys is read-only the kernel says a little more, which is checked as well.
    with suppress(DeviceError):
        link.quiet(tap.name, ipv6=True)
    link.set_up(tap.name)
    with Links() as links:
        links.add_address(tap.name, f"{ipv4}/24")
        links.add_address(tap.name, f"{ipv6}/64")
