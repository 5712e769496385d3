# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The command line: what it prints, how it fails, what it imports."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import vnethash
from tests.terminals import terminal
from vnethash.capture import open_capture
from vnethash.cli import main, output
from vnethash.cli.options import config_from_options, parse_indirection
from vnethash.errors import ConfigError, VnethashError
from vnethash.rss.config import RssConfig
from vnethash.rss.keys import MICROSOFT_KEY, SYMMETRIC_KEY
from vnethash.virtio.hash_types import HashType

SOURCE, DESTINATION = "66.9.149.187:2794", "161.142.100.80:1766"
ENV = {**os.environ, "PYTHONPATH": str(Path(vnethash.__file__).parent.parent)}
PROGRAM = [sys.executable, "-m", "vnethash.cli.main"]


def vnethash_process(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *args], env=ENV, capture_output=True, text=True, check=False)


def python_process(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=ENV, capture_output=True, text=True, check=True).stdout


# Vectors: Microsoft, "Verifying the RSS hash calculation".
@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (
            [SOURCE, DESTINATION, "--proto", "tcp"],
            {"hash_value": 0x51CCC178, "hash_report": "TCPv4", "index": 0x78, "queue": 0},
        ),
        (
            [SOURCE, DESTINATION, "--proto", "none"],
            {"hash_value": 0x323E8FC2, "hash_report": "IPv4", "index": 0x42, "queue": 2},
        ),
        (
            ["66.9.149.187", "161.142.100.80", "--proto", "none", "--queues", "7"],
            {"hash_value": 0x323E8FC2, "hash_report": "IPv4", "index": 0x42, "queue": 66 % 7},
        ),
        (
            [SOURCE, DESTINATION, "--proto", "udp", "--types", "tcpv4,ipv4"],
            {"hash_value": 0x323E8FC2, "hash_report": "IPv4", "index": 0x42, "queue": 2},
        ),
        (
            [SOURCE, DESTINATION, "--proto", "tcp", "--indirection", "3,2,1,0"],
            {"hash_value": 0x51CCC178, "hash_report": "TCPv4", "index": 0, "queue": 3},
        ),
        (
            [SOURCE, DESTINATION, "--types", "none", "--unclassified", "3"],
            {"hash_value": 0, "hash_report": "NONE", "index": None, "queue": 3},
        ),
        (
            ["[3ffe:2501:200:1fff::7]:2794", "[3ffe:2501:200:3::1]:1766", "--proto", "tcp"],
            {"hash_value": 0x40207D3D, "hash_report": "TCPv6", "index": 0x3D, "queue": 1},
        ),
        (
            ["3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1", "--proto", "none"],
            {"hash_value": 0x2CC18CD5, "hash_report": "IPv6", "index": 0x55, "queue": 1},
        ),
    ],
)
def test_hash_json(
    args: list[str], expected: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["hash", *args, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    assert json.loads(out) == expected


def test_hash_as_a_process() -> None:
    done = vnethash_process("hash", SOURCE, DESTINATION, "--proto", "tcp", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(json.loads(done.stdout)) == ["hash_value", "hash_report", "index", "queue"]
    done = vnethash_process("hash", SOURCE, DESTINATION, "--proto", "tcp", "--explain")
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("0x51ccc178", "TCPv4", "120", "42 09 95 bb", "0a ea", "5.1.6.4.3.2"):
        assert text in done.stdout


def test_keys_with_and_without_colons(capsys: pytest.CaptureFixture[str]) -> None:
    answers = []
    for key in (SYMMETRIC_KEY.hex(), SYMMETRIC_KEY.hex(":"), SYMMETRIC_KEY.hex().upper()):
        for ends in ((SOURCE, DESTINATION), (DESTINATION, SOURCE)):
            assert main.run(["hash", *ends, "--proto", "tcp", "--key", key, "--json"]) == 0
            answers.append(capsys.readouterr().out)
    assert len(answers) == 6
    assert len(set(answers)) == 1


BAD_VALUES = [
    (["1.1.1.1", "2.2.2.2", "--key", "6d5a"], "key"),
    (["1.1.1.1", "2.2.2.2", "--key", "6d:5a:" * 20 + "00"], "key"),
    (["1.1.1.1", "2.2.2.2", "--key", "zz" * 40], "key"),
    (["1.1.1.1", "2.2.2.2", "--types", "TCPv5"], "hash_types"),
    (["1.1.1.1", "2.2.2.2", "--types", ""], "hash_types"),
    (["1.1.1.1", "2.2.2.2", "--indirection", "0,1,2"], "indirection_table"),
    (["1.1.1.1", "2.2.2.2", "--indirection", ""], "indirection_table"),
    (["1.1.1.1", "2.2.2.2", "--indirection", "0,one"], "indirection_table"),
    (["1.1.1.1", "2.2.2.2", "--indirection", "0,-1"], "indirection_table"),
    (["1.1.1.1", "2.2.2.2", "--indirection", "9" * 5000], "indirection_table"),
    (["1.1.1.1", "2.2.2.2", "--queues", "4", "--indirection", "0,4"], "indirection_table"),
    (["1.1.1.1", "2.2.2.2", "--queues", "0"], "queues"),
    (["1.1.1.1", "2.2.2.2", "--queues", "32769"], "queues"),
    (["1.1.1.1", "2.2.2.2", "--unclassified", "4"], "unclassified_queue"),
    (["1.1.1.1", "2.2.2.2", "--unclassified", "-1"], "unclassified_queue"),
    (["1.1.1.1", "2.2.2.2:80", "--proto", "tcp"], "source port"),
    (["1.1.1.1:80", "2.2.2.2", "--proto", "udp"], "destination port"),
    (["1.1.1.1:65536", "2.2.2.2:80", "--proto", "tcp"], "source port"),
    (["1.1.1.1", "2001:db8::1", "--proto", "none"], "destination"),
    (["1.1.1.256", "2.2.2.2", "--proto", "none"], "source"),
]


@pytest.mark.parametrize(("args", "field"), BAD_VALUES)
def test_bad_values(args: list[str], field: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["hash", *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith(f"vnethash: error: {field}: ")
    assert all(line.startswith("vnethash: hint: ") for line in lines[1:])
    assert len(lines) <= 2

    assert main.run(["hash", *args, "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    error = json.loads(err)
    assert set(error) == {"error", "kind", "hint", "field", "rule"}
    assert (error["kind"], error["field"]) == ("ConfigError", field)
    assert error["error"] == f"{field}: {error['rule']}"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["hash"], "missing argument"),
        (["hash", "1.1.1.1"], "missing argument"),
        (["hash", "1.1.1.1", "2.2.2.2", "3.3.3.3"], "3.3.3.3"),
        (["hash", "1.1.1.1", "2.2.2.2", "--nonsense"], "--nonsense"),
        (["hash", "1.1.1.1", "2.2.2.2", "--queues", "many"], "'--queues'"),
        (["hash", "1.1.1.1", "2.2.2.2", "--proto", "sctp"], "'sctp'"),
        (["nonsense"], "'nonsense'"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_use(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, hint = err.splitlines()
    assert first.startswith("vnethash: error: ")
    assert message in first
    assert hint.startswith("vnethash: hint: see `vnethash ")

    # The option --json is seen even where the rest is not understood.
    assert main.run([*args, "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["kind"] == "UsageError"


@pytest.mark.parametrize(
    "args",
    [
        ["hash", "1.1.1.1", "2.2.2.2", "--key", "6d"],
        ["hash", "1.1.1.1", "2001:db8::1", "--proto", "none"],
        ["hash", "1.1.1.1", "2.2.2.2", "--indirection", "0,1,2", "--json"],
        ["hash", "\udcff", "2.2.2.2"],
        ["nonsense"],
    ],
)
def test_no_traceback_from_the_process(args: list[str]) -> None:
    done = vnethash_process(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_control_characters_of_an_argument_are_not_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.run(["hash", "\x1b[31m1.1.1.1\n\x07", "2.2.2.2", "--proto", "none"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("vnethash: error: ")
    assert all(c.isprintable() or c == "\n" for c in err)


def failing_app(error: BaseException) -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fail(json: bool = False) -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (VnethashError("no tap", hint="make one"), 1, "vnethash: error: no tap"),
        (ConfigError("queues", "must be few"), 2, "vnethash: error: queues: must be few"),
        (RuntimeError("surprise"), 1, "vnethash: error: unexpected RuntimeError: surprise"),
        (OSError(5, "Input/output error"), 1, "vnethash: error: input/output error"),
        (OSError(2, "No such file", "/x"), 1, "vnethash: error: /x: no such file"),
        (typer.Exit(3), 3, ""),
        (typer.Abort(), 130, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(main, "app", failing_app(error))
    monkeypatch.delenv("VNETHASH_TRACEBACK", raising=False)
    assert main.run(["--no-json"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert bool(err) == bool(message)
    assert "Traceback" not in err


def test_failure_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(VnethashError) as caught:
        open_capture(tmp_path / "missing")
    monkeypatch.setattr(main, "app", failing_app(caught.value))
    assert main.run(["--json"]) == 1
    assert json.loads(capsys.readouterr().err) == {
        "error": f"{tmp_path}/missing: cannot open: no such file or directory",
        "kind": "CaptureError",
        "hint": None,
    }


def test_a_defect_shows_its_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "app", failing_app(RuntimeError("surprise")))
    monkeypatch.setenv("VNETHASH_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="surprise"):
        main.run(["--no-json"])


def test_a_reader_that_went_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [*PROGRAM, "hash", SOURCE, DESTINATION, "--json"],
            env=ENV,
            stdout=write,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_full_disk_is_an_error() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROGRAM, "hash", SOURCE, DESTINATION, "--json"],
            env=ENV,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert json.loads(done.stderr) == {
        "error": "no space left on device",
        "kind": "OSError",
        "hint": None,
    }


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out == f"vnethash {vnethash.__version__}\n"
    assert main.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert "Usage: vnethash " in text
    assert "Examples:\n" in text
    assert main.run([]) == 0
    assert capsys.readouterr().out == text


def command_names() -> list[str]:
    return [name for info in main.app.registered_commands if (name := info.name)]


@pytest.mark.parametrize("name", command_names())
def test_every_command_has_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Examples:\n    vnethash {name}" in text
    assert "--json" in text


def test_help_imports_nothing_heavy() -> None:
    heavy = python_process(
        "import sys\n"
        "from vnethash.cli.main import run\n"
        "assert run(['--help']) == 0\n"
        "heavy = {'numpy', 'pyroute2', 'cffi', 'scapy', 'asyncio', 'rich'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    assert heavy.endswith("HEAVY []\n")


def test_hashing_needs_no_third_party_library_but_typer() -> None:
    heavy = python_process(
        "import sys\n"
        "from vnethash.cli.main import run\n"
        f"assert run(['hash', '{SOURCE}', '{DESTINATION}', '--json']) == 0\n"
        "print('HEAVY', sorted({'numpy', 'pyroute2', 'cffi', 'rich'} & set(sys.modules)))"
    )
    assert heavy.endswith("HEAVY []\n")


def test_completion() -> None:
    done = subprocess.run(
        PROGRAM,
        env={
            **ENV,
            "_VNETHASH_COMPLETE": "complete_bash",
            "COMP_WORDS": "vnethash ha",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["hash"]


def test_config_from_no_options() -> None:
    assert config_from_options() == RssConfig.default(4)


def test_config_from_all_options() -> None:
    config = config_from_options(8, SYMMETRIC_KEY.hex(":"), "IPv4,UDP_EX", "7, 0", 5)
    assert config == RssConfig(
        8,
        hash_types=HashType.IPv4 | HashType.UDP_EX,
        key=SYMMETRIC_KEY,
        indirection_table=(7, 0),
        unclassified_queue=5,
    )


@pytest.mark.parametrize(("table", "queues"), [("0,1", 2), ("0,9", 10)])
def test_queues_follow_the_table_unless_given(table: str, queues: int) -> None:
    assert config_from_options(indirection=table).queues == queues


def test_config_from_a_file_and_options(tmp_path: Path) -> None:
    file = tmp_path / "rss.json"
    stored = RssConfig.symmetric(6)
    file.write_text(json.dumps(stored.to_json()))
    assert config_from_options(file=file) == stored
    assert config_from_options(key=MICROSOFT_KEY.hex(), file=file) == stored.replace(
        key=MICROSOFT_KEY
    )
    assert config_from_options(queues=8, file=file) == stored.replace(queues=8)
    with pytest.raises(ConfigError, match="indirection_table"):
        config_from_options(queues=2, file=file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config: cannot read .*: no such file or directory"),
        (b"\xff\xfe", "config: cannot read .*: .*utf-8"),
        (b"{", "json: is not valid"),
        (b"[]", "json: must be an object"),
        (b'{"queue": 4}', "queue: is no field"),
    ],
)
def test_configs_that_do_not_load(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "rss.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        config_from_options(file=file)


@pytest.mark.parametrize("text", ["", ",", "1,", "+1", "1_0", "٣", "0x1", "1;2", "-0"])
def test_words_that_are_no_queue_number(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a queue number"):
        parse_indirection(text)


def test_json_lines() -> None:
    import numpy as np

    line = output.json_line({"n": np.uint32(7), "key": b"\x6d\x5a", "text": "a\nb"})
    assert line == '{"n": 7, "key": "6d5a", "text": "a\\nb"}'
    with pytest.raises(TypeError, match="object is not JSON"):
        output.json_line(object())
    with pytest.raises(ValueError, match="JSON compliant"):
        output.json_line(float("nan"))


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("frames", 10) as at:
        at(10)
    assert capsys.readouterr() == ("", "")


def test_no_memory_is_no_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("vnethash.analysis.files.find_files", exhausted)
    assert main.run(["analyze", "a.pcap"]) == 1
    assert capsys.readouterr().err.startswith("vnethash: error: out of memory")


@pytest.mark.parametrize("name", ["[/red]", "[red]", "a\n\x1b[31mb"])
def test_progress_of_files_with_odd_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    output.error_console.cache_clear()
    try:
        with output.progress(name, 10) as at:
            at(10)
    finally:
        output.error_console.cache_clear()
    assert name.replace("\n", " ").replace("\x1b", "\\x1b") in stream.getvalue()


@pytest.mark.parametrize("total", ["10", "None"])
def test_progress_shows_on_a_terminal(total: str) -> None:
    code = (
        "from vnethash.cli.output import progress\n"
        f"with progress('frames', {total}) as at:\n"
        "    at(10)"
    )
    env = {**ENV, "TERM": "xterm", "COLUMNS": "80"}
    with terminal() as screen:
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=screen.fd
        )
    assert (done.returncode, done.stdout) == (0, b"")
    assert "frames" in screen.text


def test_the_console_prints_addresses_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.console().print("[fe80::1]:53 from 6d:5a:1")
    assert capsys.readouterr().out == "[fe80::1]:53 from 6d:5a:1\n"
