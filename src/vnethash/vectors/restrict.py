# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The vectors as they are for a device that does not support every hash type or tunnel."""

from collections.abc import Sequence
from dataclasses import replace

from vnethash.rss.reference import Explanation, explain
from vnethash.vectors.model import Demand, Vector, VectorFile
from vnethash.vectors.statements import of_report
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
    if explanation.classified == vector.expected:
        return replace(vector, config=config)
    return replace(
        vector,
        statement=_statement(vector, explanation),
        config=config,
        hashed=explanation.data,
        expected=explanation.classified,
        reason=f"{vector.reason} With the types that are supported: {explanation.reason}.",
    )


def _statement(vector: Vector, explanation: Explanation) -> str:
    """What the vector tests, now that it expects something else."""
    headers = explanation.headers
    if vector.demand is Demand.OPEN:
        return vector.statement
    if vector.statement.startswith("TUN-") and not headers.tunnel:
        return "TUN-7"
    if explanation.rule is None:
        return "IP4-4" if headers.version == 4 else "EXT-5" if headers.has_extension else "IP6-4"
    report = explanation.classified.hash_report
    return of_report(report, has_extension=headers.has_extension)
