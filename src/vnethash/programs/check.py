# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Opening a hash program: an object that is not what it should be is refused, with the reason.

This needs no rights and asks the running kernel nothing. It guards against
mistakes, and against programs that do more than decide about a packet; whether
the code is safe is for the verifier to say.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vnethash.errors import BpfError, ProgramRefused
from vnethash.kernel.bpf import BpfObject, ProgramType
from vnethash.native import STAGES_OBJECT, core
from vnethash.programs import helpers
from vnethash.programs.elf import Contents, NotBpf, read_contents

_DEVICE = ".rodata.vnet"  # struct vnet_device, which begins with the ABI


class _Form(NamedTuple):
    """What is in an object; kernels of the lab take another (native/lab_stage.h)."""

    types: Mapping[str, str]
    functions: frozenset[str] = frozenset()
    """Of the kernel."""
    way: int | None = None
    """VNET_WAY, when it is compiled."""
    steering: ProgramType | None = None
    """What the steering stage is, where libbpf does not know its section."""


_SOCKET_FILTER = {"steering_stage": "socket_filter"}
_FORMS = {
    "program": _Form(
        {"hash_stage": "sched_cls", "hash_stage_adaptive": "sched_cls", **_SOCKET_FILTER}
    ),
    "tun-kfunc": _Form(_SOCKET_FILTER, frozenset({"bpf_tun_set_hash"}), 1),
    "tun-progtype": _Form({"steering_stage": "unspec"}, way=2, steering=ProgramType.VNET_HASH),
    "tun-cb": _Form(_SOCKET_FILTER, way=3),
}

# As libbpf calls them: maps that hold values, and nothing that the kernel acts on.
_STORAGE = {
    *{"hash", "array", "percpu_hash", "percpu_array", "lru_hash", "lru_percpu_hash", "lpm_trie"},
    *{"queue", "stack", "bloom_filter", "ringbuf", "perf_event_array"},
}

_REBUILD = "compile it with `vnethash build` of this version"
_ONLY_DECIDES = (
    "a hash program decides about a packet and keeps maps; docs/programs.md lists what it may ask"
)
_PORTABLE = (
    "an object has to load on any kernel: use helpers, maps and variables of its own "
    "(docs/programs.md)"
)


ENGINES = tuple(_FORMS)
"""Those that run hash programs; each takes objects compiled for it."""


def defines_for(engine: str) -> tuple[str, ...]:
    """What to define when a program is compiled for one of ENGINES."""
    way = _FORMS[engine].way
    return () if way is None else (f"VNET_WAY={way}",)


def open_program(
    source: str | Path | bytes, *, name: str | None = None, engine: str = "program"
) -> BpfObject:
    """Open the hash program ``source``, a file or its content, and check it; load() comes after.

    ``engine`` is the one to run it. Raises ProgramRefused with the reason,
    BpfError if the file cannot be read, and DependencyMissing without libbpf.
    """
    image, title = _read(source, name)
    try:
        contents = read_contents(image)
    except NotBpf as error:
        raise ProgramRefused(title, str(error), hint="compile it with `vnethash build`") from None
    form = _FORMS[engine]
    _check_contents(contents, title, form)
    try:
        opened = BpfObject.open(image, name=title)
    except BpfError as error:
        raise ProgramRefused(title, f"is refused by libbpf: {error}") from error
    try:
        _check_object(opened, form)
        if form.steering is not None:
            opened.set_program_type("steering_stage", form.steering)
    except BaseException:
        opened.close()
        raise
    return opened


def _read(source: str | Path | bytes, name: str | None) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, name or "program"
    path = Path(source)
    try:
        return path.read_bytes(), name or path.name.partition(".")[0]
    except OSError as error:
        raise BpfError(f"open hash program {path}: {(error.strerror or '').lower()}") from error


def _check_contents(contents: Contents, name: str, form: _Form) -> None:
    if "vnet_hash_program" in contents.undefined:
        raise ProgramRefused(
            name,
            "defines no VNET_HASH_PROGRAM(frame, verdict)",
            hint="that is the function which decides about a packet: see docs/programs.md",
        )
    for function in contents.undefined:
        if function not in form.functions:
            raise ProgramRefused(name, f"needs {function} of the kernel", hint=_PORTABLE)
    for function in form.functions - set(contents.undefined):
        raise ProgramRefused(name, f"does not call {function}()", hint=_compile_for(form))
    if contents.adapts:
        raise ProgramRefused(name, "depends on types of the running kernel (CO-RE)", hint=_PORTABLE)
    for number in sorted(contents.helpers - helpers.ALLOWED):
        raise ProgramRefused(name, f"calls {helpers.name_of(number)}", hint=_ONLY_DECIDES)


def _compile_for(form: _Form) -> str:
    engine = next(name for name, known in _FORMS.items() if known is form)
    return "compile it with `vnethash build" + (f" --engine {engine}`" if form.way else "`")


def _check_object(opened: BpfObject, form: _Form) -> None:
    _check_programs(opened, form)
    _check_abi(opened)
    with BpfObject.open(STAGES_OBJECT) as ours:
        _check_maps(opened, ours)


def _check_programs(opened: BpfObject, form: _Form) -> None:
    programs = opened.programs()
    if form.way and "hash_stage" in programs:
        raise ProgramRefused(opened.name, "is for stock kernels", hint=_compile_for(form))
    for name, kind in form.types.items():
        if name not in programs:
            raise ProgramRefused(
                opened.name,
                f"has no {name}",
                hint=f"vnet_hash.h brings it along: #include it; {_compile_for(form)}",
            )
        found = opened.program_type(name)
        if found != kind:
            raise ProgramRefused(
                opened.name, f"has a {name} of type {found} instead of {kind}", hint=_REBUILD
            )
    for name in programs:
        if name not in form.types:
            raise ProgramRefused(
                opened.name,
                f"holds another program, {name} of type {opened.program_type(name)}",
                hint="leave SEC() off a function that the hash program calls",
            )


def _check_abi(opened: BpfObject) -> None:
    if _DEVICE not in opened.maps():
        raise ProgramRefused(opened.name, f"has no {_DEVICE}", hint=_REBUILD)
    compiled_for = int.from_bytes(opened.initial_value(_DEVICE)[:4], "little")
    if compiled_for != core().lib.VNET_ABI:
        raise ProgramRefused(
            opened.name,
            f"was compiled for interface {compiled_for}, this vnethash has interface "
            f"{core().lib.VNET_ABI}",
            hint=_REBUILD,
        )


def _check_maps(opened: BpfObject, ours: BpfObject) -> None:
    """Ours as in the object that ships, its own of a kind that only stores."""
    present = opened.maps()
    for name in ours.maps():
        if name not in present:
            raise ProgramRefused(opened.name, f"has no map {name}", hint=_REBUILD)
        found, wanted = opened.map_shape(name), ours.map_shape(name)
        if found != wanted:
            different = ", ".join(
                f"{field} {got} instead of {want}"
                for field, got, want in zip(wanted._fields, found, wanted, strict=True)
                if got != want
            )
            raise ProgramRefused(opened.name, f"has a map {name} of {different}", hint=_REBUILD)
    for name in present:
        kind = opened.map_shape(name).type
        if kind not in _STORAGE:
            raise ProgramRefused(
                opened.name, f"has a map {name} of type {kind}", hint=_ONLY_DECIDES
            )
        if opened.pins_itself(name):
            raise ProgramRefused(
                opened.name,
                f"has a map {name} that pins itself by name",
                hint="leave `pinning` out: two taps would share it without being asked",
            )
