# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Hash programs without any rights: compiling them, and refusing what is none."""

import json
import os
import re
import shutil
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.kernel.hash_programs import EXAMPLES, compiled, example
from vnethash.cli import main
from vnethash.cli.verifier_log import verifier_log
from vnethash.errors import (
    BpfError,
    CompileError,
    DependencyMissing,
    ProgramRefused,
    VerifierError,
)
from vnethash.native import BUILT, STAGES_OBJECT
from vnethash.programs import compile_program, compiler, helpers, open_program
from vnethash.programs.elf import NotBpf, read_contents

ROOT = Path(__file__).resolve().parents[2]
LIBBPF_HEADERS = Path("/usr/include/bpf")
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.c"))
XOR = EXAMPLES / "xor.c"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str, name: str = "program.c") -> Path:
    path = folder / name
    path.write_text(text)
    return path


# What may be loaded


@pytest.mark.parametrize("name", NAMES)
def test_every_example_is_taken(name: str) -> None:
    with open_program(example(name), name=name) as program:
        assert set(program.programs()) == {"hash_stage", "hash_stage_adaptive", "steering_stage"}
        assert program.name == name


def test_a_file_is_called_as_it_is_called(tmp_path: Path) -> None:
    path = tmp_path / "mine.v2.o"
    path.write_bytes(example("xor"))
    with open_program(path) as program:
        assert program.name == "mine"


def test_maps_and_variables_of_its_own_are_allowed() -> None:
    image = compiled(
        "__u32 key = verdict->queue; __u64 now = bpf_ktime_get_ns();"
        "bpf_map_update_elem(&seen, &key, &now, 0); bss++; data++; verdict->queue = rodata;",
        before="struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 64);"
        '__type(key, __u32); __type(value, __u64); } seen SEC(".maps");'
        "int bss; int data = 4; const volatile int rodata = 5;",
    )
    with open_program(image) as program:
        assert {"seen", "program.bss", "program.data", "program.rodata"} < set(program.maps())
        assert program.map_shape("seen")[:4] == ("lru_hash", 4, 8, 64)


def test_libbpfs_header_can_come_first(tmp_path: Path) -> None:
    if not (LIBBPF_HEADERS / "bpf_helpers.h").exists():
        pytest.skip("libbpf's headers are not here: apt install libbpf-dev")
    include = tmp_path / "include"
    include.mkdir()
    (include / "bpf").symlink_to(LIBBPF_HEADERS)
    source = write(
        tmp_path,
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n#include <vnet_hash.h>\n"
        "VNET_HASH_PROGRAM(frame, verdict)\n"
        '{\n\tbpf_printk("queue %d", verdict->queue);\n}\n',
    )
    done = compile_program(source, includes=[include])
    assert done.warnings == ""
    assert 6 in read_contents(done.image).helpers  # trace_printk
    open_program(done.image).close()


# What may not

REDIRECT = "static long (*const bpf_redirect)(__u32, __u64) = (void *)BPF_FUNC_redirect;"
MAP = 'struct {{ __uint(type, {}); __uint(max_entries, 1); __type(key, __u32); \
__type(value, __u32); {} }} mine SEC(".maps");'

