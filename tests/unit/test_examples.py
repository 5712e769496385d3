# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The examples that need no rights, and that none is left untested."""

from pathlib import Path

import numpy as np

from tests.examples import EXAMPLES, ROOT, run_example
from vnethash.analysis import analyze


def test_hash_flows() -> None:
    flow, batch = run_example("hash_flows.py")
    # The first vector of Microsoft's verification suite for RSS.
    assert flow.startswith("0x51ccc178 TCPv4 queue 0: ")
    counts = [int(count) for count in batch.partition("[")[2].rstrip("]").split(",")]
    assert len(counts) == 4
    assert sum(counts) == 1_000_000
    assert all(240_000 < count < 260_000 for count in counts)


def test_skewed_traffic(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    assert run_example("skewed_traffic.py", str(path), "4000") == [f"{path}: 4000 packets"]
    analysis = analyze([path])
    assert analysis.packets == 4000
    assert analysis.ether_types == {0x0806: 10}
    assert analysis.unhashed.sum(0).tolist() == [10, 600]
    octets = np.sort(analysis.flows["bytes"])[::-1]
    assert octets[:100].sum() > octets.sum() / 2  # few flows, most traffic
    (tmp_path / "again").mkdir()
    again = tmp_path / "again" / "a.pcap"
    run_example("skewed_traffic.py", str(again), "4000")
    assert again.read_bytes() == path.read_bytes()


def test_every_example_is_run_by_a_test() -> None:
    tests = "".join(
        (ROOT / "tests" / kind / "test_examples.py").read_text() for kind in ("unit", "kernel")
    )
    examples = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert len(examples) >= 4
    assert [name for name in examples if f'run_example("{name}"' not in tests] == []
