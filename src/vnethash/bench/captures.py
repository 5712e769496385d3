# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Analysing captures: files that lie in the page cache, one thread, end to end.

``small frames``: TCP as short as it gets over Ethernet and IPv4, of a thousand flows,
against what people use today, each over as many packets as it can do in about a second
or less: dpkt and scapy (every packet parsed up to TCP), tshark (addresses and ports as
text, its start taken off), and a plain loop in C. Others: by vnethash alone.
``memory``: the peak of a process that analyses ten gigabytes from a pipe.
"""

import json
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vnethash.analysis import analyze
from vnethash.bench.library import bench_library
from vnethash.bench.measure import (
    Advance,
    Effort,
    Row,
    Summary,
    Target,
    check_agreement,
    interleave,
    nanoseconds,
    pinned,
    ratios,
)
from vnethash.capture.walk import Walker
from vnethash.rss.config import RssConfig

NAME = "captures"
BASE = "dpkt"
SMALL, MEMORY = "small frames", "memory"
ANALYZE, WALK, LOOP, SCAPY, TSHARK = "analyze", "walk alone", "C loop", "scapy", "tshark"

_PACKETS = 2_000_000
_FEW = {BASE: 30_000, SCAPY: 1_000, TSHARK: 100_000}
"""Packets that these are given."""
_FLOWS = 1000
_MANY_FLOWS = 1_000_000
_MOST_NS, _TIMES_FASTER, _MOST_MB = 100, 50, 300
_PIPED = 10_000_000_000
_BLOCK = 1 << 20
_LONG, _SHORT = 1514, 60

Bytes = npt.NDArray[np.uint8]
Work = Callable[[], float]
"""Nanoseconds a packet."""


def steps(effort: Effort) -> int:
    return effort.rounds * 2 + 1


def run(effort: Effort, advance: Advance) -> list[Row]:
    """Raises DependencyMissing; VnethashError if packets are missing."""
    packets = effort.share(_PACKETS)
    with tempfile.TemporaryDirectory(prefix="vnethash-bench-") as name, pinned():
        folder = Path(name)
        small = _write(folder / "small.pcap", packets, _FLOWS)
        measured = interleave(_readers(small, packets, folder), effort.rounds, advance)
        rows = list(_rows(SMALL, measured))
        others = interleave(_others(folder, packets), effort.rounds, advance)
        rows += [Row(NAME, case, ANALYZE, "ns", Summary.of(v)) for case, v in others.items()]
    rows.append(_memory(effort))
    advance()
    return rows


def _rows(case: str, measured: dict[str, list[float]]) -> Iterator[Row]:
    base = measured.get(BASE)
    for name, values in measured.items():
        ratio = ratios(values, base) if base else None
        target = None
        if name == ANALYZE and ratio is not None:
            met = Summary.of(values).median <= _MOST_NS and ratio.median * _TIMES_FASTER <= 1
            target = Target(f"<= {_MOST_NS} ns, 1/{_TIMES_FASTER} of dpkt", met)
        yield Row(NAME, case, name, "ns", Summary.of(values), ratio, target=target)


def _readers(path: Path, packets: int, folder: Path) -> dict[str, Work]:
    """Of those that are installed."""
    readers: dict[str, Work] = {
        ANALYZE: partial(_analyze, path, packets),
        WALK: partial(_walk, path, packets),
        LOOP: partial(_loop, path, packets),
    }

    def few(name: str) -> tuple[Path, int]:
        count = min(packets, _FEW[name])
        return _write(folder / f"{name}.pcap", count, _FLOWS), count

    if find_spec("dpkt"):
        readers[BASE] = partial(_dpkt, *few(BASE))
    if find_spec("scapy"):
        readers[SCAPY] = partial(_scapy, *few(SCAPY))
    if shutil.which("tshark"):
        nothing = _write(folder / "one.pcap", 1, 1)
        readers[TSHARK] = partial(_tshark, *few(TSHARK), nothing)
    return readers


def _others(folder: Path, packets: int) -> dict[str, Work]:
    """Cases that only vnethash is measured with."""
    flows = min(packets, _MANY_FLOWS)
    many = _write(folder / "many.pcap", packets, flows)
    long = _write(folder / "long.pcap", packets // 10, _FLOWS, _LONG)
    small = folder / "small.pcap"
    works: dict[str, Work] = {
        "a million flows": partial(_analyze, many, packets),
        "1514 B": partial(_analyze, long, packets // 10),
    }
    for tool, ending in (("gzip", ".gz"), ("zstd", ".zst")):
        if shutil.which(tool) and (tool == "gzip" or find_spec("zstandard")):
            subprocess.run([tool, "-q", "-k", "-1", small], check=True)
            packed = small.with_name(small.name + ending)
            works[f"small frames, {tool}"] = partial(_analyze, packed, packets)
    return works


def _analyze(path: Path, packets: int) -> float:
    found = []
    taken = nanoseconds(lambda: found.append(analyze([path], RssConfig.default(8), jobs=1)))
    check_agreement("number of packets", found[0].packets, packets)
    return taken / packets


def _walk(path: Path, packets: int) -> float:
    def walk() -> int:
        with path.open("rb", buffering=0) as file:
            return sum(len(block.frames) for block in Walker(file, str(path)))

    return _timed(walk, packets)


def _loop(path: Path, packets: int) -> float:
    ffi, lib = bench_library()
    total = ffi.new("uint32_t *")
    return _timed(lambda: int(lib.capture_loop(bytes(path), total)), packets)


def _dpkt(path: Path, packets: int) -> float:
    import dpkt

    def read() -> int:
        count = 0
        with path.open("rb") as file:
            for _, data in dpkt.pcap.Reader(file):
                ip = dpkt.ethernet.Ethernet(data).data
                count += bool((ip.src, ip.dst, ip.data.sport, ip.data.dport))
        return count

    return _timed(read, packets)


def _scapy(path: Path, packets: int) -> float:
    from scapy.layers.inet import IP, TCP
    from scapy.utils import PcapReader

    def read() -> int:
        count = 0
        with PcapReader(str(path)) as reader:
            for packet in reader:
                ip, tcp = packet[IP], packet[TCP]
                count += bool((ip.src, ip.dst, tcp.sport, tcp.dport))
        return count

    return _timed(read, packets)


def _tshark(path: Path, packets: int, nothing: Path) -> float:
    fields = [f"-e{name}" for name in ("ip.src", "ip.dst", "tcp.srcport", "tcp.dstport")]

    def read(file: Path) -> int:
        done = subprocess.run(
            ["tshark", "-n", "-r", file, "-T", "fields", *fields],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return done.stdout.count(b"\n")

    start = nanoseconds(lambda: read(nothing))
    return _timed(lambda: read(path), packets) - start / packets


def _timed(read: Callable[[], int], packets: int) -> float:
    found = []
    taken = nanoseconds(lambda: found.append(read()))
    check_agreement("number of packets", found[0], packets)
    return taken / packets


def records(packets: int, flows: int, length: int = _SHORT) -> Bytes:
    """pcap records of TCP packets, nanoseconds apart, shape (packets, 16 + length).

    Flows come as often as by Zipf's law with exponent 1.2.
    """
    rng = np.random.default_rng(1)
    rows = np.zeros((packets, 16 + length), np.uint8)
    heads = np.zeros((packets, 4), "<u4")
    times = np.arange(packets, dtype=np.uint64) * 100
    heads[:, 0] = 1_700_000_000 + times // 1_000_000_000
    heads[:, 1] = times % 1_000_000_000
    heads[:, 2:] = length
    rows[:, :16] = heads.view(np.uint8)
    ethernet = bytes.fromhex("0200000000020200000000010800")
    # The shortest are acknowledgements, padded: repeated data would cost tshark extra.
    carried = 40 if length == _SHORT else length - 14
    ip = struct.pack("!BBHHHBBH", 0x45, 0, carried, 0, 0x4000, 64, 6, 0)
    rows[:, 16:42] = np.frombuffer(ethernet + ip, np.uint8)
    rows[:, 42:54] = rng.integers(1, 256, (flows, 12), np.uint8)[rng.zipf(1.2, packets) % flows]
    rows[:, 62] = 0x50  # a TCP header without options
    return rows


def file_header() -> bytes:
    """Of a pcap file with nanoseconds and Ethernet."""
    return struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)


def _write(path: Path, packets: int, flows: int, length: int = _SHORT) -> Path:
    with path.open("wb") as file:
        file.write(file_header())
        records(packets, flows, length).tofile(file)
    return path


_CHILD = """
import sys
from vnethash.cli.main import run
code = run(["analyze", "-", "--json"])
status = open("/proc/self/status").read()
print(status.partition("VmHWM:")[2].split()[0], file=sys.stderr)
sys.exit(code)
"""


def _memory(effort: Effort) -> Row:
    """Megabytes: the same block again and again through a pipe."""
    size = effort.share(_PIPED)
    block = records(_BLOCK // (16 + _SHORT), _FLOWS).tobytes()
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        child.stdin.write(file_header())
        blocks = -(-size // len(block))
        for _ in range(blocks):
            child.stdin.write(block)
        out, peak = child.communicate()
    packets = blocks * (len(block) // (16 + _SHORT))
    check_agreement("number of packets", json.loads(out)["packets"], packets)
    megabytes = int(peak) * 1024 / 1e6
    target = Target(f"< {_MOST_MB} MB", megabytes < _MOST_MB)
    case = f"{MEMORY}, {size / 1e9:g} GB"
    return Row(NAME, case, ANALYZE, "MB", Summary.of([megabytes]), target=target)
