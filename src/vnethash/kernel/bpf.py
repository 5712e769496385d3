# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""BPF objects and their programs, loaded by libbpf."""

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple, Self

from vnethash.closing import Closing
from vnethash.errors import BpfError
from vnethash.kernel import libbpf
from vnethash.kernel.bpf_fd import BpfFd, unpin
from vnethash.kernel.bpf_map import Map, MapFlag, MapType
from vnethash.kernel.caps import Cap
from vnethash.kernel.tcx import AttachType, Link, LinkInfo, attach_tcx

__all__ = [
    "AttachType",
    "BpfObject",
    "Link",
    "LinkInfo",
    "Map",
    "MapFlag",
    "MapShape",
    "MapType",
    "Program",
    "ProgramType",
    "TestRun",
    "attach_tcx",
    "unpin",
]

# BPF_PROG_LOAD flag, include/uapi/linux/bpf.h; no effect on most kernels
_F_ANY_ALIGNMENT = 1 << 1
_LOADS_UNALIGNED = {"x86_64", "i686", "aarch64", "s390x", "ppc64le"}
_LOG_ROOM = 1 << 16
# BPF_LOG_STATS of include/linux/bpf_verifier.h: a few lines, not a log
_LOG_STATISTICS = 4
_STATISTICS_ROOM = 4096
_VERIFICATION_TIME = re.compile(r"verification time (\d+) usec")
_TEST_RUN_ROOM = 256  # a program may make the frame longer


class ProgramType(IntEnum):
    """enum bpf_prog_type, include/uapi/linux/bpf.h: those used here."""

    SOCKET_FILTER = 1
    SCHED_CLS = 3
    XDP = 6
    VNET_HASH = 33  # kernels of the lab: lab/patches/tun-progtype


@dataclass(frozen=True, slots=True)
class TestRun:
    """Outcome of BPF_PROG_TEST_RUN; ``duration_ns`` is the mean of one run."""

    retval: int
    data: bytes
    duration_ns: int
    ctx: bytes = b""

    __test__ = False  # no test class, pytest


class MapShape(NamedTuple):
    """A map that is not made yet; ``type`` as libbpf calls it: "percpu_array"."""

    type: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int


class Program(BpfFd):
    """A loaded BPF program."""

    kind = "bpf-prog"

    def __init__(self, fd: int, name: str = "", *, borrowed: bool = False) -> None:
        super().__init__(fd, borrowed=borrowed)
        try:
            info = self._info("vnb_prog_info")
        except BaseException:
            self.close()
            raise
        self.id: int = info.id
        self.type: int = info.type
        # The kernel keeps 15 bytes of the name.
        self.name: str = name or libbpf.load().ffi.string(info.name).decode()
        self.jited = bool(info.jited_prog_len)
        """Whether it runs as machine code."""
        self.verified: int = info.verified_insns
        """Instructions the verifier looked at; 0 from a kernel that does not tell."""
        self.instructions: int = info.xlated_prog_len // 8
        """What the verifier made of it; 0 without CAP_BPF."""
        self.machine_code: int = info.jited_prog_len
        """Bytes; 0 where it is interpreted."""
        self.verification_seconds: float | None = None
        """What the verifier took, after BpfObject.keep_statistics()."""

    def __repr__(self) -> str:
        return f"<Program {self.name} id {self.id}>"

    @classmethod
    def from_instructions(
        cls,
        kind: ProgramType,
        name: str,
        instructions: Sequence[tuple[int, int, int, int]],
        *,
        license: str = "GPL",
    ) -> Self:
        """Load instructions given as (code, registers, offset, immediate)."""
        ffi = libbpf.load().ffi
        code = ffi.new("struct bpf_insn[]", list(instructions))
        opts = ffi.new("struct bpf_prog_load_opts *")
        opts.sz = ffi.sizeof(opts[0])
        log = ffi.new("char[]", _LOG_ROOM)
        opts.log_buf, opts.log_size = log, _LOG_ROOM  # libbpf asks for it after a failure
        given = (int(kind), name.encode(), license.encode(), code, len(instructions), opts)
        fd = libbpf.attempt("bpf_prog_load", *given)
        if fd >= 0:
            return cls(fd, name)
        action, said = f"load program {name}", ffi.string(log).decode(errors="replace")
        if said:
            raise libbpf.verifier_error(action, -fd, said)
        raise libbpf.failure(action, fd, needs=_needs(kind), said=libbpf.messages())

    @classmethod
    def from_id(cls, number: int) -> Self:
        """The loaded program with that id, which CAP_SYS_ADMIN may ask for.

        Raises NotPermitted, BpfError if there is none.
        """
        action = f"open program {number}"
        return cls(libbpf.call(action, "bpf_prog_get_fd_by_id", number, needs=(Cap.SYS_ADMIN,)))

    def test_run(self, data: bytes, *, repeat: int = 1, ctx: bytes | None = None) -> TestRun:
        """Run the program on a frame, without a device.

        ``ctx`` is the struct __sk_buff to start from; TestRun.ctx is what it
        became. Raises BpfError for frames the kernel does not run, which are
        those without a byte behind the Ethernet header and those above what it can
        put in one buffer (a page less some headroom on older ones).
        """
        native = libbpf.load()
        ffi = native.ffi
        opts = ffi.new("struct bpf_test_run_opts *")
        opts.sz = ffi.sizeof(opts[0])
        frame = ffi.from_buffer(data)
        out = ffi.new("char[]", len(data) + _TEST_RUN_ROOM)
        opts.data_in, opts.data_size_in = frame, len(data)
        opts.data_out, opts.data_size_out = out, len(data) + _TEST_RUN_ROOM
        if ctx is not None:
            before = ffi.from_buffer(ctx)
            after = ffi.new("char[]", len(ctx))
            opts.ctx_in, opts.ctx_size_in = before, len(ctx)
            opts.ctx_out, opts.ctx_size_out = after, len(ctx)
        opts.repeat = repeat
        code = native.lib.bpf_prog_test_run_opts(self.fileno(), opts)
        if code < 0:
            raise libbpf.failure(f"test run of {self.name} on {len(data)} bytes", code)
        context = bytes(ffi.buffer(after, opts.ctx_size_out)) if ctx is not None else b""
        return TestRun(
            opts.retval, bytes(ffi.buffer(out, opts.data_size_out)), opts.duration, context
        )


