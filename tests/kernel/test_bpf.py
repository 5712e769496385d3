# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""BPF objects, programs, maps and pins. The object is the one the package ships."""

import errno
import gc
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import programs
from tests.kernel.least_privilege import RefusedError, with_only
from vnethash.errors import BpfError, DeviceError, Unsupported, VerifierError, VnethashError
from vnethash.kernel import bpffs
from vnethash.kernel.bpf import (
    AttachType,
    BpfObject,
    Link,
    Map,
    MapFlag,
    MapType,
    Program,
    ProgramType,
    attach_tcx,
    unpin,
)
from vnethash.kernel.caps import Cap
from vnethash.kernel.netns import Namespace
from vnethash.kernel.tun import TunDevice
from vnethash.native import STAGES_OBJECT

FRAME = bytes(range(64))


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    """A folder in a BPF file system of the test's own."""
    folder = tmp_path / "bpffs"
    folder.mkdir()
    assert bpffs.ensure_mounted(folder)
    try:
        yield folder
    finally:
        bpffs.unmount(folder)


@pytest.fixture
def tcx() -> None:
    """Skip where the kernel has no tcx, which is older than Linux 6.6."""
    with programs.returning(0) as program:
        try:
            attach_tcx(program.fd, 0x7FFFFFFF).close()
        except Unsupported as error:
            pytest.skip(str(error))
        except DeviceError:
            pass


def array(
    *, kind: MapType = MapType.ARRAY, entries: int = 4, flags: MapFlag = MapFlag.NONE, size: int = 8
) -> Map:
    return Map.create(kind, "values", key_size=4, value_size=size, max_entries=entries, flags=flags)


# Programs


def test_runs_a_program() -> None:
    with programs.returning(7) as program:
        run = program.test_run(FRAME, repeat=100)
        assert run.retval == 7
        assert run.data == FRAME
        assert run.ctx == b""
        assert 0 < run.duration_ns < 1_000_000
        assert (program.name, program.type) == ("returning", ProgramType.SCHED_CLS)


def test_hands_a_program_its_context() -> None:
    # r0 = skb->mark; skb->mark = 9; return r0
    mark = 8  # offsetof(struct __sk_buff, mark)
    instructions = [
        (0x61, 0x10, mark, 0),
        (0xB7, 0x02, 0, 9),
        (0x63, 0x21, mark, 0),
        programs.EXIT,
    ]
    context = bytearray(192)
    struct.pack_into("=I", context, mark, 5)
    with Program.from_instructions(ProgramType.SCHED_CLS, "marks", instructions) as program:
        run = program.test_run(FRAME, ctx=bytes(context))
    assert run.retval == 5
    assert struct.unpack_from("=I", run.ctx, mark) == (9,)


def test_a_failed_test_run_says_what_ran() -> None:
    with (
        programs.returning(0) as program,
        pytest.raises(BpfError, match="test run of returning on 6 bytes: invalid argument"),
    ):
        program.test_run(FRAME[:6])


def test_the_verifiers_complaint_comes_first() -> None:
    with pytest.raises(VerifierError) as caught:
        Program.from_instructions(ProgramType.SCHED_CLS, "bad", programs.rejected())
    assert str(caught.value) == "load program bad: R0 !read_ok"
    assert "0: (95) exit" in caught.value.log
    assert "processed" in caught.value.log


def test_a_closed_program_says_so() -> None:
    program = programs.returning(0)
    program.close()
    program.close()
    assert program.closed
    with pytest.raises(VnethashError, match="Program is closed"):
        program.test_run(FRAME)


def test_an_unclosed_program_warns_and_closes() -> None:
    program = programs.returning(0)
    with pytest.warns(ResourceWarning, match="<Program returning id .* was not closed"):
        del program


# Objects


def test_loads_the_shipped_object() -> None:
    with BpfObject.open(STAGES_OBJECT) as loaded:
        assert set(loaded.programs()) == {"hash_stage", "hash_stage_adaptive", "steering_stage"}
        assert {"vnet_table", "vnet_counters"} < set(loaded.maps())
        loaded.resize_map("vnet_counters", 3)
        loaded.load()
        assert loaded.program("hash_stage").type == ProgramType.SCHED_CLS
        assert loaded.program("steering_stage").type == ProgramType.SOCKET_FILTER
        counters = loaded.map("vnet_counters")
        assert (counters.type, counters.max_entries) == (MapType.PERCPU_ARRAY, 3)
        loaded.program("hash_stage").test_run(FRAME)


def test_loads_an_object_from_memory() -> None:
    with BpfObject.open(STAGES_OBJECT.read_bytes(), name="copy") as loaded:
        loaded.load()
        assert loaded.name == "copy"


def test_closing_the_object_closes_what_it_lent() -> None:
    with BpfObject.open(STAGES_OBJECT) as loaded:
        loaded.load()
        program, state = loaded.program("hash_stage"), loaded.map(".data.vnet")
        memory = state.mmap()
    assert program.closed
    assert state.closed
    memory[0] = 1  # a mapping of its own lives on
    memory.close()
    loaded.close()
    with pytest.raises(BpfError, match="is closed"):
        loaded.program("hash_stage")


