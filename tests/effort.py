# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""How many examples a generated test tries: VNETHASH_EFFORT percent of its own number."""

import os


def examples(count: int) -> int:
    """At least 5, or a test could pass without trying."""
    return max(5, count * int(os.environ.get("VNETHASH_EFFORT", "100")) // 100)
