# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The differential tests: they reach what they are for, and find what is planted."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import hatch_build
from tests.differential import batch, found
from tests.differential.batch import Batch, compare
from tests.differential.case import Case
from tests.differential.corpus import HEADER, compare_corpus, write_seeds
from tests.differential.dice import Dice
from tests.differential.found import Finding
from tests.differential.implementations import Implementations
from tests.differential.minimise import minimise
from tests.differential.mutate import mutated
from tests.differential.scapy_frames import pool
from vnethash.native import core
from vnethash.rss import dissect
from vnethash.rss.classified import Classified
from vnethash.rss.config import RssConfig
from vnethash.rss.native import Hasher
from vnethash.rss.reference import Explanation, explain
from vnethash.virtio.hash_types import HashType, ReportType, TunnelType

CONFIG = RssConfig.default(4)
ROOT = Path(__file__).resolve().parents[2]


# What is made


def test_a_batch_is_made_from_seed_and_number_alone() -> None:
    made = Batch("x", 3, 200).make([b"of scapy" * 10])
    assert Batch("x", 4, 200).make([b"of scapy" * 10]) != made
    assert Batch("x", 3, 200).make([b"of scapy" * 10]) == made
    assert Batch("y", 3, 200).make([b"of scapy" * 10]) != made


def test_the_pool_is_made_from_the_seed_alone() -> None:
    frames = pool("x", 20)
    assert pool("x", 20) == frames
    assert pool("y", 20) != frames
    assert len(set(frames)) > 15


def test_batches_reach_everything() -> None:
    """Every report type, every header and every reason for none, in a few seconds."""
    reports: Counter[str] = Counter()
    headers: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    tunnels: Counter[str] = Counter()
    with Implementations(bpf=False) as implementations:
        for number in range(12):
            result = compare(implementations, *Batch("reach", number, 1000).make([]))
            assert result.disagreements == 0
            reports += result.reports
            headers += result.headers
            reasons += result.reasons
            tunnels += result.tunnels
    assert set(tunnels) == {tunnel.name for tunnel in TunnelType}
    assert set(reports) == {report.name for report in ReportType}
    tunnels_seen = {"GRE", "GRE-in-UDP", "VXLAN", "VXLAN-GPE", "Geneve", "IPIP"}
    extensions = set(dissect._EXTENSIONS.values())
    plain = {"Ethernet", "802.1Q", "802.1ad", "SNAP", "IPv4", "IPv6", "TCP", "UDP"}
    assert set(headers) == plain | extensions | tunnels_seen
    assert {"a fragment", "the VLAN tag is cut short", "the frame is empty"} <= set(reasons)


def test_configurations_vary() -> None:
    configs = [Batch("vary", number, 0).make([])[0] for number in range(300)]
    assert {1, 256} <= {config.queues for config in configs}
    assert {HashType.ALL, HashType.NONE} <= {config.hash_types for config in configs}
    assert len({config.hash_types for config in configs}) > 30
    assert max(len(config.indirection_table) for config in configs) == 32768
    assert min(len(config.indirection_table) for config in configs) == 1
    assert bytes(40) in {config.key for config in configs}


def test_mutated_frames_are_other_ones() -> None:
    dice = Dice(1)
    frame = dice.randbytes(80)
    others = [mutated(dice, frame, dice.randbytes(50)) for _ in range(400)]
    assert sum(other != frame for other in others) > 360
    assert min(map(len, others)) < 60 < 100 < max(map(len, others))
    assert mutated(dice, b"", b"") == b""


# Minimising


def test_minimised_to_what_matters() -> None:
    case = Case(CONFIG.replace(key=bytes(40), unclassified_queue=2), bytes(range(100, 160)))
    asked = []

    def shows(candidate: Case) -> bool:
        asked.append(candidate)
        return b"\x8c" in candidate.frame and len(candidate.frame) >= 5

    smallest = minimise(case, shows)
    assert sorted(smallest.frame) == [0, 0, 0, 0, 0x8C]
    assert smallest.config == RssConfig.default(1)
    assert len(asked) < 4000


def test_minimised_configuration_keeps_what_matters() -> None:
    key = bytes(range(40))
    case = Case(CONFIG.replace(key=key, hash_types=HashType.TCPv4), b"x")
    smallest = minimise(case, lambda candidate: candidate.config.key == key)
    assert smallest.config == CONFIG.replace(key=key, unclassified_queue=3)
    assert smallest.frame == b""


# Planted faults


def takes_df_for_a_fragment(frame: bytes, config: RssConfig, l3: bool) -> Explanation:
    """A reference with the fault of QEMU 7.2."""
    ip = explain(frame, config, l3=l3)
    start = 0 if l3 else 14
    is_outer = l3 or ip.headers.seen[1:2] == ("IPv4",)
    if ip.headers.tunnel or ip.headers.version != 4 or ip.headers.l4 is None or not is_outer:
        return ip
    if not frame[start + 6] & 0x40:
        return ip
    no_ports = HashType.IPv4 & config.hash_types
    return explain(frame, config.replace(hash_types=no_ports), l3=l3)


