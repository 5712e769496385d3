# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The example notebook runs, and prints what is stored in it.

VNETHASH_WRITE_DOCS=1 stores what it prints now.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "examples" / "captures.ipynb"


class OurKernel(KernelSpecManager):  # type: ignore[misc]
    """The interpreter that runs the tests, whatever kernels are installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name=kernel_name, language="python")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it runs; what kernels leave at home is left there too."""
    shutil.copy(NOTEBOOK.with_name("skewed_traffic.py"), tmp_path)
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    return tmp_path


def outputs(notebook: Any) -> Iterator[str]:
    """What its cells say, as text; of pictures the first lines."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            yield output.get("text") or data.get("image/svg+xml", "")[:100] or data["text/plain"]


def test_it_prints_what_is_stored_in_it(folder: Path) -> None:
    stored = nbformat.read(NOTEBOOK, as_version=4)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=120,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    kernels = client.create_kernel_manager()
    kernels.kernel_spec_manager = OurKernel()
    kernels.transport, kernels.ip = "ipc", str(folder / "k")
    client.execute()
    if os.environ.get("VNETHASH_WRITE_DOCS"):
        nbformat.write(notebook, NOTEBOOK)
    assert len(list(outputs(notebook))) >= 8
    assert list(outputs(notebook)) == list(outputs(stored))
