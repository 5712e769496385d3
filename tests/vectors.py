# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Microsoft's verification vectors as frames."""

from ipaddress import ip_address

from tests import frames
from vnethash.rss.vectors import IPV4 as IPV4
from vnethash.rss.vectors import IPV6 as IPV6
from vnethash.rss.vectors import KEY as KEY
from vnethash.rss.vectors import VECTORS as VECTORS
from vnethash.rss.vectors import Vector as Vector


def frame(vector: Vector, l4: int | None) -> bytes:
    """The vector as a frame with that transport protocol, or with none that is hashed."""
    source, destination = (ip_address(a).packed for a in (vector.source, vector.destination))
    ports = (vector.source_port, vector.destination_port)
    payload = {frames.TCP: frames.tcp, frames.UDP: frames.udp}[l4](*ports) if l4 else b"\1" * 8
    number = l4 or 1
    if len(source) == 4:
        packet = frames.ipv4(payload, number, source=source, destination=destination)
        return frames.ethernet(0x0800, packet)
    packet = frames.ipv6(payload, number, source=source, destination=destination)
    return frames.ethernet(0x86DD, packet)
