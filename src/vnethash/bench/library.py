# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What the benchmarks run in C (bench/bench.h), loaded."""

from functools import cache

from vnethash.errors import DependencyMissing
from vnethash.native import BUILT, Core

BITWISE_OBJECT = BUILT / "bitwise.bpf.o"
"""The BPF object with the bit-by-bit steering programs."""


@cache
def bench_library() -> Core:
    """The library. Raises DependencyMissing where it was not built for this machine."""
    try:
        from vnethash._built.bench_abi import ffi

        lib = ffi.dlopen(str(BUILT / "bench.so"))
    except (ImportError, OSError) as error:
        raise DependencyMissing(
            f"benchmark library cannot be loaded: {error}",
            hint="install vnethash from its wheel, or build it here: pip install -e .",
        ) from None
    return Core(ffi, lib)