REFUSALS = {
    "helper": (REDIRECT, "bpf_redirect(1, 0);", r"calls bpf_redirect$"),
    "helper in a function": (
        f"{REDIRECT} static __noinline int away(int to) {{ return bpf_redirect(to, 0); }}",
        "verdict->queue = away(verdict->queue);",
        r"calls bpf_redirect$",
    ),
    "tail call": (
        MAP.format("BPF_MAP_TYPE_PROG_ARRAY", "")
        + "static long (*const bpf_tail_call)(void *, void *, __u32) = "
        "(void *)BPF_FUNC_tail_call;",
        "bpf_tail_call(frame->skb, &mine, 0);",
        r"calls bpf_tail_call$",
    ),
    "helper to come": (
        "static long (*const later)(void) = (void *)999;",
        "later();",
        r"calls helper 999, which is not known here$",
    ),
    "kfunc": (
        'extern void bpf_rcu_read_lock(void) SEC(".ksyms");',
        "bpf_rcu_read_lock();",
        r"needs bpf_rcu_read_lock of the kernel$",
    ),
    "kernel variable": (
        'extern const int bpf_prog_active SEC(".ksyms");',
        "verdict->queue = *(volatile int *)&bpf_prog_active;",
        r"needs bpf_prog_active of the kernel$",
    ),
    "kernel configuration": (
        'extern int LINUX_KERNEL_VERSION SEC(".kconfig");',
        "verdict->queue = LINUX_KERNEL_VERSION;",
        r"needs LINUX_KERNEL_VERSION of the kernel$",
    ),
    "kernel types": (
        "struct sk_buff { int len; } __attribute__((preserve_access_index));",
        "verdict->queue = ((struct sk_buff *)frame->skb)->len;",
        r"depends on types of the running kernel \(CO-RE\)$",
    ),
    "another program": (
        'SEC("xdp") int drop(void *context) { return context != 0; }',
        "",
        r"holds another program, drop of type xdp$",
    ),
    "map of programs": (
        MAP.format("BPF_MAP_TYPE_PROG_ARRAY", ""),
        "",
        r"has a map mine of type prog_array$",
    ),
    "map of sockets": (
        MAP.format("BPF_MAP_TYPE_SOCKMAP", ""),
        "",
        r"has a map mine of type sockmap$",
    ),
    "pin by name": (
        MAP.format("BPF_MAP_TYPE_ARRAY", "__uint(pinning, 1);"),
        "",
        r"has a map mine that pins itself by name$",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_asks_for_more_is_refused(case: str) -> None:
    before, body, reason = REFUSALS[case]
    with pytest.raises(ProgramRefused, match=reason) as caught:
        open_program(compiled(body, before=before), name="mine")
    assert caught.value.message.startswith("hash program mine ")
    assert caught.value.hint


def other_header(tmp_path: Path, old: str, new: str) -> bytes:
    """A program compiled with headers of another version, where ``old`` is ``new``."""
    include = tmp_path / "include"
    shutil.copytree(compiler.INCLUDE, include)
    changed = [path for path in include.iterdir() if old in path.read_text()]
    assert changed
    for path in changed:
        path.write_text(path.read_text().replace(old, new))
    return compile_program(XOR, includes=[include]).image


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("VNET_ABI = 3", "VNET_ABI = 7", r"compiled for interface 7, .* has interface 3$"),
        ("VNET_COUNTS = 16", "VNET_COUNTS = 9", r"map vnet_counts of max_entries 9 instead of 16$"),
        ('SEC(".data.vnet")', "", r"has no map \.data\.vnet$"),
        ('SEC(".rodata.vnet")', "", r"has no \.rodata\.vnet$"),
        ('SEC("socket")', 'SEC("kprobe")', r"steering_stage of type kprobe instead of socket_"),
        ('SEC("tc")', 'SEC("xdp")', r"hash_stage of type xdp instead of sched_cls$"),
        ("int steering_stage(", "int other_stage(", r"has no steering_stage$"),
    ],
)
def test_another_interface_is_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    with pytest.raises(ProgramRefused, match=reason):
        open_program(other_header(tmp_path, old, new))


def test_what_was_not_compiled_with_the_header_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path, "int other(void) { return 0; }\n")
    with pytest.raises(ProgramRefused, match=r"has no hash_stage$") as caught:
        open_program(compile_program(source).image)
    assert "vnet_hash.h" in str(caught.value.hint)


def test_a_forgotten_function_is_named(tmp_path: Path) -> None:
    done = compile_program(write(tmp_path, "#include <vnet_hash.h>\n"))
    assert done.warnings == ""
    with pytest.raises(ProgramRefused, match=r"defines no VNET_HASH_PROGRAM\(frame, verdict\)$"):
        open_program(done.image)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "is no 64-bit little-endian ELF file"),
        (b"\x7fELF\x01\x01" + bytes(100), "is no 64-bit little-endian ELF file"),
        (b"\x7fELF\x02\x01", "is a damaged ELF file"),
        (STAGES_OBJECT.read_bytes()[:5000], "is a damaged ELF file"),
        ((BUILT / "core.so").read_bytes(), "was not compiled for BPF, but for machine 62"),
    ],
)  # fmt: skip
def test_what_is_no_object_is_refused(image: bytes, reason: str) -> None:
    with pytest.raises(ProgramRefused, match=f"hash program junk {reason}") as caught:
        open_program(image, name="junk")
    assert caught.value.hint == "compile it with `vnethash build`"


def test_a_missing_file_says_which(tmp_path: Path) -> None:
    with pytest.raises(BpfError, match=r"open hash program .*gone\.o: no such file"):
        open_program(tmp_path / "gone.o")
    with pytest.raises(BpfError, match=r"compile .*gone\.c: no such file"):
        compile_program(tmp_path / "gone.c")


@settings(
    max_examples=examples(300),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    cut=st.none() | st.integers(0, 200_000),
    flips=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=20),
    front=st.booleans(),
)
def test_damage_is_found_or_harmless(
    cut: int | None, flips: list[tuple[int, int]], front: bool
) -> None:
    image = bytearray(STAGES_OBJECT.read_bytes())
    headers = int.from_bytes(image[40:48], "little")
    for where, value in flips:
        if front:
            image[where % 64] = value
        else:
            image[headers + where % (len(image) - headers)] = value
    try:
        contents = read_contents(bytes(image[:cut]))
    except NotBpf:
        return
    assert all(isinstance(number, int) for number in contents.helpers)


