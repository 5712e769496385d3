# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What an implementation answers, and what is right or wrong with it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from vnethash.errors import ImplementationError
from vnethash.rss.classified import Classified
from vnethash.vectors.model import Demand, Vector
from vnethash.virtio.hash_types import ReportType

FIELDS = ("hash_report", "hash_value", "index", "queue")
"""What an answer may tell, in the order in which it is shown."""

_LARGEST = {"hash_value": 0xFFFFFFFF, "index": 0xFFFF, "queue": 0xFFFF}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one implementation makes of one vector."""

    told: Mapping[str, int | ReportType] = field(default_factory=dict)
    """By name of FIELDS; what is missing was not told."""
    unsupported: str = ""
    """Why it cannot say; empty if it can."""

    @classmethod
    def of(cls, classified: Classified) -> "Answer":
        """From an implementation of ours."""
        told: dict[str, int | ReportType] = {
            "hash_report": classified.hash_report,
            "hash_value": classified.hash_value,
            "queue": classified.queue,
        }
        if classified.index is not None:
            told["index"] = classified.index
        return cls(told)

    def to_json(self) -> dict[str, Any]:
        """As it was answered."""
        if self.unsupported:
            return {"unsupported": self.unsupported}
        return {
            name: value.name if isinstance(value, ReportType) else value
            for name, value in self.told.items()
        }


def parse_answer(line: str) -> tuple[str, Answer]:
    """The id and the answer in a line of JSON. Raises ImplementationError if it is none."""
    try:
        values = json.loads(line)
    except ValueError as error:
        raise ImplementationError(
            f"answers {_short(line)}, which is not JSON ({error})",
            hint="standard output is for answers, one JSON object a line; messages of the "
            "implementation belong on standard error",
        ) from None
    if not isinstance(values, dict) or not isinstance(values.get("id"), str):
        raise ImplementationError(f"answers {_short(line)}, which has no id")
    name = values.pop("id")
    if "unsupported" in values:
        reason = values["unsupported"]
        if not isinstance(reason, str) or not reason:
            raise _wrong(name, "unsupported", reason, "a reason, as text")
        return name, Answer(unsupported=reason)
    told: dict[str, int | ReportType] = {}
    for key in FIELDS:
        value = values.get(key)
        if value is not None:
            told[key] = _report(name, value) if key == "hash_report" else _number(name, key, value)
    if not told:
        raise ImplementationError(
            f"answers {_short(line)}, which tells nothing of {name}",
            hint=f"answer one or more of {', '.join(FIELDS)}, or unsupported",
        )
    return name, Answer(told)


def _report(name: str, value: object) -> ReportType:
    if isinstance(value, str) and value in ReportType.__members__:
        return ReportType[value]
    if isinstance(value, int) and not isinstance(value, bool) and value in list(ReportType):
        return ReportType(value)
    raise _wrong(name, "hash_report", value, f"one of {', '.join(ReportType.__members__)}, or 0..9")


def _number(name: str, key: str, value: object) -> int:
    number = value
    if isinstance(value, str):
        try:
            number = int(value, 0)
        except ValueError:
            number = None
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= _LARGEST[key]:
        return number
    raise _wrong(name, key, value, f"a number up to {_LARGEST[key]}")


def _wrong(name: str, key: str, value: object, wanted: str) -> ImplementationError:
    return ImplementationError(
        f"answers {_short(json.dumps(value))} as {key} of {name}, which must be {wanted}"
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


class Outcome(StrEnum):
    """What an answer is worth."""

    PASSED = "passed"
    FAILED = "failed"
    """The specification demands something else."""
    DIFFERS = "differs"
    """The specification is silent, and vnethash does otherwise."""
    UNSUPPORTED = "unsupported"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class Result:
    """A vector and what an implementation made of it."""

    vector: Vector
    outcome: Outcome
    answer: Answer | None
    wrong: tuple[str, ...] = ()
    """The fields that are not as expected."""


def judge(vector: Vector, answer: Answer | None) -> Result:
    """Compare what was told; where no hash is expected, value and index mean nothing."""
    if answer is None:
        return Result(vector, Outcome.UNANSWERED, None)
    expected = vector.expected
    wanted: dict[str, int | ReportType] = {
        "hash_report": expected.hash_report,
        "queue": expected.queue,
    }
    if expected.index is not None:
        wanted |= {"hash_value": expected.hash_value, "index": expected.index}
    compared = [name for name in FIELDS if name in wanted and name in answer.told]
    if not compared:
        return Result(vector, Outcome.UNSUPPORTED, answer)
    wrong = tuple(name for name in compared if answer.told[name] != wanted[name])
    if not wrong:
        return Result(vector, Outcome.PASSED, answer)
    failed = vector.demand is Demand.SPECIFICATION
    return Result(vector, Outcome.FAILED if failed else Outcome.DIFFERS, answer, wrong)
