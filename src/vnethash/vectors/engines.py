# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The implementations of vnethash itself, asked as any other."""

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from enum import StrEnum
from typing import TYPE_CHECKING

from vnethash.errors import BpfError
from vnethash.vectors.answer import Answer
from vnethash.vectors.model import Vector
from vnethash.virtio.hash_types import ReportType

if TYPE_CHECKING:
    from vnethash.engines.stages import Stages


class Engine(StrEnum):
    """What is installed here."""

    NATIVE = "native"
    REFERENCE = "reference"
    EBPF = "ebpf"
    """The hash stage, by BPF_PROG_TEST_RUN."""


def ask(engine: Engine, vectors: Sequence[Vector]) -> Iterator[tuple[str, Answer]]:
    """Ids and answers, one by one. ``ebpf`` raises DependencyMissing, NotPermitted, BpfError."""
    if engine is Engine.NATIVE:
        return _native(vectors)
    if engine is Engine.REFERENCE:
        return _reference(vectors)
    return _ebpf(vectors)


def _native(vectors: Sequence[Vector]) -> Iterator[tuple[str, Answer]]:
    from vnethash.rss.native import Hasher

    for vector in vectors:
        hasher = Hasher(vector.config, l3=vector.is_raw)
        yield vector.id, Answer.of(hasher.classify(vector.frame))


def _reference(vectors: Sequence[Vector]) -> Iterator[tuple[str, Answer]]:
    from vnethash.rss.reference import classify

    for vector in vectors:
        yield vector.id, Answer.of(classify(vector.frame, vector.config, l3=vector.is_raw))


_SHORTEST = 54
"""Bytes that BPF_PROG_TEST_RUN takes of any frame: the headers of Ethernet and IPv6."""


def _ebpf(vectors: Sequence[Vector]) -> Iterator[tuple[str, Answer]]:
    from vnethash.engines.stages import Stages

    with ExitStack() as loaded:
        # One for each number of queues: all their counters are read after each frame.
        stages: dict[tuple[bool, int], _Stages] = {}
        for vector in vectors:
            kind = vector.is_raw, vector.config.queues
            if kind not in stages:
                entries = max(
                    len(other.config.indirection_table)
                    for other in vectors
                    if (other.is_raw, other.config.queues) == kind
                )
                l3, queues = kind
                stages[kind] = _Stages(
                    loaded.enter_context(Stages.load(queues, l3=l3, max_indirection=entries))
                )
            yield vector.id, stages[kind].ask(vector)


class _Stages:
    """Loaded stages; the counters tell the queue."""

    def __init__(self, stages: "Stages") -> None:
        self._stages = stages
        self._counted = self._count()

    def _count(self) -> list[int]:
        return [queue.total.packets for queue in self._stages.maps.stats().queues]

    def ask(self, vector: Vector) -> Answer:
        from vnethash.rss.compiled import compile_config

        self._stages.maps.publish(compile_config(vector.config))
        try:
            done = self._stages.hash_stage.test_run(vector.frame)
        except BpfError:
            if len(vector.frame) >= _SHORTEST:
                raise
            return Answer(unsupported="BPF_PROG_TEST_RUN does not take so short a frame")
        before, self._counted = self._counted, self._count()
        (queue,) = (n for n, (a, b) in enumerate(zip(before, self._counted, strict=True)) if a != b)
        value, report = struct.unpack_from("<IH", done.data)
        return Answer({"hash_report": ReportType(report), "hash_value": value, "queue": queue})
