# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Engine ``program``: hash programs of the user's own at work on a tap."""

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import frames
from tests.kernel import flows
from tests.kernel.hash_programs import compiled, constant, example
from tests.kernel.pins import own_bpffs
from tests.kernel.test_pinned import folder_of, owned, point, through
from tests.kernel.wire import collect, quiet_tap, sender
from vnethash.capture import write_pcap
from vnethash.cli import main
from vnethash.engines.pinned import PinnedTap, attach, detach
from vnethash.errors import ConfigError, ProgramRefused, VerifierError
from vnethash.kernel import link
from vnethash.kernel.bpf import Map
from vnethash.kernel.links import Links
from vnethash.kernel.tun import TunDevice
from vnethash.native import STAGES_OBJECT
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.rss.keys import SYMMETRIC_KEY
from vnethash.tap import Tap
from vnethash.virtio.hash_types import ReportType

pytestmark = pytest.mark.usefixtures("netns")
__all__ = ["point"]

ARP = frames.ethernet(0x0806, bytes(28))
UDP = frames.ethernet(0x0800, frames.ipv4(frames.udp()))


def send(tap: Tap, *sent: bytes) -> None:
    with sender(tap) as wire:
        for frame in sent:
            wire.send(frame)


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with own_bpffs(tmp_path / "bpffs", monkeypatch) as folder:
        yield folder


# The self test of the program type that was once proposed for the kernel


@contextmanager
def bridged(tap: Tap) -> Iterator[TunDevice]:
    """Another tap on the wire of this one, by way of a bridge."""
    with TunDevice.create("far0", 1) as far, Links() as links:
        links.add_bridge("br0")
        for name in (tap.name, "far0"):
            links.enslave(name, "br0")
        for name in ("far0", "br0"):
            link.quiet(name)
            link.set_up(name)
        yield far


@pytest.mark.parametrize(("queues", "arrives_on"), [(1, 0), (2, 1)])
def test_xor_gives_what_the_proposal_tested(queues: int, arrives_on: int) -> None:
    with quiet_tap(queues=queues, program=example("xor")) as tap, bridged(tap) as far:
        os.write(far.fds[0], bytes(12) + ARP)
        packet = tap.queues[arrives_on].receive(timeout=5)
    assert bytes(packet.frame) == ARP
    assert packet.has_record
    assert (packet.hash_value, packet.hash_report) == (3, ReportType.TCPv4)
    assert packet.queue == arrives_on


# Through Tap


def test_says_what_the_program_says() -> None:
    with quiet_tap(queues=4, program=constant(0xDEADBEEF, 6, 2)) as tap:
        assert tap.engine == "program"
        send(tap, *flows.FLOWS)
        packets = collect(tap, len(flows.FLOWS))
        stats = tap.stats()
    assert {bytes(packet.frame) for packet in packets} == set(flows.FLOWS)
    assert {(p.queue, p.hash_value, p.hash_report, p.has_record) for p in packets} == {
        (2, 0xDEADBEEF, ReportType.UDPv6, True)
    }
    assert stats.queues[2].by_report[ReportType.UDPv6].packets == len(flows.FLOWS)


def test_the_shipped_program_is_one_of_them() -> None:
    rss = RssConfig.default(4)
    with quiet_tap(rss=rss, program=STAGES_OBJECT) as tap:
        send(tap, *flows.FLOWS)
        packets = collect(tap, len(flows.FLOWS))
        tap.configure(rss.replace(key=SYMMETRIC_KEY))
        send(tap, UDP)
        changed = collect(tap, 1)
    for rss_then, packet in [*((rss, p) for p in packets), (tap.rss, changed[0])]:
        told = reference.classify(bytes(packet.frame), rss_then)
        assert (packet.queue, packet.hash_value, packet.hash_report) == (
            told.queue,
            told.hash_value,
            told.hash_report,
        )


def test_counters_maps_and_variables_of_its_own() -> None:
    program = compiled(
        "__u32 key = 0; __u64 *most = bpf_map_lookup_elem(&longest, &key);"
        "seen++; vnet_count(5);"
        "if (frame->length < limit) vnet_count(15);"
        "if (most && *most < frame->length) *most = frame->length;"
        "verdict->hash_value = seen;"
        "verdict->hash_report = VNET_REPORT_IPV4;",
        before="__u64 seen; __u32 limit = 61; struct {"
        "__uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1);"
        '__type(key, __u32); __type(value, __u64); } longest SEC(".maps");',
    )
    with quiet_tap(queues=1, program=program) as tap:
        send(tap, ARP, UDP + bytes(100), ARP)
        packets = collect(tap, 3)
        counts = tap.stats().counts
    assert [packet.hash_value for packet in packets] == [1, 2, 3]
    assert (counts[5], counts[15]) == (3, 2)
    assert sum(counts) == 5


