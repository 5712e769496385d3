# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""`vnethash vectors`: implementations that are right, wrong, or break the protocol."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vnethash.cli import main
from vnethash.errors import ConfigError, ImplementationError
from vnethash.rss.classified import Classified
from vnethash.rss.reference import toeplitz
from vnethash.vectors import Demand, Vector, load
from vnethash.vectors.answer import Answer, Outcome, judge, parse_answer
from vnethash.vectors.diagnose import diagnose
from vnethash.vectors.engines import Engine, ask
from vnethash.vectors.process import Conversation, converse, parse_command
from vnethash.vectors.report import By, Report, count
from vnethash.virtio.hash_types import ReportType

ROOT = Path(__file__).resolve().parents[2]
VECTORS = [vector for file in load() for vector in file.vectors]
BY_ID = {vector.id: vector for vector in VECTORS}
TCP = BY_ID["ipv4/tcp"]
ARP = BY_ID["not-hashed/arp"]

# Knows the answers: reads requests from standard input, and has `answer` by id.
_KNOWING = f"""
import json, sys, time
sys.path.insert(0, {str(ROOT / "src")!r})
from vnethash.vectors import load
answers = {{v.id: v.answer() for f in load() for v in f.vectors}}
def requests():
    for line in sys.stdin:
        yield json.loads(line)
def say(answer, flush=True):
    print(json.dumps(answer), flush=flush)
"""


def program(tmp_path: Path, body: str) -> list[str]:
    """A process that runs `body`, which knows the answers."""
    file = tmp_path / "implementation.py"
    file.write_text(_KNOWING + body)
    return [sys.executable, str(file)]


def talk(tmp_path: Path, body: str, timeout: float = 20) -> Conversation:
    return converse(program(tmp_path, body), VECTORS, timeout=timeout)


def outcomes(conversation: Conversation) -> dict[Outcome, int]:
    return dict(count(judge(v, conversation.answers.get(v.id)) for v in VECTORS))


ONE_BY_ONE = "for r in requests(): say(answers[r['id']])\n"


@pytest.mark.parametrize(
    "body",
    [
        ONE_BY_ONE,
        "for r in requests(): say(answers[r['id']], flush=False)\n",
        "for r in reversed(list(requests())): say(answers[r['id']], flush=False)\n",
        # Much on standard error, and empty lines between.
        "for r in requests():\n"
        "    print('x' * 500, file=sys.stderr); print(); say(answers[r['id']])\n",
        # The last line without its end.
        "print(chr(10).join(json.dumps(answers[r['id']]) for r in requests()), end='')\n",
    ],
    ids=["one by one", "buffered", "backwards", "noisy", "no newline"],
)
def test_right_answers_pass(tmp_path: Path, body: str) -> None:
    conversation = talk(tmp_path, body)
    assert (conversation.failure, conversation.note) == (None, "")
    assert outcomes(conversation) == {Outcome.PASSED: len(VECTORS)}


def test_the_request_has_what_the_answer_takes(tmp_path: Path) -> None:
    """An implementation that has nothing but the request."""
    conversation = talk(
        tmp_path,
        "from vnethash import RssConfig\n"
        "from vnethash.rss.reference import classify\n"
        "for r in requests():\n"
        "    config = dict(r['config'])\n"
        "    assert RssConfig.from_json({k: v for k, v in config.items() if k[-5:] != '_bits'})\\\n"
        "        .hash_types == config.pop('hash_types_bits')\n"
        "    assert config.pop('tunnels_bits') >= 0\n"
        "    got = classify(bytes.fromhex(r['frame']), RssConfig.from_json(config),\n"
        "                   l3=r['link_type'] == 'raw')\n"
        "    say({'id': r['id'], **got.to_json()})\n",
    )
    assert conversation.failure is None
    assert outcomes(conversation) == {Outcome.PASSED: len(VECTORS)}


