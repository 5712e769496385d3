# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import json
from pathlib import Path

import pytest

from vnethash.cli.probe import probe_command
from vnethash.engines import select, verifier
from vnethash.engines.select import Choice
from vnethash.engines.verifier import Loaded, Verified
from vnethash.errors import ConfigError, NotPermitted, Unsupported, VerifierError
from vnethash.kernel import probe
from vnethash.kernel.probe import AttachPoint, ProbeResult, State
from vnethash.rss import native
from vnethash.rss.native import bulk_methods

RESULTS = [
    ProbeResult("tcx", State.AVAILABLE, "the kernel knows it"),
    ProbeResult("clsact", State.UNSUPPORTED, "no [qdisc]", needs="CONFIG_NET_SCH_INGRESS"),
    ProbeResult("USO offloads", State.INCONCLUSIVE, "not permitted"),
]


@pytest.fixture(autouse=True)
def _probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "probe_all", lambda: RESULTS)
    monkeypatch.setattr(probe, "best_attach_point", lambda: AttachPoint("tcx", "least cost"))
    choice = Choice("ebpf", "works here", (("program", "none given"),))
    monkeypatch.setattr(select, "choose", lambda: choice)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    probe_command(json=True)
    assert json.loads(capsys.readouterr().out) == {
        "features": {
            "tcx": {"state": "available", "reason": "the kernel knows it", "needs": None},
            "clsact": {
                "state": "unsupported",
                "reason": "no [qdisc]",
                "needs": "CONFIG_NET_SCH_INGRESS",
            },
            "USO offloads": {"state": "inconclusive", "reason": "not permitted", "needs": None},
        },
        "engine": {
            "name": "ebpf",
            "reason": "works here",
            "rejected": {"program": "none given"},
        },
        "attach_point": {"name": "tcx", "reason": "least cost"},
        "bulk_hashing": [method.title for method in bulk_methods()],
    }


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    probe_command(json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["clsact", "unsupported", "no", "[qdisc]", "CONFIG_NET_SCH_INGRESS"] in lines
    assert ["engine", "ebpf", "works", "here"] in lines
    assert ["not", "program", "none", "given"] in lines
    assert ["attach", "point", "tcx", "least", "cost"] in lines
    (bulk,) = (line for line in lines if line[:2] == ["bulk", "hashing"])
    assert bulk[2] == bulk_methods()[-1].title


def test_bulk_hashing_with_tables_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "bulk_methods", lambda: (native.BulkMethod.TABLES,))
    probe_command(json=False)
    lines = [line.split()[:6] for line in capsys.readouterr().out.splitlines()]
    assert ["bulk", "hashing", "tables", "this", "CPU", "has"] in lines


def test_no_attach_point(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none() -> AttachPoint:
        raise Unsupported("tc egress BPF", "not built in")

    monkeypatch.setattr(probe, "best_attach_point", none)
    probe_command(json=True)
    assert json.loads(capsys.readouterr().out)["attach_point"] == {
        "name": None,
        "reason": "tc egress BPF not supported: not built in",
    }
    probe_command(json=False)
    lines = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert ["attach", "point", "none"] in lines


def test_no_engine_fails_after_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none() -> Choice:
        raise NotPermitted("open tap", "CAP_NET_ADMIN")

    monkeypatch.setattr(select, "choose", none)
    with pytest.raises(NotPermitted):
        probe_command(json=True)
    assert json.loads(capsys.readouterr().out)["engine"] is None


@pytest.fixture(name="_verified")
def _verified_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = Verified("hash_stage", 30380, 0.0751, 948, 4372)
    steered = Verified("steering_stage", 0, None, 2, 0)

    def verify(program: Path | None = None) -> Loaded:
        if program and not program.exists():
            raise VerifierError("load hash_stage: R0 !read_ok", "0: (95) exit\nR0 !read_ok")
        return Loaded(program.stem if program else "vnethash", 0.0823, (hashed, steered))

    monkeypatch.setattr(verifier, "verify", verify)


@pytest.mark.usefixtures("_verified")
def test_verifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.o"
    own.touch()
    probe_command(verifier=True, program=[own], json=True)
    first, second = json.loads(capsys.readouterr().out)["verifier"]
    assert (first["object"], second["object"]) == ("vnethash", "own")
    assert first["load_seconds"] == 0.0823
    assert first["programs"] == {
        "hash_stage": {
            "verified": 30380,
            "verifier_seconds": 0.0751,
            "instructions": 948,
            "machine_code": 4372,
        },
        "steering_stage": {
            "verified": None,
            "verifier_seconds": None,
            "instructions": 2,
            "machine_code": 0,
        },
    }
    probe_command(verifier=True, program=[own])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    numbers = ["30,380", "75.1", "948", "4,372", "bytes", "82.3"]
    assert ["vnethash,", "hash_stage", *numbers] in lines
    assert ["own,", "steering_stage", "-", "-", "2", "interpreted"] in lines


@pytest.mark.usefixtures("_verified")
def test_program_the_verifier_rejects_fails_after_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    with pytest.raises(VerifierError):
        probe_command(verifier=True, program=[tmp_path / "none.o"], log=str(log))
    assert "what auto takes" in capsys.readouterr().out
    assert "!read_ok" in log.read_text()


def test_program_is_for_the_verifier(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="program") as caught:
        probe_command(program=[tmp_path / "own.o"])
    assert "--verifier" in (caught.value.hint or "")