def test_a_fault_of_the_reference_is_found_and_minimised(tmp_path: Path) -> None:
    with Implementations(bpf=False, judge=takes_df_for_a_fragment) as implementations:
        findings = []
        for number in range(8):
            result = compare(implementations, *Batch("df", number, 500).make([]))
            findings += result.findings
            assert result.disagreements >= len(result.findings)
    assert findings
    for finding in findings:
        frame, start = finding.case.frame, 0 if finding.case.l3 else 14
        assert explain(frame, finding.case.config, l3=finding.case.l3).headers.version == 4
        assert frame[start + 6] == 0x40, "DF is what matters"
        assert len(frame) - start in (28, 40), "headers and nothing else"
        assert finding.said["native"] != finding.said["reference"]

        (case, expected), *more = found.read(finding.write(tmp_path))
        assert (case, more) == (finding.case, [])
        assert Hasher(case.config, l3=case.l3).classify(case.frame).to_json() == expected


@pytest.mark.parametrize(
    ("header", "before", "after"),
    [
        ("dissect.h", "VNET_OPTIONS_MAX = 8", "VNET_OPTIONS_MAX = 7"),
        ("dissect.h", "VNET_EXTENSIONS_MAX = 8", "VNET_EXTENSIONS_MAX = 9"),
        ("tunnel.h", "VNET_GRE_REFUSED = 0x4c07", "VNET_GRE_REFUSED = 0x4407"),
    ],
)
def test_a_fault_of_the_core_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, before: str, after: str
) -> None:
    """The part of the native core that classifies, compiled with a limit one off."""
    monkeypatch.setattr(batch, "MINIMISED_MAX", 1)
    shutil.copytree(ROOT / "native", tmp_path / "native")
    source = tmp_path / "native" / header
    text = source.read_text()
    assert text.count(before) == 1
    source.write_text(text.replace(before, after))
    sources = ["native/config.c", "native/hash.c"]
    hatch_build.compile_shared(sources, tmp_path, tmp_path / "core.so")
    library = core().ffi.dlopen(str(tmp_path / "core.so"))

    def faulty(config: RssConfig, l3: bool) -> Hasher:
        hasher = Hasher(config, l3=l3)
        hasher._lib = library
        return hasher

    with Implementations(bpf=False, make_hasher=faulty) as implementations:
        for number in range(40):
            result = compare(implementations, *Batch("core", number, 1000).make([]))
            if result.findings:
                break
        assert result.findings
        for finding in result.findings:
            assert len(finding.case.frame) < 150
            assert implementations.disagree(finding.case)
    with Implementations(bpf=False) as implementations:
        assert not any(implementations.disagree(finding.case) for finding in result.findings)


# Findings


def test_all_that_was_found_is_settled() -> None:
    """Reference and native core; tests/kernel/test_differential.py asks the hash stage too."""
    with Implementations(bpf=False) as implementations:
        for path in found.FOLDER.glob("*.json"):
            for case, expected in found.read(path):
                for name, said in implementations.ask(case).items():
                    assert isinstance(said, Classified)
                    assert said.to_json() == expected, f"{path.name}: {name}"


def test_a_finding_says_what_it_is() -> None:
    case = Case(CONFIG, b"\x45", l3=True)
    finding = Finding(case, {"reference": Classified(0, ReportType.NONE, None, 0), "bpf": "gone"})
    assert finding.lines()[0] == "frame      45 (1 bytes, no Ethernet header)"
    assert finding.lines()[-2:] == [
        "reference  NONE 0x00000000, queue 0",
        "bpf        gone",
    ]
    assert finding.to_json()["vectors"][0]["reason"] == "Once bpf said gone."
    assert finding.name != Finding(replace(case, l3=False), finding.said).name


# Inputs of the fuzzer


def test_seeds_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_seeds(tmp_path, "seed", 50, [])
    (tmp_path / "short").write_bytes(bytes(HEADER.size - 1))
    with Implementations(bpf=False) as implementations:
        result = compare_corpus(implementations, tmp_path)
    assert 40 < result.frames <= 50
    assert result.disagreements == 0
    assert result.reports["NONE"] < 40


# The command


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.differential", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_command() -> None:
    options = ("--frames", "2500", "--seed", "s", "--jobs", "2", "--no-bpf", "--scapy", "5")
    done = run(*options, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["frames"], said["disagreements"], said["on_bpf"]) == (2500, 0, 0)
    assert sum(said["reports"].values()) == 2500
    again = json.loads(run(*options, "--json").stdout)
    assert again | {"seconds": 0} == said | {"seconds": 0}
    done = run(*options)
    assert done.stdout.splitlines()[-1].startswith("2,500 frames, 0 of them through the hash stage")


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (["--frames", "0"], 2, "must be at least 1"),
        (["--live", "-1"], 2, "is negative"),
        (["--corpus", "/nowhere"], 1, "error: [Errno 2] No such file or directory: '/nowhere'"),
    ],
)
def test_command_refuses(arguments: list[str], status: int, error: str) -> None:
    done = run(*arguments, "--no-bpf")
    assert done.returncode == status
    assert error in done.stderr
    assert "Traceback" not in done.stderr
