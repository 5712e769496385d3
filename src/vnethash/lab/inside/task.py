# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What a kernel is asked to measure."""

import json
from dataclasses import asdict, dataclass
from typing import Self

MARK = "@vnethash "
"""Begins the lines that are answers."""


@dataclass(frozen=True, slots=True)
class Task:
    """engines   ways to try, by name
    way       the one this kernel is there for; None for a stock kernel
    programs  objects of hash programs for this kernel, by the name of their source
    tests     files for pytest, from the root of the checkout
    quick     measure little: does it run at all?
    """

    engines: tuple[str, ...]
    way: str | None = None
    programs: tuple[tuple[str, str], ...] = ()
    tests: tuple[str, ...] = ()
    quick: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        given = json.loads(text)
        return cls(
            tuple(given["engines"]),
            given["way"],
            tuple((name, path) for name, path in given["programs"]),
            tuple(given["tests"]),
            given["quick"],
        )