def test_contents_of_the_object_that_ships() -> None:
    contents = read_contents(STAGES_OBJECT.read_bytes())
    assert {helpers.name_of(number) for number in contents.helpers} == {
        "bpf_map_lookup_elem",
        "bpf_skb_load_bytes",
        "bpf_skb_load_bytes_relative",
        "bpf_skb_store_bytes",
        "bpf_skb_change_head",
        "bpf_skb_vlan_push",
        "bpf_skb_vlan_pop",
    }
    assert contents.undefined == ()
    assert not contents.adapts


def test_names_of_helpers_are_the_kernels(tmp_path: Path) -> None:
    """As far as the headers of Linux 6.1 go, which may be those in use."""
    checks = [
        f'_Static_assert(BPF_FUNC_{helpers.name_of(number).removeprefix("bpf_")} == {number}, "");'
        for number in range(1, 209)
    ]
    compile_program(write(tmp_path, "\n".join(["#include <linux/bpf.h>", *checks, ""])))
    assert helpers.name_of(0) == "bpf_unspec"
    assert helpers.name_of(212).startswith("helper 212")


def test_the_documentation_names_the_helpers() -> None:
    tables = (ROOT / "docs/programs.md").read_text().partition("The helpers, all with")[2]
    told = set(re.findall(r"`(\w+)`", tables.partition("\nNot every kernel")[0])) - {"bpf_"}
    allowed = {helpers.name_of(number).removeprefix("bpf_") for number in helpers.ALLOWED}
    of_the_stage = {"skb_store_bytes", "skb_change_head", "skb_vlan_push", "skb_vlan_pop"}
    assert told == allowed - of_the_stage


def test_programs_in_the_documentation_compile(tmp_path: Path) -> None:
    page = (ROOT / "docs/programs.md").read_text()
    blocks = re.findall(r"^```c\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    for number, block in enumerate(blocks):
        text = block
        if "VNET_HASH_PROGRAM" not in block:
            text = f"#include <vnet_hash.h>\n{block}VNET_HASH_PROGRAM(frame, verdict) {{}}\n"
        source = write(tmp_path, text, f"block{number}.c")
        open_program(compile_program(source).image).close()
    assert len(blocks) >= 2
    assert [name for name in NAMES if f"examples/programs/{name}.c" not in page] == []


# Compiling


def test_the_headers_come_with_the_package() -> None:
    shipped = {path.name: path.read_bytes() for path in compiler.INCLUDE.iterdir()}
    assert shipped == {name: (ROOT / "native" / name).read_bytes() for name in shipped}
    included = {
        name
        for content in shipped.values()
        for name in re.findall(r'^#include "(.+)"', content.decode(), re.MULTILINE)
    }
    assert set(shipped) == {*included, "vnet_hash.h", "bulk.h"}


def test_the_extra_pins_the_compiler_of_the_build() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = json.loads((BUILT / "bpf_compiler.json").read_text())["ziglang"]
    assert extras["optional-dependencies"]["build"] == [pinned]


def test_another_folder_gives_the_same_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = []
    for name in ("here", "there/and further"):
        folder = tmp_path / name
        (folder / "src").mkdir(parents=True)
        shutil.copy(XOR, folder / "src")
        monkeypatch.chdir(folder)
        images.append(compile_program("src/xor.c").image)
    assert images[0] == images[1]
    assert b"./src/xor.c" in images[0]
    assert b"vnethash/steer.h" in images[0]
    for path in (tmp_path, ROOT, Path.home()):
        assert os.fsencode(path) + b"/" not in images[0]


def test_an_error_names_file_and_line(folder: Path) -> None:
    write(
        folder, "#include <vnet_hash.h>\n\nVNET_HASH_PROGRAM(frame, verdict)\n{\n\tnonsense;\n}\n"
    )
    with pytest.raises(CompileError) as caught:
        compile_program("program.c")
    assert caught.value.message == "program.c:5:2: use of undeclared identifier 'nonsense'"
    assert "\tnonsense;" in caught.value.output or "        nonsense;" in caught.value.output


def test_warnings_are_handed_on(folder: Path) -> None:
    write(folder, "#include <vnet_hash.h>\nVNET_HASH_PROGRAM(frame, verdict)\n{\n\tint idle;\n}\n")
    for _ in range(2):  # the compiler has a cache, which must not eat them
        assert (
            "program.c:4:6: warning: unused variable 'idle'"
            in compile_program("program.c").warnings
        )


def test_macros_and_folders_are_handed_on(tmp_path: Path) -> None:
    (tmp_path / "extra").mkdir()
    write(tmp_path / "extra", "#define HASH (LEFT + RIGHT)\n", "extra.h")
    source = write(
        tmp_path,
        "#include <extra.h>\n#include <vnet_hash.h>\n"
        '_Static_assert(HASH == 42, "as given");\n'
        "VNET_HASH_PROGRAM(frame, verdict)\n{\n\tverdict->hash_value = HASH;\n}\n",
    )
    done = compile_program(source, defines=["LEFT=41", "RIGHT"], includes=[tmp_path / "extra"])
    open_program(done.image).close()


def test_a_file_may_look_like_an_option(folder: Path) -> None:
    shutil.copy(XOR, folder / "-o.c")
    open_program(compile_program("-o.c").image).close()


def test_clang_gives_a_program_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BPF_CC", raising=False)
    if (clang := compiler._clang()) is None:
        pytest.skip("no clang with a BPF target here")
    done = compile_program(XOR, compiler=f"{clang} -target bpf")
    assert done.compiler == f"{clang} -target bpf"
    open_program(done.image).close()
    monkeypatch.setenv("BPF_CC", f"{clang} -target bpf")
    assert compile_program(XOR).image == done.image
    monkeypatch.delenv("BPF_CC")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert compile_program(XOR).image == done.image


def test_code_for_another_machine_is_told_at_once() -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here")
    with pytest.raises(CompileError, match=r"compiled for BPF|mtune"):
        compile_program(XOR, compiler="cc")


@pytest.fixture
def no_ziglang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BPF_CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.mark.usefixtures("no_ziglang")
def test_a_missing_compiler_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyMissing, match="no compiler for BPF here") as caught:
        compile_program(XOR)
    assert "pip install 'vnethash[build]'" in str(caught.value.hint)
    with pytest.raises(DependencyMissing, match="compiler not found: gone -x"):
        compile_program(XOR, compiler="gone -x")


