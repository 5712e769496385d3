# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash replay`` through the library, and its bad input."""

import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import vnethash
from tests import frames
from tests.terminals import terminal
from vnethash.capture import Frame, write_pcap
from vnethash.cli import main
from vnethash.errors import CaptureError
from vnethash.replay.outcome import windows
from vnethash.rss import reference
from vnethash.rss.config import RssConfig

TCP4 = frames.ethernet(0x0800, frames.ipv4(frames.tcp(), frames.TCP))
UDP4 = frames.ethernet(0x0800, frames.ipv4(frames.udp()))
UDP6 = frames.ethernet(0x86DD, frames.ipv6(frames.udp()))
TAGGED = frames.ethernet(0x0800, frames.ipv4(frames.udp(5, 6)), ((0x88A8, 7), (0x8100, 42)))
ARP = frames.ethernet(0x0806, bytes(28))
FRAMES = [TCP4, UDP4, UDP6, TAGGED, ARP, TCP4]

LIBRARY = ["native", "python"]


@pytest.fixture(name="capture")
def _capture(tmp_path: Path) -> Path:
    path = tmp_path / "frames.pcap"
    write_pcap(path, FRAMES)
    return path


def replay(*args: object) -> int:
    return main.run(["replay", *map(str, args)])


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def expected(config: RssConfig, sent: Iterable[bytes]) -> list[dict[str, Any]]:
    lines = []
    for index, frame in enumerate(sent):
        classified = reference.classify(frame, config)
        lines.append(
            {
                "index": index,
                "queue": classified.queue,
                "hash_value": classified.hash_value,
                "hash_report": classified.hash_report.name,
                "length": len(frame),
                "record": False,
            }
        )
    return lines


def pcapng(*packets: tuple[int, bytes], link_types: Iterable[int] = (1,)) -> bytes:
    """A file of enhanced packet blocks: (interface, frame)."""

    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        length = struct.pack("<I", 12 + len(body))
        return struct.pack("<I", kind) + length + body + length

    parts = [block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))]
    parts += [block(1, struct.pack("<HHI", link_type, 0, 0)) for link_type in link_types]
    parts += [
        block(6, struct.pack("<5I", interface, 0, 0, len(frame), len(frame)) + frame)
        for interface, frame in packets
    ]
    return b"".join(parts)


