# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The analysis on a Dask cluster is the local one, to the last digit, whoever dies on the way."""

import asyncio
import dataclasses
import gzip
import http.client
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import distributed
import fsspec
import pytest

from tests.captures import (
    assert_same,
    pcap_header,
    pcap_records,
    pcapng_interface,
    pcapng_packets,
    pcapng_section,
    random_frames,
)
from vnethash.analysis.cluster import analyze_cluster, connected
from vnethash.analysis.local import analyze
from vnethash.analysis.tables import Role
from vnethash.cli.main import run
from vnethash.errors import ClusterError, ConfigError, DependencyMissing
from vnethash.rss.config import RssConfig

RSS = RssConfig.default(4)
BLOCK = 1 << 20


@contextmanager
def local_cluster(workers: int, allowed_failures: int = 3, **options: Any) -> Iterator[Any]:
    """Worker processes, on loopback."""
    scheduler = {"dashboard_address": "127.0.0.1:0", "allowed_failures": allowed_failures}
    with (
        TemporaryDirectory() as folder,
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={**scheduler, "local_directory": folder},
            local_directory=folder,
            silence_logs=logging.CRITICAL,
            **options,
        ) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with local_cluster(2) as cluster:
        yield cluster.scheduler_address


def large_pcap(path: Path, megabytes: int) -> Path:
    """Of many flows, some of them in every part of the file."""
    frames = random_frames(2000, 7, longest=1400)
    records = pcap_records(frames)
    path.write_bytes(pcap_header() + records * (megabytes * 1_000_000 // len(records)))
    return path


def folder_of_captures(path: Path, count: int) -> list[Path]:
    path.mkdir()
    paths = []
    for number in range(count):
        frames = random_frames(30, number)
        content = pcap_header() + pcap_records(frames, first=number * 500)
        if number % 3 == 1:
            content = pcapng_section() + pcapng_interface() + pcapng_packets(frames)
        if number % 5 == 2:
            content = gzip.compress(content)
        paths.append(path / f"{number:03}.pcap")
        paths[-1].write_bytes(content)
    return paths


def test_files_and_blocks(address: str, tmp_path: Path) -> None:
    large = large_pcap(tmp_path / "large.pcap", 12)
    broken = tmp_path / "broken.pcap"
    content = bytearray(large.read_bytes())
    content[len(content) // 2 :] = b"\xff" * (len(content) // 2)
    broken.write_bytes(content)
    folder_of_captures(tmp_path / "small", 12)
    paths = [tmp_path / "small", large, broken]
    told: list[tuple[int, int]] = []
    found = analyze_cluster(
        paths, RSS, cluster=address, block_bytes=BLOCK, progress=lambda *done: told.append(done)
    )
    assert_same(found, analyze(paths, RSS), read=False)
    assert [source.path for source in found.failed] == [str(broken)]
    assert len(told) > 20
    assert sum(packets for _, packets in told) >= found.packets


def test_flow_tables(address: str, tmp_path: Path) -> None:
    text = "a,b,sport,dport\n192.0.2.1,198.51.100.7,1,2\n192.0.2.2,198.51.100.7,1,x\n"
    (tmp_path / "flows.csv").write_text(text)
    (tmp_path / "flows.csv.gz").write_bytes(gzip.compress(text.encode()))
    columns = {Role.SOURCE: "a", Role.DESTINATION: "b"}
    found = analyze_cluster([tmp_path], RSS, cluster=address, columns=columns)
    assert_same(found, analyze([tmp_path], RSS, columns=columns))
    assert found.packets == 2
    assert {source.error for source in found.failed} == {
        "1 row cannot be read: 1 without a destination port (line 3: 'x')"
    }


@pytest.mark.parametrize("window_ns", [1, 1_000_000, 10**12])
def test_windows_of_other_lengths(address: str, tmp_path: Path, window_ns: int) -> None:
    paths = folder_of_captures(tmp_path / "small", 20)
    found = analyze_cluster(paths, RSS, cluster=address, window_ns=window_ns)
    assert_same(found, analyze(paths, RSS, window_ns=window_ns))


def test_a_worker_that_is_killed_in_the_middle(tmp_path: Path) -> None:
    large = large_pcap(tmp_path / "large.pcap", 60)
    with local_cluster(2) as cluster:
        nanny = cluster.workers[0]
        killed: list[int] = []

        def kill(_read: int, _packets: int) -> None:
            if len(told) == 12:
                killed.append(nanny.pid)
                os.kill(nanny.pid, signal.SIGKILL)
            told.append(_read)

        told: list[int] = []
        found = analyze_cluster(
            [large], RSS, cluster=cluster.scheduler_address, block_bytes=BLOCK, progress=kill
        )
        assert killed
        assert len(told) > 40
        assert killed != [nanny.pid]  # the nanny has started another
    assert_same(found, analyze([large], RSS))


def test_one_damaged_and_one_unreadable_of_two_hundred(address: str, tmp_path: Path) -> None:
    paths = folder_of_captures(tmp_path / "small", 200)
    paths[50].write_bytes(pcap_header() + pcap_records(random_frames(30, 1))[:-7])
    paths[120].unlink()
    found = analyze_cluster(paths, RSS, cluster=address)
    assert_same(found, analyze(paths, RSS))
    assert len(found.sources) == 200
    assert [(source.path, source.packets) for source in found.failed] == [
        (str(paths[50]), 29),
        (str(paths[120]), 0),
    ]


# Dask runs it twice.
POISON = """
import os
from vnethash.capture import stream

if not hasattr(stream, "poisoned"):
    def open_local(path, opened=stream._open_local):
        if path.endswith("poison.pcap"):
            os._exit(1)
        return opened(path)
    stream._open_local, stream.poisoned = open_local, True
"""


def test_a_file_that_kills_its_workers_again_and_again(tmp_path: Path) -> None:
    paths = folder_of_captures(tmp_path / "small", 6)
    paths[3] = paths[3].rename(tmp_path / "poison.pcap")
    large = large_pcap(tmp_path / "large-poison.pcap", 3).rename(tmp_path / "2-poison.pcap")
    with local_cluster(2, 1, preload=POISON) as cluster:
        found = analyze_cluster(
            [*paths, large], RSS, cluster=cluster.scheduler_address, block_bytes=BLOCK
        )
    good = analyze([*paths[:3], *paths[4:]], RSS)
    assert_same_but_sources(found, good)
    assert [source.path for source in found.failed] == [str(paths[3]), str(large)]
    assert {source.error for source in found.failed} == {"2 workers that read it died"}


def assert_same_but_sources(found: Any, other: Any) -> None:
    assert_same(dataclasses.replace(found, sources=()), dataclasses.replace(other, sources=()))


def test_an_embedded_cluster(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paths = folder_of_captures(tmp_path / "small", 5)
    listening: set[str] = set()

    def look(_read: int, _packets: int) -> None:
        listening.update(listeners())

    before = children()
    found = analyze_cluster(paths, RSS, workers=1, progress=look)
    assert_same(found, analyze(paths, RSS))
    assert listening
    assert {place for place in listening if not place.startswith("127.0.0.1:")} == set()
    assert not any(place.endswith(":8787") for place in listening)
    assert {child for child in children() - before if "resource_tracker" not in child} == set()
    assert capfd.readouterr() == ("", "")


def test_a_client_that_is_there_already(address: str, tmp_path: Path) -> None:
    paths = folder_of_captures(tmp_path / "small", 3)
    with distributed.Client(address, set_as_default=False) as client:
        for _ in range(2):  # and it goes on to live
            assert_same(analyze_cluster(paths, RSS, cluster=client), analyze(paths, RSS))


def test_other_users_are_not_let_in() -> None:
    stranger = distributed.security.Security.temporary()
    with connected(None, 1) as client:
        (worker,) = client.scheduler_info()["workers"]
        for where in (client.scheduler.address, worker):
            assert where.startswith("tls://127.0.0.1:")
            plain = where.replace("tls://", "tcp://")
            for address, security in ((where, stranger), (plain, None)):
                with pytest.raises(OSError, match=r"[Tt]imed out|before comm was established"):
                    hail(address, security)
        assert client.submit(sum, [1, 2]).result() == 3


def test_no_pages_for_all_users() -> None:
    """They would name files, and show stacks."""
    pages = ("/health", "/metrics", "/info/main/workers.html", "/json/counts.json", "/sysmon")
    others = listeners()
    with connected(None, 1):
        ours = listeners() - others
        answers = {page_status(address, page) for address in ours for page in pages}
    assert answers == {None, 404}


def page_status(address: str, page: str) -> int | None:
    """None of a server that speaks no HTTP."""
    with closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        try:
            connection.request("GET", page)
            return connection.getresponse().status
        except OSError:
            return None


def hail(address: str, security: Any) -> Any:
    """Ask a server of Dask who it is, as all who connect do."""

    async def ask() -> Any:
        arguments = {} if security is None else security.get_connection_args("client")
        async with distributed.core.rpc(
            address, timeout=2, deserialize=False, connection_args=arguments
        ) as server:
            return await server.identity()

    return asyncio.run(asyncio.wait_for(ask(), 5))


def test_workers_here_need_cryptography(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(DependencyMissing, match="need cryptography"):
        analyze_cluster(folder_of_captures(tmp_path / "small", 1), RSS, workers=1)


def listeners() -> set[str]:
    """Where this process and its children wait for connections."""
    inodes = set()
    for pid in [os.getpid(), *(int(child.split()[0]) for child in children(numbered=True))]:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # what listed them
                target = os.readlink(fd)
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                host, port = fields[1].split(":")
                words = bytes.fromhex(host)
                raw = b"".join(words[n : n + 4][::-1] for n in range(0, len(words), 4))
                found.add(f"{socket.inet_ntop(family, raw)}:{int(port, 16)}")
    return found


def children(*, numbered: bool = False) -> set[str]:
    """Processes that this one has started, and those that they have."""
    found: set[str] = set()
    parents = {os.getpid()}
    for stat in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            parent = int((stat / "stat").read_text().rpartition(") ")[2].split()[1])
            command = (stat / "cmdline").read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent in parents:
            parents.add(int(stat.name))
            name = " ".join(command)
            found.add(f"{stat.name} {name}" if numbered else name)
    return found


BROKEN = """
from vnethash.analysis import counting
from vnethash.errors import CaptureError

def open_stream(path):
    raise RuntimeError(CaptureError(path, "a defect"))
counting.open_stream = open_stream
"""


def test_a_defect_of_a_worker_is_told(tmp_path: Path) -> None:
    paths = folder_of_captures(tmp_path / "small", 3)
    with (
        local_cluster(1, preload=BROKEN) as cluster,
        pytest.raises(ClusterError, match=r"pcap: a worker failed: RuntimeError: .*a defect"),
    ):
        analyze_cluster(paths, RSS, cluster=cluster.scheduler_address)


class TestObjectStores:
    def test_files_by_address(self, address: str, tmp_path: Path) -> None:
        folder_of_captures(tmp_path / "small", 8)
        large = large_pcap(tmp_path / "small" / "large.pcap", 6)
        (tmp_path / "small" / "notes.txt").write_text("no capture")
        paths = sorted(path for path in (tmp_path / "small").glob("*.pcap"))
        url = f"file://{tmp_path}/small"
        whole = analyze(paths, RSS)
        for asked in ([url], [f"{url}/*.pcap"], [f"file://{path}" for path in paths]):
            found = analyze_cluster(asked, RSS, cluster=address, block_bytes=BLOCK)
            assert_same_but_sources(found, whole)
            assert [source.path for source in found.sources] == [f"file://{p}" for p in paths]
        assert found.sources[-1].packets == analyze([large], RSS).packets

    def test_objects_in_memory(self, tmp_path: Path) -> None:
        paths = folder_of_captures(tmp_path / "small", 5)
        store = fsspec.filesystem("memory")
        for path in paths:
            store.pipe(f"/bucket/day/{path.name}", path.read_bytes())
        store.pipe("/bucket/large.pcap", large_pcap(tmp_path / "large.pcap", 5).read_bytes())
        try:
            # Its memory is of one process, and all who open an object share its position.
            with distributed.LocalCluster(
                n_workers=1,
                threads_per_worker=1,
                processes=False,
                dashboard_address=None,
                scheduler_kwargs={"local_directory": str(tmp_path)},
                local_directory=str(tmp_path),
            ) as cluster:
                found = analyze_cluster(
                    ["memory://bucket/day", "memory://bucket/large.pcap"],
                    RSS,
                    cluster=cluster.scheduler_address,
                    block_bytes=BLOCK,
                )
        finally:
            store.rm("/bucket", recursive=True)
        assert_same_but_sources(found, analyze([*paths, tmp_path / "large.pcap"], RSS))
        assert [source.path for source in found.sources[:1]] == ["memory:///bucket/day/000.pcap"]

    def test_what_is_not_there(self, address: str, tmp_path: Path) -> None:
        (good,) = folder_of_captures(tmp_path / "small", 1)
        (tmp_path / "empty").mkdir()
        paths = [
            f"file://{tmp_path}/*.pcap",
            str(tmp_path / "empty"),
            str(good),
            "nosuch://bucket/x.pcap",
        ]
        found = analyze_cluster(paths, RSS, cluster=address)
        assert_same(found, analyze(paths, RSS))
        assert found.packets == 30
        assert [source.error for source in found.failed] == [
            "no captures or flow tables at this file address",
            "no captures or flow tables in this folder",
            "cannot be opened: Protocol not known: nosuch",
        ]
        found = analyze_cluster([f"file://{tmp_path}/none.pcap"], RSS, cluster=address)
        assert "cannot open" in str(found.failed[0].error)
        found = analyze_cluster(["s3://bucket/x.pcap"], RSS, cluster=address)
        assert "s3fs" in str(found.failed[0].error)


class TestErrors:
    def test_no_scheduler(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("vnethash.analysis.cluster._PATIENCE", 0.5)
        paths = folder_of_captures(tmp_path / "small", 1)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # and nobody listens
            where = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(ClusterError, match=f"no Dask scheduler answers at {where}"):
                analyze_cluster(paths, RSS, cluster=where)
        with pytest.raises(ClusterError, match="no Dask scheduler answers at nonsense://"):
            analyze_cluster(paths, RSS, cluster="nonsense://x")

    @pytest.mark.parametrize(
        "where", ["", "localhost", "tcp://localhost", "foo://x:1", "tcp://h:x"]
    )
    def test_malformed_addresses(
        self, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Said before a client is made, which would hang when it is given up."""
        monkeypatch.setattr(distributed, "Client", None)
        paths = folder_of_captures(tmp_path / "small", 1)
        with pytest.raises(ClusterError, match=f"no Dask scheduler answers at {where}"):
            analyze_cluster(paths, RSS, cluster=where)
        with pytest.raises(ClusterError, match="has no certificates in its configuration"):
            analyze_cluster(paths, RSS, cluster="tls://127.0.0.1:8786")

    def test_no_workers(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("vnethash.analysis.cluster._PATIENCE", 0.5)
        with local_cluster(0) as cluster, pytest.raises(ClusterError, match="has no workers"):
            analyze_cluster(
                folder_of_captures(tmp_path / "small", 1), RSS, cluster=cluster.scheduler_address
            )

    def test_no_dask(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(sys.modules, "distributed", None)
        with pytest.raises(DependencyMissing) as caught:
            analyze_cluster(folder_of_captures(tmp_path / "small", 1), RSS)
        assert caught.value.hint == "pip install 'vnethash[dask]'"

    def test_options_that_cannot_be(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="block_bytes"):
            analyze_cluster([tmp_path], RSS, block_bytes=1000)
        with pytest.raises(ConfigError, match="window"):
            analyze_cluster(folder_of_captures(tmp_path / "small", 1), RSS, window_ns=0)


class TestCommand:
    def test_workers(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder_of_captures(tmp_path / "small", 3)
        arguments = ["analyze", str(tmp_path / "small"), "--json"]
        assert run(arguments) == 0
        alone = capsys.readouterr().out
        assert run([*arguments, "--workers", "1"]) == 0
        assert capsys.readouterr() == (alone, "")

    def test_cluster(
        self,
        address: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (tmp_path / "flows.csv").write_text("a,b\n192.0.2.1,198.51.100.7\n192.0.2.1,?\n")
        monkeypatch.chdir(tmp_path)  # which workers know nothing of
        arguments = ["analyze", "flows.csv", "--columns", "source=a,destination=b", "--json"]
        assert run(arguments) == 1
        alone = capsys.readouterr()
        assert run([*arguments, "--cluster", address]) == 1
        assert capsys.readouterr() == alone
        assert "flows.csv: 1 row cannot be read" in alone.err

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["--workers", "1", "--cluster", "tcp://127.0.0.1:1"], 2, "leave out one of the two"),
            (["--columns", "nose=x"], 2, "is not ROLE=NAME"),
            (["--workers", "1", "-"], 2, "standard input cannot be read by other processes"),
        ],
    )
    def test_wrong_use(
        self,
        tmp_path: Path,
        arguments: list[str],
        code: int,
        message: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        folder_of_captures(tmp_path / "small", 1)
        assert run(["analyze", str(tmp_path / "small"), *arguments]) == code
        assert message in " ".join(capsys.readouterr().err.split())

    @pytest.mark.parametrize("command", ["plan", "report"])
    def test_other_commands(
        self,
        command: str,
        address: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        rows = "".join(f"192.0.2.{n},198.51.100.7,{n},443,{n * n}\n" for n in range(1, 200))
        (tmp_path / "flows.csv").write_text(f"a,b,sport,dport,packets\n{rows}")
        monkeypatch.chdir(tmp_path)
        outputs = []
        for where in ([], ["--cluster", address]):
            output = tmp_path / f"out{len(where)}"
            arguments = [command, "flows.csv", "--columns", "source=a,destination=b", *where]
            assert run([*arguments, "--output", str(output)]) == 0
            outputs.append((output.read_bytes(), capsys.readouterr().out.replace(output.name, "")))
        assert outputs[0] == outputs[1]