@pytest.mark.parametrize("reporting", ["record", "off"])
def test_a_frame_past_the_hook_has_no_hash(reporting: str) -> None:
    """Nobody but the program can tell it, and the reader does not pretend to."""
    with quiet_tap(queues=1, program=constant(7, 3, 0), reporting=reporting) as tap:
        with sender(tap, bypass=True) as wire:
            wire.send(UDP)
        packet = tap.queues[0].receive(timeout=5)
    assert (packet.has_record, packet.hash_value) == (False, 0)
    assert packet.hash_report is ReportType.NONE


def test_what_a_reader_cannot_do_is_refused() -> None:
    program = constant(7, 3, 0)
    with pytest.raises(ConfigError, match="reporting: is rehash"):
        Tap.open("tap0", queues=2, program=program, reporting="rehash")
    with pytest.raises(ConfigError, match="runs no hash program"):
        Tap.open("tap0", queues=2, program=program, engine="ebpf")
    with pytest.raises(ConfigError, match="program: is missing"):
        Tap.open("tap0", queues=2, engine="program")
    with Tap.open("tap0", queues=2, program=program) as tap:
        with pytest.raises(ConfigError, match="reporting: is rehash"):
            tap.configure(reporting="rehash")
        assert tap.reporting is Reporting.RECORD
    with (
        Tap.open("tap0", queues=2) as tap,
        pytest.raises(ConfigError, match="steered by engine"),
    ):
        tap.replace_program(program)


# Programs that make no sense


def test_nonsense_is_put_right_and_counted() -> None:
    rss = RssConfig.default(4).replace(unclassified_queue=3)
    with quiet_tap(rss=rss, program=constant(5, 77, 9999)) as tap:
        send(tap, UDP, ARP)
        packets = collect(tap, 2)
        stats = tap.stats()
    assert {(p.queue, p.hash_value, p.hash_report) for p in packets} == {(3, 0, ReportType.NONE)}
    assert stats.invalid == {"queue": 2, "report": 2}
    assert stats.queues[3].invalid == {"queue": 2, "report": 2}
    assert stats.total.packets == 2


@pytest.mark.parametrize("report", [10, 0xFFFF])
def test_a_record_with_no_such_type_is_none(report: int) -> None:
    """A program may write what it likes into the frame: past our check, but not past the reader."""
    program = compiled(
        "struct vnet_record *record;"
        "verdict->reporting = VNET_REPORTING_OFF;"
        "if (bpf_skb_change_head(frame->skb, 8, 0)) return;"
        "record = (void *)(long)frame->skb->data;"
        "if ((void *)(record + 1) > (void *)(long)frame->skb->data_end) return;"
        f"record->hash_value = 9; record->hash_report = {report};"
        "record->mark[0] = VNET_MARK_0; record->mark[1] = VNET_MARK_1;"
    )
    with quiet_tap(queues=2, program=program) as tap:
        send(tap, UDP)
        packet = tap.queues[0].receive(timeout=5)
    assert (packet.has_record, packet.hash_report) == (False, ReportType.NONE)
    assert bytes(packet.frame).endswith(UDP)


# Swapping


LOOP_TO_NOWHERE = "for (;;) seen++;"


def test_a_program_that_is_refused_changes_nothing() -> None:
    endless = compiled(LOOP_TO_NOWHERE, before="volatile __u64 seen;")
    with quiet_tap(queues=2, program=constant(1, 1, 1)) as tap:
        with pytest.raises(VerifierError):
            tap.replace_program(endless)
        with pytest.raises(ProgramRefused):
            tap.replace_program(b"no object")
        send(tap, UDP)
        packet = tap.queues[1].receive(timeout=5)
    assert (packet.hash_value, packet.queue) == (1, 1)


def test_swapping_under_traffic_mixes_nothing() -> None:
    """Two programs that differ in all they say; every packet is of the one or the other."""
    first, second = constant(0x11111111, 1, 1), constant(0x22222222, 2, 2)
    seen: Counter[tuple[int, int, int]] = Counter()
    stop = threading.Event()
    with quiet_tap(queues=4, program=first) as tap, sender(tap) as wire:
        wire.settimeout(1)

        def flood() -> None:
            while not stop.is_set():
                wire.send(UDP)

        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            for turn in range(400):
                if turn >= 40 and len(seen) > 1:
                    break  # a busy machine may take longer to let both send
                tap.replace_program((second, first)[turn % 2])
                for packet in collect(tap, 50):
                    seen[packet.queue, packet.hash_value, packet.hash_report] += 1
                    assert packet.has_record
        finally:
            stop.set()
            flooding.join()
    assert set(seen) == {(1, 0x11111111, 1), (2, 0x22222222, 2)}


