# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""tools/profile_path.py, where there is perf."""

import json
import shutil

import pytest

from tools import profile_path
from vnethash.bench import path

pytestmark = [
    pytest.mark.host_only,
    pytest.mark.skipif(shutil.which("perf") is None, reason="no perf (apt install linux-perf)"),
]


def test_says_where_the_time_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile_path.main(["plain tap", "ebpf record", "--seconds", "0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["plain tap", "ebpf record"]
    for told in found.values():
        assert told["ns"] > 0
        assert sum(told["of"].values()) == pytest.approx(told["ns"])
    assert "BPF hash_stage" in found["ebpf record"]["of"]
    assert "BPF hash_stage" not in found["plain tap"]["of"]


def test_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile_path.main(["--seconds", "0.2", path.BASE]) == 0
    out = capsys.readouterr().out
    assert "ns a packet, bridge, 60 B" in out
    assert "tun_net_xmit" in out