def test_a_lent_program_does_not_close_the_descriptor() -> None:
    with BpfObject.open(STAGES_OBJECT) as loaded:
        loaded.load()
        loaded.program("hash_stage").close()
        loaded.program("hash_stage").test_run(FRAME)


def test_constants_are_set_before_load() -> None:
    with BpfObject.open(STAGES_OBJECT) as loaded:
        data = loaded.initial_value(".rodata.vnet")
        content = bytes(range(1, len(data) + 1))
        data[:] = content
        loaded.load()
        with pytest.raises(ValueError, match="released"):
            data[0] = 0
        constants = loaded.map(".rodata.vnet")
        assert constants.lookup(0) == content
        with pytest.raises(BpfError, match="loaded already"):
            loaded.initial_value(".rodata.vnet")


def test_memory_of_a_global_is_shared() -> None:
    with BpfObject.open(STAGES_OBJECT) as loaded:
        loaded.load()
        state = loaded.map(".data.vnet")
        with state.mmap() as memory:
            assert len(memory) == state.value_size + (-state.value_size) % 8
            memory[4:8] = b"\1\2\3\4"
            assert state.lookup(0)[4:8] == b"\1\2\3\4"


@pytest.mark.parametrize("image", [b"", b"\x7fELF", b"no BPF object" * 100])
def test_rejects_what_is_no_object(image: bytes) -> None:
    with pytest.raises(BpfError, match="open BPF object junk"):
        BpfObject.open(image, name="junk")


def test_says_which_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BpfError, match=r"gone\.o: No such file"):
        BpfObject.open(tmp_path / "gone.o")


def test_says_which_names_there_are() -> None:
    with BpfObject.open(STAGES_OBJECT) as loaded:
        with pytest.raises(BpfError, match=r"no map nope: .*counters"):
            loaded.resize_map("nope", 1)
        with pytest.raises(BpfError, match="is not loaded yet"):
            loaded.program("hash_stage")
        loaded.load()
        with pytest.raises(BpfError, match=r"no program nope: .*hash_stage"):
            loaded.program("nope")
        with pytest.raises(BpfError, match="is loaded already"):
            loaded.load()


def test_an_object_the_verifier_rejects() -> None:
    with BpfObject.open(STAGES_OBJECT) as loaded:
        # What a tc program may do with its packet, a program at XDP may not.
        loaded.set_program_type("hash_stage", ProgramType.XDP)
        with pytest.raises(VerifierError) as caught:
            loaded.load()
    first, log = str(caught.value), caught.value.log
    assert first.startswith("load hash_stage of stages: ")
    assert first.removeprefix("load hash_stage of stages: ").partition(" (")[0] in log
    assert "processed" not in first
    assert log.count("\n") > 3


def test_a_program_can_be_left_out() -> None:
    with BpfObject.open(STAGES_OBJECT) as loaded:
        loaded.set_program_type("hash_stage", ProgramType.XDP)
        loaded.set_autoload("hash_stage", False)
        loaded.load()
        loaded.program("steering_stage").test_run(FRAME)
        with pytest.raises(BpfError, match="take program hash_stage"):
            loaded.program("hash_stage")


def test_loading_needs_three_capabilities_only() -> None:
    def load() -> int:
        with BpfObject.open(STAGES_OBJECT) as loaded:
            loaded.load()
            return loaded.program("hash_stage").test_run(FRAME).retval

    needed = {Cap.BPF, Cap.NET_ADMIN, Cap.PERFMON}
    assert isinstance(with_only(needed, load), int)
    for lacking in needed:
        with pytest.raises(RefusedError, match=lacking.title) as caught:
            with_only(needed - {lacking}, load)
        assert caught.value.kind == "NotPermitted"


# Maps


def test_a_map_keeps_values() -> None:
    with array() as values:
        assert (values.name, values.key_size, values.value_size) == ("values", 4, 8)
        values.update(2, b"12345678")
        values.update(struct.pack("=I", 3), b"abcdefgh")
        assert values.lookup(2) == b"12345678"
        assert values.values() == [bytes(8), bytes(8), b"12345678", b"abcdefgh"]
        with pytest.raises(KeyError):
            values.lookup(4)
        with pytest.raises(BpfError, match="a value has 8 bytes, not 3"):
            values.update(0, b"123")
        with pytest.raises(BpfError, match="a key has 4 bytes, not 2"):
            values.lookup(b"12")
        with pytest.raises(BpfError, match="delete from map values"):
            values.delete(0)
        with pytest.raises(BpfError, match="cannot be mapped"):
            values.mmap()


def test_values_without_a_batch_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoBatch:
        def __init__(self, lib: object) -> None:
            self._lib = lib

        def __getattr__(self, name: str) -> object:
            if name == "bpf_map_lookup_batch":
                return lambda *arguments: -errno.EINVAL
            return getattr(self._lib, name)

    with array() as values:
        values.update(1, b"12345678")
        monkeypatch.setattr(values, "_lib", NoBatch(values._lib))
        assert values.values() == [bytes(8), b"12345678", bytes(8), bytes(8)]


