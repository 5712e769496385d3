# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The conformance table: results added up."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vnethash.vectors.answer import FIELDS, Outcome, Result
from vnethash.vectors.model import Demand
from vnethash.vectors.statements import STATEMENTS


class By(StrEnum):
    """What a row of the table is."""

    TOPIC = "topic"
    STATEMENT = "statement"


def count(results: Iterable[Result]) -> Counter[Outcome]:
    """How many of each outcome."""
    return Counter(result.outcome for result in results)


@dataclass(frozen=True, slots=True)
class Report:
    """Results of all vectors that were asked."""

    results: tuple[Result, ...]

    def rows(self, by: By) -> dict[str, list[Result]]:
        """Results by topic, or by statement, in the order of these."""
        rows: dict[str, list[Result]] = {}
        for result in self.results:
            vector = result.vector
            name = vector.topic if by is By.TOPIC else vector.statement
            rows.setdefault(name, []).append(result)
        if by is By.TOPIC:
            return rows
        return {name: rows[name] for name in STATEMENTS if name in rows}

    @property
    def total(self) -> Counter[Outcome]:
        return count(self.results)

    @property
    def conforms(self) -> bool:
        """Nothing failed that the specification demands, and all was answered."""
        return not self.total[Outcome.FAILED] and not self.total[Outcome.UNANSWERED]

    def told(self) -> list[str]:
        """The fields that the implementation tells at all."""
        answers = [result.answer for result in self.results if result.answer]
        return [name for name in FIELDS if any(name in answer.told for answer in answers)]

    def verdict(self) -> str:
        """One sentence."""
        total = self.total
        asked = Counter(result.vector.demand for result in self.results)
        parts = [
            f"{total[Outcome.FAILED]} of {asked[Demand.SPECIFICATION]} vectors that the "
            "specification decides failed",
            f"{total[Outcome.DIFFERS]} of {asked[Demand.OPEN]} that it leaves open differ",
        ]
        for outcome in (Outcome.UNSUPPORTED, Outcome.UNANSWERED):
            if total[outcome]:
                parts.append(f"{total[outcome]} are {outcome}")
        says = "conforms" if self.conforms else "not known whether it conforms"
        if total[Outcome.FAILED]:
            says = "does not conform"
        return f"{says}: {', '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """The sums."""
        return {
            "conforms": self.conforms,
            "vectors": len(self.results),
            **_counts(self.total),
            "told": self.told(),
            "topics": {name: _counts(count(row)) for name, row in self.rows(By.TOPIC).items()},
            "statements": {
                name: _counts(count(row)) for name, row in self.rows(By.STATEMENT).items()
            },
        }


def result_json(result: Result, diagnosis: str) -> dict[str, Any]:
    """A result on its own."""
    vector = result.vector
    return {
        "id": vector.id,
        "statement": vector.statement,
        "section": vector.section,
        "demand": vector.demand,
        "outcome": result.outcome,
        "wrong": list(result.wrong),
        "expected": vector.expected.to_json(),
        "answer": result.answer.to_json() if result.answer else None,
        "diagnosis": diagnosis,
        "reason": vector.reason,
    }


def _counts(row: Counter[Outcome]) -> dict[str, int]:
    return {str(outcome): row[outcome] for outcome in Outcome}
