# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What ``import vnethash`` offers."""

import subprocess
import sys

import pytest

import vnethash


@pytest.mark.parametrize("name", vnethash.__all__)
def test_every_export_is_there_with_a_docstring(name: str) -> None:
    value = getattr(vnethash, name)
    assert value.__name__ == name
    assert value.__doc__
    assert name in dir(vnethash)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = vnethash.nothing


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, vnethash; print(*(m for m in ('numpy', 'cffi', 'typer') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
