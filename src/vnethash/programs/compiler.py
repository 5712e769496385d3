# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""From the C of a hash program to its BPF object."""

import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vnethash.errors import BpfError, CompileError, DependencyMissing
from vnethash.native import BUILT

INCLUDE = BUILT / "include"
"""Where vnet_hash.h and what it includes are."""

_MISSING_HINT = (
    "pip install 'vnethash[build]', or apt install clang, or name a clang that knows BPF: "
    '--cc "clang -target bpf"'
)
_ERROR = re.compile(r"^(.+?): (?:fatal )?error: (.+)$", re.MULTILINE)


class Compiled(NamedTuple):
    """A BPF object."""

    image: bytes
    warnings: str
    """What the compiler said all the same."""
    compiler: str
    """What compiled it: ``ziglang 0.17.1``, ``clang -target bpf``."""


class _Compiler(NamedTuple):
    name: str
    command: list[str]
    maps: list[str]
    """-fdebug-prefix-map for what it brings along."""


def compile_program(
    source: str | Path,
    *,
    compiler: str | None = None,
    defines: Sequence[str] = (),
    includes: Sequence[str | Path] = (),
) -> Compiled:
    """Compile the hash program ``source``, with ``NAME`` or ``NAME=value`` of ``defines``.

    By the command ``compiler``, else BPF_CC, else ziglang, else a clang that
    has BPF. Another folder gives the same object, if ``source`` is named as
    seen from there. Raises CompileError, DependencyMissing, and BpfError if
    the file cannot be read.
    """
    try:
        with open(source, "rb"):
            pass
    except OSError as error:
        raise BpfError(f"compile {source}: {(error.strerror or '').lower()}") from error
    tool = _find(compiler)
    options = [f"-D{name}" for name in defines]
    for folder in (*includes, INCLUDE):
        options += ["-I", str(folder)]
    # No folder of this machine in the debug information. The last prefix that fits is taken.
    options += [f"-fdebug-prefix-map={os.getcwd()}=.", *tool.maps]
    options += [f"-fdebug-prefix-map={INCLUDE}=vnethash"]
    with tempfile.TemporaryDirectory(prefix="vnethash-") as scratch:
        made = Path(scratch) / "program.o"
        # A file may be called -x.c.
        name = os.path.join(".", source) if str(source).startswith("-") else str(source)
        done = subprocess.run(
            [*tool.command, *options, "-c", name, "-o", str(made)],
            # What zig finds in its cache it compiles without the warnings.
            env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": scratch},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode or not made.exists():
            raise CompileError(_first_error(done.stdout, source, tool.name), done.stdout)
        return Compiled(made.read_bytes(), done.stdout, tool.name)


def _first_error(output: str, source: str | Path, compiler: str) -> str:
    if found := _ERROR.search(output):
        return f"{found[1]}: {found[2]}"
    first = output.strip().partition("\n")[0]
    return f"compile {source} with {compiler}: {first or 'it failed without a word'}"


def _find(given: str | None) -> _Compiler:
    known = _known()
    warnings = ["-Wall", "-Wextra", "-Wno-undefined-internal"]  # open_program() tells that better
    flags = [*known["flags"], *warnings]
    if command := given or os.environ.get("BPF_CC"):
        words = shlex.split(command)
        if not words or shutil.which(words[0]) is None:
            raise DependencyMissing(f"compiler not found: {command}", hint=_MISSING_HINT)
        return _Compiler(command, [*words, *flags, *_system_headers()], [])
    spec = importlib.util.find_spec("ziglang")
    if spec is not None and spec.origin is not None:
        zig = Path(spec.origin).resolve().parent
        headers = ["-isystem", str(zig / "lib/libc/include/any-linux-any")]
        call = [sys.executable, "-m", "ziglang", "cc", *known["zig_flags"], *flags, *headers]
        name = f"ziglang {importlib.metadata.version('ziglang')}"
        return _Compiler(name, call, [f"-fdebug-prefix-map={zig}=ziglang"])
    if clang := _clang():
        call = [clang, "-target", "bpf", *flags, *_system_headers()]
        return _Compiler(f"{Path(clang).name} -target bpf", call, [])
    raise DependencyMissing("no compiler for BPF here", hint=_MISSING_HINT)


@cache
def _known() -> Any:
    """How the BPF object that ships was compiled: hatch_build.py says so."""
    try:
        return json.loads((BUILT / "bpf_compiler.json").read_text())
    except OSError as error:
        raise DependencyMissing(
            "vnethash's headers for hash programs are missing",
            hint="install vnethash from its wheel, or build it here: pip install -e .",
        ) from error


def _system_headers() -> list[str]:
    """Where clang for BPF does not look by itself: asm/types.h on Debian."""
    multiarch = sysconfig.get_config_var("MULTIARCH")
    return ["-idirafter", f"/usr/include/{multiarch}"] if multiarch else []


def _clang() -> str | None:
    """The newest clang on the path that has a BPF target."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    versions = {
        path.name for folder in folders if folder for path in Path(folder).glob("clang-[0-9]*")
    }
    numbered = [name for name in versions if name.removeprefix("clang-").isdigit()]
    numbered.sort(key=lambda name: int(name.removeprefix("clang-")), reverse=True)
    for name in ("clang", *numbered):
        path = shutil.which(name)
        if path is None:
            continue
        targets = subprocess.run(
            [path, "--print-targets"], capture_output=True, text=True, check=False
        )
        if re.search(r"^\s*bpf(el)?\s", targets.stdout, re.MULTILINE):
            return path
    return None
