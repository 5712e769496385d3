# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""BPF programs of a few instructions."""

from vnethash.kernel.bpf import Program, ProgramType

# struct bpf_insn: code, registers (source << 4 | destination), offset, immediate
EXIT = (0x95, 0, 0, 0)


def returning(value: int, kind: ProgramType = ProgramType.SCHED_CLS) -> Program:
    """A program that returns ``value``."""
    return Program.from_instructions(kind, "returning", [(0xB7, 0, 0, value), EXIT])


def steering(queue: int) -> Program:
    """A steering program that sends all to one queue."""
    return returning(queue, ProgramType.SOCKET_FILTER)


def dropping() -> Program:
    """A tc program that drops all (TC_ACT_SHOT)."""
    return returning(2)


def rejected() -> list[tuple[int, int, int, int]]:
    """Instructions the verifier rejects: r0 is returned without a value."""
    return [EXIT]
