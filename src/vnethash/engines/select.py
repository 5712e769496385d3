# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which engine a tap gets."""

from dataclasses import dataclass

from vnethash.engines.base import Engine
from vnethash.errors import ConfigError, VnethashError
from vnethash.kernel import probe

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
    """The engine to take: the best that works here, or the one asked for, unquestioned.

    Raises ConfigError for an unknown name, and what the kernel said if not
    even a tap can be made.
    """
    if requested != AUTO:
        return Choice(engine_named(requested).name, "asked for")
    try:
        point = _require_ebpf()
    except VnethashError as error:
        why_not = error.message
    else:
        return Choice("ebpf", f"steers and reports in the kernel, attached by {point}")
    _require("tun device")
    return Choice("software", "needs no BPF", (("ebpf", why_not),))


def _require_ebpf() -> str | None:
    for feature in ("libbpf", "tc program", "steering program", "CAP_PERFMON"):
        _require(feature)
    return probe.best_attach_point().name


def _require(feature: str) -> None:
    result = probe.probe(feature)
    if not result:
        raise result.error or VnethashError(f"{feature}: {result.reason}")