@pytest.mark.usefixtures("no_ziglang")
def test_a_clang_without_bpf_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, target in (("clang", "x86-64"), ("clang-9", "bpf"), ("clang-17", "bpf")):
        script = write(tmp_path, f"#!/bin/sh\necho '    {target}  - a target'\n", name)
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiler._clang() == str(tmp_path / "clang-17")


# vnethash build


def test_build_writes_the_object_here(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["build", str(XOR)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("xor.o: compiled by ")
    assert err == ""
    assert os.listdir(folder) == ["xor.o"]
    assert stat.S_IMODE((folder / "xor.o").stat().st_mode) == 0o644
    open_program("xor.o").close()


def test_build_in_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(
        folder,
        "#include <vnet_hash.h>\nint packets;\n"
        "VNET_HASH_PROGRAM(frame, verdict)\n{\n\tint idle;\n\tpackets += STEP;\n}\n",
    )
    arguments = ["build", str(source), "-o", "out.o", "-D", "STEP=2", "--json"]
    assert main.run(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    answer = json.loads(out)
    assert (answer["object"], answer["source"]) == ("out.o", str(source))
    assert answer["bytes"] == (folder / "out.o").stat().st_size
    assert "unused variable 'idle'" in answer["warnings"]
    assert answer["verified"] is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#include <vnet_hash.h>\n", "defines no VNET_HASH_PROGRAM"),
        ("int other(void) { return 0; }\n", "has no hash_stage"),
        ("nonsense\n", "program.c:1:1: unknown type name 'nonsense'"),
    ],
)
def test_a_build_that_fails_leaves_what_was_there(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    write(folder, text)
    write(folder, "before", "program.o")
    assert main.run(["build", "program.c"]) == 1
    assert said in capsys.readouterr().err
    assert main.run(["build", "program.c", "--json"]) == 1
    assert said in json.loads(capsys.readouterr().err)["error"]
    assert sorted(os.listdir(folder)) == ["program.c", "program.o"]
    assert (folder / "program.o").read_text() == "before"


def test_build_shows_what_the_compiler_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "first\nsecond;\n")
    assert main.run(["build", "program.c"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("program.c:1:1: error: ")
    assert lines[-1].startswith("vnethash: error: program.c:1:1: ")


def test_build_where_nothing_can_be_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["build", str(XOR), "-o", "gone/xor.o"]) == 1
    assert "no such file or directory" in capsys.readouterr().err


def test_where_the_verifiers_log_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hints = []
    for file in (None, "-", str(tmp_path / "log")):
        with pytest.raises(VerifierError) as caught, verifier_log(file):
            raise VerifierError("load x: no", "line 1\nline 2\n", hint="as it was")
        hints.append(caught.value.hint)
    assert hints == [
        "--verifier-log FILE keeps all that the verifier said",
        "as it was",
        f"all that the verifier said is in {tmp_path / 'log'}",
    ]
    assert capsys.readouterr().err == "line 1\nline 2\n"
    assert (tmp_path / "log").read_text() == "line 1\nline 2\n"
