# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The vectors as they are for a device that does not support every hash type or tunnel."""

from collections.abc import Sequence
from dataclasses import replace

from vnethash.rss.reference import explain
from vnethash.vectors.model import Vector, VectorFile
from vnethash.virtio.hash_types import HashType, TunnelType


def restrict(files: Sequence[VectorFile], types: HashType, tunnels: TunnelType) -> list[VectorFile]:
    """The same frames with no other hash type or tunnel enabled than these.

    What is expected then is what the reference says.
    """
    return [
        VectorFile(
            file.topic, file.title, tuple(_restricted(v, types, tunnels) for v in file.vectors)
        )
        for file in files
    ]


def _restricted(vector: Vector, types: HashType, tunnels: TunnelType) -> Vector:
    config = vector.config.replace(
        hash_types=vector.config.hash_types & types, tunnels=vector.config.tunnels & tunnels
    )
    if config == vector.config:
        return vector
    explanation = explain(vector.frame, config, l3=vector.is_raw)
    return replace(vector, config=config, hashed=explanation.data, expected=explanation.classified)
