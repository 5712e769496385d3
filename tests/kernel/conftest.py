# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A network namespace for each test, and a check that each leaves nothing behind."""

import gc
from collections.abc import Iterator

import pytest

from tests.kernel.leaks import snapshot
from vnethash.kernel import link, netns
from vnethash.kernel.netns import Namespace


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves a descriptor, process, link, namespace or pin, and name it."""
    gc.collect()
    inode = netns.current_inode()
    before = snapshot()
    yield
    gc.collect()
    left = snapshot() - before
    assert not left, f"left behind: {', '.join(sorted(left))}"
    assert netns.current_inode() == inode, "the test left the thread in another namespace"


@pytest.fixture(name="netns")
def _netns(no_leaks: None) -> Iterator[Namespace]:
    """A network namespace of the test's own, entered, its loopback up."""
    with netns.fresh() as namespace:
        link.set_up("lo")
        yield namespace
