# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which flows the demonstration has: the same ones for the same seed."""

import random
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Self

from vnethash.demo.frames import Address

NEAR4, FAR4 = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
NEAR6, FAR6 = IPv6Address("fd00::1"), IPv6Address("fd00::2")

# Of four digits: no capability is needed, and a flow fits its column.
TCP_PORTS = (1080, 5201, 8080)
UDP_PORTS = (4789, 5353)
FRAGMENTED_PORT = 2049
OPTIONS_PORT = 5000

BULK = 512 << 10
"""Bytes that each TCP connection sends, and gets back."""
DATAGRAM = 512
FRAGMENTED = 4000
"""Bytes of a datagram that does not fit an Ethernet frame."""
TAGGED_PACKETS = 3
VLAN, INNER_VLAN = 7, 42


@dataclass(frozen=True, slots=True)
class Exchange:
    """One conversation: ``ports`` are the near and the far one, ``payload`` comes back."""

    near: Address
    far: Address
    ports: tuple[int, int]
    payload: bytes

    @property
    def is_ipv6(self) -> bool:
        return self.near.version == 6


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is said during a demonstration."""

    tcp: tuple[Exchange, ...]
    udp: tuple[Exchange, ...]
    fragmented: tuple[Exchange, ...]
    """UDP, in datagrams larger than the MTU."""
    options: Exchange
    """UDP behind IPv6 destination options."""
    tagged: tuple[Exchange, ...]
    """UDP in VLANs."""
    ping_identifier: int

    @classmethod
    def from_seed(cls, seed: int) -> Self:
        """Near ports and payloads by the pseudo-random numbers of ``seed``."""
        chance = random.Random(seed)
        ports = iter(chance.sample(range(1024, 10000), 64))

        def exchanges(far_ports: tuple[int, ...], size: int) -> tuple[Exchange, ...]:
            return tuple(
                Exchange(near, far, (next(ports), port), chance.randbytes(size))
                for near, far in ((NEAR4, FAR4), (NEAR6, FAR6))
                for port in far_ports
            )

        return cls(
            tcp=exchanges(TCP_PORTS, BULK),
            udp=exchanges(UDP_PORTS, DATAGRAM),
            fragmented=exchanges((FRAGMENTED_PORT,), FRAGMENTED),
            options=Exchange(NEAR6, FAR6, (next(ports), OPTIONS_PORT), chance.randbytes(DATAGRAM)),
            tagged=exchanges((UDP_PORTS[0],), DATAGRAM),
            ping_identifier=chance.randrange(1, 0x10000),
        )


def tagged_frames(plan: Plan, near_mac: bytes, far_mac: bytes) -> list[bytes]:
    """The frames in VLANs: every flow behind one tag, and behind two."""
    from vnethash.demo import frames

    single = ((frames.TPID_8021Q, VLAN),)
    double = ((frames.TPID_8021AD, VLAN), (frames.TPID_8021Q, INNER_VLAN))
    return [
        frames.ethernet(
            near_mac,
            far_mac,
            frames.ip(
                flow.near,
                flow.far,
                frames.UDP,
                frames.udp(flow.near, flow.far, flow.ports, flow.payload),
            ),
            tags=tags,
        )
        for flow in plan.tagged
        for tags in (single, double)
        for _ in range(TAGGED_PACKETS)
    ]
