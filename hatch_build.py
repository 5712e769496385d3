# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Compiles native/ and bench/ into src/vnethash/_built/.

Hatchling runs this file as its build hook, for wheels and editable installs.
`python hatch_build.py` does the same in place after an edit; what is up to
date is left alone.

CC      the C compiler of the native core (default cc); CFLAGS are added last
BPF_CC  a compiler for BPF, such as "clang -target bpf" (default: ziglang)
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, without hatchling
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parent
BUILT = Path("src/vnethash/_built")

# The object that ships must be the object that was tested, byte for byte, so
# the compiler is pinned.
ZIGLANG = "ziglang==0.17.1"
CFFI = "cffi>=1.16"

CORE_SOURCES = [
    *["native/config.c", "native/hash.c", "native/history.c", "native/receive.c"],
    *["native/resteer.c", "native/guard.c", "native/guest_memory.c", "native/ring.c"],
    *["native/control.c", "native/filter.c", "native/pair.c", "native/pair_receive.c"],
    "native/pair_transmit.c",
    *["native/window.c", "native/capture.c", "native/census.c", "native/flows.c"],
    "native/timeline.c",
]

# What Python sees of the core, in the order in which they build on each other.
CORE_HEADERS = [
    *["native/vnethash.h", "native/bulk.h", "native/core.h", "native/vhost.h"],
    *["native/capture.h", "native/census.h"],
]

BENCH_SOURCES = [
    *["bench/scalar.c", "bench/capture.c", "bench/tcp.c", "bench/traffic.c"],
    "bench/vhost.c",
]

# How kernels of the lab take the hash, by engine: VNET_WAY of native/bpf.h.
LAB_WAYS = {"tun-kfunc": 1, "tun-progtype": 2, "tun-cb": 3}

# What a hash program is compiled with; they go with the package.
HEADERS = [
    *["vnet_hash", "record", "lab_stage", "steer", "toeplitz", "tunnel", "dissect"],
    *["frame", "bpf", "vnethash"],
]

# And what C programs in user space include to hash in bulk.
BULK_HEADERS = ["bulk", "bulk_x86", "bulk_arm64", "bulk_clmul", "key"]

