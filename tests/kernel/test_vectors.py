# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The vectors in the hash stage, by BPF_PROG_TEST_RUN."""

import pytest

from vnethash.vectors import load
from vnethash.vectors.answer import Outcome, judge
from vnethash.vectors.engines import Engine, ask

pytestmark = pytest.mark.kernel


def test_hash_stage_agrees_with_every_vector() -> None:
    vectors = {vector.id: vector for file in load() for vector in file.vectors}
    results = [
        judge(vectors[name], answer) for name, answer in ask(Engine.EBPF, [*vectors.values()])
    ]
    wrong = [r for r in results if r.outcome not in (Outcome.PASSED, Outcome.UNSUPPORTED)]
    assert wrong == []
    # What the kernel does not run: frames cut in or before the first IP header.
    left = [r.vector for r in results if r.outcome is Outcome.UNSUPPORTED]
    assert len(results) == len(vectors)
    assert len(left) < 20
    assert all(len(vector.frame) < 54 for vector in left)
