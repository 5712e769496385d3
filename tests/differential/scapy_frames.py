# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Frames of scapy, which knows the formats from elsewhere than we do.

It takes a thousand times as long as our own generator: a run makes a pool of
them and mutates those.
"""

import logging
import random
from collections.abc import Callable
from typing import Any

from scapy.contrib.geneve import GENEVE
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import (
    HAO,
    MIP6MH_BRR,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
    Pad1,
    PadN,
    RouterAlert,
)
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import ARP, GRE, LLC, SNAP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.sctp import SCTP
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw, fuzz
from scapy.volatile import RandIP, RandIP6

from tests.differential.dice import Dice

# It warns of checksums that it cannot compute, which nobody here reads.
logging.getLogger("scapy.runtime").setLevel(logging.ERROR)


def pool(seed: str, count: int) -> list[bytes]:
    """``count`` frames with an Ethernet header; the same for the same seed."""
    dice = Dice(seed)
    state = random.getstate()
    random.seed(dice.getrandbits(64))  # scapy draws from the common one
    try:
        return [bytes(_frame(dice)) for _ in range(count)]
    finally:
        random.setstate(state)


def _frame(dice: Dice) -> Any:
    packet = _packet(dice)
    if dice.chance(0.1):
        packet = fuzz(packet)  # draws the fields that were not set
    kind = dice.random()
    if kind < 0.05:
        return _mac(Dot3()) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0) / packet
    frame = _mac(Ether())
    for _ in range(dice.pick((0, 0, 0, 1, 2, 3))):
        tag = dice.pick((Dot1Q, Dot1AD))
        frame /= tag(vlan=dice.getrandbits(12), prio=dice.below(8))
    if kind < 0.07:
        return frame / PPPoE() / PPP() / packet
    if kind < 0.09:
        return frame / MPLS(label=dice.getrandbits(20)) / packet
    if kind < 0.10:
        return frame / ARP(psrc="10.0.0.1", pdst="10.0.0.2")
    return frame / packet


def _mac(layer: Any) -> Any:
    layer.dst, layer.src = "02:00:00:00:00:01", "02:00:00:00:00:02"
    return layer


def _packet(dice: Dice, depth: int = 0) -> Any:
    carried = _carried(dice, depth)
    if dice.chance(0.5):
        return _ipv4(dice) / carried
    return _ipv6(dice) / carried


def _ipv4(dice: Dice) -> Any:
    ip = IP(src=RandIP()._fix(), dst=RandIP()._fix(), tos=dice.getrandbits(8))
    if dice.chance(0.2):
        ip.options = dice.pick(([IPOption_NOP()] * 4, [IPOption_RR(length=39)]))
    if dice.chance(0.3):
        ip.flags = dice.pick(("DF", "DF", "MF", "evil"))
    if dice.chance(0.1):
        ip.frag = dice.getrandbits(13)
    return ip


_EXTENSIONS: tuple[Callable[[Dice], Any], ...] = (
    lambda dice: IPv6ExtHdrHopByHop(options=dice.pick(([RouterAlert()], [Jumbo(jumboplen=70000)]))),
    lambda dice: IPv6ExtHdrDestOpt(
        options=[Pad1()] * dice.below(10) + [HAO(hoa=RandIP6()._fix())] * dice.pick((1, 1, 2))
    ),
    lambda dice: IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(dice.below(6)))]),
    lambda dice: IPv6ExtHdrRouting(type=2, addresses=[RandIP6()._fix()]),
    lambda dice: IPv6ExtHdrRouting(
        type=dice.pick((0, 2, 4)), addresses=[str(RandIP6()._fix())] * dice.below(3)
    ),
    lambda dice: IPv6ExtHdrFragment(offset=dice.pick((0, 0, 0, 9)), m=dice.pick((0, 0, 1))),
    lambda dice: AH(icv=bytes(12), payloadlen=4),
    lambda _: MIP6MH_BRR(),
)


def _ipv6(dice: Dice) -> Any:
    packet = IPv6(src=RandIP6()._fix(), dst=RandIP6()._fix())
    for _ in range(dice.pick((0, 0, 0, 1, 1, 2, 3, 9))):
        packet /= dice.pick(_EXTENSIONS)(dice)
    return packet


def _carried(dice: Dice, depth: int) -> Any:
    if depth < 2 and dice.chance(0.4):
        return _tunnel(dice, depth + 1)
    payload = Raw(dice.some(24))
    sport, dport = dice.getrandbits(16), dice.getrandbits(16)
    return dice.pick(
        (
            TCP(sport=sport, dport=dport) / payload,
            TCP(sport=sport, dport=dport, options=[("MSS", 1460), ("NOP", None)]) / payload,
            UDP(sport=sport, dport=dport) / payload,
            UDP(sport=sport, dport=dport) / payload,
            ICMP() / payload,
            ICMPv6EchoRequest() / payload,
            SCTP(sport=sport, dport=dport) / payload,
            ESP(spi=1, seq=1, data=bytes(20)),
            payload,
        )
    )


def _tunnel(dice: Dice, depth: int) -> Any:
    inner = _packet(dice, depth)
    frame = _mac(Ether()) / inner
    udp = UDP(sport=dice.getrandbits(16))
    kind = dice.below(8)
    if kind == 0:
        return inner
    if kind == 1:
        bits = {f"{name}_present": dice.getrandbits(1) for name in ("chksum", "key", "seqnum")}
        return GRE(**bits) / inner
    if kind == 2:
        return GRE(proto=0x6558, key_present=1, key=dice.getrandbits(32)) / frame
    if kind == 3:
        udp.dport = 4754
        return udp / GRE() / inner
    if kind == 4:
        udp.dport = 4789
        return udp / VXLAN(vni=dice.getrandbits(24)) / frame
    if kind == 5:
        udp.dport = 4790
        following, payload = dice.pick(((3, frame), (1 if IP in inner[:1] else 2, inner)))
        return udp / VXLAN(flags=0x0C, NextProtocol=following, vni=1) / payload
    udp.dport = 6081
    if kind == 6:
        return udp / GENEVE(vni=1, proto=0x6558) / frame
    version: type[Packet] = type(inner)
    return udp / GENEVE(vni=1, proto=0x0800 if version is IP else 0x86DD) / inner
