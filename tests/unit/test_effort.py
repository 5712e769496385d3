# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import pytest

from tests.effort import PART, in_part


def test_every_test_is_in_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for number in range(3):
        monkeypatch.setenv(PART, f"{number}/3")
        found += [test for test in range(10) if in_part(test)]
    assert sorted(found) == list(range(10))
    monkeypatch.delenv(PART)
    assert all(in_part(test) for test in range(10))
