# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Running the programs of docs/examples as a user would."""

import os
import subprocess
import sys
from pathlib import Path

from vnethash import Classified, RssConfig
from vnethash.rss.reference import Protocol, classify_tuple

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples"


def run_example(name: str, *arguments: str) -> list[str]:
    """The lines it prints; AssertionError with what it complained of if it fails."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def flow_to(port: int, rss: RssConfig) -> Classified:
    """What RSS makes of the datagrams that the examples send to ``port``."""
    return classify_tuple(rss, "192.0.2.1", "192.0.2.2", Protocol.UDP, 5000, port)
