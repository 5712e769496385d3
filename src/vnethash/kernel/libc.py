# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The few functions of libc that Python's os module lacks."""

import ctypes
import errno
import os
from functools import cache

from vnethash.errors import NotPermitted, VnethashError


@cache
def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def check(result: int, action: str, capability: str) -> int:
    """``result`` of a call that returns -1 on failure.

    Raises NotPermitted for EPERM, VnethashError for any other error.
    """
    if result != -1:
        return result
    code = ctypes.get_errno()
    if code == errno.EPERM:
        raise NotPermitted(action, capability)
    raise VnethashError(f"{action}: {os.strerror(code).lower()}")
