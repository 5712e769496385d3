# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Threads share files, and blocks of large captures; the answer is that of one thread."""

import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests import captures as make
from tests.unit.test_census import same
from vnethash.analysis import Analysis, analyze, blocks, threads
from vnethash.analysis.files import File
from vnethash.rss.config import RssConfig

RSS = RssConfig.default(8)

# What runs in the background of a shell is not interrupted, nor what it starts.
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from vnethash.cli.main import run
sys.exit(run())
"""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_BLOCK_LEAST", 1 << 20)


def pcap(path: Path, count: int = 40_000) -> Path:
    path.write_bytes(make.pcap_header() + make.pcap_records(make.random_frames(count, 1)))
    return path


def pcapng(path: Path) -> Path:
    """A second interface comes in the middle, with other ticks."""
    frames = make.random_frames(20_000, 2)
    path.write_bytes(
        make.pcapng_section()
        + make.pcapng_interface()
        + make.pcapng_packets(frames)
        + make.pcapng_interface(tsresol=9)
        + make.pcapng_packets(frames[::-1], number=1)
    )
    return path


def both(path: Path, jobs: int = 4) -> tuple[Analysis, Analysis]:
    one, several = analyze([path], RSS, jobs=1), analyze([path], RSS, jobs=jobs)
    same(several, one)
    assert several.sources == one.sources
    return one, several


@pytest.mark.parametrize("make_file", [pcap, pcapng])
def test_a_large_capture_is_counted_in_blocks(make_file: object, tmp_path: Path) -> None:
    path = make_file(tmp_path / "a")  # type: ignore[operator]
    assert path.stat().st_size > 8 << 20
    for jobs in (2, 3, 7):
        both(path, jobs)


def test_blocks_are_counted_by_several_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pcap(tmp_path / "a.pcap")
    names = set()
    meet = threading.Barrier(2, timeout=30)
    count = blocks.count_block

    def counted(*arguments: object) -> object:
        if threading.current_thread().name not in names:
            names.add(threading.current_thread().name)
            meet.wait()
        return count(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(threads, "count_block", counted)
    both(path, 2)
    assert len(names) == 2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make_file", [pcap, pcapng])
def test_damage_in_a_large_capture(make_file: object, seed: int, tmp_path: Path) -> None:
    path = make_file(tmp_path / "a")  # type: ignore[operator]
    dice = random.Random(seed)
    with path.open("r+b") as file:
        file.seek(dice.randrange(path.stat().st_size))
        file.write(struct.pack("<I", 0x7FFFFFFF) * 300)
    one, _ = both(path)
    assert one.failed


def test_a_capture_that_goes_away_meanwhile(tmp_path: Path) -> None:
    path = pcap(tmp_path / "a.pcap")
    counting = threads.Threads([File(str(path), path.stat().st_size)], RSS, 2, 1_000_000)
    path.unlink()
    (part, *_), (source,) = counting.run()
    assert source.error == "cannot open: no such file or directory"
    assert part.packets == 0


def test_the_rest_of_a_capture_goes_away_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pcap(tmp_path / "a.pcap")
    count = blocks.count_block

    def counted(block: blocks.Block, *others: object) -> object:
        if block.start:
            path.unlink(missing_ok=True)
        return count(block, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(threads, "count_block", counted)
    (source,) = analyze([path], RSS, jobs=2).failed
    assert source.error == "cannot open: no such file or directory"


def test_a_large_capture_among_small_ones(tmp_path: Path) -> None:
    for number in range(10):
        pcap(tmp_path / f"{number}.pcap", 40_000 if number == 5 else 100 + number)
    told: list[tuple[int, int]] = []
    one = analyze([tmp_path], RSS, jobs=1)
    several = analyze([tmp_path], RSS, jobs=3, progress=lambda *pair: told.append(pair))
    same(several, one)
    assert several.sources == one.sources
    assert sum(packets for _, packets in told) == one.packets


def test_an_interrupt_ends_all_threads(tmp_path: Path) -> None:
    def interrupt(_read: int, _packets: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        analyze([pcap(tmp_path / "a.pcap")], RSS, jobs=3, progress=interrupt)
    assert threading.active_count() == before


@pytest.mark.parametrize("name", ["-", "pipe"])
def test_an_interrupt_while_a_pipe_is_silent(name: str, tmp_path: Path) -> None:
    files = [str(pcap(tmp_path / f"{n}.pcap", 100)) for n in range(3)]
    if name != "-":
        name = str(tmp_path / name)
        os.mkfifo(name)
    command = [sys.executable, "-c", INTERRUPTIBLE, "analyze", name, *files, "--jobs", "2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            _until_idle(process.pid)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert process.stderr is not None
            assert process.stderr.read() == b""
        finally:
            process.kill()


def _until_idle(pid: int) -> None:
    """Until all threads sleep, and none has had a CPU for half a second."""
    before: list[list[str]] = []
    deadline = time.monotonic() + 60
    while True:
        threads = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
        now = [[stat[0], *stat[2:3], *stat[13:15]] for stat in threads]
        if now == before and all(stat[1] == "S" for stat in now):
            return
        assert time.monotonic() < deadline, now
        before = now
        time.sleep(0.5)


def test_standard_input_among_others(tmp_path: Path) -> None:
    files = [pcap(tmp_path / f"{n}.pcap", 100 + n) for n in range(3)]
    names = [str(path) for path in files[1:]]
    command = [sys.executable, "-m", "vnethash.cli.main", "analyze", "-", *names, "--json"]
    with files[0].open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, check=True)
    told = json.loads(done.stdout)
    assert [source["packets"] for source in told["files"]] == [100, 101, 102]
    assert told["packets"] == analyze(files, RSS).packets


def test_a_defect_in_one_thread_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise MemoryError

    monkeypatch.setattr(threads, "count_block", broken)
    with pytest.raises(MemoryError):
        analyze([pcap(tmp_path / "a.pcap")], RSS, jobs=3)
