# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The tables of docs/kernels.md, from what the tests here were answered.

Booting kernels takes minutes: it is done only with VNETHASH_REQUIRE_KERNELS=1
(`make test-kernels`). VNETHASH_WRITE_DOCS=1 puts the tables on the page.
"""

import os
from pathlib import Path

import pytest

from tests.kernels import kernels, page

_portability: list[list[str]] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.kernels)


@pytest.fixture(name="booting", scope="session")
def _booting() -> None:
    """Of tests that boot kernels: they are run where that is wanted."""
    if not os.environ.get("VNETHASH_REQUIRE_KERNELS"):
        pytest.skip("make test-kernels runs this")


@pytest.fixture(name="portability", scope="session")
def _portability_fixture() -> list[list[str]]:
    """Rows of the table of the other root."""
    return _portability


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not kernels.answered and not _portability:
        return
    text = page.tables(kernels.answered, _portability)
    terminalreporter.section("kernels")
    terminalreporter.write_line(text)
    if os.environ.get("VNETHASH_WRITE_DOCS"):
        if kernels.answered.keys() == set(kernels.KERNELS) and len(_portability) == 2:
            page.write(text)
            terminalreporter.write_line(f"written to {page.PAGE}")
        else:
            terminalreporter.write_line("not written to the page: not all of them ran")
