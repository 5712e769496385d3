# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash replay`` through a real tap."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from tests import frames
from tests.kernel.least_privilege import with_only
from tests.kernel.programs import dropping, returning
from tests.kernel.wire import ENGINES, fitting, from_kernel
from vnethash.capture import Frame, write_pcap
from vnethash.cli import main
from vnethash.engines.select import LAB, TUN_RSS, choose
from vnethash.errors import DeviceError, NotPermitted
from vnethash.kernel import link, tc
from vnethash.kernel.bpf import ProgramType
from vnethash.kernel.caps import Cap
from vnethash.kernel.packet_socket import PacketSocket
from vnethash.replay import through_tap
from vnethash.replay.outcome import Failed, Replayed
from vnethash.replay.through_tap import MTU_MAX, TapWay, open_tap_way
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.tap import Tap
from vnethash.virtio.hash_types import format_hash_types

CAP_NET_RAW = 13  # linux/capability.h


def udp4(port: int, size: int = 20) -> bytes:
    return frames.ethernet(0x0800, frames.ipv4(frames.udp(port, 53, bytes(size))))


LARGEST = udp4(9, MTU_MAX - 28)
LARGEST_TAGGED = frames.ethernet(
    0x0800, frames.ipv4(frames.udp(9, 53, bytes(MTU_MAX - 28))), ((0x8100, 7),)
)
GOOD = [
    *(udp4(port) for port in range(1000, 1100)),
    udp4(1000),  # once more
    frames.ethernet(0x0800, frames.ipv4(frames.tcp(), frames.TCP)),
    frames.ethernet(0x0800, frames.ipv4(frames.tcp(), frames.TCP, fragment=0x2000)),
    frames.ethernet(0x86DD, frames.ipv6(frames.tcp(), frames.TCP)),
    frames.ethernet(0x86DD, frames.ipv6(bytes([17, 0, 1, 4, 0, 0, 0, 0]) + frames.udp(), 60)),
    frames.ethernet(0x0800, frames.ipv4(frames.udp()), ((0x8100, 7),)),
    frames.ethernet(0x0800, frames.ipv4(frames.udp()), ((0x88A8, 7), (0x8100, 42))),
    frames.ethernet(0x0806, bytes(28)),
    frames.ethernet(0x0026, bytes(38)),  # a length, not an EtherType
    frames.ethernet(0x0800, b""),
    udp4(1, 20000),
    LARGEST,
    LARGEST_TAGGED,
]
BAD = {
    b"": "less than an Ethernet header",
    bytes(13): "less than an Ethernet header",
    LARGEST + b"x": f"{MTU_MAX + 15} bytes are more than the link takes ({MTU_MAX + 14})",
    LARGEST_TAGGED + b"x": "more than the link takes",
    bytes(100_000): "more than the link takes",
}


def replay(*args: object) -> int:
    return main.run(["replay", *map(str, args)])


def types(engine: str) -> list[str]:
    """Options for the hash types that the engine knows."""
    if engine != TUN_RSS:
        return []
    return [
        "--types",
        ",".join(format_hash_types(fitting(engine, RssConfig.default(1)).hash_types)),
    ]


