# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What the running kernel's verifier makes of the stages and of hash programs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vnethash.engines.stages import Stages
from vnethash.errors import BpfError
from vnethash.kernel.bpf import BpfObject
from vnethash.native import STAGES_OBJECT
from vnethash.programs import open_program


class Verified(NamedTuple):
    """A program that the verifier took.

    verified      instructions it looked at; 0 from a kernel that does not tell
    seconds       that it took; None from a kernel that does not tell
    instructions  of the program as it runs
    machine_code  bytes; 0 where it is interpreted
    """

    name: str
    verified: int
    seconds: float | None
    instructions: int
    machine_code: int


class Loaded(NamedTuple):
    """An object that was loaded, in ``seconds`` from the file to programs that can run."""

    name: str
    seconds: float
    programs: tuple[Verified, ...]


def verify(program: Path | None = None) -> Loaded:
    """Load vnethash's own stages, or a hash program, and let go of them again.

    Raises what loading them raises: DependencyMissing, NotPermitted,
    ProgramRefused, VerifierError with the whole log, BpfError.
    """

    def opened() -> BpfObject:
        if program is None:
            return BpfObject.open(STAGES_OBJECT, name="vnethash")
        return open_program(program)

    try:
        return _load(opened)
    except BpfError:
        with _stages(opened()):  # which says more
            raise


def _load(opened: Callable[[], BpfObject]) -> Loaded:
    begun = time.perf_counter()
    source = opened()
    try:
        source.keep_statistics()
    except BaseException:
        source.close()
        raise
    with _stages(source) as stages:
        seconds = time.perf_counter() - begun
        programs = (stages.hash_stage, stages.steering_stage)
        verified = (
            Verified(
                each.name,
                each.verified,
                each.verification_seconds,
                each.instructions,
                each.machine_code,
            )
            for each in programs
        )
        return Loaded(source.name, seconds, tuple(verified))


def _stages(opened: BpfObject) -> Stages:
    """As for a tap with four queues."""
    return Stages.load(4, program=opened)
