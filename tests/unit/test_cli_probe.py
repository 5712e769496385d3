# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import json

import pytest

from vnethash.cli.probe import probe_command
from vnethash.engines import select
from vnethash.engines.select import Choice
from vnethash.errors import NotPermitted, Unsupported
from vnethash.kernel import probe
from vnethash.kernel.probe import AttachPoint, ProbeResult, State

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
    }


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    probe_command(json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["clsact", "unsupported", "no", "[qdisc]", "CONFIG_NET_SCH_INGRESS"] in lines
    assert ["engine", "ebpf", "works", "here"] in lines
    assert ["not", "program", "none", "given"] in lines
    assert ["attach", "point", "tcx", "least", "cost"] in lines


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