def first(body: str) -> str:
    """The first three are answered right, then `body` runs."""
    return f"all = list(requests())\nfor r in all[:3]: say(answers[r['id']])\nr = all[3]\n{body}\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit(3)", r"ended with status 3 after 3 of \d+ answers; the first without is "),
        ("import os; os.kill(os.getpid(), 11)", "was ended by SIGSEGV after 3 of"),
        ("", "ended with status 0 after 3 of"),
        ("print('debug: hello')", r"answers 'debug: hello', which is not JSON .*\(line 4 of"),
        ("print('[1]')", "which has no id"),
        ("print('\\xff\\x00garbage')", "which is not JSON"),
        ("say(answers[all[0]['id']])", r"answers hash-types/icmp/ipv4 twice"),
        ("say({'id': 'nobody', 'queue': 1})", "answers 'nobody', which it was not asked"),
        ("say({'id': r['id']})", "which tells nothing of hash-types"),
        ("say({'id': r['id'], 'queue': -1})", "answers '-1' as queue of"),
        ("say({'id': r['id'], 'queue': True})", "answers 'true' as queue of"),
        ("say({'id': r['id'], 'hash_value': 1 << 32})", "must be a number up to 4294967295"),
        ("say({'id': r['id'], 'hash_value': 'abc'})", "as hash_value of"),
        ("say({'id': r['id'], 'hash_report': 'TCP'})", "must be one of NONE, IPv4, TCPv4"),
        ("say({'id': r['id'], 'hash_report': 10})", "as hash_report of"),
        ("say({'id': r['id'], 'unsupported': ''})", "must be a reason, as text"),
        ("sys.stdout.write('x' * (3 << 20)); sys.stdout.flush()", "a line of over 1048576 bytes"),
    ],
)
def test_broken_implementations(tmp_path: Path, body: str, message: str) -> None:
    conversation = talk(tmp_path, first(body))
    assert conversation.failure is not None
    with pytest.raises(ImplementationError, match=message):
        raise conversation.failure
    assert len(conversation.answers) == 3


@pytest.mark.parametrize("body", ["time.sleep(600)", "for r in requests(): pass\ntime.sleep(600)"])
def test_a_process_that_hangs(tmp_path: Path, body: str) -> None:
    begin = time.monotonic()
    conversation = talk(tmp_path, body, timeout=0.5)
    assert conversation.failure is not None
    assert "answered nothing for 0.5 s after 0 of" in conversation.failure.message
    assert conversation.failure.hint is not None
    assert time.monotonic() - begin < 20


def test_a_process_that_never_reads_and_talks_without_end(tmp_path: Path) -> None:
    """Neither pipe may block the other for ever."""
    conversation = talk(tmp_path, "while True: sys.stdout.write('\\n' * 65536)\n", timeout=1)
    assert conversation.failure is not None


