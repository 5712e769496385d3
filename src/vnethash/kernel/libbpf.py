# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The distribution's libbpf, opened when first needed.

Names and layouts come from native/libbpf.h by way of the generated module
``vnethash._built.libbpf_abi``.
"""

import errno
import mmap
import os
import re
import threading
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from vnethash.errors import BpfError, DependencyMissing, NotPermitted, VerifierError, VnethashError
from vnethash.kernel.caps import Cap, has
from vnethash.kernel.fd import OPEN_FILES

SONAME = "libbpf.so.1"
_LOG_BEGIN = "-- BEGIN PROG LOAD LOG --"
_LOG_END = "-- END PROG LOAD LOG --"
_REFUSED = re.compile(r"prog '([^']+)': " + _LOG_BEGIN)
# kernel/bpf/verifier.c: in complaints that CAP_PERFMON would have spared
_UNPRIVILEGED = ("prohibited for !root", "attempt to corrupt spilled pointer on stack")
# What the verifier's log has besides complaints: the source line of what follows, on newer
# kernels with its place; instructions; states and how it keeps count.
_SOURCE = re.compile(r"; (?P<code>.*?)(?: @ (?P<place>\S+:\d+))?$")
_STEP = re.compile(r"(from )?\d+( to \d+)?: ")
_NOISE = re.compile(
    r"processed \d|verification time|stack depth|mark_precise|max_states|last_idx|regs=|parent "
    r"|(cur|old) state|frame\d+:|R\d+\w*="
)
_STATE = re.compile(r", R\d+\(.*\)$")
# libbpf asks the verifier for a log of up to 16 MiB; only what is written costs memory.
_MESSAGE_MAX = 17 << 20
_WARN = 0


class Libbpf(NamedTuple):
    """The opened library: ``lib`` its functions, ``ffi`` its types."""

    lib: Any
    ffi: Any
    version: tuple[int, int]


_messages = threading.local()
_print_callback: Any = None  # libbpf keeps the pointer: it must outlive the library


@cache
def load() -> Libbpf:
    """Open libbpf, or the library VNETHASH_LIBBPF names.

    Raises DependencyMissing if it is absent or older than 1.0.
    """
    try:
        from vnethash._built import libbpf_abi
    except ImportError as error:
        raise DependencyMissing(
            "vnethash's generated modules are missing",
            hint="install the package (pip install -e .), which builds them",
        ) from error
    ffi: Any = libbpf_abi.ffi
    name = os.environ.get("VNETHASH_LIBBPF") or SONAME
    try:
        lib: Any = ffi.dlopen(name)
    except OSError as error:
        raise DependencyMissing(
            f"cannot open {name}: {error}",
            hint="install libbpf 1.x (Debian, Ubuntu: apt install libbpf1; "
            "Fedora, RHEL: dnf install libbpf), or set VNETHASH_LIBBPF to its path",
        ) from error
    try:
        version: tuple[int, int] = (lib.libbpf_major_version(), lib.libbpf_minor_version())
    except (AttributeError, ffi.error):
        version = (0, 0)  # they came with 0.6
    if version[0] != 1:
        found = f"libbpf {version[0]}.{version[1]}" if version[0] else "older, or no libbpf"
        raise DependencyMissing(
            f"{name} is {found}; vnethash needs libbpf 1.x",
            hint="install libbpf 1.x, or set VNETHASH_LIBBPF to its path",
        )
    _capture_messages(lib, ffi)
    return Libbpf(lib, ffi, version)


def _capture_messages(lib: Any, ffi: Any) -> None:
    """Send what libbpf would print on stderr to the calling thread's list."""

    def keep(level: int, form: Any, arguments: Any) -> int:
        if level != _WARN:
            return 0
        # A va_list can be read once, so the room must suffice at first try.
        with mmap.mmap(-1, _MESSAGE_MAX) as room:
            text = ffi.from_buffer("char[]", room)
            length = lib.vsnprintf(text, _MESSAGE_MAX, form, arguments)
            message = ffi.unpack(text, max(0, min(length, _MESSAGE_MAX - 1)))
            ffi.release(text)
        messages().append(message.decode(errors="replace").rstrip("\n"))
        return int(length)

    global _print_callback
    _print_callback = ffi.callback("libbpf_print_fn_t", keep, error=0)
    lib.libbpf_set_print(_print_callback)


