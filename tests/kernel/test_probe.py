# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.kernel.hash_programs import compiled, example
from tests.kernel.least_privilege import RefusedError, with_only
from vnethash.engines.verifier import verify
from vnethash.errors import NotPermitted, Unsupported, VerifierError, VnethashError
from vnethash.kernel import caps, probe
from vnethash.kernel.caps import Cap
from vnethash.kernel.probe import ProbeResult, State


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    probe.forget()
    yield
    probe.forget()


def states(*names: str) -> dict[str, str]:
    return {name: probe.probe(name).state.value for name in names}


def result(name: str, error: VnethashError | None = None) -> ProbeResult:
    """What a probe says of a feature that is there, or failed with ``error``."""
    if error is None:
        return ProbeResult(name, State.AVAILABLE, "there")
    kind = State.UNSUPPORTED if isinstance(error, Unsupported) else State.INCONCLUSIVE
    return ProbeResult(name, kind, error.message, None, error)


def test_root_finds_out_all() -> None:
    results = {item.name: item for item in probe.probe_all()}
    assert list(results) == probe.names()
    unclear = [item for item in results.values() if item.state == State.INCONCLUSIVE]
    assert unclear == []
    # Without these no kernel test could have run.
    for name in ("tun device", "multi-queue tap", "12-byte header", "libbpf", "tc program",
                 "steering program",
        "steering of a tap", "pidfd_getfd", "CAP_NET_ADMIN", "CAP_BPF"):  # fmt: skip
        assert results[name], name
    assert results["tcx"] or results["clsact"]
    for item in results.values():
        assert item.reason
        assert bool(item.error) == (item.state != State.AVAILABLE)


def test_no_rights_are_no_answer() -> None:
    def without() -> dict[str, str]:
        return states("tcx", "clsact", "tc program", "USO offloads", "CAP_BPF", "libbpf")

    assert with_only((), without) == {
        "tcx": "inconclusive",
        "clsact": "inconclusive",
        "tc program": "inconclusive",
        "USO offloads": "inconclusive",
        "CAP_BPF": "unsupported",
        "libbpf": "available",
    }


def test_only_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[VnethashError | str] = ["there", Unsupported("it", "gone"), VnethashError("odd")]
    asked: list[str] = []

    def check() -> str:
        asked.append("")
        answer = answers[-1]
        if isinstance(answer, VnethashError):
            raise answer
        return answer

    monkeypatch.setitem(probe._CHECKS, "it", check)
    assert probe.probe("it").state == State.INCONCLUSIVE
    assert probe.probe("it").state == State.INCONCLUSIVE
    assert len(asked) == 2
    answers.pop()
    unsupported = probe.probe("it")
    assert (unsupported.state, unsupported.reason) == (State.UNSUPPORTED, "gone")
    answers.pop()
    assert probe.probe("it") is unsupported
    assert len(asked) == 3


def test_rights_are_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe.probe("CAP_BPF")
    monkeypatch.setattr(caps, "has", lambda cap: False)
    assert not probe.probe("CAP_BPF")


def test_attaches_by_tcx_where_there_is_tcx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "probe", result)
    assert probe.best_attach_point().name == "tcx"


def test_attaches_by_clsact_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    lacks: dict[str, VnethashError] = {"tcx": Unsupported("tcx", "too old")}
    monkeypatch.setattr(probe, "probe", lambda name: result(name, lacks.get(name)))
    point = probe.best_attach_point()
    assert point.name == "clsact"
    assert "too old" in point.reason
    # Trying it takes more rights than using it.
    lacks["clsact"] = NotPermitted("make a network namespace", "CAP_SYS_ADMIN")
    assert probe.best_attach_point().name == "clsact"
    lacks["tc program"] = NotPermitted("load program", "CAP_BPF")
    with pytest.raises(NotPermitted):
        probe.best_attach_point()
    lacks["clsact"] = Unsupported("tc egress BPF", "not built in")
    with pytest.raises(Unsupported, match="tc egress BPF"):
        probe.best_attach_point()


def test_what_keeps_tcx_from_being_found_is_passed_on() -> None:
    with pytest.raises(RefusedError, match="CAP_BPF") as caught:
        with_only({Cap.NET_ADMIN}, probe.best_attach_point)
    assert caught.value.kind == "NotPermitted"


def test_rights_of_a_vmm_are_enough_for_the_attach_point() -> None:
    def ask() -> object:
        ready = all(probe.probe(name) for name in ("libbpf", "tc program", "steering program"))
        return [ready, probe.best_attach_point().name]

    # No CAP_SYS_ADMIN: what is tried in a namespace stays open.
    ready, point = cast("list[object]", with_only({Cap.NET_ADMIN, Cap.BPF}, ask))
    assert ready is True
    assert point in ("tcx", "clsact")


def test_verifier_tells_what_the_stages_take() -> None:
    loaded = verify()
    hashed, steered = loaded.programs
    assert (loaded.name, hashed.name) == ("vnethash", "hash_stage")
    assert steered.name == "steering_stage"
    assert hashed.verified > hashed.instructions > 100
    assert steered.verified == steered.instructions == 2
    assert hashed.seconds is not None
    assert 0 < hashed.seconds < loaded.seconds < 60
    assert bool(hashed.machine_code) == bool(probe.probe("BPF JIT"))


def test_verifier_tells_of_hash_programs(tmp_path: Path) -> None:
    path = tmp_path / "xor.o"
    path.write_bytes(example("xor"))
    (hashed, _), stages = verify(path).programs, verify().programs
    assert 100 < hashed.verified < stages[0].verified


def test_program_the_verifier_rejects_has_its_whole_log(tmp_path: Path) -> None:
    path = tmp_path / "endless.o"
    path.write_bytes(compiled("for (;;) { seen++; }", before="volatile __u64 seen;"))
    with pytest.raises(VerifierError, match="infinite loop") as caught:
        verify(path)
    assert len(caught.value.log.splitlines()) > 5
