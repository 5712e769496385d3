# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""How the tests are shared out among processes (pytest -n 2)."""

from xdist.scheduler import LoadScopeScheduling


class OneForTheKernel(LoadScopeScheduling):  # type: ignore[misc]
    """A module after the other, but for what makes devices: all of that in one process.

    Namespaces and pins have names on the whole machine, and the tests that make
    them look for such that are left behind.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if module.startswith("tests/unit/") else "tests/kernel"