def messages() -> list[str]:
    """What libbpf warned of on this thread since the list was last cleared."""
    try:
        kept: list[str] = _messages.kept
    except AttributeError:
        kept = _messages.kept = []
    return kept


def failure(
    action: str, code: int, *, needs: Iterable[Cap] = (Cap.BPF,), said: Iterable[str] = ()
) -> VnethashError:
    """The error for ``action`` (as "load program x") that failed with errno ``code``.

    ``said`` is what libbpf warned of meanwhile. Without the capabilities
    ``needs`` a refusal becomes a NotPermitted; a verifier log makes a
    VerifierError; all else is a BpfError.
    """
    code, said = abs(code), list(said)
    if code == errno.EPERM and (lacks := [cap.title for cap in needs if not has(cap)]):
        return NotPermitted(action, " and ".join(lacks))
    logged = next((text for text in said if _LOG_BEGIN in text), None)
    if logged is not None and code != errno.EMFILE:  # which is no fault of the program's
        log = logged.partition(_LOG_BEGIN)[2].partition(_LOG_END)[0].strip("\n")
        return verifier_error(action, code, log)
    detail = os.strerror(code)
    if said:
        detail += f" ({said[0].removeprefix('libbpf: ')})"
    return BpfError(f"{action}: {detail[:1].lower()}{detail[1:]}", hint=_hint(code))


def verifier_error(action: str, code: int, log: str) -> VnethashError:
    """The error for a program the verifier rejected, its complaint up front.

    NotPermitted where it allows the same program to a more privileged process.
    """
    reason = complaint(log)
    if any(text in reason for text in _UNPRIVILEGED) and not has(Cap.PERFMON):
        return NotPermitted(action, Cap.PERFMON.title)
    hint = "the full log is in the error's log"
    if code == errno.EPERM and not has(Cap.PERFMON):
        hint = f"with CAP_PERFMON the verifier allows more; {hint}"
    return VerifierError(f"{action}: {reason}", log, hint=hint)


def call(action: str, name: str, *arguments: Any, needs: Iterable[Cap] = (Cap.BPF,)) -> int:
    """Call libbpf's function ``name``; raise ``failure`` if it returns less than 0."""
    result = attempt(name, *arguments)
    if result < 0:
        raise failure(action, result, needs=needs, said=messages())
    return result


def attempt(name: str, *arguments: Any) -> int:
    """Call libbpf's function ``name``; messages() then is what it warned of."""
    messages().clear()
    result: int = getattr(load().lib, name)(*arguments)
    return result


def refused_program(said: Iterable[str]) -> str | None:
    """The name of the program whose verifier log is in what libbpf said."""
    return next((found[1] for text in said if (found := _REFUSED.search(text))), None)


def complaint(log: str) -> str:
    """What the verifier complains of, and in brackets the source line it is about.

    That is the first line behind the last instruction it looked at.
    """
    source = ""
    behind: list[str] = []
    useful: list[str] = []
    for line in map(str.strip, log.splitlines()):
        if found := _SOURCE.match(line):
            source = ": ".join(filter(None, (found["place"], found["code"])))
        if found or _STEP.match(line):
            behind = []
        elif line and not _NOISE.match(line):
            behind.append(line)
            useful.append(line)
    if not useful:
        return "the verifier gave no reason"
    reason = _STATE.sub("", (behind or useful[-1:])[0])
    return f"{reason} ({source})" if source else reason


def _hint(code: int) -> str | None:
    if code == errno.EPERM:
        return (
            "on kernels before 5.11 locked memory is limited: raise it (ulimit -l unlimited); "
            "else a user namespace, a security module or lockdown forbids BPF"
        )
    if code == errno.ENOMEM:
        return "not enough memory, or the memory limit of the control group is reached"
    if code == errno.EMFILE:
        return OPEN_FILES
    if code == errno.E2BIG:
        return "a map or program is larger than this kernel allows"
    return None