def test_configuration_and_counters_survive_a_swap() -> None:
    rss = RssConfig(4, indirection_table=(3,))
    count = "vnet_count(0);"
    program = compiled(f"vnet_steer(8, verdict); verdict->hash_report = 1; {count}")
    with quiet_tap(rss=rss, program=program) as tap:
        send(tap, UDP, UDP)
        assert [packet.queue for packet in collect(tap, 2)] == [3, 3]
        tap.replace_program(STAGES_OBJECT)
        assert tap.stats().total.packets == 2
        assert tap.stats().counts == (0,) * 16
        tap.replace_program(program)
        send(tap, UDP)
        assert [packet.queue for packet in collect(tap, 1)] == [3]
        assert tap.stats().queues[3].total.packets == 3
        assert tap.stats().counts[0] == 1


# On a tap of somebody else's


@pytest.mark.usefixtures("pins")
def test_attach_swap_and_back(point: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.o"
    file.write_bytes(
        compiled(
            "seen++; verdict->hash_value = 4; verdict->hash_report = 5; verdict->queue = 2;",
            before="__u64 seen;",
        )
    )
    rss = RssConfig.default(4)
    with owned() as tap:
        attach("tap0", rss, Reporting.RECORD, point=point, program=file).close()
        with PinnedTap.open("tap0") as attached:
            assert (attached.engine, attached.program) == ("program", "mine")
            got = through(tap)
            assert {(g.queue, g.hash_value, g.hash_report) for g in got} == {
                (2, 4, ReportType.TCPv6)
            }
            with Map.from_pin(folder_of("tap0") / "program" / "mine%2ebss") as own:
                assert int.from_bytes(own.lookup(0), "little") == len(flows.FLOWS)
            with pytest.raises(ConfigError, match="reporting: is rehash"):
                attached.configure(reporting=Reporting.REHASH)
            attached.replace_program(None)
            assert (attached.engine, attached.program) == ("ebpf", "")
            assert not (folder_of("tap0") / "program").exists()
        assert through(tap) == flows.expected(rss, record=True)
        with PinnedTap.open("tap0") as attached:
            attached.replace_program(constant(6, 6, 1))
            assert attached.device().name == "tap0"
            with PinnedTap.open("tap0") as another:
                another.replace_program(file)
            attached.configure(rss.replace(unclassified_queue=1))
            assert attached.program == "mine"
        assert {g.queue for g in through(tap)} == {2}
        detach("tap0")
        assert {g.hash_value for g in through(tap)} == {None}


@pytest.mark.usefixtures("pins")
def test_swapping_a_pinned_program_under_traffic(point: str) -> None:
    first, second = constant(0x11111111, 1, 1), constant(0x22222222, 2, 2)
    wanted = {(1, 0x11111111, ReportType.IPv4), (2, 0x22222222, ReportType.TCPv4)}
    with owned() as tap:
        attach("tap0", None, Reporting.RECORD, point=point, program=first).close()
        seen = set()
        with PinnedTap.open("tap0") as attached:
            for turn in range(20):
                swap = threading.Thread(
                    target=attached.replace_program, args=((second, first)[turn % 2],)
                )
                swap.start()
                while swap.is_alive():
                    seen |= {(g.queue, g.hash_value, g.hash_report) for g in through(tap)}
                swap.join()
        detach("tap0")
    assert seen == wanted


# Replay


def test_replay_through_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture, program = tmp_path / "frames.pcap", tmp_path / "xor.o"
    write_pcap(capture, [UDP, ARP])
    program.write_bytes(example("xor"))
    assert main.run(["replay", str(capture), "--program", str(program), "--json", "-q", "2"]) == 0
    out, err = capsys.readouterr()
    wanted = {"queue": 1, "hash_value": 3, "hash_report": "TCPv4", "record": True}
    for line in out.splitlines():
        got = json.loads(line)
        assert {name: got[name] for name in wanted} == wanted
    assert json.loads(err)["summary"]["engine"] == "program"


@pytest.mark.parametrize("engine", ["native", "python", "software"])
def test_replay_runs_a_program_in_the_kernel_only(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture, program = tmp_path / "frames.pcap", tmp_path / "xor.o"
    write_pcap(capture, [UDP])
    program.write_bytes(example("xor"))
    assert main.run(["replay", str(capture), "-p", str(program), "-e", engine]) == 2
    assert "hash program" in capsys.readouterr().err
