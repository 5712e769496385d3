# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Disagreements as test vectors: vectors/found/, a file each, tried by every test run."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.differential.case import Case
from vnethash.rss.classified import Classified
from vnethash.rss.config import RssConfig
from vnethash.rss.reference import explain
from vnethash.virtio.hash_types import format_hash_types, format_tunnel_types

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "found"

_CONFIGURATION = "found"
_NO_HASH = "5.1.6.5.7"  # the unclassified queue


@dataclass(frozen=True, slots=True)
class Finding:
    """A case of which the implementations say different things."""

    case: Case
    said: dict[str, Classified | str]

    @property
    def name(self) -> str:
        """The same for the same case."""
        parts = json.dumps([self.case.config.to_json(), self.case.l3, self.case.frame.hex()])
        return hashlib.sha256(parts.encode()).hexdigest()[:12]

    def lines(self) -> list[str]:
        """For a reader: the case, then what each said."""
        kind = "no Ethernet header" if self.case.l3 else "Ethernet"
        config = self.case.config
        types = ",".join(format_hash_types(config.hash_types)) or "none"
        tunnels = ",".join(format_tunnel_types(config.tunnels)) or "none"
        size = len(self.case.frame)
        lines = [
            f"frame      {self.case.frame.hex() or '-'} ({size} bytes, {kind})",
            f"config     {config.queues} queues, {len(config.indirection_table)} entries, "
            f"hash types {types}, tunnels {tunnels}",
        ]
        return lines + [f"{name:<10} {_phrase(answer)}" for name, answer in self.said.items()]

    def to_json(self) -> dict[str, Any]:
        """A file of vectors with this one in it; the reference is taken for right.

        What it lacks is the statement of docs/conformance.md that it is about:
        whoever finds out why adds it, and the reason.
        """
        explained = explain(self.case.frame, self.case.config, l3=self.case.l3)
        others = "; ".join(
            f"{name} said {_phrase(answer)}"
            for name, answer in self.said.items()
            if name != "reference"
        )
        return {
            "$schema": "schema.json",
            "topic": "found",
            "title": "Found by differential testing",
            "specification": "virtio 1.3",
            "configurations": {_CONFIGURATION: self.case.config.to_json()},
            "vectors": [
                {
                    "id": f"found/{self.name}",
                    "section": explained.rule.section if explained.rule else _NO_HASH,
                    "demand": "open",
                    "configuration": _CONFIGURATION,
                    "link_type": "raw" if self.case.l3 else "ethernet",
                    "frame": self.case.frame.hex(),
                    "hashed": explained.data.hex(),
                    "expected": explained.classified.to_json(),
                    "reason": f"Once {others}.",
                }
            ],
        }

    def write(self, folder: Path) -> Path:
        """The file, which is there afterwards."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")
        return path


def _phrase(answer: Classified | str) -> str:
    if isinstance(answer, str):
        return answer
    return f"{answer.hash_report.name} {answer.hash_value:#010x}, queue {answer.queue}"


def read(path: Path) -> list[tuple[Case, dict[str, Any]]]:
    """The cases of a file, each with what is expected, as Classified.to_json() has it."""
    values = json.loads(path.read_text(encoding="utf-8"))
    configs = {name: RssConfig.from_json(c) for name, c in values["configurations"].items()}
    return [
        (
            Case(
                configs[vector["configuration"]],
                bytes.fromhex(vector["frame"]),
                l3=vector["link_type"] == "raw",
            ),
            vector["expected"],
        )
        for vector in values["vectors"]
    ]
