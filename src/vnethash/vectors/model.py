# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A vector: a frame, a configuration, and what RSS has to make of the two."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vnethash.rss.classified import Classified
from vnethash.rss.config import RssConfig
from vnethash.vectors.statements import STATEMENTS
from vnethash.virtio.hash_types import ReportType


class Demand(StrEnum):
    """Who says what is expected."""

    SPECIFICATION = "specification"
    """Virtio does; an implementation that differs does not conform."""
    OPEN = "open"
    """Virtio says nothing of the case; the rule is that of docs/conformance.md."""


class LinkType(StrEnum):
    """What a frame starts with."""

    ETHERNET = "ethernet"
    RAW = "raw"
    """An IP header, as on an IFF_TUN device."""


@dataclass(frozen=True, slots=True)
class Vector:
    """One frame and what is expected of it."""

    id: str
    """``topic/name``, and never another."""
    statement: str
    """The row of docs/conformance.md that is tested."""
    configuration: str
    """Name of ``config`` within the file."""
    config: RssConfig
    link_type: LinkType
    frame: bytes
    hashed: bytes
    """The input of the hash, empty if there is none."""
    expected: Classified
    reason: str
    """What is tested, a sentence."""

    @property
    def section(self) -> str:
        """Of virtio 1.3, that the statement is of."""
        return STATEMENTS[self.statement].section

    @property
    def demand(self) -> Demand:
        """Whether who differs does not conform."""
        return Demand.OPEN if self.statement.startswith("OPEN-") else Demand.SPECIFICATION

    @property
    def topic(self) -> str:
        return self.id.partition("/")[0]

    @property
    def is_raw(self) -> bool:
        return self.link_type is LinkType.RAW

    def request(self) -> dict[str, Any]:
        """What an implementation is asked."""
        config = self.config.to_json() | {
            "hash_types_bits": int(self.config.hash_types),
            "tunnels_bits": int(self.config.tunnels),
        }
        return {
            "id": self.id,
            "link_type": self.link_type,
            "frame": self.frame.hex(),
            "config": config,
        }

    def answer(self) -> dict[str, Any]:
        """What it has to answer."""
        return {"id": self.id, **self.expected.to_json()}

    def to_json(self) -> dict[str, Any]:
        """As it stands in a file, where the configuration goes by its name."""
        return {
            "id": self.id,
            "statement": self.statement,
            "section": self.section,
            "demand": self.demand,
            "configuration": self.configuration,
            "link_type": self.link_type,
            "frame": self.frame.hex(),
            "hashed": self.hashed.hex(),
            "expected": self.expected.to_json(),
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], configurations: dict[str, RssConfig]) -> "Vector":
        """From what ``to_json`` gives; KeyError, TypeError, ValueError if it is none."""
        expected = values["expected"]
        return cls(
            id=values["id"],
            statement=values["statement"],
            configuration=values["configuration"],
            config=configurations[values["configuration"]],
            link_type=LinkType(values["link_type"]),
            frame=bytes.fromhex(values["frame"]),
            hashed=bytes.fromhex(values["hashed"]),
            expected=Classified(
                expected["hash_value"],
                ReportType[expected["hash_report"]],
                expected["index"],
                expected["queue"],
            ),
            reason=values["reason"],
        )


@dataclass(frozen=True, slots=True)
class VectorFile:
    """The vectors of a topic."""

    topic: str
    title: str
    vectors: tuple[Vector, ...]

    @property
    def configurations(self) -> dict[str, RssConfig]:
        """Those that the vectors have, by name, in the order of their use."""
        return {vector.configuration: vector.config for vector in self.vectors}