WARNINGS = ["-Wall", "-Wextra", "-Werror"]
CORE_FLAGS = [
    *["-std=gnu11", "-O3", "-g", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden"],
    *["-Wl,-z,defs", "-Wl,-z,relro,-z,now", *WARNINGS],
]
BPF_FLAGS = ["-std=gnu11", "-mcpu=v3", "-O2", "-g"]
ZIG_FLAGS = ["-target", "bpfel-freestanding", "-fno-unwind-tables"]

# cffi knows the types of C, not those of <linux/types.h>.
KERNEL_TYPES = "".join(
    f"typedef {'u' * (kind == 'u')}int{bits}_t __{kind}{bits};\n"
    for kind in "us"
    for bits in (8, 16, 32, 64)
)


class BuildError(Exception):
    """What is missing or failed, and what to do about it, in one line."""


def requires() -> list[str]:
    """What build() needs from the package index."""
    return [CFFI] if os.environ.get("BPF_CC") else [CFFI, ZIGLANG]


def build(root: Path = ROOT) -> list[Path]:
    """Bring every artefact under `root` up to date; return those rebuilt.

    Raises BuildError when a compiler is missing or fails.
    """
    headers = [f"native/{name}.h" for name in HEADERS]
    core, bpf = [*CORE_SOURCES, "native/*.h"], ["native/stages.bpf.c", *headers]
    bench = [*BENCH_SOURCES, "bench/bench.h", "native/core.h"]
    bitwise, program, layouts = (
        [f"bench/{name}.bpf.c", *headers] for name in ("bitwise", "program", "layouts")
    )
    steps: list[tuple[str, Sequence[str], Callable[[Path, Path], object], str]] = [
        ("core.so", core, partial(compile_shared, CORE_SOURCES), _core_key()),
        ("stages.bpf.o", bpf, partial(compile_bpf, bpf[0]), _bpf_key()),
        *[
            (f"{name}.bpf.o", bpf, partial(compile_bpf, bpf[0], way=way), f"{way} {_bpf_key()}")
            for name, way in LAB_WAYS.items()
        ],
        ("core_abi.py", CORE_HEADERS, generate_core_abi, ""),
        ("libbpf_abi.py", ["native/libbpf.h"], generate_libbpf_abi, ""),
        # What `vnethash build` compiles hash programs with.
        ("bpf_compiler.json", [], write_compiler, ""),
        *[
            (f"include/{name}.h", [f"native/{name}.h"], partial(copy, f"native/{name}.h"), "")
            for name in [*HEADERS, *BULK_HEADERS]
        ],
        # What `vnethash bench` measures against.
        ("bench.so", bench, partial(compile_shared, BENCH_SOURCES), _core_key()),
        ("bitwise.bpf.o", bitwise, partial(compile_bpf, bitwise[0]), _bpf_key()),
        ("program.bpf.o", program, partial(compile_bpf, program[0]), _bpf_key()),
        ("layouts.bpf.o", layouts, partial(compile_bpf, layouts[0]), _bpf_key()),
        ("bench_abi.py", ["bench/bench.h"], generate_bench_abi, ""),
    ]
    built = root / BUILT
    stamps_file = built / ".stamps.json"
    try:
        stamps = json.loads(stamps_file.read_text())
    except (OSError, ValueError):
        stamps = {}
    rebuilt = []
    failures = []
    for name, patterns, make, key in steps:
        stamp = _stamp(root, patterns, key)
        if stamps.get(name) == stamp and (built / name).exists():
            continue
        # A process may have the old file mapped: never write into it.
        with tempfile.TemporaryDirectory(prefix=".making-", dir=built) as scratch:
            made = Path(scratch) / "made"
            try:
                make(root, made)
            except BuildError as error:
                failures.append(str(error))
                continue
            (built / name).parent.mkdir(exist_ok=True)
            made.replace(built / name)
        stamps[name] = stamp
        stamps_file.write_text(json.dumps(stamps, indent=1) + "\n")
        rebuilt.append(built / name)
    if failures:
        raise BuildError("\n".join(failures))
    return rebuilt


def compile_shared(sources: Sequence[str], root: Path, output: Path) -> None:
    """Compile `sources`, paths below `root`, to a shared library, with the C compiler."""
    compiler = _find(os.environ.get("CC") or "cc", "set CC, or apt install gcc libc6-dev")
    extra = shlex.split(os.environ.get("CFLAGS", ""))
    prefix = f"-ffile-prefix-map={root}=."
    _run([*compiler, *CORE_FLAGS, prefix, *extra, *sources, "-o", str(output)], root)


def compile_bpf(source: str, root: Path, output: Path, *, way: int | None = None) -> None:
    """Compile `source`, a path below `root`, to BPF, the same bytes whatever folder root is.

    `way` is one of LAB_WAYS.
    """
    if command := os.environ.get("BPF_CC"):
        compiler = _find(command, "set BPF_CC to a clang with a BPF target, or unset it")
        headers: list[str] = []
        if multiarch := sysconfig.get_config_var("MULTIARCH"):
            headers = ["-idirafter", f"/usr/include/{multiarch}"]  # asm/types.h on Debian
    else:
        zig = _ziglang()
        compiler = [sys.executable, "-m", "ziglang", "cc", *ZIG_FLAGS]
        headers = [
            *["-isystem", str(zig / "lib/libc/include/any-linux-any")],
            f"-fdebug-prefix-map={zig}=ziglang",
        ]
    prefix = f"-fdebug-prefix-map={root}=."
    define = [] if way is None else [f"-DVNET_WAY={way}"]
    # The last prefix that fits is taken, and ziglang may lie below root.
    flags = [*BPF_FLAGS, *WARNINGS, prefix, *headers, *define]
    _run([*compiler, *flags, "-c", source, "-o", str(output)], root)


def copy(source: str, root: Path, output: Path) -> None:
    """Copy `source`, a path below `root`."""
    shutil.copyfile(root / source, output)


def write_compiler(root: Path, output: Path) -> None:
    """Write how the BPF object that ships is compiled, for vnethash.programs.compiler."""
    how = {"ziglang": ZIGLANG, "flags": BPF_FLAGS, "zig_flags": ZIG_FLAGS}
    output.write_text(json.dumps(how, indent=1) + "\n")


def generate_core_abi(root: Path, output: Path) -> None:
    """Write the cffi module (out of line, ABI mode) of the native core."""
    _generate("core_abi", [root / header for header in CORE_HEADERS], output)


def generate_libbpf_abi(root: Path, output: Path) -> None:
    """Write the cffi module (out of line, ABI mode) of the parts of libbpf in use."""
    _generate("libbpf_abi", [root / "native/libbpf.h"], output)


def generate_bench_abi(root: Path, output: Path) -> None:
    """Write the cffi module (out of line, ABI mode) of what the benchmarks run in C."""
    _generate("bench_abi", [root / "bench/bench.h"], output)


def declarations(header: str) -> str:
    """A C header as cffi reads it: no preprocessor lines, nothing that
    `#ifndef VNETHASH_CDEF` keeps from it."""
    kept = []
    skipping = 0  # depth of conditionals inside the guarded part
    for line in header.replace("\\\n", " ").splitlines():
        directive = re.match(r"\s*#\s*(\w+)\s*(\w*)", line)
        if directive is None:
            if not skipping:
                kept.append(line)
            continue
        keyword, argument = directive.groups()
        if skipping:
            skipping += keyword.startswith("if")
            skipping -= keyword == "endif"
        elif (keyword, argument) == ("ifndef", "VNETHASH_CDEF"):
            skipping = 1
    return "\n".join(kept) + "\n"


def _generate(module: str, headers: Sequence[Path], output: Path) -> None:
    try:
        from cffi import FFI, CDefError
    except ImportError:
        raise BuildError(f"cffi is missing: pip install '{CFFI}'") from None
    ffi = FFI()
    ffi.set_source(f"vnethash._built.{module}", None)
    ffi.cdef(KERNEL_TYPES)
    for header in headers:
        try:
            ffi.cdef(declarations(header.read_text()))
        except (OSError, CDefError) as error:
            raise BuildError(f"{header.name}: {error}") from error
    with contextlib.redirect_stdout(io.StringIO()):  # it says that it generates
        ffi.emit_python_code(str(output))


def _core_key() -> str:
    return " ".join([os.environ.get("CC") or "cc", *CORE_FLAGS, os.environ.get("CFLAGS", "")])


def _bpf_key() -> str:
    compiler = os.environ.get("BPF_CC") or " ".join([ZIGLANG, *ZIG_FLAGS])
    return " ".join([compiler, *BPF_FLAGS])


def _stamp(root: Path, patterns: Sequence[str], key: str) -> str:
    """A digest of all that decides what comes out: this file, the command, the sources."""
    digest = hashlib.sha256()
    inputs = sorted({path for pattern in patterns for path in root.glob(pattern)})
    for part in [Path(__file__).read_bytes(), key.encode(), *(p.read_bytes() for p in inputs)]:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _find(command: str, hint: str) -> list[str]:
    words = shlex.split(command)
    if shutil.which(words[0]) is None:
        raise BuildError(f"compiler not found: {words[0]} ({hint})")
    return words


def _ziglang() -> Path:
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise BuildError(
            f"no BPF compiler: pip install '{ZIGLANG}', or set BPF_CC='clang -target bpf'"
        )
    return Path(spec.origin).resolve().parent


def _run(command: Sequence[str], root: Path) -> None:
    done = subprocess.run(
        command,
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise BuildError(f"{shlex.join(command)} failed:\n{done.stdout.rstrip()}")
    if done.stdout:
        sys.stderr.write(done.stdout)


class BuildHook(BuildHookInterface):  # type: ignore[misc]
    """Runs build() and puts the result in the wheel."""

    def dependencies(self) -> list[str]:
        return requires()

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        try:
            build(Path(self.root))
        except BuildError as error:
            self.app.abort(f"vnethash: {error}")
        platform = re.sub(r"[-.]", "_", sysconfig.get_platform())
        if version != "editable":
            # The folder at the top, where people look; read from there in a checkout.
            build_data["force_include"]["vectors"] = "vnethash/_vectors"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"


def main(arguments: Sequence[str]) -> int:
    """Build in place; with --requires, list what a build without isolation has to install."""
    if arguments == ["--requires"]:
        print("hatchling", *requires(), sep="\n")
        return 0
    if arguments:
        print("usage: hatch_build.py [--requires]", file=sys.stderr)
        return 2
    try:
        rebuilt = build()
    except (BuildError, OSError) as error:
        print(f"vnethash: build: {error}", file=sys.stderr)
        return 1
    for path in rebuilt:
        print(f"built {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
