# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The kernel tests of a packet's way, which run on other kernels too; here on Linux 6.1."""

import sys

from tests.guest import uml
from vnethash.lab.uml import Guest

SUBSET = [
    f"tests/kernel/test_{name}.py"
    for name in (
        *(
            "stages",
            "tap",
            "traffic",
            "tunnels",
            "differential",
            "tc",
            "replay",
            "program_engine",
            "vectors",
            "adaptive",
        ),
    )
]

AT_LEAST = 150
"""How many of them must run, so that none go missing unseen."""

TIMEOUT = 480
"""Seconds they may take."""


def start() -> Guest:
    """Boot a guest that runs them and powers itself off."""
    return Guest(
        uml.kernel(),
        [
            *[sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--color=no"],
            *["-m", "kernel and not host_only", *SUBSET],
        ],
        timeout=TIMEOUT,
        env={"VNETHASH_REQUIRE_KERNEL": "1", "VNETHASH_EFFORT": "10"},
        cwd=uml.ROOT,
    )