def captured(data: list[bytes]) -> list[Frame]:
    return [Frame(index, frame, len(frame), 0, 1) for index, frame in enumerate(data)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reporting", list(Reporting))
def test_every_frame_as_the_reference(
    engine: str, reporting: Reporting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "frames.pcap"
    write_pcap(path, GOOD)
    options = ["--engine", engine, "--reporting", reporting, *types(engine)]
    assert replay(path, *options, "--json", "-q", 3) == 0
    out, err = capsys.readouterr()
    config = fitting(engine, RssConfig.default(3))
    for index, (line, frame) in enumerate(zip(out.splitlines(), GOOD, strict=True)):
        got = json.loads(line)
        classified = reference.classify(frame, config)
        # the kernel's limit for a record, and some
        has_room = engine in LAB or len(frame) < 16000
        assert got == {
            "index": index,
            "queue": classified.queue,
            "hash_value": 0 if reporting == "off" else classified.hash_value,
            "hash_report": "NONE" if reporting == "off" else classified.hash_report.name,
            "length": len(frame),
            "record": from_kernel(engine, reporting, classified.hash_report) and has_room,
        }
    summary = json.loads(err)["summary"]
    assert (summary["engine"], summary["replayed"], summary["lost"]) == (engine, len(GOOD), 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_cannot_be_sent_is_reported(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "frames.pcap"
    data = [udp4(1), *BAD, udp4(2)]
    write_pcap(path, data)
    assert replay(path, "-e", engine, *types(engine), "--json") == 1
    out, err = capsys.readouterr()
    first, *failed, last = [json.loads(line) for line in out.splitlines()]
    assert (first["hash_report"], last["hash_report"]) == ("UDPv4", "UDPv4")
    assert last["index"] == len(BAD) + 1
    for index, (line, (frame, reason)) in enumerate(zip(failed, BAD.items(), strict=True), 1):
        assert line.keys() == {"index", "length", "error"}
        assert (line["index"], line["length"]) == (index, len(frame))
        assert reason in line["error"]
    assert json.loads(err)["summary"]["not_sent"] == len(BAD)

    assert replay(path, "-e", engine, *types(engine)) == 1
    out, err = capsys.readouterr()
    assert out.count("  error: ") == len(BAD)
    assert f"{len(BAD)} could not be sent" in err


def test_auto_takes_a_tap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "frames.pcap"
    write_pcap(path, GOOD)
    assert replay(path) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1 + len(GOOD)
    assert f"by engine {choose().name}" in err


def test_more_queues_than_a_tap_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "frames.pcap"
    write_pcap(path, GOOD)
    assert replay(path, "-q", 257, "--json") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["field"] == "queues"


def test_all_the_queues_of_a_tap() -> None:
    config = RssConfig.default(256)
    with open_tap_way(config, Reporting.RECORD, "ebpf") as way:
        outcomes = way.replay(captured(GOOD))
    queues = [outcome.queue for outcome in outcomes if isinstance(outcome, Replayed)]
    assert queues == [reference.classify(frame, config).queue for frame in GOOD]


@pytest.fixture(name="tap")
def _tap(netns: object) -> Any:
    with Tap.open("tap0", queues=2, engine="ebpf", up=False) as tap:
        link.quiet(tap.name)
        link.set_up(tap.name)
        yield tap


@pytest.fixture(name="wire")
def _wire(tap: Tap) -> Any:
    wire = PacketSocket(tap.name)
    yield wire
    wire.close()


def test_lost_frames_are_reported(
    tap: Tap, wire: PacketSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter of the tap drops without a word to the sender."""
    monkeypatch.setattr(through_tap, "LOST_AFTER", 0.1)
    way = TapWay(tap, wire)
    with returning(0, ProgramType.SOCKET_FILTER) as drop_all:
        tap._device.set_filter(drop_all.fd)
    lost = way.replay(captured([udp4(1), udp4(1), udp4(2)]))
    assert [(outcome.number, outcome.length) for outcome in lost] == [(0, 62), (1, 62), (2, 62)]
    for outcome in lost:
        assert isinstance(outcome, Failed)
        assert outcome.is_lost
        assert "not on any queue within 0.1 s" in outcome.error
    tap._device.set_filter(None)
    (after,) = way.replay(captured([udp4(2)]))
    assert isinstance(after, Replayed)


def test_a_dropping_hook_is_told_of(tap: Tap, wire: PacketSocket) -> None:
    with dropping() as program:
        first = tc.attach(program.fd, tap.ifindex, priority=1)
        try:
            (outcome,) = TapWay(tap, wire).replay(captured([udp4(1)]))
        finally:
            tc.detach(first)
    assert outcome == Failed(0, 62, "the link dropped it")


def test_a_link_that_is_down(tap: Tap, wire: PacketSocket) -> None:
    link.set_down(tap.name)
    (outcome,) = TapWay(tap, wire).replay(captured([udp4(1)]))
    assert outcome == Failed(0, 62, "network is down")


def test_frames_of_others_are_passed_over(tap: Tap, wire: PacketSocket) -> None:
    wire.send(udp4(7))
    (outcome,) = TapWay(tap, wire).replay(captured([udp4(8)]))
    assert isinstance(outcome, Replayed)
    assert outcome.queue == reference.classify(udp4(8), tap.rss).queue


def test_packet_socket_without_a_link(netns: object) -> None:
    with pytest.raises(DeviceError, match="there is no link"):
        PacketSocket("tap9")


def run_under(caps: list[Any], *args: object) -> Any:
    """Exit code, stdout and stderr of a replay with these capabilities."""

    def run() -> object:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = replay(*args)
        return [code, out.getvalue(), err.getvalue()]

    return with_only(caps, run)


def test_without_rights_auto_takes_the_library(tmp_path: Path) -> None:
    path = tmp_path / "frames.pcap"
    write_pcap(path, GOOD[:3])
    code, out, err = run_under([], path, "--json")
    assert code == 0
    assert len(out.splitlines()) == 3
    note, summary = (json.loads(line) for line in err.splitlines())
    assert "CAP_SYS_ADMIN" in note["note"]
    assert summary["summary"]["engine"] == "native"

    code, out, err = run_under([], path)
    assert code == 0
    assert "no tap here" in err


@pytest.mark.parametrize("engine", ENGINES)
def test_without_rights_an_engine_asked_for_fails(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "frames.pcap"
    write_pcap(path, GOOD[:3])
    code, out, err = run_under([], path, "-e", engine, "--json")
    assert (code, out) == (1, "")
    assert json.loads(err)["kind"] == NotPermitted.__name__


def test_least_privilege(tmp_path: Path) -> None:
    path = tmp_path / "frames.pcap"
    write_pcap(path, GOOD[:3])
    code, _, err = run_under(
        [Cap.SYS_ADMIN, Cap.NET_ADMIN, CAP_NET_RAW], path, "-e", "ebpf", "--json"
    )
    assert code == 0, err
    code, _, err = run_under([Cap.SYS_ADMIN, Cap.NET_ADMIN], path, "-e", "ebpf", "--json")
    assert code == 1
    assert "CAP_NET_RAW" in json.loads(err)["error"]