def test_children_are_ended_too(tmp_path: Path) -> None:
    body = (
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    conversation = talk(tmp_path, body, timeout=5)
    assert conversation.failure is not None
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while _runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(
    ("after", "note"),
    [
        ("sys.exit(4)\n", "ended with status 4 after all its answers"),
        ("time.sleep(600)\n", "answered all, but did not end within 3 s"),
    ],
)
def test_odd_ends_after_all_answers_are_told(tmp_path: Path, after: str, note: str) -> None:
    conversation = talk(tmp_path, ONE_BY_ONE + after, timeout=3)
    assert conversation.failure is None
    assert note in conversation.note
    assert outcomes(conversation) == {Outcome.PASSED: len(VECTORS)}


def test_commands_that_cannot_start() -> None:
    with pytest.raises(ConfigError, match="cannot start /nowhere/rss: no such file"):
        converse(["/nowhere/rss"], VECTORS, timeout=1)
    with pytest.raises(ConfigError, match="is empty"):
        parse_command("  ")
    with pytest.raises(ConfigError, match="no closing quotation"):
        parse_command("rss 'x")
    assert parse_command("./rss --name 'a b'") == ["./rss", "--name", "a b"]


def told(vector: Vector, **values: int | ReportType) -> Answer:
    return Answer({**Answer.of(vector.expected).told, **values})


def test_numbers_may_be_text_and_report_types_numbers() -> None:
    name, answer = parse_answer('{"id": "x", "hash_value": "0x51ccc178", "hash_report": 2}')
    assert name == "x"
    assert answer.told == {"hash_report": ReportType.TCPv4, "hash_value": 0x51CCC178}


def test_what_is_not_told_is_not_compared() -> None:
    queue = TCP.expected.queue
    assert judge(TCP, Answer({"queue": queue})).outcome is Outcome.PASSED
    assert judge(TCP, Answer({"queue": queue + 1})).wrong == ("queue",)
    assert judge(ARP, Answer({"hash_value": 5})).outcome is Outcome.UNSUPPORTED
    assert judge(TCP, Answer(unsupported="too short")).outcome is Outcome.UNSUPPORTED
    assert judge(TCP, None).outcome is Outcome.UNANSWERED


@pytest.mark.parametrize("name", ["hash_value", "hash_report", "index", "queue"])
def test_each_field_counts(name: str) -> None:
    value = Answer.of(TCP.expected).told[name]
    wrong = ReportType.UDPv4 if name == "hash_report" else value ^ 1
    result = judge(TCP, told(TCP, **{name: wrong}))
    assert (result.outcome, result.wrong) == (Outcome.FAILED, (name,))


def test_without_a_hash_the_value_means_nothing() -> None:
    assert judge(ARP, told(ARP, hash_value=5)).outcome is Outcome.PASSED
    assert judge(ARP, told(ARP, queue=0)).outcome is Outcome.FAILED


def test_where_the_specification_is_silent_others_differ() -> None:
    vector = BY_ID["vlan/8021q-tcpv4"]
    unclassified = Classified(0, ReportType.NONE, None, 7)
    result = judge(vector, Answer.of(unclassified))
    assert result.outcome is Outcome.DIFFERS
    assert Report((result,)).conforms
    assert not Report((judge(TCP, Answer.of(unclassified)),)).conforms
    assert not Report((judge(TCP, None),)).conforms


def reverse(value: int) -> int:
    return int.from_bytes(value.to_bytes(4, "big"), "little")


def test_diagnosis() -> None:
    key, frame = TCP.config.key, TCP.frame
    addresses, ports = frame[26:34], frame[34:38]
    swapped = addresses[4:] + addresses[:4]

    def guess(vector: Vector, value: int) -> str:
        return diagnose(vector, told(vector, hash_value=value))

    assert (
        guess(TCP, reverse(TCP.expected.hash_value)) == "the right hash with its bytes in reverse"
    )
    alone = toeplitz(key, addresses)
    assert guess(TCP, alone) == "the hash of the addresses of the IP header alone"
    assert guess(TCP, reverse(alone)).startswith("with its bytes in reverse, the hash of the addr")
    assert "both exchanged" in guess(TCP, toeplitz(key, swapped + ports[2:] + ports[:2]))
    assert guess(TCP, toeplitz(key, addresses + frame[36:40])) == (
        "the hash of the addresses of the IP header, and of bytes 36 to 39 as ports"
    )
    assert guess(TCP, toeplitz(key, frame[22:30])) == "the hash of bytes 22 to 29 of the frame"
    assert guess(TCP, 0x12345678) == ""
    assert diagnose(TCP, Answer({"queue": 1})) == ""

    mobile = BY_ID["mobile/both-tcp"]
    home, route = mobile.hashed[:16], mobile.hashed[16:32]
    assert guess(mobile, toeplitz(key, mobile.frame[22:38] + route)) == (
        "the hash of the source address and that of the routing header alone"
    )
    assert "home address and the destination" in guess(
        mobile, toeplitz(key, home + mobile.frame[38:54])
    )
    vxlan = BY_ID["tunnel-udp/vxlan/tcpv4"]
    assert guess(vxlan, toeplitz(key, vxlan.frame[26:34] + vxlan.frame[34:38])) == (
        "the hash of the addresses of the outer IP header and the ports"
    )
    off = BY_ID["tunnel-udp/vxlan/off"]
    assert guess(off, toeplitz(key, vxlan.hashed)) == (
        "the hash of the addresses of the inner IP header and the ports"
    )


@pytest.mark.parametrize("engine", [Engine.NATIVE, Engine.REFERENCE])
def test_engines(engine: Engine) -> None:
    results = [judge(BY_ID[name], answer) for name, answer in ask(engine, VECTORS)]
    assert count(results) == {Outcome.PASSED: len(VECTORS)}


def test_rows_by_statement_come_in_the_order_of_the_page() -> None:
    report = Report(tuple(judge(v, Answer.of(v.expected)) for v in VECTORS))
    rows = list(report.rows(By.STATEMENT))
    assert rows.index("IP4-1") < rows.index("EXT-2") < rows.index("OPEN-1") < rows.index("OPEN-10")


def test_check_passes_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["vectors", "check"]) == 0
    out = capsys.readouterr().out
    assert "✗" not in out
    assert "✓ conforms: 0 of " in out


