# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""How ``vnethash balance`` is told to end; what it does else is in tests/kernel."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import vnethash
from vnethash.cli.balance import told_to_end

# Signals without end while it waits, and goes in and out of waiting.
BESIEGED = """
import os, signal
from vnethash.cli.balance import told_to_end

with told_to_end() as told:
    pid = os.getpid()
    child = os.fork()
    if child == 0:
        for number in range(50000):
            os.kill(pid, signal.SIGINT)
        os._exit(0)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        told(0.00001)
    print(told(0), told(0))
"""


def test_signals_at_any_moment() -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(vnethash.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", BESIEGED], env=env, timeout=60, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr, done.returncode) == ("True True\n", "", 0)


def test_waits_until_told() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with told_to_end() as told:
        begun = time.monotonic()
        assert not told(0.05)
        assert time.monotonic() - begun >= 0.05
        signal.raise_signal(signal.SIGTERM)
        assert told(600)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
