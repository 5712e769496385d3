# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash report``: what it writes, and says where it fails."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.analyses import write_office
from vnethash.analysis import Aim, Analysis, TrafficPlan, analyze, plan_analysis, planning
from vnethash.analysis.flows import endpoints
from vnethash.cli.main import run
from vnethash.rss.config import RssConfig


@pytest.fixture(name="capture", scope="module")
def _capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("alice") / "bank.pcap"
    write_office(path)
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def report(capsys: pytest.CaptureFixture[str], *args: str | Path, code: int = 0) -> Any:
    assert run(["report", *map(str, args), "--json"]) == code
    out, err = capsys.readouterr()
    return json.loads(err.splitlines()[-1] if code else out)


def addresses(capture: Path) -> set[str]:
    flows = analyze([capture]).flows
    return {address for flow in flows for address in endpoints(flow)[:2]}


def test_a_page(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(capture), "--queues", "8", "--by", "bytes"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    octets = analyze([capture], RssConfig.default(8)).by_queue.bytes
    ratio = octets.max() / octets.mean()
    said = f"Queue {octets.argmax()} gets {ratio:.2f} times the mean."
    assert out == f"{said}\nwritten: report.html\n"
    page = Path("report.html").read_text()
    assert said in page
    assert "bank.pcap" in page
    assert any(address in page for address in addresses(capture))


def test_pictures_too(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = report(capsys, capture, "-o", "a.html", "--plot", "all.png", "--plot", "pictures")
    assert told["written"][:2] == ["a.html", "all.png"]
    assert sorted(told["written"][2:]) == sorted(str(p) for p in Path("pictures").iterdir())
    assert all(Path(name).stat().st_size > 1000 for name in told["written"])


def test_a_plan(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(capsys, capture, "--queues", "8", "--plan")
    page = Path("report.html").read_text()
    now, then = re.search(
        r"The busiest queue gets ([\d.]+) times the mean, instead of ([\d.]+) times", page
    ).group(2, 1)  # type: ignore[union-attr]
    assert float(then) < float(now)
    assert run(["plan", str(capture), "--queues", "8", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert f"{plan['after']['imbalance']:.2f}" == then
    planned = re.search(r"<pre>(\{.*\})</pre>", page)
    assert planned is not None
    assert json.loads(unescape(planned[1])) == plan["after"]["rss"]


def test_nothing_of_the_addresses_in_what_is_anonymous(
    capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = addresses(capture)
    key = RssConfig.random(4).key.hex()
    options = ["--key", key, "--plan", "--plot", "pictures", "--plot", "all.svg"]
    report(capsys, capture, *options)
    written = {path: path.read_text() for path in Path().rglob("*.*g*")}
    page = Path("report.html").read_text()
    assert sum(address in page for address in real) > 10
    assert key in page
    report(capsys, capture, *options, "--anonymize-key", "site.key")
    assert len(bytes.fromhex(Path("site.key").read_text())) == 32
    first = Path("report.html").read_text()
    for path in (Path("report.html"), *written):
        text = path.read_text()
        assert not any(address in text for address in real), path
        assert not re.search(r"alice|bank", text), path
        assert key not in text, path
        assert "ethtool -X" not in text, path
    again = [str(capture), "--key", key, "--plan", "-o", "again.html"]
    report(capsys, *again, "--anonymize-key", "site.key")
    assert Path("again.html").read_text() == first
    report(capsys, *again, "--anonymize")
    assert Path("again.html").read_text() != first


def test_no_line_tells_a_secret_key(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = RssConfig.random(1).key
    options = [
        str(capture),
        "--queues",
        "1",
        "--key",
        key.hex(),
        "--plan",
    ]  # ethtool can set that plan
    report(capsys, *options)
    assert f"hkey {key.hex(':')}" in Path("report.html").read_text()
    report(capsys, *options, "--anonymize")
    page = Path("report.html").read_text()
    assert key.hex() not in page.replace(":", "")
    assert "hkey" not in page


def test_nothing_of_them_in_what_analyze_prints(
    capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = addresses(capture)
    key = RssConfig.random(4).key.hex()
    for options in ([], ["--json"]):
        command = ["analyze", str(capture), "--key", key, "--top", "600", *options]
        assert run(command) == 0
        out = capsys.readouterr().out
        assert sum(address in out for address in real) > 100
        assert run([*command, "--anonymize"]) == 0
        out = capsys.readouterr().out
        assert not any(address in out for address in real)
        assert not re.search(r"alice|bank", out)
        assert key not in out
    flows = json.loads(out)["heaviest_flows"]
    assert len(flows) > 500
    assert {flow["hash_value"] for flow in flows} == {None}
    assert all(0 <= flow["bucket"] < 128 for flow in flows)


def test_nobody_can_make_the_keys_of_an_anonymous_plan(
    capture: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def watched(analysis: Analysis, aim: Aim) -> TrafficPlan:
        seeds.append(aim.seed)
        return plan_analysis(analysis, aim)

    monkeypatch.setattr(planning, "plan_analysis", watched)
    for options in ([], [], ["--anonymize"], ["--anonymize"]):
        report(capsys, capture, "--plan", *options)
    assert seeds[:2] == [0, 0]  # the same page each time
    assert len({*seeds}) == 3


def test_a_damaged_file(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = Path("<b>cut.pcap")
    cut.write_bytes(capture.read_bytes()[:-10])
    told = report(capsys, cut, capture, "--anonymize", code=1)
    assert "<b>cut.pcap" in told["error"]  # which is for whoever runs it
    page = Path("report.html").read_text()
    assert "1 file could not be read to the end." in page
    assert "cut.pcap" not in page
    report(capsys, cut, code=1)
    page = Path("report.html").read_text()
    assert "&lt;b&gt;cut.pcap" in page
    assert "<b>cut" not in page


@pytest.mark.parametrize(
    ("options", "code", "error"),
    [
        (["--plot", "all.gif"], 2, "plot: all.gif: pictures are written as"),
        (["--output", "nowhere/report.html"], 2, "output: there is no folder nowhere"),
        (["--output", "."], 2, "output: . is a folder"),
        (["--output", "CAPTURE"], 2, "is named already, and would be written over"),
        (["--output", "all.svg", "--plot", "./all.svg"], 2, "plot: all.svg is named already"),
        (["--plot", "nowhere/all.png"], 2, "plot: there is no folder nowhere"),
        (["--anonymize-key", "bad.key"], 2, "does not hold 64 hexadecimal digits"),
        (["--window", "0"], 2, "window"),
    ],
)
def test_what_cannot_be(
    capture: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, error: str
) -> None:
    Path("bad.key").write_text("secret")
    options = [str(capture) if option == "CAPTURE" else option for option in options]
    assert error in report(capsys, capture, *options, code=code)["error"]
    assert not Path("report.html").exists()


def test_a_capture_without_packets(capsys: pytest.CaptureFixture[str]) -> None:
    from vnethash.capture import write_pcap

    write_pcap("empty.pcap", [])
    assert report(capsys, "empty.pcap", "--plan")["verdict"] == "There are no packets."
    assert "There are no flows." in Path("report.html").read_text()
