# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which engine a tap gets."""

from collections.abc import Callable
from dataclasses import dataclass

from vnethash.engines.base import Engine
from vnethash.errors import ConfigError, VnethashError
from vnethash.kernel import probe
from vnethash.kernel.tun import TunDevice
from vnethash.virtio.hash_types import HashType, TunnelType

AUTO = "auto"
EBPF = "ebpf"
PROGRAM = "program"
SOFTWARE = "software"
TUN_RSS = "tun-rss"
STEERING = ("tun-progtype", "tun-kfunc", "tun-cb")
"""Kernels of the lab, on which the steering program hashes too."""
LAB = (*STEERING, TUN_RSS)
NAMES = (*LAB, EBPF, SOFTWARE)
"""Engines ``auto`` takes, the best first; a hash program has one to itself."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine taken, why, and why not those before it."""

    name: str
    reason: str
    rejected: tuple[tuple[str, str], ...] = ()


def engine_named(name: str) -> Engine:
    """The engine of that name. Raises ConfigError if there is none."""
    if name == EBPF:
        from vnethash.engines.ebpf import EbpfEngine

        return EbpfEngine()
    if name == PROGRAM:
        from vnethash.engines.program import ProgramEngine

        return ProgramEngine()
    if name in STEERING:
        from vnethash.engines.tun_steering import TunSteeringEngine

        return TunSteeringEngine(name)
    if name == TUN_RSS:
        from vnethash.engines.tun_rss import TunRssEngine

        return TunRssEngine()
    if name == SOFTWARE:
        from vnethash.engines.software import SoftwareEngine

        return SoftwareEngine()
    known = ", ".join((AUTO, EBPF, SOFTWARE, PROGRAM, *LAB))
    raise ConfigError("engine", f"must be one of {known}, not {name!r}")


def choose(requested: str = AUTO, *, program: bool = False) -> Choice:
    """The engine asked for, or the best that works here. Raises as the other two do."""
    return named(requested, program=program) or best()


def named(requested: str, *, program: bool = False) -> Choice | None:
    """The engine asked for, unquestioned; None for ``auto``.

    ``program``: there is a hash program to run. Raises ConfigError for an
    unknown name or one that does not run it.
    """
    if program:
        if requested in STEERING:
            return Choice(requested, "asked for")
        if requested not in (AUTO, PROGRAM):
            raise ConfigError("engine", f"is {requested}, which runs no hash program")
        return Choice(PROGRAM, "runs the hash program")
    return None if requested == AUTO else Choice(engine_named(requested).name, "asked for")


def best(
    hash_types: HashType = HashType.ALL,
    device: TunDevice | None = None,
    tunnels: TunnelType = TunnelType.NONE,
) -> Choice:
    """The best engine that works here for a configuration with these types.

    A ``device`` makes it quicker to ask the kernel. Raises what the kernel
    said if not even a tap can be made.
    """
    rejected = []
    no_bpf = _refusal(_require_bpf)
    if no_bpf is None:
        for name in STEERING:
            # On any other kernel it is no news that it has none of these.
            if found := probe.of_lab(name, device):
                return Choice(name, found.reason)
    if found := probe.of_lab(TUN_RSS, device):
        refusal = _refusal(_require_known, hash_types, tunnels)
        if refusal is None:
            return Choice(TUN_RSS, found.reason)
        rejected.append((TUN_RSS, refusal))
    refusal = no_bpf or _no_egress()
    if refusal is None:
        point = probe.best_attach_point().name
        reason = f"steers and reports in the kernel, attached by {point}"
        return Choice(EBPF, reason, tuple(rejected))
    probe.require("tun device")
    return Choice(SOFTWARE, "needs no BPF", (*rejected, (EBPF, refusal)))


def without_stages() -> str | None:
    """Why the stages cannot work here; None if they can."""
    return _refusal(_require_bpf) or _no_egress()


def _no_egress() -> str | None:
    return _refusal(probe.require, "tc program") or _refusal(probe.best_attach_point)


def _require_bpf() -> None:
    for feature in ("libbpf", "steering program", "CAP_PERFMON"):
        probe.require(feature)


def _require_known(hash_types: HashType, tunnels: TunnelType) -> None:
    from vnethash.engines.tun_rss import check_known

    check_known(hash_types, tunnels)


def _refusal(check: Callable[..., object], *arguments: object) -> str | None:
    """What a check that raises has to say; None if it passes."""
    try:
        check(*arguments)
    except VnethashError as error:
        return error.message
    return None
