# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Configurations: usual ones and extreme ones."""

from enum import IntFlag
from typing import TypeVar

from tests.differential.dice import Dice
from vnethash.rss.config import RssConfig
from vnethash.rss.keys import MICROSOFT_KEY, SYMMETRIC_KEY
from vnethash.rss.table import even_table
from vnethash.virtio.hash_types import HashType, TunnelType

QUEUES_MAX = 256
"""MAX_TAP_QUEUES, drivers/net/tun.c."""

Flags = TypeVar("Flags", bound=IntFlag)


def config(dice: Dice, most: int = QUEUES_MAX) -> RssConfig:
    """Any configuration that a tap takes, of at most ``most`` queues."""
    queues = min(most, dice.pick((1, 2, 3, 4, 8, 16, 64, QUEUES_MAX, 1 + dice.below(QUEUES_MAX))))
    return RssConfig(
        queues,
        hash_types=_subset(dice, HashType.ALL, 0.6),
        key=dice.pick((MICROSOFT_KEY, MICROSOFT_KEY, SYMMETRIC_KEY, bytes(40), dice.randbytes(40))),
        indirection_table=_table(dice, queues),
        unclassified_queue=dice.pick((0, queues - 1, dice.below(queues))),
        tunnels=_subset(dice, TunnelType.ALL, 0.4),
    )


def _subset(dice: Dice, every: Flags, whole: float) -> Flags:
    """All of the flags, none, one, all but one, or any."""
    if dice.chance(whole):
        return every
    one = type(every)(1 << dice.below(int(every).bit_length()))
    return dice.pick(
        (type(every)(0), one, every & ~one, every & ~one, type(every)(dice.below(int(every) + 1)))
    )


def _table(dice: Dice, queues: int) -> tuple[int, ...]:
    """1 to 32768 entries, the small ones more often: each costs time to check."""
    if dice.chance(0.4):
        return even_table(queues)
    entries = 1 << dice.pick((0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 8, 9, 10, 11, dice.below(16), 15))
    return tuple([dice.below(queues) for _ in range(entries)])