def test_check_shows_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = program(
        tmp_path,
        "for r in requests():\n"
        "    a = answers[r['id']]\n"
        "    if r['id'] == 'ipv4/tcp': a['hash_value'] ^= 1\n"
        "    if r['id'] == 'vlan/three': a['queue'] = 0\n"
        "    if r['id'] == 'ipv4/udp': a = {'id': r['id'], 'unsupported': 'no UDP'}\n"
        "    say(a, flush=False)\n",
    )
    command = ["vectors", "check", "--command", shlex.join(words)]
    assert main.run(command) == 1
    out = capsys.readouterr().out
    assert "✗ failed ipv4/tcp (IP4-1: virtio 1.3, 5.1.6.4.3.2)" in out
    assert "expected  TCPv4, 0xe06314df, index 95, queue 2" in out
    assert "answered  TCPv4, 0xe06314de, index 95, queue 2" in out
    assert "~ differs vlan/three (OPEN-4: virtio leaves it open)" in out
    assert "✗ does not conform: 1 of " in out
    assert "1 are unsupported" in out

    assert main.run([*command, "--json"]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    results = {values["id"]: values for values in map(json.loads, lines)}
    assert results["ipv4/tcp"]["outcome"] == "failed"
    assert results["ipv4/tcp"]["wrong"] == ["hash_value"]
    assert results["ipv4/udp"]["answer"] == {"unsupported": "no UDP"}
    summary = json.loads(last)["summary"]
    assert summary["conforms"] is False
    assert (summary["failed"], summary["differs"], summary["unsupported"]) == (1, 1, 1)
    assert summary["statements"]["IP4-1"]["failed"] == 1

    assert main.run([*command, "--only", "microsoft"]) == 0
    assert main.run([*command, "--only", "vlan", "--only", "ipv4/udp"]) == 0


def test_check_prints_what_it_has_before_it_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = program(tmp_path, first("sys.exit(1)"))
    assert main.run(["vectors", "check", "--command", shlex.join(words)]) == 1
    printed = capsys.readouterr()
    assert "unanswered" in printed.out
    assert "✗ not known whether it conforms: 0 of " in printed.out
    assert "ended with status 1 after 3 of" in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "--command", "x", "--engine", "native"],
        ["check", "--command", "/nowhere/rss"],
        ["check", "--only", "nothing"],
        ["check", "--types", "TCP"],
        ["check", "--tunnels", "VLAN"],
        ["check", "--timeout", "0"],
        ["export", "--format", "json"],
        ["export", "--format", "xml"],
        ["show", "nothing"],
    ],
)
def test_wrong_use(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["vectors", *arguments]) == 2
    assert capsys.readouterr().err.startswith("vnethash: error: ")


