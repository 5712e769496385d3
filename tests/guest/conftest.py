# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A guest that is booted once, in a network namespace of each module's own."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest import kernel_tests, uml
from tests.guest.vhost import Guest
from tests.kernel.leaks import snapshot
from vnethash.kernel import link, netns
from vnethash.lab.uml import Guest as UmlGuest

_FOLDER = Path(__file__).parent


_LONGEST = "test_kernel_tests_pass_there"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest of all tests comes last of the guest's: it runs beside the others."""
    here = [item for item in items if item.path.is_relative_to(_FOLDER)]
    for item in here:
        if item.name == _LONGEST:
            items.remove(item)
            last = [other for other in here if other is not item][-1:]
            items.insert(items.index(last[0]) + 1 if last else 0, item)


@pytest.fixture(name="_kernel_tests", scope="session", autouse=True)
def _kernel_tests_fixture(request: pytest.FixtureRequest) -> Iterator[UmlGuest | None]:
    """The guest of that test, from the first test in this folder on."""
    if uml.missing() or all(item.name != _LONGEST for item in request.session.items):
        yield None
        return
    with kernel_tests.start() as guest:
        yield guest


@pytest.fixture(name="kernel_tests")
def _kernel_tests_there(_kernel_tests: UmlGuest | None) -> UmlGuest:
    assert _kernel_tests is not None
    return _kernel_tests


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
