# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Chance that can be repeated: the same seed makes the same frames, on any machine."""

import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Dice(random.Random):
    """A random.Random with the few throws that making frames takes, cheap ones."""

    def below(self, limit: int) -> int:
        """From 0 to ``limit`` - 1."""
        return int(self.random() * limit)

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        return items[int(self.random() * len(items))]

    def some(self, limit: int) -> bytes:
        """Fewer than ``limit`` random bytes."""
        return self.randbytes(int(self.random() * limit))