class BpfObject(Closing):
    """A compiled BPF object: open, adjust, load, take programs and maps from it.

    Programs and maps taken from it end when it is closed; pin them, or
    attach them, to have them live on.
    """

    def __init__(self, handle: Any, name: str) -> None:
        self._handle = handle
        self.name = name
        self._loaded = False
        self._lent: list[BpfFd] = []
        self._views: list[memoryview] = []
        self._statistics: dict[str, Any] = {}

    @classmethod
    def open(cls, source: str | Path | bytes, *, name: str | None = None) -> Self:
        """Parse the ELF file ``source``, or its content.

        Raises BpfError if it cannot be read or is no BPF object, and
        DependencyMissing without libbpf.
        """
        native = libbpf.load()
        if isinstance(source, bytes):
            image, title = source, name or "vnethash"
        else:
            path = Path(source)
            title = name or path.name.partition(".")[0]
            try:
                image = path.read_bytes()
            except OSError as error:
                raise BpfError(f"open BPF object {path}: {error.strerror}") from error
        opts = native.ffi.new("struct bpf_object_open_opts *")
        opts.sz = native.ffi.sizeof(opts[0])
        label = native.ffi.new("char[]", title.encode())
        opts.object_name = label
        libbpf.messages().clear()
        content = native.ffi.from_buffer(image)
        handle = native.lib.bpf_object__open_mem(content, len(image), opts)
        if handle == native.ffi.NULL:
            raise libbpf.failure(
                f"open BPF object {title}", native.ffi.errno, said=libbpf.messages()
            )
        return cls(handle, title)

    def close(self) -> None:
        """Free everything; programs and maps taken from it are closed too."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        self._release_views()
        for lent in self._lent:
            lent.close()
        self._lent.clear()
        libbpf.load().lib.bpf_object__close(handle)

    def let_go(self) -> list[BpfFd]:
        """Free what libbpf keeps of a loaded object.

        Programs and maps taken from it live on, and are the caller's to close.
        """
        for lent in self._lent:
            lent.own()
        kept, self._lent = self._lent, []
        self.close()
        return kept

    def _open_handle(self, loaded: bool) -> Any:
        if self._handle is None:
            raise BpfError(f"BPF object {self.name} is closed")
        if loaded != self._loaded:
            raise BpfError(
                f"BPF object {self.name} is {'not loaded yet' if loaded else 'loaded already'}"
            )
        return self._handle

    def programs(self) -> list[str]:
        """Names of its programs."""
        native = libbpf.load()
        names, item = [], native.ffi.NULL
        while (item := native.lib.bpf_object__next_program(self._handle, item)) != native.ffi.NULL:
            names.append(native.ffi.string(native.lib.bpf_program__name(item)).decode())
        return names

    def maps(self) -> list[str]:
        """Names of its maps, as libbpf gives them."""
        native = libbpf.load()
        names, item = [], native.ffi.NULL
        while (item := native.lib.bpf_object__next_map(self._handle, item)) != native.ffi.NULL:
            names.append(native.ffi.string(native.lib.bpf_map__name(item)).decode())
        return names

    def _find_map(self, name: str, *, loaded: bool) -> Any:
        native = libbpf.load()
        handle = self._open_handle(loaded)
        found = native.lib.bpf_object__find_map_by_name(handle, name.encode())
        if found == native.ffi.NULL:
            raise BpfError(f"BPF object {self.name} has no map {name}: {', '.join(self.maps())}")
        return found

    def _find_program(self, name: str, *, loaded: bool) -> Any:
        native = libbpf.load()
        handle = self._open_handle(loaded)
        found = native.lib.bpf_object__find_program_by_name(handle, name.encode())
        if found == native.ffi.NULL:
            raise BpfError(
                f"BPF object {self.name} has no program {name}: {', '.join(self.programs())}"
            )
        return found

    def program_type(self, name: str) -> str:
        """What its section makes of a program, before load: "sched_cls", "socket_filter"."""
        native = libbpf.load()
        kind = native.lib.bpf_program__type(self._find_program(name, loaded=False))
        return _known_as(native.lib.libbpf_bpf_prog_type_str(kind))

    def map_shape(self, name: str) -> MapShape:
        """What a map is going to be, before load."""
        native = libbpf.load()
        found = self._find_map(name, loaded=False)
        return MapShape(
            _known_as(native.lib.libbpf_bpf_map_type_str(native.lib.bpf_map__type(found))),
            native.lib.bpf_map__key_size(found),
            native.lib.bpf_map__value_size(found),
            native.lib.bpf_map__max_entries(found),
            native.lib.bpf_map__map_flags(found),
        )

    def pins_itself(self, name: str) -> bool:
        """Whether load() shares a map with others by a pin, as LIBBPF_PIN_BY_NAME asks for."""
        native = libbpf.load()
        path = native.lib.bpf_map__pin_path(self._find_map(name, loaded=False))
        return bool(path != native.ffi.NULL)

    def resize_map(self, name: str, max_entries: int) -> None:
        """Set the number of entries of a map, before load."""
        found = self._find_map(name, loaded=False)
        libbpf.call(f"resize map {name}", "bpf_map__set_max_entries", found, max_entries)

    def initial_value(self, name: str) -> memoryview:
        """What a map of variables (".rodata", ".data.x") starts with, to write to before load.

        The view is released by load() and close(); slices made of it must
        not be used after that.
        """
        native = libbpf.load()
        size = native.ffi.new("size_t *")
        data = native.lib.bpf_map__initial_value(self._find_map(name, loaded=False), size)
        if data == native.ffi.NULL:
            raise BpfError(f"map {name} of BPF object {self.name} has no initial value")
        view = memoryview(native.ffi.buffer(data, size[0]))
        self._views.append(view)
        return view

    def _release_views(self) -> None:
        for view in self._views:
            view.release()
        self._views.clear()

    def make_map(self, name: str, max_entries: int | None = None, *, mapped: bool = True) -> None:
        """Make a map of an array type before load, with another number of entries if given.

        Unless ``mapped`` it cannot be mapped into memory, which would take whole
        pages. load() would give it the types of the object, which then stay in the
        kernel as long as the map, and would have variables mapped into memory
        that no one writes.
        """
        shape = self.map_shape(name)
        flags = MapFlag(shape.flags)
        constants = flags & MapFlag.RDONLY_PROG
        if constants or not mapped:
            flags &= ~MapFlag.MMAPABLE
        with Map.create(
            MapType[shape.type.upper()],
            name,
            key_size=shape.key_size,
            value_size=shape.value_size,
            max_entries=max_entries or shape.max_entries,
            flags=flags,
        ) as made:
            if constants:
                made.update(0, bytes(self.initial_value(name)))
                made.freeze()
            self.reuse_map(name, made)

    def reuse_map(self, name: str, shared: Map) -> None:
        """Use a map there is already instead of making one, before load."""
        found = self._find_map(name, loaded=False)
        libbpf.call(f"share map {name}", "bpf_map__reuse_fd", found, shared.fd)

    def set_program_type(self, name: str, kind: ProgramType) -> None:
        """Say what a program is where its section name does not, before load."""
        found = self._find_program(name, loaded=False)
        libbpf.call(f"set type of program {name}", "bpf_program__set_type", found, int(kind))

    def set_autoload(self, name: str, load: bool) -> None:
        """Whether load() loads this program, before load."""
        found = self._find_program(name, loaded=False)
        libbpf.call(f"set loading of program {name}", "bpf_program__set_autoload", found, load)

    def keep_statistics(self) -> None:
        """Have the verifier say what time it took, before load.

        load() does not have its log then: what it fails with tells less.
        """
        ffi = libbpf.load().ffi
        for name in self.programs():
            found = self._find_program(name, loaded=False)
            text = self._statistics[name] = ffi.new("char[]", _STATISTICS_ROOM)
            action = f"ask for statistics of program {name}"
            libbpf.call(action, "bpf_program__set_log_buf", found, text, _STATISTICS_ROOM)
            libbpf.call(action, "bpf_program__set_log_level", found, _LOG_STATISTICS)

    def load(self) -> None:
        """Make the maps and load the programs.

        Raises VerifierError with the verifier's log, NotPermitted, BpfError.
        After an error the object can only be closed.
        """
        handle = self._open_handle(False)
        self._release_views()
        self._allow_unaligned()
        code = libbpf.attempt("bpf_object__load", handle)
        if code < 0:
            said = libbpf.messages()
            program = libbpf.refused_program(said)
            what = f"{program} of {self.name}" if program else f"BPF object {self.name}"
            raise libbpf.failure(f"load {what}", code, needs=(Cap.BPF, Cap.NET_ADMIN), said=said)
        self._loaded = True

    def _allow_unaligned(self) -> None:
        """Have the verifier accept unaligned loads where the machine does them.

        It does so by itself where the kernel was built to know that;
        user-mode-linux, for one, is not.
        """
        if platform.machine() not in _LOADS_UNALIGNED:
            return
        lib = libbpf.load().lib
        for name in self.programs():
            found = self._find_program(name, loaded=False)
            flags = lib.bpf_program__flags(found) | _F_ANY_ALIGNMENT
            libbpf.call(f"set flags of program {name}", "bpf_program__set_flags", found, flags)

    def program(self, name: str) -> Program:
        """A loaded program; it is closed with the object."""
        found = self._find_program(name, loaded=True)
        fd = libbpf.call(f"take program {name}", "bpf_program__fd", found)
        program = Program(fd, name, borrowed=True)
        self._lent.append(program)
        if name in self._statistics:
            said = libbpf.load().ffi.string(self._statistics[name]).decode(errors="replace")
            if took := _VERIFICATION_TIME.search(said):
                program.verification_seconds = int(took[1]) / 1e6
        return program

    def map(self, name: str) -> Map:
        """A map, by its C name or its section; it is closed with the object."""
        found = self._find_map(name, loaded=True)
        fd = libbpf.call(f"take map {name}", "bpf_map__fd", found)
        bpf_map = Map(fd, borrowed=True)
        self._lent.append(bpf_map)
        return bpf_map


def _needs(kind: ProgramType) -> tuple[Cap, ...]:
    """What loading a program takes: kernel/bpf/syscall.c, is_net_admin_prog_type()."""
    plain = (ProgramType.SOCKET_FILTER, ProgramType.VNET_HASH)
    return (Cap.BPF,) if kind in plain else (Cap.BPF, Cap.NET_ADMIN)


def _known_as(name: Any) -> str:
    """A string of libbpf's for a number, which it may not know."""
    ffi = libbpf.load().ffi
    return "unknown" if name == ffi.NULL else str(ffi.string(name).decode())
