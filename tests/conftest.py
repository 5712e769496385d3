# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What all tests share: who may run the tests that need the kernel.

VNETHASH_REQUIRE_KERNEL=1 turns "skipped for want of rights" into a failure,
VNETHASH_PART=1/3 leaves two thirds of the tests to others.
"""

import gc
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.effort import in_part
from vnethash.errors import VnethashError
from vnethash.kernel import caps, netns, tun
from vnethash.kernel.caps import Cap

# An emulated CPU takes seconds to draw what others draw in no time; that is no fault.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# Output is as wide as in a pipe. readline, which pytest imports, sets them for its children.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)

_KERNEL_TESTS = Path(__file__).parent / "kernel"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_KERNEL_TESTS):
            item.add_marker(pytest.mark.kernel)
    if others := [item for number, item in enumerate(items) if not in_part(number)]:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for number, item in enumerate(items) if in_part(number)]


def pytest_collection_finish() -> None:
    # The modules that are imported now would take those who look for leaks 0.2 s a time.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.scheduling import OneForTheKernel

    return OneForTheKernel(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") is None or not (lack := lacking()):
        return
    if os.environ.get("VNETHASH_REQUIRE_KERNEL"):
        pytest.fail(f"VNETHASH_REQUIRE_KERNEL is set, but {lack}", pytrace=False)
    pytest.skip(lack)


@cache
def lacking() -> str:
    """Why kernel tests cannot run here; empty if they can."""
    missing = [cap.title for cap in (Cap.NET_ADMIN, Cap.BPF, Cap.SYS_ADMIN) if not caps.has(cap)]
    if missing:
        return f"this needs {', '.join(missing)}"
    try:
        with netns.fresh(), tun.TunDevice.create(None, 2):
            return ""
    except VnethashError as error:
        return f"this needs a tap in a network namespace: {error}"
