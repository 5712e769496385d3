# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash plan``: what it prints and writes, and that the configuration does what it says."""

import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vnethash.bench import frames
from vnethash.capture import Frame, write_pcap
from vnethash.cli import main, output
from vnethash.cli.find_port import parse_range
from vnethash.errors import ConfigError
from vnethash.rss import SYMMETRIC_KEY, RssConfig
from vnethash.rss.ethtool import parse_rxfh
from vnethash.rss.native import Hasher
from vnethash.rss.reference import Protocol, classify_tuple

QUEUES = 8
ARP = bytes.fromhex("ffffffffffff0200000000010806") + bytes(28)


@pytest.fixture(name="sent", scope="module")
def _sent() -> list[bytes]:
    """Frames of flows that follow Zipf's law, and some without a hash."""
    dice = np.random.default_rng(11)
    kinds = [frames.tcp4, frames.tcp6]
    some = [kinds[n % 2](int(dice.integers(60_000)), 60 + 20 * (n % 2)) for n in range(2000)]
    share = 1 / np.arange(1, len(some) + 1)
    order = dice.choice(len(some), 20_000, p=share / share.sum())
    return [some[n] for n in order] + [ARP] * 100


@pytest.fixture(name="capture", scope="module")
def _capture(sent: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("plan") / "office.pcap"
    records = (struct.pack("<IIII", 1, n, len(f), len(f)) + f for n, f in enumerate(sent))
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    path.write_bytes(head + b"".join(records))
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> Any:
    assert main.run(["plan", *args, "--json"]) == code
    out, err = capsys.readouterr()
    return json.loads(out if code == 0 else err)


def loads(sent: list[bytes], rss: RssConfig) -> list[int]:
    hit = Counter(verdict.queue for verdict in Hasher(rss).classify_many(sent))
    return [hit[queue] for queue in range(rss.queues)]


@pytest.mark.parametrize(
    "options",
    [[], ["--symmetric"], ["--few-moves"], ["--for-ethtool"], ["--keep-key"], ["--entries", "64"]],
    ids=" ".join,
)
def test_frames_go_where_the_plan_says(
    options: list[str], capture: str, sent: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(capsys, capture, "--queues", str(QUEUES), *options)
    before, after = (RssConfig.from_json(told[side]["rss"]) for side in ("before", "after"))
    assert before == RssConfig.default(QUEUES)
    assert told["before"]["loads"] == loads(sent, before)
    assert told["after"]["loads"] == loads(sent, after)
    assert max(told["after"]["loads"]) >= told["bound"]["load"]
    assert told["after"]["imbalance"] < told["before"]["imbalance"]


def test_written_and_read_again(
    capture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plan.json"
    told = run(capsys, capture, "--queues", "8", "--output", str(file))
    assert RssConfig.from_json(file.read_text()).to_json() == told["after"]["rss"]
    again = run(capsys, capture, "--config", str(file))
    assert not again["changed"]
    assert again["before"] == again["after"]
    assert again["before"]["loads"] == told["after"]["loads"]


def test_by_bytes(capture: str, sent: list[bytes], capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, capture, "--by", "bytes")
    assert sum(told["after"]["loads"]) == sum(map(len, sent))


def test_present_as_ethtool_shows_it(
    capture: str, sent: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rss = RssConfig(3, key=SYMMETRIC_KEY, indirection_table=(0, 1, 2, 2) * 32)
    text = tmp_path / "shown"
    text.write_text(rss.ethtool("eth0"))
    told = run(capsys, capture, "--present", str(text), "--few-moves")
    assert told["before"]["rss"] == rss.to_json()
    assert told["before"]["loads"] == loads(sent, rss)
    shown = parse_rxfh(text.read_text())
    text.write_text(
        json.dumps(
            [
                {
                    "ifname": "eth0",
                    "rss-indirection-table": shown.table,
                    "rss-hash-key": list(shown.key),
                    "rss-hash-function": "toeplitz",
                }
            ]
        )
    )
    assert run(capsys, capture, "--present", str(text), "--few-moves") == told


def test_for_people(capture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.json"
    assert main.run(["plan", capture, "-q", "8", "--device", "eth7", "-o", str(file)]) == 0
    out = capsys.readouterr().out
    told = json.loads(file.read_text())
    lines = out.splitlines()
    assert lines[0].split() == ["queue", "before", "of", "mean", "after", "of", "mean"]
    assert [line.split()[0] for line in lines[1:9]] == [str(queue) for queue in range(8)]
    assert "imbalance, the busiest queue over the mean: " in out
    assert "no key and no table has less on the busiest queue than" in out
    assert f"  vnethash attach TAP --config {file}" in lines
    key = bytes.fromhex(told["key"]).hex(":")
    (line,) = [line for line in lines if "ethtool -X eth7" in line]
    assert line.startswith(f"  ethtool -X eth7 hkey {key} weight ")
    assert "not the table above" in out
    assert "  -device virtio-net-pci,netdev=...,mq=on,vectors=18,rss=on" in lines
    assert "  <driver queues='8' rss='on'/>" in lines
    # All of it stays as it is now.
    assert main.run(["plan", capture, "--config", str(file)]) == 0
    out = capsys.readouterr().out
    assert "the configuration stays as it is" in out
    assert "ethtool" not in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--types", "none"], "100.0% of all has no hash and is on queue 0"),
        (["--queues", "64"], "the heaviest flow is"),
        (["--queues", "64", "--symmetric"], "flows no symmetric key can part"),
        (["--queues", "2"], "when all share alike"),
        (["--queues", "2", "--config", "CONFIG"], "  -  "),
    ],
)
def test_what_limits_is_said(
    options: list[str],
    said: str,
    capture: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "present.json"
    config.write_text(json.dumps(RssConfig.default(4).to_json()))
    options = [str(config) if option == "CONFIG" else option for option in options]
    assert main.run(["plan", capture, *options]) == 0
    assert said in capsys.readouterr().out


def test_more_heavy_flows_than_queues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "three.pcap"
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    three = [frames.tcp4(flow, 60) for flow in (1, 2, 3)]
    records = (struct.pack("<IIII", 1, 0, len(f), len(f)) + f for f in three * 10)
    path.write_bytes(head + b"".join(records))
    assert main.run(["plan", str(path), "--queues", "2"]) == 0
    out = capsys.readouterr().out
    assert "than 20 packets: there are more heavy flows than queues, and some share one" in out


def test_a_damaged_file_is_told_and_the_rest_is_planned(
    capture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(Path(capture).read_bytes()[:-10])
    assert main.run(["plan", capture, str(cut), "--json"]) == 1
    out, err = capsys.readouterr()
    assert sum(json.loads(out)["after"]["loads"]) == 2 * 20_100 - 1
    assert str(cut) in json.loads(err)["error"]


def test_few_moves_are_not_for_ethtool(capture: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What it can set would move nearly everything."""
    told = run(capsys, capture, "--queues", "8", "--few-moves")
    assert told["ethtool"] is None
    assert main.run(["plan", capture, "--queues", "8", "--few-moves"]) == 0
    out = capsys.readouterr().out
    assert "ethtool -X cannot set this table" in out
    assert "hkey" not in out
    assert main.run(["plan", capture, "--queues", "8", "--keep-key"]) == 0
    out = capsys.readouterr().out
    moved = run(capsys, capture, "--queues", "8", "--keep-key")["ethtool"]["moved"]
    assert 0.5 < moved < 1
    assert f" and {moved:.1%} moves" in out
    assert "--for-ethtool" not in out  # which would take another key


@pytest.mark.parametrize("width", [60, 80, 200])
def test_bars_have_one_scale(
    width: int, capture: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    output.console.cache_clear()
    try:
        assert main.run(["plan", capture, "--queues", "4", "--by", "bytes"]) == 0
    finally:
        output.console.cache_clear()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:5]]
    loads = [int(line[at].replace(",", "")) for line in lines for at in (1, 4)]
    bars = [len(line[at]) for line in lines for at in (3, 6)]
    assert 4 <= max(bars) <= 24
    assert bars == [round(load / max(loads) * max(bars)) for load in loads]


def test_judged_by_other_traffic(
    capture: str, sent: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [sent[:3000], sent[5000:5001] * 2000]
    files = [str(tmp_path / name) for name in ("monday.pcap", "tuesday.pcap")]
    for file, some in zip(files, others, strict=True):
        write_pcap(file, [Frame(n, frame, len(frame), n, 1) for n, frame in enumerate(some)])
    options = [option for file in files for option in ("--judge", file)]
    told = run(capsys, capture, "--queues", "8", *options)
    for side in ("before", "after"):
        rss = RssConfig.from_json(told[side]["rss"])
        assert told["judged"][side]["loads"] == loads(others[0] + others[1], rss)
        assert told[side]["loads"] == loads(sent, rss)
    assert main.run(["plan", capture, "--queues", "8", *options]) == 0
    shares = (f"{told['judged'][side]['imbalance']:.3f} {side}" for side in ("before", "after"))
    assert f"on other traffic, 5,000 packets: imbalance {', '.join(shares)}" in (
        capsys.readouterr().out
    )


def test_judged_by_a_damaged_file(
    capture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(Path(capture).read_bytes()[:-10])
    assert main.run(["plan", capture, "--judge", str(cut), "--json"]) == 1
    out, err = capsys.readouterr()
    assert sum(json.loads(out)["judged"]["after"]["loads"]) == 20_100 - 1
    assert str(cut) in json.loads(err)["error"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "file: is missing"),
        (["CAPTURE", "--judge", "EMPTY"], 1, "no packets in it"),
        (["-", "--judge", "-"], 2, "judge: - is standard input, which is read already"),
        (["CAPTURE", "--judge", "-", "--present", "-"], 2, "present: - is standard input"),
        (["CAPTURE", "--output", "nowhere/plan.json"], 2, "output: there is no folder nowhere"),
        (["CAPTURE", "--queue", "1"], 2, "queue: goes with --find-port alone"),
        (["CAPTURE", "--range", "1-2"], 2, "range: goes with --find-port alone"),
        (["CAPTURE", "--tolerance", "x"], 2, "must be a share"),
        (["CAPTURE", "--present", "-", "--config", "p.json"], 2, "together with --present"),
        (["-", "--config", "-"], 2, "config: - is standard input, which is read already"),
        (["CAPTURE", "--output", "-"], 2, "output: - is no file"),
        (["CAPTURE", "--output", "CAPTURE"], 2, "is named already, and would be written over"),
        (["CAPTURE", "--few-moves", "--seed", "3"], 2, "seed: is for trying keys"),
        (["CAPTURE", "--keep-key", "--candidates", "9"], 2, "candidates: is for trying keys"),
        (["CAPTURE", "--jobs", "2", "--workers", "1"], 2, "jobs: are of this process"),
        (["CAPTURE", "--few-moves", "--entries", "64"], 2, "keeps the present table"),
        (["CAPTURE", "--candidates", "0"], 2, "candidates"),
        (["no/such.pcap"], 1, "no such file"),
        (["LOOP", "--output", "p.json"], 1, "symbolic links"),
        (["EMPTY"], 1, "no packets"),
        (["CAPTURE", "--find-port", "::1", "::2"], 2, "needs no traffic"),
        (["--find-port", "::1", "[::2]:1"], 2, "queue: is needed"),
        (["--find-port", "::1", "::2", "--queue", "1"], 2, "one of the two ends"),
        (["--find-port", "::1", "[::2]:1", "-o", "p.json"], 2, "output: does not go with"),
        (["--find-port", "::1", "[::2]:1", "--symmetric"], 2, "symmetric: does not go with"),
        (["--find-port", "::1", "[::2]:1", "--queue", "4"], 2, "queues are 0 to 3"),
        (["--find-port", "::1", "[::2]:1", "--queue", "1", "--range", "9-1"], 2, "lower one"),
        (["--find-port", "::1", "[::2]:1", "--queue", "1", "-t", "ipv6"], 1, "hashes no ports"),
    ],
)
def test_what_goes_wrong(
    args: list[str],
    code: int,
    message: str,
    capture: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    empty = tmp_path / "empty.pcap"
    empty.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    loop = tmp_path / "loop.pcap"
    loop.symlink_to(loop)
    files = {"CAPTURE": capture, "EMPTY": str(empty), "LOOP": str(loop)}
    assert message in run(capsys, *(files.get(arg, arg) for arg in args), code=code)["error"]


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_find_port(proto: str, capsys: pytest.CaptureFixture[str]) -> None:
    ends = ["192.0.2.1", "198.51.100.7:443"]
    options = ["--queue", "5", "--queues", "8", "--proto", proto, "--range", "40000-41000"]
    told = run(capsys, "--find-port", *ends, *options, "--count", "1000")
    config = RssConfig.default(8)
    wanted = [
        port
        for port in range(40000, 41001)
        if classify_tuple(config, ends[0], "198.51.100.7", Protocol[proto.upper()], port, 443).queue
        == 5
    ]
    assert [found["port"] for found in told["ports"]] == wanted
    assert (told["found"], told["sought"]) == (len(wanted), "source")
    assert main.run(["plan", "--find-port", *ends, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert [int(line.split()[0]) for line in lines[1:-1]] == wanted[:10]
    assert lines[-1] == (
        f"{len(wanted)} of the 1001 source ports from 40000 to 41000 lead to queue 5"
    )


def test_find_port_of_the_other_end(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--find-port", "[2001:db8::1]:443", "2001:db8::2", "--queue", "2", "--count", "3"]
    told = run(capsys, *args)
    assert told["sought"] == "destination"
    for found in told["ports"]:
        ends = ("2001:db8::1", "2001:db8::2", Protocol.TCP, 443, found["port"])
        assert classify_tuple(RssConfig.default(4), *ends).queue == 2
    unhashed = run(capsys, *args[:3], "--queue", "0", "--types", "none", "--count", "1")
    assert unhashed["ports"] == [{"port": 32768, "hash_value": 0, "bucket": None}]
    assert main.run(["plan", *args[:3], "--queue", "0", "--types", "none"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["32768", "-", "-"]


def test_ranges() -> None:
    assert parse_range("443") == range(443, 444)
    assert parse_range(" 1-65535") == range(1, 65536)
    for bad in ("", "1-", "70000", "5-4", "1-2-3", "\u0661"):
        with pytest.raises(ConfigError, match="lower one first"):
            parse_range(bad)
