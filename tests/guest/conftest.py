# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""One booted guest for the tests of a module, in a network namespace of theirs."""

import gc
import os
from collections.abc import Iterator

import pytest

from tests.guest import uml
from tests.guest.vhost import Guest
from tests.kernel.leaks import snapshot
from vnethash.kernel import link, netns


@pytest.fixture(name="guest", scope="module")
def _guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest whose device is bound to nothing yet; fail if anything is left in the end."""
    if reason := uml.missing():
        if os.environ.get("VNETHASH_REQUIRE_KERNEL"):
            pytest.fail(reason)
        pytest.skip(reason)
    gc.collect()
    before = snapshot()
    with netns.fresh(), Guest(tmp_path_factory.mktemp("guest") / "vhost") as guest:
        link.set_up("lo")
        yield guest
        if not guest.lost:
            guest.power_off()
    gc.collect()
    left = snapshot() - before
    assert not left, f"left behind: {', '.join(sorted(left))}"
