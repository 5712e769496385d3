# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The kernel tests on each kernel of the lab, through the engine that it has."""

import re
import sys
from collections.abc import Mapping

import pytest

from vnethash.engines.select import LAB
from vnethash.lab import uml
from vnethash.lab.kernels import BuiltKernel
from vnethash.lab.options import STOCK

# What goes through an engine.
_TESTS = ("lab_engines", "tap", "traffic", "replay", "conformance")
# What a stock kernel has besides.
_STOCK = ("stages", "program_engine", "programs", *_TESTS[1:])


@pytest.mark.parametrize("name", [*LAB, STOCK])
def test_kernel_tests_pass_there(lab: Mapping[str, BuiltKernel], name: str) -> None:
    tests = [f"tests/kernel/test_{each}.py" for each in (_STOCK if name == STOCK else _TESTS)]
    result = uml.run(
        lab[name].kernel,
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", *tests],
        timeout=900,
        mem="768M",
        env={
            "VNETHASH_EFFORT": "10",
            "VNETHASH_REQUIRE_KERNEL": "1",
            "VNETHASH_REQUIRE_LAB": name,
        },
    )
    assert result.exit_status == 0, result.output[-8000:]
    passed = re.search(r"(\d+) passed", result.output)
    assert passed
    assert int(passed[1]) > 100