def test_a_map_with_a_value_per_cpu() -> None:
    with array(kind=MapType.PERCPU_ARRAY, size=12, entries=2) as values:
        values.update(1, b"123456789abc")
        per_cpu = values.lookup_percpu(1)
        assert len(per_cpu) >= len(os.sched_getaffinity(0))
        assert set(per_cpu) == {b"123456789abc"}
        assert values.values_percpu() == [[bytes(12)] * len(per_cpu), per_cpu]
        with pytest.raises(BpfError, match="has a value per CPU"):
            values.lookup(1)
    with array() as values, pytest.raises(BpfError, match="has no value per CPU"):
        values.lookup_percpu(1)


def test_entries_can_be_removed() -> None:
    with array(kind=MapType.PERCPU_HASH) as values:
        values.update(5, bytes(8))
        values.delete(5)
        with pytest.raises(KeyError):
            values.delete(5)
        with pytest.raises(BpfError, match="is no array"):
            values.values_percpu()


def test_an_array_in_memory() -> None:
    with array(flags=MapFlag.MMAPABLE, size=4, entries=3) as values:
        with values.mmap() as memory:
            assert len(memory) == 24  # each value begins at a multiple of 8
            memory[8:12] = b"1234"
            assert values.lookup(1) == b"1234"
            values.update(2, b"abcd")
            assert memory[16:20] == b"abcd"
        with values.mmap(writable=False) as memory, pytest.raises(TypeError):
            memory[0] = 1


def test_a_map_is_too_large() -> None:
    with pytest.raises(BpfError, match="create map values"):
        array(entries=0xFFFFFFFF, size=1 << 20)


# Pins


def test_a_pinned_map_is_the_same_map(pins: Path) -> None:
    with array() as values:
        values.pin(pins / "values")
        values.update(0, b"12345678")
    with Map.from_pin(pins / "values") as again:
        assert again.lookup(0) == b"12345678"
        assert again.max_entries == 4
    unpin(pins / "values")
    unpin(pins / "values")
    with pytest.raises(BpfError, match="open pin"):
        Map.from_pin(pins / "values")


def test_a_pinned_program_runs(pins: Path) -> None:
    with programs.returning(3) as program:
        program.pin(pins / "program")
        identity = program.id
    with Program.from_pin(pins / "program") as again:
        assert again.id == identity
        assert again.test_run(FRAME).retval == 3


def test_a_pin_is_of_one_kind(pins: Path) -> None:
    with array() as values:
        values.pin(pins / "values")
    for kind, name in ((Program, "bpf-prog"), (Link, "bpf-link")):
        with pytest.raises(BpfError, match=f"it is a bpf-map, not a {name}"):
            kind.from_pin(pins / "values")


def test_a_pin_needs_a_free_place_in_a_bpffs(pins: Path, tmp_path: Path) -> None:
    with array() as values:
        values.pin(pins / "values")
        with pytest.raises(BpfError, match="already there"):
            values.pin(pins / "values")
        with pytest.raises(BpfError) as caught:
            values.pin(tmp_path / "values")
        assert "bpffs" in str(caught.value.hint)


# tcx links


@pytest.mark.usefixtures("tcx")
def test_a_tcx_link(netns: Namespace) -> None:
    with (
        TunDevice.create("tap0", 2) as tap,
        programs.dropping() as first,
        programs.returning(0) as second,
        attach_tcx(first.fd, tap.ifindex) as link,
    ):
        info = link.info()
        assert (info.prog_id, info.ifindex) == (first.id, tap.ifindex)
        assert info.attach_type == AttachType.TCX_EGRESS
        link.update(second.fd)
        assert link.info().prog_id == second.id
        link.detach()
        assert link.info().ifindex == 0
        link.detach()


@pytest.mark.usefixtures("tcx")
def test_a_tcx_link_outlives_its_process_by_a_pin(netns: Namespace, pins: Path) -> None:
    with TunDevice.create("tap0", 2) as tap:
        with programs.returning(0) as program:
            with attach_tcx(program.fd, tap.ifindex, egress=False) as link:
                link.pin(pins / "link")
            identity = program.id
        with Link.from_pin(pins / "link") as again:
            assert again.path == pins / "link"
            info = again.info()
            assert (info.prog_id, info.attach_type) == (identity, AttachType.TCX_INGRESS)
            again.unpin()
            again.unpin()
        assert not (pins / "link").exists()


@pytest.mark.usefixtures("tcx")
def test_tcx_says_why_not(netns: Namespace) -> None:
    with TunDevice.create("tap0", 2) as tap:
        with (
            programs.returning(0) as program,
            pytest.raises(DeviceError, match="no device with index 999"),
        ):
            attach_tcx(program.fd, 999)
        with programs.steering(0) as program, pytest.raises((BpfError, Unsupported)):
            attach_tcx(program.fd, tap.ifindex)
    gc.collect()
