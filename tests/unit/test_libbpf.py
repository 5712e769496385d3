# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import errno
from collections.abc import Iterator

import pytest

from vnethash.errors import BpfError, DependencyMissing, NotPermitted, VerifierError
from vnethash.kernel import libbpf
from vnethash.kernel.caps import Cap

LOG = """\
0: R1=ctx() R10=fp0
; return load(skb); @ stages.bpf.c:12
3: (71) r0 = *(u8 *)(r1 +0)
invalid access to packet, off=0 size=1, R1(id=0,off=0,r=0)
R1 offset is outside of the packet
processed 4 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
SAID = [
    "libbpf: prog 'x': BPF program load failed: Permission denied",
    f"libbpf: prog 'x': -- BEGIN PROG LOAD LOG --\n{LOG}-- END PROG LOAD LOG --",
    "libbpf: failed to load object 'x'",
]


@pytest.fixture
def reopened() -> Iterator[None]:
    """Open the library anew, in the test and after it."""
    libbpf.load.cache_clear()
    yield
    libbpf.load.cache_clear()


@pytest.fixture
def all_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "has", lambda cap: True)


@pytest.fixture
def no_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "has", lambda cap: False)


@pytest.mark.usefixtures("reopened")
def test_opens_the_distributions_library() -> None:
    try:
        native = libbpf.load()
    except DependencyMissing as missing:
        pytest.skip(str(missing))
    assert native.version[0] == 1
    assert libbpf.load() is native


@pytest.mark.usefixtures("reopened")
def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VNETHASH_LIBBPF", "/nowhere/libbpf.so.1")
    with pytest.raises(DependencyMissing, match=r"cannot open /nowhere/libbpf\.so\.1") as caught:
        libbpf.load()
    hint = str(caught.value.hint)
    assert "apt install libbpf1" in hint
    assert "dnf install libbpf" in hint
    assert "VNETHASH_LIBBPF" in hint


@pytest.mark.usefixtures("reopened")
def test_another_library_is_not_taken_for_libbpf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VNETHASH_LIBBPF", "libc.so.6")
    with pytest.raises(DependencyMissing, match=r"needs libbpf 1\.x"):
        libbpf.load()


OLDER = """\
; if (at[0] & LONG_HEADER)
41: (bf) r1 = r8
from 41 to 44: R0=pkt(id=0,off=0,r=0,imm=0) R10=fp0
; return load(skb);
44: (71) r0 = *(u8 *)(r1 +0)
last_idx 44 first_idx 41
regs=1 stack=0 before 43: (b7) r0 = 0
R1 type=ctx expected=pkt
processed 4 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
LOOP = """\
; for (;;) @ loop.c:7
9: (05) goto pc-1
infinite loop detected at insn 9
cur state: R0_w=0 R10=fp0
old state: R0_w=0 R10=fp0
processed 9 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


@pytest.mark.parametrize(
    ("log", "complaint"),
    [
        (LOG, "invalid access to packet, off=0 size=1 (stages.bpf.c:12: return load(skb);)"),
        (OLDER, "R1 type=ctx expected=pkt (return load(skb);)"),
        (LOOP, "infinite loop detected at insn 9 (loop.c:7: for (;;))"),
        ("0: R1=ctx() R10=fp0\n0: (95) exit\nR0 !read_ok\nprocessed 1 insns", "R0 !read_ok"),
        (
            "number of funcs in func_info is wrong\n0: (95) exit",
            "number of funcs in func_info is wrong",
        ),
        ("processed 1 insns\n\n", "the verifier gave no reason"),
    ],
)
def test_the_complaint_comes_with_its_source_line(log: str, complaint: str) -> None:
    assert libbpf.complaint(log) == complaint


def test_the_program_that_was_refused() -> None:
    assert libbpf.refused_program(SAID) == "x"
    assert libbpf.refused_program(["libbpf: failed to load object 'x'"]) is None


@pytest.mark.usefixtures("all_caps")
def test_a_verifier_log_makes_a_verifier_error() -> None:
    error = libbpf.failure("load x", -errno.EACCES, said=SAID)
    assert isinstance(error, VerifierError)
    complaint = "invalid access to packet, off=0 size=1 (stages.bpf.c:12: return load(skb);)"
    assert str(error) == f"load x: {complaint}"
    assert error.log == LOG.strip("\n")


@pytest.mark.usefixtures("no_caps")
def test_a_refusal_without_capabilities_names_them() -> None:
    error = libbpf.failure("load x", -errno.EPERM, needs=(Cap.BPF, Cap.NET_ADMIN), said=SAID)
    assert isinstance(error, NotPermitted)
    assert error.capability == "CAP_BPF and CAP_NET_ADMIN"


@pytest.mark.usefixtures("no_caps")
def test_what_the_verifier_allows_to_root_only_names_the_capability() -> None:
    log = "R7 pointer arithmetic with it prohibited for !root\nprocessed 9 insns"
    error = libbpf.verifier_error("load x", errno.EACCES, log)
    assert isinstance(error, NotPermitted)
    assert error.capability == "CAP_PERFMON"


@pytest.mark.usefixtures("all_caps")
def test_a_refusal_despite_capabilities_suggests_the_memory_limit() -> None:
    error = libbpf.failure("load x", -errno.EPERM)
    assert type(error) is BpfError
    assert "ulimit -l" in str(error.hint)


@pytest.mark.usefixtures("all_caps")
def test_other_failures_say_what_libbpf_said() -> None:
    error = libbpf.failure("open x", errno.EINVAL, said=["libbpf: elf: bad header"])
    assert str(error) == "open x: invalid argument (elf: bad header)"
    assert error.hint is None