def test_check_of_fewer_types(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--types", "IPv4,TCPv4", "--tunnels", "none", "--json"]
    assert main.run(["vectors", "check", *arguments]) == 0
    *lines, _ = capsys.readouterr().out.splitlines()
    reports = {json.loads(line)["expected"]["hash_report"] for line in lines}
    assert reports == {"NONE", "IPv4", "TCPv4"}


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["vectors", "list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(VECTORS)
    assert main.run(["vectors", "list", "--only", "ipv4/tcp", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == TCP.to_json()
    assert main.run(["vectors", "show", "mobile/both-tcp"]) == 0
    out = capsys.readouterr().out
    assert "headers  Ethernet, IPv6, routing, destination options, TCP" in out
    assert "routing header address  20 01 0d b8 00 0b" in out
    assert main.run(["vectors", "show", "ipv4/tcp", "--json"]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert shown["config"] == TCP.config.to_json()
    assert shown["explanation"]["input"] == TCP.hashed.hex()


def test_export_to_files(tmp_path: Path) -> None:
    assert main.run(["vectors", "export", "-f", "json", "-o", str(tmp_path / "all")]) == 0
    for path in (tmp_path / "all").iterdir():
        assert path.read_bytes() == (ROOT / "vectors" / path.name).read_bytes()
    assert (tmp_path / "all" / "schema.json").exists()
    file = tmp_path / "vectors.pcapng"
    assert main.run(["vectors", "export", "-f", "pcapng", "-o", str(file)]) == 0
    assert file.read_bytes() == (ROOT / "vectors" / "vectors.pcapng").read_bytes()
    lines = tmp_path / "vectors.jsonl"
    assert main.run(["vectors", "export", "--only", "ipv4", "-o", str(lines)]) == 0
    assert len(lines.read_text().splitlines()) == len(
        [vector for vector in VECTORS if vector.topic == "ipv4"]
    )


def test_export_to_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vnethash.cli.main", "vectors", "export", "--only", "vlan"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        check=True,
    )
    assert all(json.loads(line)["id"].startswith("vlan/") for line in done.stdout.splitlines())


def quoted(after: str) -> list[str]:
    """Lines of tables and verdicts that the page shows of a program, some of them left out."""
    page = (ROOT / "docs" / "vectors.md").read_text()
    block = page.partition(f"--command ./{after} ")[2].partition("```")[0]
    return [line for line in block.splitlines() if line.startswith(("✓", "✗", "~"))]


def test_the_example_passes_and_fails_what_the_page_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ROOT / "docs" / "examples" / "vectors" / "simple_rss.c"
    binary = tmp_path / "simple_rss"
    flags = ["-Wall", "-Wextra", "-Werror", "-O2", "-fsanitize=undefined"]
    subprocess.run(["cc", *flags, "-o", binary, source], check=True)
    command = ["vectors", "check", "--command", str(binary), "--tunnels", "none"]
    command += ["--types", "IPv4,TCPv4,UDPv4,IPv6,TCPv6,UDPv6"]
    assert main.run([*command, "--by", "statement"]) == 1
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    lines = quoted("simple_rss")
    assert len(lines) > 10
    assert [line for line in lines if line not in shown] == []


def test_dpdk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An implementation that is not ours, by the example."""
    found = ["pkg-config", "--cflags", "--libs", "libdpdk"]
    try:
        flags = subprocess.run(found, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        reason = "DPDK is not installed for programs (apt install dpdk-dev pkg-config)"
        if os.environ.get("VNETHASH_REQUIRE_KERNEL"):
            pytest.fail(reason)
        pytest.skip(reason)
    binary = tmp_path / "dpdk_rss"
    source = ROOT / "docs" / "examples" / "vectors" / "dpdk_rss.c"
    subprocess.run(["cc", "-O2", "-o", binary, source, *flags], check=True)
    command = ["vectors", "check", "--command", str(binary), "--tunnels", "none"]
    command += ["--types", "IPv4,TCPv4,UDPv4,IPv6,TCPv6,UDPv6"]
    if subprocess.check_output([*found[:1], "--modversion", found[-1]]).startswith(b"22.11."):
        assert main.run([*command, "--by", "statement"]) == 1
        shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        lines = quoted("dpdk_rss")
        assert len(lines) > 3
        assert [line for line in lines if line not in shown] == []
    main.run([*command, "--json"])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]
    assert (summary["unanswered"], summary["told"]) == (0, ["hash_report", "hash_value", "queue"])
    for name in ("HASH-7", "IP4-1", "IP4-2", "IP4-3", "IP6-1", "IP6-2", "IP6-3", "STEER-3"):
        assert summary["statements"][name]["passed"] > 10
        assert summary["statements"][name]["failed"] == 0


def test_the_numbers_of_the_page() -> None:
    page = (ROOT / "docs" / "vectors.md").read_text()
    told: dict[str, int] = {}
    for topics, numbers in re.findall(r"^\| (`[a-z0-9`, -]+) \| ([\d, ]+) \|", page, re.MULTILINE):
        counts = map(int, numbers.split(","))
        told |= zip(topics.replace("`", "").split(", "), counts, strict=True)
    assert told == Counter(vector.topic for vector in VECTORS)
    demands = Counter(vector.demand for vector in VECTORS)
    assert f"device has to make of the two: {len(VECTORS)} of them" in page.replace("\n", " ")
    assert f"`specification` for {demands[Demand.SPECIFICATION]} of them" in page
    assert f"for the {demands[Demand.OPEN]} where it is silent" in page.replace("\n", " ")
    assert f"{len(VECTORS)} frames" in (ROOT / "CHANGELOG.md").read_text()


def test_a_vector_is_not_changed_by_asking() -> None:
    vector = replace(TCP)
    vector.request()["config"]["indirection_table"].clear()
    assert vector == TCP
