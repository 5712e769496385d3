# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The tables of docs/kernels.md, from answers as the kernels give them."""

from pathlib import Path
from typing import Any

import pytest

from tests.kernels import page
from tests.kernels.kernels import KERNELS


def answer(release: str, seconds: float | None) -> dict[str, Any]:
    hashed = {"verified": 30380, "verifier_seconds": seconds}
    steered = {"verified": None, "verifier_seconds": None}
    return {
        "probe": {
            "features": {"tcx": {"state": "unsupported"}, "clsact": {"state": "available"}},
            "attach_point": {"name": "clsact"},
            "verifier": [
                {
                    "object": "vnethash",
                    "programs": {"hash_stage": hashed, "steering_stage": steered},
                },
                {"object": "xor", "programs": {"hash_stage": hashed, "steering_stage": steered}},
            ],
        },
        "version": "#1 SMP Debian 6.1.192-3 (2026-11-14)" if release == "6.1.0" else "#1 SMP",
        "facts": {"release": release, "jit": True, "btf": False, "uso": True},
        "suite": {
            "total": {"passed": 170, "failed": 0, "skipped": 3},
            "skipped": {"tcx not supported (requires Linux 6.6): the kernel": 3},
        },
    }


ANSWERS = dict(
    zip(KERNELS, (answer("6.12.1+deb12-amd64", 0.0751), answer("6.1.0", None)), strict=False)
)


def test_tables() -> None:
    text = page.tables(ANSWERS, [["Debian trixie", "6.12.1", "3.13.5", "1.5", "7 packets"]])
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    kernel, other, title = KERNELS[0], KERNELS[1], "attach point"
    assert ["kernel", "machine", title, "JIT", "BTF", "USO", "passed", "skipped"] in rows
    assert ["6.12.1", kernel.title, "clsact", "yes", "no", "yes", "170", "3: tcx"] in rows
    assert ["6.1.192", other.title, "clsact", "yes", "no", "yes", "170", "3: tcx"] in rows
    assert ["hash stage", "30,380, 75.1 ms", "30,380"] in rows
    assert ["steering stage", "not told", "not told"] in rows
    assert ["`xor.c`", "30,380, 75.1 ms", "30,380"] in rows
    assert ["Debian trixie", "6.12.1", "3.13.5", "1.5", "7 packets"] in rows


def test_what_a_kernel_lacks() -> None:
    assert page.lacking(answer("6.1.0", None)) == {"tcx"}


def test_they_have_a_place_on_the_page(tmp_path: Path) -> None:
    copy = tmp_path / "page.md"
    copy.write_text(page.PAGE.read_text())
    page.write("first", copy)
    page.write("second", copy)
    before, _, after = page.PAGE.read_text().partition(page.BEGIN)
    assert copy.read_text().startswith(f"{before}{page.BEGIN}\n\nsecond\n{page.END}")
    assert copy.read_text().endswith(after.partition(page.END)[2])
    other = tmp_path / "other.md"
    other.write_text("nothing")
    with pytest.raises(ValueError, match="no place"):
        page.write("text", other)
