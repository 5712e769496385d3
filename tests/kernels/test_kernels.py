# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""How kernels are asked, without a kernel."""

import json
from typing import Any

import pytest

from tests.kernels import kernels
from tests.kernels.kernels import Kernel, NoAnswerError
from vnethash.lab.inside.task import MARK


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "answered", {})
    monkeypatch.setattr(kernels, "_failed", {})
    monkeypatch.setattr(kernels, "_objects", lambda folder: (("xor", "xor.o"),))


def say(monkeypatch: pytest.MonkeyPatch, *outputs: str) -> list[int]:
    """Have guests print this; what is returned grows with each time they are booted."""
    booted: list[int] = []

    def there(machine: object, commands: list[list[str]]) -> list[str]:
        booted.append(len(commands))
        return list(outputs)

    monkeypatch.setattr(kernels, "_there", there)
    return booted


def suite(passed: int, skipped: dict[str, int]) -> str:
    total = {"passed": passed, "failed": 0, "skipped": sum(skipped.values())}
    told = {"suite": {"total": total, "skipped": skipped, "failed": []}}
    return f"a test PASSED\n{MARK}{json.dumps(told)}\n"


def a_kernel(guests: int) -> Kernel:
    machine: Any = object()
    return Kernel("name", "title", lambda: machine, guests=guests)


def test_two_guests_are_one_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    booted = say(monkeypatch, suite(90, {"tcx": 2}), suite(80, {"tcx": 1, "USO": 1}))
    kernel = a_kernel(2)
    told = kernels.answer(kernel)
    assert kernels.answer(kernel) is told
    assert booted == [2]
    assert told["suite"] == {
        "total": {"passed": 170, "failed": 0, "skipped": 4},
        "skipped": {"tcx": 3, "USO": 1},
        "failed": [],
    }


def test_one_that_does_not_answer_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    booted = say(monkeypatch, "Segmentation fault\n")
    kernel = a_kernel(1)
    for _ in range(3):
        with pytest.raises(NoAnswerError, match="Segmentation fault"):
            kernels.answer(kernel)
    assert booted == [1]
