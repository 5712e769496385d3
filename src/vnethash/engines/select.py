# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which engine a tap gets."""

from dataclasses import dataclass

from vnethash.engines.base import Engine
from vnethash.errors import ConfigError

AUTO = "auto"
NAMES = ("ebpf", "software")
"""Engines, the best first."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine taken, why, and why not those before it."""

    name: str
    reason: str
    rejected: tuple[tuple[str, str], ...] = ()


def engine_named(name: str) -> Engine:
    """The engine of that name. Raises ConfigError if there is none."""
    if name == "ebpf":
        from vnethash.engines.ebpf import EbpfEngine

        return EbpfEngine()
    if name == "software":
        from vnethash.engines.software import SoftwareEngine

        return SoftwareEngine()
    raise ConfigError("engine", f"must be one of {AUTO}, {', '.join(NAMES)}, not {name!r}")


def choose(requested: str = AUTO) -> Choice:
    """The engine to take. Asked for by name it is taken without a question."""
    if requested != AUTO:
        return Choice(engine_named(requested).name, "asked for")
    return Choice("ebpf","tmp")
