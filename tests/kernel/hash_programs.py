# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Hash programs for tests, compiled when first asked for."""

import tempfile
from functools import cache
from pathlib import Path

from vnethash.programs import compile_program

EXAMPLES = Path(__file__).parents[2] / "docs/examples/programs"


@cache
def compiled(body: str, *, before: str = "", license: str = "") -> bytes:
    """The object of a program with that body, and what stands before it in the file."""
    lines = [f'#define VNET_LICENSE "{license}"'] if license else []
    lines += ["#include <vnet_hash.h>", before, "VNET_HASH_PROGRAM(frame, verdict)"]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "program.c"
        source.write_text("\n".join(lines) + f"\n{{\n{body}\n}}\n")
        return compile_program(source).image


@cache
def example(name: str) -> bytes:
    """The object of an example of the documentation."""
    return compile_program(EXAMPLES / f"{name}.c").image


def constant(hash_value: int, hash_report: int, queue: int) -> bytes:
    """A program that says the same of every packet."""
    return compiled(
        f"verdict->hash_value = {hash_value}; verdict->hash_report = {hash_report}; "
        f"verdict->queue = {queue};"
    )
