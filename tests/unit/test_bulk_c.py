# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""bulk.h as C programs have it: by other compilers, and on arm64."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vnethash
from tests import vectors
from tests.unit.test_bulk import BLOCK, CONFIG, WIDTHS, expected, single_bits
from vnethash.rss.native import BulkMethod, bulk_methods

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "bulk" / "hash_tuples.c"


def compiled(compiler: list[str], folder: Path) -> Path:
    program = folder / "hash_tuples"
    flags = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", f"-I{vnethash.get_include()}"]
    subprocess.run([*compiler, *flags, str(EXAMPLE), "-o", str(program)], check=True)
    return program


def check_program(command: list[str], method: BulkMethod) -> None:
    config = CONFIG.replace(key=vectors.KEY)
    for width in WIDTHS:
        random = np.random.default_rng(width).integers(0, 256, (5 * BLOCK + 3, width), np.uint8)
        rows = np.concatenate([random, single_bits(width)])
        done = subprocess.run(
            [*command, str(width), str(method.value)],
            input=rows.tobytes(),
            capture_output=True,
            check=True,
        )
        assert done.stderr == f"method {method.value}\n".encode()
        assert np.frombuffer(done.stdout, np.uint32).tolist() == expected(rows, config)


@pytest.mark.parametrize("compiler", ["cc", "clang-14"])
def test_example_in_c(compiler: str, tmp_path: Path) -> None:
    """Compilers differ in what they make of intrinsics."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    program = compiled([compiler], tmp_path)
    for method in bulk_methods():
        check_program([str(program)], method)
    refused = subprocess.run([str(program), "12", "77"], capture_output=True, check=False)
    assert refused.returncode == 1
    assert b"this CPU cannot do method 77" in refused.stderr


def test_arm64_in_emulation(tmp_path: Path) -> None:
    """Compiled for arm64, and run by an emulated CPU: right, though nothing about speed."""
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if emulator is None:
        pytest.skip("no qemu-aarch64 (apt install qemu-user)")
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-static"]
    program = compiled(zig, tmp_path)
    for method in (BulkMethod.TABLES, BulkMethod.PMULL):
        check_program([emulator, "-cpu", "cortex-a53", str(program)], method)
    done = subprocess.run(
        [emulator, "-cpu", "cortex-a53", str(program), "12"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert done.stderr == b"method 5\n"


def test_headers_are_where_it_says() -> None:
    assert {"bulk.h", "vnet_hash.h", "key.h"} <= set(os.listdir(vnethash.get_include()))
