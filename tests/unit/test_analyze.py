# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Files as they are: compressed, damaged, by the thousand, from a pipe; what is told of them."""

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from tests import frames as make
from tests import reference_census
from tests.unit.test_capture import interface, section
from tests.unit.test_census import drawn, same
from vnethash.analysis import FLOW_DTYPE, Analysis, Census, Reason, analyze
from vnethash.analysis.arrow import sources_table
from vnethash.analysis.files import find_files
from vnethash.analysis.flows import heaviest_first
from vnethash.analysis.statistics import evenness, over_time
from vnethash.analysis.summary import heaviest, summary
from vnethash.analysis.tables.files import _PARQUET_ENDINGS
from vnethash.capture import Frame, open_capture, pcapng_blocks, write_pcap
from vnethash.capture.stream import open_stream
from vnethash.capture.walk import Walker
from vnethash.cli import output
from vnethash.cli.main import run
from vnethash.errors import CaptureError, DependencyMissing
from vnethash.rss.config import RssConfig
from vnethash.rss.native import Hasher
from vnethash.stats import Measure

RSS = RssConfig.default(8)


def sample(path: Path, count: int = 400, seed: int = 3) -> list[Frame]:
    """A pcapng file of several link types, and its frames."""
    frames = [
        frame
        for frame in drawn(seed, count)
        if frame.timestamp_ns is not None and 0 <= frame.timestamp_ns < 1 << 61
    ]
    path.write_bytes(b"".join(pcapng_blocks((frame, "") for frame in frames)))
    return frames


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zstandard.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
}


@pytest.mark.parametrize("name", PACKERS)
def test_compressed_files_are_as_those_that_are_not(tmp_path: Path, name: str) -> None:
    frames = sample(tmp_path / "a.pcapng")
    data, pack = (tmp_path / "a.pcapng").read_bytes(), PACKERS[name]
    plain = analyze([tmp_path / "a.pcapng"], RSS)
    reference_census.compare(plain, reference_census.count(frames, RSS))
    several = pack(data[:1000]) + pack(data[1000:])
    for packed in (pack(data) + bytes(512), pack(data), several):  # padded, as on a tape, too
        (tmp_path / f"b.pcapng.{name}").write_bytes(packed)
        analysis = analyze([tmp_path / f"b.pcapng.{name}"], RSS)
        assert not analysis.failed
        same(analysis, plain)
    with open_stream(tmp_path / f"b.pcapng.{name}") as stream:
        assert stream.is_compressed
        assert stream.read() == data
        assert stream.bytes_read == len(packed)


def test_zstd_frames_that_are_to_be_skipped(tmp_path: Path) -> None:
    frames = sample(tmp_path / "a.pcapng")
    data, skipped = (
        (tmp_path / "a.pcapng").read_bytes(),
        struct.pack("<II", 0x184D2A50, 4) + b"abcd",
    )
    half = zstandard.compress(data[:1000]), zstandard.compress(data[1000:])
    (tmp_path / "b").write_bytes(skipped + half[0] + skipped + half[1] + skipped)
    analysis = analyze([tmp_path / "b"], RSS)
    assert (analysis.packets, analysis.failed) == (len(frames), ())


