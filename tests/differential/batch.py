# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A batch: one configuration, some thousand frames, all implementations."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.differential import configs, generate, mutate
from tests.differential.case import Case
from tests.differential.dice import Dice
from tests.differential.found import Finding
from tests.differential.implementations import Implementations
from tests.differential.minimise import minimise
from vnethash.rss.config import RssConfig
from vnethash.rss.reference import Explanation
from vnethash.virtio.hash_types import format_tunnel_types

SIZE = 2000
MINIMISED_MAX = 2
"""Disagreements of one batch that are minimised: a fault shows in many frames."""

_ETHERNET = 14
_IP = (b"\x08\x00", b"\x86\xdd")


@dataclass
class Result:
    """What came of frames, and what they were."""

    frames: int = 0
    on_bpf: int = 0
    """How many the hash stage was run on."""
    disagreements: int = 0
    findings: list[Finding] = field(default_factory=list)
    reports: Counter[str] = field(default_factory=Counter)
    headers: Counter[str] = field(default_factory=Counter)
    """Frames with a header of that name at least once, as the reference sees it."""
    tunnels: Counter[str] = field(default_factory=Counter)
    """Frames judged by their inner headers; some are of several encapsulations."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why frames have no IP header, or no ports."""

    def add(self, other: "Result") -> None:
        self.frames += other.frames
        self.on_bpf += other.on_bpf
        self.disagreements += other.disagreements
        self.findings += other.findings
        self.reports += other.reports
        self.headers += other.headers
        self.tunnels += other.tunnels
        self.reasons += other.reasons


@dataclass(frozen=True, slots=True)
class Batch:
    """Made from the seed of the run and its own number alone."""

    seed: str
    number: int
    size: int = SIZE
    queues: int = configs.QUEUES_MAX
    """At most."""

    def make(self, pool: Sequence[bytes]) -> tuple[RssConfig, bool, list[bytes]]:
        """Configuration, whether frames have no Ethernet header, frames.

        ``pool`` are frames of scapy, some of which are taken.
        """
        dice = Dice(f"{self.seed}/{self.number}")
        config, l3 = configs.config(dice, self.queues), dice.chance(0.2)
        frames: list[bytes] = []
        previous = b""
        for _ in range(self.size):
            frame, change = b"", 0.3
            if pool and dice.chance(0.15):
                frame, change = dice.pick(pool), 0.8  # it will come again and again
                if l3:
                    frame = frame[_ETHERNET:] if frame[12:_ETHERNET] in _IP else b""
            if not frame:
                frame = generate.l3_frame(dice) if l3 else generate.frame(dice)
            if dice.chance(change):
                frame, previous = mutate.mutated(dice, frame, previous), frame
            frames.append(frame)
        return config, l3, frames


def compare(
    implementations: Implementations, config: RssConfig, l3: bool, frames: Sequence[bytes]
) -> Result:
    """Ask all implementations; minimise what they disagree about."""
    explained = implementations.explain(config, l3, frames)
    expected = [explanation.classified for explanation in explained]
    suspects, ran = implementations.suspects(config, l3, frames, expected)
    result = Result(frames=len(frames), on_bpf=ran)
    count(result, explained)
    for index in suspects:
        case = Case(config, frames[index], l3)
        if len(result.findings) == MINIMISED_MAX:
            result.disagreements += 1
        elif implementations.disagree(case):
            result.disagreements += 1
            smallest = minimise(case, implementations.disagree)
            result.findings.append(Finding(smallest, implementations.ask(smallest)))
    return result


_NUMBER = re.compile(r"\b(0x[0-9a-f]+|\d+)\b")


def count(result: Result, explained: Sequence[Explanation]) -> None:
    """Add what the reference saw."""
    result.reports.update(e.classified.hash_report.name for e in explained)
    for explanation in explained:
        headers = explanation.headers
        result.headers.update(set(headers.seen))
        if headers.tunnel:
            result.tunnels.update(format_tunnel_types(headers.tunnel))
        if why := headers.why_no_ip or headers.why_no_l4:
            result.reasons[_NUMBER.sub("N", why)] += 1
