# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A guest that is booted once, in a network namespace of each module's own."""

import gc
import os
from collections.abc import Iterator

import pytest

from tests.guest import uml
from tests.guest.vhost import Guest
from tests.kernel.leaks import snapshot
from vnethash.kernel import link, netns


class _Booted:
    """The guest that runs, if there is one."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._guest: Guest | None = None

    def get(self) -> Guest:
        """A guest in working order: after one that was lost, another."""
        if self._guest and self._guest.lost:
            self._guest.close()
            self._guest = None
        if self._guest is None:
            self._guest = Guest(self._factory.mktemp("guest") / "vhost")
        return self._guest

    def end(self) -> None:
        """See it power off."""
        if self._guest is None:
            return
        with self._guest as guest:
            if not guest.lost:
                guest.power_off()


@pytest.fixture(name="_booted", scope="session")
def _booted_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Booted]:
    booted = _Booted(tmp_path_factory)
    yield booted
    booted.end()


@pytest.fixture(name="guest", scope="module")
def _guest(_booted: _Booted) -> Iterator[Guest]:
    """A guest whose device is bound to nothing; fail if a module leaves anything behind."""
    if reason := uml.missing():
        if os.environ.get("VNETHASH_REQUIRE_KERNEL"):
            pytest.fail(reason)
        pytest.skip(reason)
    guest = _booted.get()
    gc.collect()
    before = snapshot()
    with netns.fresh():
        link.set_up("lo")
        yield guest
    gc.collect()
    # No test here makes what has a name on the whole machine; others may meanwhile.
    left = {each for each in snapshot() - before if not each.startswith(("namespace", "pin"))}
    assert not left, f"left behind: {', '.join(sorted(left))}"
