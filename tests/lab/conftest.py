# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The kernels of the lab, all of them, built once.

Building takes many minutes, and so do the tests in all of them: they run only
with VNETHASH_REQUIRE_LAB=1 (`make test-lab`).
"""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from vnethash.lab.build import build
from vnethash.lab.kernels import BuiltKernel
from vnethash.lab.options import options


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.lab)


@pytest.fixture(name="lab", scope="session")
def _lab() -> Mapping[str, BuiltKernel]:
    """By option."""
    if not os.environ.get("VNETHASH_REQUIRE_LAB"):
        pytest.skip("kernels of the lab: make test-lab runs this")
    return {kernel.option: kernel for kernel in build(options())}
