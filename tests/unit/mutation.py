# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Recorded sessions with something wrong in them."""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from vnethash.vhost_user.messages import HEADER_SIZE

Fds = TypeVar("Fds")


def mutated(
    wires: Sequence[tuple[bytes, Fds]],
    randomness: random.Random,
    other_fds: Callable[[random.Random], Fds],
) -> list[tuple[bytes, Fds]]:
    """The messages, some dropped, repeated, exchanged, cut off or changed.

    Each is its bytes and the descriptors with it; ``other_fds`` makes up others.
    """
    result = list(wires)
    for _ in range(randomness.randint(1, 4)):
        if not result:
            break
        at = randomness.randrange(len(result))
        wire, fds = result[at]
        match randomness.randrange(8):
            case 0:
                del result[at]
            case 1:
                result.insert(randomness.randrange(len(result)), result[at])
            case 2:
                other = randomness.randrange(len(result))
                result[at], result[other] = result[other], result[at]
            case 3:
                result[at] = (wire[: randomness.randrange(len(wire) + 1)], fds)
            case 4:
                bit = randomness.randrange(8 * len(wire)) if wire else 0
                changed = bytearray(wire or b"\0")
                changed[bit // 8] ^= 1 << bit % 8
                result[at] = (bytes(changed), fds)
            case 5:
                result[at] = (wire, other_fds(randomness))
            case 6:
                payload = randomness.randbytes(len(wire[HEADER_SIZE:]))
                result[at] = (wire[:HEADER_SIZE] + payload, fds)
            case 7:
                del result[at:]
    return result
