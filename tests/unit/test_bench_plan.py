# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The benchmark of planning: its flows, and what it tells of them."""

import numpy as np
import pytest

from vnethash.bench import plan
from vnethash.bench.measure import Effort
from vnethash.rss.config import RssConfig


def test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "FLOWS", 20_000)
    steps = []
    rows = plan.run(Effort(rounds=1), lambda: steps.append(1))
    assert len(steps) == plan.steps(Effort(rounds=1)) == len(plan.EXPONENTS)
    assert [row.variant for row in rows] == list(plan.AIMS) * len(plan.EXPONENTS)
    for row in rows:
        above, before = row.parts["above bound %"].median, row.parts["before %"].median
        assert 0 <= above <= before
        if row.target:
            assert row.variant == "key and table"
            assert above <= 5


def test_flows_follow_zipfs_law() -> None:
    flows = plan.zipf_flows(9000, 1.5, RssConfig.default(8))
    packets = np.sort(flows["packets"])[::-1].astype(float)
    assert packets[:100] == pytest.approx(1e9 / np.arange(1, 101) ** 1.5, rel=1e-6)
    assert (flows["kind"] == flows["report"]).all()
    assert len(np.unique(flows["hash_value"])) > 8900
    assert not flows["addresses"][flows["kind"] == 2][:, 8:].any()
    assert 2000 < np.count_nonzero(flows["kind"] == 5) < 4000
