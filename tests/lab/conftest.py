# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The kernels of the lab, all of them, built once.

Building takes many minutes: it is done only with VNETHASH_REQUIRE_LAB=1
(`make test-lab`), else tests run with what the cache has, or are skipped.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from vnethash.errors import VnethashError
from vnethash.lab.build import build
from vnethash.lab.kernels import BuiltKernel, built
from vnethash.lab.options import options


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.lab)


@pytest.fixture(name="lab", scope="session")
def _lab() -> Mapping[str, BuiltKernel]:
    """By option."""
    if os.environ.get("VNETHASH_REQUIRE_LAB"):
        return {kernel.option: kernel for kernel in build(options())}
    try:
        found = {option.name: built(option) for option in options()}
    except VnethashError as error:
        pytest.skip(str(error))
    if missing := [name for name, kernel in found.items() if kernel is None]:
        pytest.skip(f"not built: {', '.join(missing)} (vnethash lab build)")
    return {name: kernel for name, kernel in found.items() if kernel}
