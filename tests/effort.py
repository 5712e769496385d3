# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""How much of the tests is run: of the examples of generated tests, and of them all.

VNETHASH_EFFORT  percent of the examples that a generated test tries
VNETHASH_PART    1/3: the second of three parts of all tests
"""

import os

PART = "VNETHASH_PART"


def examples(count: int) -> int:
    """At least 5, or a test could pass without trying."""
    return max(5, count * int(os.environ.get("VNETHASH_EFFORT", "100")) // 100)


def in_part(number: int) -> bool:
    """Whether the test of this number is of our part."""
    ours, _, parts = os.environ.get(PART, "0/1").partition("/")
    return number % int(parts) == int(ours)
