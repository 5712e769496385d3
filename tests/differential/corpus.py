# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The inputs of fuzz/dissect.c: a header that says the configuration, then a frame.

The fuzzer starts from inputs that are written here, and what it keeps because
it reached new code is read here and given to all implementations.
"""

import hashlib
import struct
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tests.differential.batch import Batch, Result, compare
from tests.differential.implementations import Implementations
from vnethash.rss.config import RssConfig
from vnethash.virtio.hash_types import HashType, TunnelType

HEADER = struct.Struct("<HHBB")
"""struct input of fuzz/dissect.c: hash types, tunnels, flags, log2 of the table's entries."""

_QUEUES = 256
_KEY = bytes(37 * i + 1 & 0xFF for i in range(40))
_L3 = 1

Parts = tuple[int, int, int, int]


def config_of(parts: Parts) -> tuple[RssConfig, bool]:
    """The configuration that the harness makes of a header, and whether frames are L3."""
    types, tunnels, flags, entries = parts
    return (
        RssConfig(
            _QUEUES,
            hash_types=HashType(types & HashType.ALL),
            key=_KEY,
            indirection_table=tuple(i * 7 % _QUEUES for i in range(1 << entries % 8)),
            unclassified_queue=_QUEUES - 1,
            tunnels=TunnelType(tunnels & TunnelType.ALL),
        ),
        bool(flags & _L3),
    )


def write_seeds(folder: Path, seed: str, count: int, pool: Sequence[bytes]) -> None:
    """``count`` inputs to start from."""
    folder.mkdir(parents=True, exist_ok=True)
    _, l3, frames = Batch(seed, 0, count).make(pool)
    for frame in frames:
        data = HEADER.pack(HashType.ALL, TunnelType.ALL, _L3 * l3, 7) + frame
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def compare_corpus(implementations: Implementations, folder: Path) -> Result:
    """Every input of a folder through all implementations. OSError if there is none."""
    frames: dict[Parts, list[bytes]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        if len(data) >= HEADER.size:
            frames[HEADER.unpack_from(data)].append(data[HEADER.size :])
    total = Result()
    for parts, some in frames.items():
        config, l3 = config_of(parts)
        total.add(compare(implementations, config, l3, some))
    return total