@pytest.mark.parametrize("engine", LIBRARY)
def test_json(engine: str, capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(capture, "--engine", engine, "--json") == 0
    out, err = capsys.readouterr()
    assert json_lines(out) == expected(RssConfig.default(4), FRAMES)
    (summary,) = json_lines(err)
    assert summary["summary"]["engine"] == engine
    assert summary["summary"]["frames"] == summary["summary"]["replayed"] == len(FRAMES)
    assert sum(summary["summary"]["queues"].values()) == len(FRAMES)


@pytest.mark.parametrize("engine", LIBRARY)
def test_options_make_the_configuration(
    engine: str, capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "6d5a" * 20
    options = ["--types", "ipv4,udpv6", "--indirection", "2,1,0,2", "--unclassified", 1]
    assert replay(capture, "-e", engine, "--json", "--queues", 3, "--key", key, *options) == 0
    config = RssConfig.symmetric(3).replace(
        hash_types=1 | 1 << 5, indirection_table=(2, 1, 0, 2), unclassified_queue=1
    )
    assert json_lines(capsys.readouterr().out) == expected(config, FRAMES)


def test_configuration_from_a_file(
    capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RssConfig.weighted([1, 3, 2]).replace(unclassified_queue=2)
    file = tmp_path / "rss.json"
    file.write_text(json.dumps(config.to_json()))
    assert replay(capture, "-e", "native", "--json", "--config", file) == 0
    assert json_lines(capsys.readouterr().out) == expected(config, FRAMES)


@pytest.mark.parametrize("engine", LIBRARY)
def test_off_reports_nothing_but_steers(
    engine: str, capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(capture, "-e", engine, "--json", "--reporting", "off") == 0
    steered = expected(RssConfig.default(4), FRAMES)
    unhashed = {"hash_value": 0, "hash_report": "NONE"}
    assert json_lines(capsys.readouterr().out) == [line | unhashed for line in steered]


def test_table(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(capture, "-e", "native") == 0
    out, err = capsys.readouterr()
    heading, first, *_, arp, _ = out.splitlines()
    assert heading.split() == ["frame", "length", "hash", "type", "queue", "record"]
    classified = reference.classify(TCP4, RssConfig.default(4))
    assert first.split() == [
        "0", str(len(TCP4)), f"{classified.hash_value:#010x}", "TCPv4", str(classified.queue), "no"
    ]  # fmt: skip
    assert arp.split() == ["4", str(len(ARP)), "-", "NONE", "0", "no"]
    assert err.startswith("vnethash: 6 of 6 frames by engine native (library)")
    assert len(err.splitlines()) == 1


def test_more_frames_than_are_under_way_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "many.pcap"
    many = [frames.ethernet(0x0800, frames.ipv4(frames.udp(port))) for port in range(1000, 1200)]
    write_pcap(path, many)
    assert replay(path, "-e", "native", "--json") == 0
    assert json_lines(capsys.readouterr().out) == expected(RssConfig.default(4), many)


def test_damage_comes_after_what_is_readable(
    capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture.write_bytes(capture.read_bytes()[:-1])
    assert replay(capture, "-e", "native", "--json") == 1
    out, err = capsys.readouterr()
    assert json_lines(out) == expected(RssConfig.default(4), FRAMES[:-1])
    summary, error = json_lines(err)
    assert summary["summary"]["frames"] == len(FRAMES) - 1
    assert error["kind"] == "CaptureError"
    assert "1 bytes too early" in error["error"]


def test_short_captures_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.pcap"
    cut = Frame(0, TCP4[:40], len(TCP4), 0, 1)
    write_pcap(path, [cut])
    assert replay(path, "-e", "native") == 0
    assert "1 captured short" in capsys.readouterr().err


def test_foreign_frames_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mixed.pcapng"
    path.write_bytes(pcapng((1, TCP4[14:]), (0, TCP4), link_types=(1, 101)))
    assert replay(path, "-e", "native", "--json") == 1
    out, err = capsys.readouterr()
    foreign, ethernet = json_lines(out)
    assert foreign == {
        "index": 0, "length": len(TCP4) - 14, "error": "link type 101 (RAW), not Ethernet"
    }  # fmt: skip
    assert ethernet["index"] == 1
    assert ethernet["hash_report"] == "TCPv4"
    (summary,) = json_lines(err)
    assert summary["summary"]["not_sent"] == 1
    assert replay(path, "-e", "native") == 1
    out, err = capsys.readouterr()
    assert "error: link type 101 (RAW), not Ethernet" in out
    assert "1 could not be sent" in err


def test_a_capture_without_ethernet_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "raw.pcap"
    write_pcap(path, [TCP4[14:]], link_type=101)
    assert replay(path, "-e", "python", "--json") == 1
    out, err = capsys.readouterr()
    assert json_lines(out)[0]["error"] == "link type 101 (RAW), not Ethernet"
    error = json_lines(err)[-1]
    assert error["kind"] == "CaptureError"
    assert "Ethernet" in error["error"]
    assert error["hint"]


def test_an_empty_capture_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.pcap"
    write_pcap(path, [])
    assert replay(path, "-e", "native", "--json") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert json_lines(err)[0]["summary"]["frames"] == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty"), (b"\x1f\x8b\x08\0", "not a capture"), (b"GET / HT", "not a")],
)
def test_no_capture(
    content: bytes, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    assert replay(path, "--json") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert reason in json_lines(err)[0]["error"]


def test_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(tmp_path / "none.pcap") == 1
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--engine", "qemu"], "engine"),
        (["--reporting", "loudly"], "reporting"),
        (["--queues", "0"], "queues"),
        (["--queues", "65536"], "queues"),
        (["--key", "6d5a"], "key"),
        (["--types", "TCPv5"], "TCPv5"),
        (["--indirection", "0,1,2"], "indirection_table"),
        (["--indirection", "0,9", "--queues", "4"], "queue 9"),
        (["--unclassified", "4"], "unclassified_queue"),
        (["--config", "/nonexistent.json"], "config"),
    ],
)
def test_wrong_use(
    options: list[str], reason: str, capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(capture, *options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert reason in err
    assert "Traceback" not in err


def test_standard_input(capture: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(capture.read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert replay("-", "-e", "native", "--json") == 0
    assert json_lines(capsys.readouterr().out) == expected(RssConfig.default(4), FRAMES)


def test_windows_keep_what_came_before_the_damage() -> None:
    def damaged() -> Iterable[Frame]:
        for index in range(5):
            yield Frame(index, TCP4, len(TCP4), 0, 1)
        raise CaptureError("file", "broke")

    under_way = windows(damaged(), 2)
    seen = [[frame.index for frame in next(under_way)] for _ in range(3)]
    assert seen == [[0, 1], [2, 3], [4]]
    with pytest.raises(CaptureError):
        next(under_way)


def test_the_progress_bar_leaves_the_lines_to_the_pipe(tmp_path: Path) -> None:
    """A bar on the terminal, and every line in the file."""
    path = tmp_path / "many.pcap"
    write_pcap(path, FRAMES * 100)
    env = {**os.environ, "PYTHONPATH": str(Path(vnethash.__file__).parent.parent), "TERM": "xterm"}
    with terminal() as screen:
        process = subprocess.run(
            [sys.executable, "-m", "vnethash.cli.main", "replay", path, "-e", "native", "--json"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=screen.fd,
            timeout=30,
        )
    assert process.returncode == 0
    assert json_lines(process.stdout.decode()) == expected(RssConfig.default(4), FRAMES * 100)
    assert "replaying" in screen.text
    assert '"hash_value"' not in screen.text
