# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""That a test leaves as many descriptors open as it found."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def open_descriptors() -> int:
    """How many, less the one that counts them."""
    return len(os.listdir("/proc/self/fd")) - 1


@contextmanager
def none_leaked() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before