@pytest.mark.parametrize("name", PACKERS)
def test_compressed_files_that_break_off_count_as_far_as_they_go(tmp_path: Path, name: str) -> None:
    frames = sample(tmp_path / "a.pcapng", 4000)
    packed = PACKERS[name]((tmp_path / "a.pcapng").read_bytes())
    (tmp_path / "cut").write_bytes(packed[: len(packed) * 3 // 4])
    analysis = analyze([tmp_path / "cut"], RSS)
    (source,) = analysis.failed
    assert f"ends too early, near byte {len(packed) * 3 // 4} of" in str(source.error)
    assert source.packets == analysis.packets
    if name != "bz2":  # a file of one block
        assert 0 < source.packets < len(frames)
    damaged = bytearray(packed)
    damaged[len(packed) // 2 : len(packed) // 2 + 64] = bytes(64)
    (tmp_path / "damaged").write_bytes(damaged)
    assert analyze([tmp_path / "damaged"], RSS).failed


def test_little_that_stands_for_much_is_not_read_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zst"
    with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as writer:
        writer.write(section() + interface())
        for _ in range(300):
            writer.write(bytes(1 << 20))
    code = (
        "import sys\n"
        "from vnethash.analysis import analyze\n"
        "analysis = analyze([sys.argv[1]])\n"
        "status = open('/proc/self/status').read()\n"
        "print(analysis.failed[0].error, status.partition('VmHWM:')[2].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], check=True, capture_output=True, text=True
    )
    *error, kilobytes = done.stdout.split()
    assert "impossible" in error
    assert int(kilobytes) < 300_000


def test_zstd_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.zst").write_bytes(zstandard.compress(b"x"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(DependencyMissing, match="zstandard is not installed") as caught:
        open_stream(tmp_path / "a.zst")
    assert "vnethash[analysis]" in str(caught.value.hint)
    told = str(analyze([tmp_path / "a.zst"]).failed[0].error)
    assert "zstandard" in told
    assert "vnethash[analysis]" in told


def test_files_side_by_side_are_one_answer(tmp_path: Path) -> None:
    for number in range(12):
        sample(tmp_path / f"{number:02}.pcapng", 100, seed=number)
    one = analyze([tmp_path], RSS, jobs=1)
    several = analyze([tmp_path], RSS, jobs=4)
    same(one, several)
    assert one.sources == several.sources
    assert [Path(s.path).name for s in one.sources] == [f"{n:02}.pcapng" for n in range(12)]
    frames = []
    for number in range(12):
        with open_capture(tmp_path / f"{number:02}.pcapng") as capture:
            frames += list(capture)
    reference_census.compare(several, reference_census.count(frames, RSS))


def test_progress_adds_up(tmp_path: Path) -> None:
    for number in range(3):
        sample(tmp_path / f"{number}.pcapng", 50, seed=number)
    told: list[tuple[int, int]] = []
    analysis = analyze([tmp_path], RSS, progress=lambda *both: told.append(both))
    assert sum(packets for _, packets in told) == analysis.packets
    sizes = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert sum(read for read, _ in told) <= sizes
    assert sum(source.bytes_read for source in analysis.sources) == sizes


def test_an_interrupt_ends_all_threads(tmp_path: Path) -> None:
    write_pcap(tmp_path / "a.pcap", [make.ethernet(0x0806, bytes(40))] * 200_000)

    def interrupt(_read: int, _packets: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        analyze([tmp_path / "a.pcap"] * 6, RSS, jobs=3, progress=interrupt)
    assert threading.active_count() == before


# Bad input


def test_a_folder_of_many_files_of_which_one_is_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = make.ethernet(0x0800, make.ipv4(make.udp()))
    write_pcap(tmp_path / "good.pcap", [frame] * 3)
    good = (tmp_path / "good.pcap").read_bytes()
    folder = tmp_path / "many"
    for number in range(10_000):
        path = folder / f"{number // 100:02}" / f"{number % 100:02}.pcap"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(good if number != 4242 else good[:-20])
    assert run(["analyze", str(folder), "--json"]) == 1
    out = capsys.readouterr()
    found = json.loads(out.out)
    assert found["packets"] == 3 * 10_000 - 1
    assert len(found["files"]) == 10_000
    (error,) = map(json.loads, out.err.splitlines())
    assert "42/42.pcap: truncated frame: file ends 20 bytes too early at byte" in error["error"]
    assert "the 2 packets that were read count" in error["error"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a capture: the file is empty"),
        (b"GIF89a" + bytes(40), "not a capture: it starts with 47 49 46 38"),
        (b"\xd4\xc3\xb2\xa1\x02", "truncated file header"),
        (
            struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
            + struct.pack("<IIII", 0, 0, 1 << 31, 60),
            "captured length 2147483648 is over 262144 at byte 24",
        ),
        (section() + struct.pack("<II", 6, 13) + bytes(40), "block length 13 is impossible"),
    ],
)
def test_files_that_are_no_captures_are_told_and_the_rest_read(
    tmp_path: Path, data: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.pcap").write_bytes(data)
    frames = sample(tmp_path / "good.pcapng", 20)
    assert run(["analyze", str(tmp_path / "bad.pcap"), str(tmp_path / "good.pcapng")]) == 1
    out = capsys.readouterr()
    assert f"{len(frames)} packets" in out.out
    assert message in " ".join(out.err.split())


def test_what_to_do_about_a_file_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "flows.csv"
    table.write_text("host_a,host_b\n192.0.2.1,198.51.100.7\n")
    packed = tmp_path / "packed.pcap"
    packed.write_bytes(b"\x04\x22\x4d\x18" + bytes(40))
    assert run(["analyze", str(table)]) == 1
    assert "hint: --columns source=NAME; its columns are: host_a" in capsys.readouterr().err
    assert run(["analyze", str(table), str(packed), "--json"]) == 1
    of_table, of_capture = map(json.loads, capsys.readouterr().err.splitlines())
    assert of_table["kind"] == "FlowTableError"
    assert of_table["hint"].startswith("--columns source=NAME")
    assert of_capture["kind"] == "CaptureError"


@pytest.mark.parametrize(
    ("rows", "kept"),
    [(0, "'x')"), (1, "; the packet that was read counts"), (2, "; the 2 packets that were read")],
)
def test_rows_behind_one_that_cannot_be_read_count(
    tmp_path: Path, rows: int, kept: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "flows.csv"
    good = "192.0.2.1,198.51.100.7,1,2,6\n"
    table.write_text(f"src,dst,sport,dport,proto\n{good.replace('1,2', 'x,2')}{good * rows}")
    assert run(["analyze", str(table), "--json"]) == 1
    assert kept in json.loads(capsys.readouterr().err)["error"]


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    sample(tmp_path / "good.pcapng", 20)
    (tmp_path / "no.pcap").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.pcap").mkdir()
    analysis = analyze([tmp_path / "good.pcapng", tmp_path / "no.pcap", "/proc/self/mem"])
    assert [source.error for source in analysis.failed] == [
        "cannot open: no such file or directory",
        "read failed: input/output error",
    ]
    if os.getuid() == 0:
        return
    (tmp_path / "good.pcapng").chmod(0)
    assert "permission denied" in str(analyze([tmp_path / "good.pcapng"]).failed[0].error)
    (tmp_path / "good.pcapng").chmod(stat.S_IRUSR)


def test_a_folder_that_cannot_be_read_fails_as_a_file_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Deeper than a path may be long: that stops root as well."""
    frames = sample(tmp_path / "good.pcapng", 20)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=descriptor)
        deeper = os.open("d" * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = deeper
    os.close(descriptor)
    try:
        assert run(["analyze", str(tmp_path), "--queues", "2"]) == 1
    finally:
        shutil.rmtree(tmp_path)
    out, err = capsys.readouterr()
    assert f"{len(frames)} packets" in out
    assert "in 2 files" in out
    assert "cannot open: file name too long" in err


def test_pipes_in_a_folder_are_no_captures(tmp_path: Path) -> None:
    sample(tmp_path / "good.pcapng", 20)
    os.mkfifo(tmp_path / "pipe.pcap")
    (tmp_path / "gone.pcap").symlink_to("nowhere")
    (tmp_path / "linked.pcap").symlink_to("good.pcapng")
    names = [Path(file.path).name for file in find_files([tmp_path])]
    assert names == ["gone.pcap", "good.pcapng", "linked.pcap"]


def test_names_that_are_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe.pcap")
    write_pcap(path, [make.ethernet(0x0806, bytes(40))] * 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    name = str(tmp_path / "\\xff\\xfe.pcap")
    assert run(["analyze", str(path), "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["files"][0]["path"] == name
    assert json.loads(err)["error"].startswith(name)
    assert run(["report", str(path), "-o", str(tmp_path / "report.html")]) == 1
    assert name in (tmp_path / "report.html").read_text()
    assert sources_table(analyze([path]))["path"].to_pylist() == [name]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["analyze", "-", "-"], 2, "file: - is standard input, which can be read only once"),
        (["analyze", "-"], 1, "-: is closed"),
        (["plan", "-", "--present", "-"], 2, "present: - is standard input, which is read already"),
    ],
)
def test_standard_input_twice_or_closed(
    args: list[str],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert run(args) == code
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_folder_without_captures_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.txt").write_text("nothing")
    assert run(["analyze", str(tmp_path)]) == 1
    err = " ".join(capsys.readouterr().err.split())
    assert "no captures or flow tables in this folder" in err
    assert "hint: they are found by names" in err
    sample(tmp_path / "good.pcapng", 20)
    (tmp_path / "empty").mkdir()
    found = analyze([tmp_path / "empty", tmp_path / "good.pcapng"])
    assert found.packets
    assert [source.path for source in found.failed] == [str(tmp_path / "empty")]


def test_what_is_found_in_a_folder(tmp_path: Path) -> None:
    names = ["b.pcap", "a.pcap12", "c.PCAPNG.gz", "d.cap.zst", "e.csv", "f.parquet"]
    names += ["conn.log", "conn.12:00:00-13:00:00.log.gz", "1_vpcflowlogs_eu_fl-1_2.log.gz"]
    names += ["eve.json", "g.jsonl", "h.ndjson.zst", *(f"i{end}" for end in _PARQUET_ENDINGS)]
    no_tables = ["dns.log", "http.log.gz", "conn-summary.log", "conn.txt"]
    for name in [*names, *no_tables, "notes.txt", "pcap", "x.pcap.bak"]:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "deep.pcap").write_bytes(b"xy")
    found = find_files([tmp_path, "-", tmp_path / "notes.txt", "s3://bucket/x"])
    assert [Path(file.path).name for file in found] == [
        *sorted(names),
        "deep.pcap",
        "-",
        "notes.txt",
        "x",
    ]
    assert [file.size for file in found[-4:]] == [2, None, 1, None]


def test_frames_cut_shorter_than_their_headers_are_counted_as_such(tmp_path: Path) -> None:
    whole = make.ethernet(0x0800, make.ipv4(make.tcp(), make.TCP))
    frames = [Frame(0, whole[:n], len(whole), n, 1) for n in range(len(whole) + 1)]
    write_pcap(tmp_path / "a.pcap", frames)
    analysis = analyze([tmp_path / "a.pcap"], RSS)
    assert analysis.captured_short == len(whole)
    assert analysis.unhashed[Reason.BROKEN_IP, 0] == 14 + 20
    assert analysis.bytes == len(whole) * len(frames)
    assert analysis.unhashed[Reason.NOT_IP, 0] == 0


def test_absurd_times_are_no_times(tmp_path: Path) -> None:
    frame = make.ethernet(0x0800, make.ipv4(make.udp()))
    frames = [(Frame(0, frame, len(frame), time, 1), "") for time in (10**18, (1 << 63) - 1)]
    (tmp_path / "a.pcapng").write_bytes(b"".join(pcapng_blocks(frames)))
    windows = analyze([tmp_path / "a.pcapng"], RSS).windows
    assert windows is not None
    assert windows.packets.sum() == windows.untimed_packets.sum() == 1


# What is told


def test_evenness() -> None:
    assert evenness([3, 1]) == evenness(np.array([3, 1], np.uint64))
    assert evenness([3, 1]).imbalance == 1.5
    assert evenness([3, 1]).variation == 0.5
    assert evenness([5, 5, 5]) == evenness([0, 0]) == evenness([7])
    assert evenness([0, 0]).imbalance == 1


def test_imbalance_over_time() -> None:
    """Two queues, a window in which one gets all, one in which both get the same, a thin one."""
    flows = [make.ethernet(0x0800, make.ipv4(make.udp(n))) for n in range(1000, 1040)]
    rss = RssConfig.default(2)
    path = io.BytesIO()
    path.write(struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1))

    def put(second: int, frame: bytes, times: int) -> None:
        record = struct.pack("<IIII", second, 0, len(frame), len(frame)) + frame
        path.write(record * times)

    by_queue: dict[int, bytes] = {Hasher(rss).classify(frame).queue: frame for frame in flows}
    put(1, by_queue[0], 32)
    put(2, by_queue[0], 32)
    put(2, by_queue[1], 32)
    put(3, by_queue[1], 31)
    path.seek(0)
    census = Census(rss, window_ns=1_000_000_000)
    for block in Walker(path, "x"):
        census.add_frames(block.memory, block.frames)
    analysis = census.result()
    course = over_time(analysis)
    assert course.starts_ns.tolist() == [10**9, 2 * 10**9]
    assert course.imbalances.tolist() == [2.0, 1.0]
    assert course.worst_ns == 10**9
    assert not len(over_time(analysis.under(RssConfig.symmetric(2))).imbalances)
    told = summary(analysis)["over_time"]
    assert (told["median"], told["worst"], told["worst_start_ns"]) == (1.5, 2.0, 10**9)
    assert (told["windows"], told["telling"], told["window_ns"]) == (3, 2, 10**9)


@pytest.mark.filterwarnings("error")
def test_frames_without_bytes_are_no_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pcap(tmp_path / "a.pcap", [b""] * 200)
    report = ["report", "-o", str(tmp_path / "report.html")]
    for command in (["analyze", "--json"], ["analyze", "--windows"], report):
        assert run([*command, str(tmp_path / "a.pcap"), "--by", "bytes"]) == 0
    told = capsys.readouterr().out.splitlines()[0]
    assert json.loads(told)["over_time"]["worst"] == 1


def test_the_heaviest_flows() -> None:
    flows = analyzed_flows()
    census = Census(RSS)
    census.add_flows(flows)
    analysis = census.result()
    packets = analysis.flows["packets"]
    order = sorted(range(len(packets)), key=lambda n: (-int(packets[n]), n))
    for count in (0, 1, 5, len(packets), len(packets) + 9):
        assert heaviest(analysis.flows, count, Measure.PACKETS).tolist() == order[:count]
        assert len(heaviest(analysis.flows, count)) == min(count, len(packets))
    octets = analysis.flows["bytes"]
    assert (octets[:-1] >= octets[1:]).all()


def test_flows_that_differ_in_their_kind_alone_have_one_order() -> None:
    flows = np.zeros(60, FLOW_DTYPE)
    flows["addresses"][:, :2] = np.arange(60)[:, None] // 3
    flows["kind"] = 1 + np.arange(60) % 3
    dice = np.random.default_rng(5)
    once, again = (heaviest_first(dice.permutation(flows)) for _ in range(2))
    assert once.tobytes() == again.tobytes()


def analyzed_flows() -> np.ndarray[tuple[int], np.dtype[np.void]]:
    rng = np.random.default_rng(1)
    flows = np.zeros(100, FLOW_DTYPE)
    flows["kind"] = rng.integers(1, 10, 100)
    flows["addresses"] = rng.integers(0, 256, (100, 32))
    flows["packets"] = rng.integers(1, 6, 100)
    flows["bytes"] = rng.integers(60, 64, 100)
    return flows


def test_json_says_what_the_analysis_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample(tmp_path / "a.pcapng")
    arguments = ["--queues", "8", "--types", "tcpv4,udpv4,ipv6", "--windows", "--window", "1s"]
    assert run(["analyze", str(tmp_path / "a.pcapng"), *arguments, "--json", "-n", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    rss = RssConfig.from_json(found["rss"])
    analysis = analyze([tmp_path / "a.pcapng"], rss, window_ns=10**9)
    assert rss.queues == 8
    assert found["packets"] == analysis.packets == sum(q["packets"] for q in found["queues"])
    assert [b["bytes"] for b in found["buckets"]] == analysis.by_bucket.bytes.tolist()
    assert found["evenness"]["bytes"]["variation"] == evenness(analysis.by_queue.bytes).variation
    assert sum(load["packets"] for load in found["report_types"].values()) == analysis.packets
    assert found["not_hashed"]["type_off"]["packets"] == analysis.unhashed[Reason.TYPE_OFF, 0] > 0
    assert len(found["heaviest_flows"]) == 3
    assert len(found["windows"]) == len(analysis.windows.starts_ns) > 5  # type: ignore[union-attr]
    assert sum(sum(w["packets"]) for w in found["windows"]) == analysis.packets
    assert found["files"] == [
        {
            "path": str(tmp_path / "a.pcapng"),
            "packets": analysis.packets,
            "bytes_read": (tmp_path / "a.pcapng").stat().st_size,
            "error": None,
            "offset": None,
        }
    ]


def test_text_shows_queues_buckets_windows_and_what_was_not_hashed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = sample(tmp_path / "a.pcapng")
    arguments = ["-q", "4", "--buckets", "--windows", "-w", "1s", "--by", "bytes"]
    assert run(["analyze", str(tmp_path / "a.pcapng"), *arguments]) == 0
    out = capsys.readouterr().out
    analysis = analyze([tmp_path / "a.pcapng"], RssConfig.default(4), window_ns=10**9)
    assert f"{len(frames):,} packets, {analysis.bytes:,} bytes" in out
    for load in (analysis.by_queue, analysis.by_bucket):
        for octets in load.bytes.tolist():
            assert f"{octets:,}" in out
    assert f"busiest queue {evenness(analysis.by_queue.bytes).imbalance:.2f} times the mean" in out
    assert "link type that is not read" in out
    assert "1970-01-01 00:00:19.000" in out
    assert " udp " in out


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_windows_on_a_narrow_terminal_lose_no_digit(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queues that have no room come in tables below."""
    sample(tmp_path / "a.pcapng")
    monkeypatch.setenv("COLUMNS", str(width))
    output.console.cache_clear()
    try:
        arguments = ["-q", "20", "--windows", "-w", "1s", "--top", "0"]
        assert run(["analyze", str(tmp_path / "a.pcapng"), *arguments]) == 0
    finally:
        output.console.cache_clear()
    out = capsys.readouterr().out
    tables = [part.splitlines() for part in out.split("\n\n") if part.startswith("window")]
    assert len(tables) == {40: 20, 200: 1}.get(width, len(tables))
    assert max(len(line) for table in tables for line in table) <= width
    heads = " ".join(" ".join(table[0].split()[1:]) for table in tables)
    assert heads == f"{' '.join(map(str, range(20)))} of the mean"
    analysis = analyze([tmp_path / "a.pcapng"], RssConfig.default(20), window_ns=10**9)
    assert analysis.windows is not None
    for number, row in enumerate(analysis.windows.by_queue(analysis.rss)[0].tolist(), 1):
        # Without the date and the time.
        shown = [cell for table in tables for cell in table[number].split()[2:]]
        assert shown[:-1] == [f"{n:,}" for n in row]
        assert shown[-1].endswith("%")


def test_a_table_in_a_pipe_loses_no_digit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample(tmp_path / "a.pcapng")
    assert run(["analyze", str(tmp_path / "a.pcapng"), "-q", "64", "--windows", "-w", "1s"]) == 0
    out = capsys.readouterr().out
    assert "…" not in out
    analysis = analyze([tmp_path / "a.pcapng"], RssConfig.default(64), window_ns=10**9)
    assert analysis.windows is not None
    rows = [
        f"{' '.join(f'{n:,}' for n in row)} " for row in analysis.windows.by_queue(analysis.rss)[0]
    ]
    shown = " ".join(out.split())
    assert all(row in shown for row in rows)


def test_standard_input(tmp_path: Path) -> None:
    frames = sample(tmp_path / "a.pcapng", 50)
    with (tmp_path / "a.pcapng").open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "vnethash.cli.main", "analyze", "-", "--json"],
            stdin=file,
            capture_output=True,
            check=True,
        )
    found = json.loads(done.stdout)
    assert found["packets"] == len(frames)
    assert found["files"][0]["path"] == "-"


def test_a_file_that_is_open_already() -> None:
    with pytest.raises(CaptureError, match="not a capture"):
        open_capture(open_stream(io.BytesIO(b"nothing")))


def test_an_empty_capture_has_no_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pcap(tmp_path / "a.pcap", [])
    analysis: Analysis = analyze([tmp_path / "a.pcap"])
    assert (analysis.packets, analysis.bytes, len(analysis.flows)) == (0, 0, 0)
    for json_too in ([], ["--json"]):
        assert run(["analyze", str(tmp_path / "a.pcap"), "--windows", *json_too]) == 0
    assert "0 packets" in capsys.readouterr().out


@pytest.mark.parametrize("window", ["0", "1ns", "2d", "-1s", "fast"])
def test_bad_window_lengths_are_wrong_use(
    tmp_path: Path, window: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pcap(tmp_path / "a.pcap", [])
    assert run(["analyze", str(tmp_path / "a.pcap"), "--window", window]) == 2
    assert "window: must be from 1us to a day" in " ".join(capsys.readouterr().err.split())
