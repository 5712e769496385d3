# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Frames by structure: what the standards describe, put together in every way they allow.

Nothing is drawn by hypothesis, whose frames cost a hundred times as much;
tests/frames.py has those.
"""

from tests.differential.dice import Dice
from tests.differential.link import ethernet
from tests.differential.network import IPV4, IPV6, ipv4, ipv6
from tests.differential.transport import plain
from tests.differential.tunnels import ETHERNET, tunnel

DEEPEST = 2
"""Tunnels inside each other."""

_TUNNELLED = 0.4


def packet(dice: Dice, ethertype: int, depth: int = 0) -> bytes:
    """An IP packet; tunnels are ``depth`` around it."""
    if depth < DEEPEST and dice.chance(_TUNNELLED):
        protocol, payload = tunnel(dice, lambda kind: _carried(dice, kind, depth + 1))
    else:
        protocol, payload = plain(dice)
    return (ipv4 if ethertype == IPV4 else ipv6)(dice, protocol, payload)


def frame(dice: Dice, depth: int = 0) -> bytes:
    """A frame with a link layer."""
    ethertype = dice.pick((IPV4, IPV6))
    return ethernet(dice, ethertype, packet(dice, ethertype, depth))


def l3_frame(dice: Dice) -> bytes:
    """A packet without link layer, as a device of type IFF_TUN has it; rarely no IP."""
    if dice.chance(0.01):
        return dice.some(64)
    return packet(dice, dice.pick((IPV4, IPV6)))


def _carried(dice: Dice, kind: int, depth: int) -> bytes:
    if kind == ETHERNET:
        return frame(dice, depth)
    return packet(dice, kind, depth)
