# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The native core (native/core.h), loaded."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vnethash.errors import DependencyMissing

BUILT = Path(__file__).parent / "_built"
"""Where the build hook puts what it compiles."""

STAGES_OBJECT = BUILT / "stages.bpf.o"
"""The BPF object with the hash and the steering stage."""


def get_include() -> str:
    """The folder of the C headers that come with the package.

    ``vnet_hash.h`` for hash programs, ``bulk.h`` for C programs that hash many.
    """
    return str(BUILT / "include")


class Core(NamedTuple):
    """cffi's view of the core; calls through ``lib`` run without the interpreter's lock."""

    ffi: Any
    lib: Any


@cache
def core() -> Core:
    """The core. Raises DependencyMissing where it was not built for this machine."""
    try:
        from vnethash._built.core_abi import ffi

        lib = ffi.dlopen(str(BUILT / "core.so"))
    except (ImportError, OSError) as error:
        raise DependencyMissing(
            f"native core cannot be loaded: {error}",
            hint="install vnethash from its wheel, or build it here: pip install -e .",
        ) from None
    return Core(ffi, lib)
