# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A virtio-net device behind vhost-user, driven by a fake driver."""

import dataclasses
import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.flows import FLOWS, Got, expected, send
from tests.kernel.hash_programs import example
from tests.kernel.served import MAC, QUEUES, link_line, serving, unhashed
from tests.tunnels import CASES
from vnethash.engines.select import SOFTWARE
from vnethash.errors import CommandError, ConfigError, DeviceError, VhostUserError
from vnethash.kernel.netns import Namespace
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.testing.driver import FakeDriver
from vnethash.testing.front_end import FrontEnd
from vnethash.vhost_user import server
from vnethash.vhost_user.messages import Request, RingFlag, VringAddress
from vnethash.virtio.control import HashTunnelSet
from vnethash.virtio.device import DeviceState
from vnethash.virtio.features import Feature
from vnethash.virtio.hash_types import HashType, ReportType, TunnelType
from vnethash.virtio.header import Header, HeaderFlag

RSS = RssConfig.symmetric(QUEUES)
TUNNELLED = [case.frame for case in CASES]


def reported(rss: RssConfig) -> set[Got]:
    """What a driver with hash reports must get of FLOWS."""
    return {
        dataclasses.replace(got, hash_report=got.hash_report or ReportType.NONE)
        for got in expected(rss, record=True)
    }


def without_queue(packets: set[Got]) -> set[Got]:
    return {dataclasses.replace(got, queue=0) for got in packets}


@pytest.mark.parametrize("reporting", [Reporting.RECORD, Reporting.REHASH])
@pytest.mark.parametrize("mergeable", [True, False])
def test_rss_with_reports(
    netns: Namespace, tmp_path: Path, reporting: Reporting, mergeable: bool
) -> None:
    left_out = () if mergeable else (Feature.MRG_RXBUF,)
    with serving(tmp_path, reporting=reporting) as served, served.driver(*left_out) as driver:
        assert driver.header_size == 20
        driver.rss_config(RSS)
        assert served.flows(driver) == reported(RSS)
        counters = served.backend.counters()
        assert sum(pair.receive.packets for pair in counters) == len(FLOWS)
        hashed = [pair.recorded if reporting is Reporting.RECORD else pair.rehashed
                  for pair in counters]  # fmt: skip
        assert sum(hashed) > 0


def test_rss_without_reports(netns: Namespace, tmp_path: Path) -> None:
    with serving(tmp_path) as served, served.driver(Feature.HASH_REPORT) as driver:
        assert driver.header_size == 12
        driver.rss_config(RSS)
        assert served.flows(driver) == unhashed(reported(RSS))


@pytest.mark.parametrize("reporting", [Reporting.RECORD, Reporting.REHASH])
def test_reports_without_rss(netns: Namespace, tmp_path: Path, reporting: Reporting) -> None:
    """No hash types are enabled until the driver says which (virtio 1.3, 5.1.6.5.6.4)."""
    types = HashType.TCPv4 | HashType.UDPv6 | HashType.IPv4
    with serving(tmp_path, reporting=reporting) as served, served.driver(Feature.RSS) as driver:
        driver.queue_pairs(QUEUES)
        got = served.flows(driver)
        assert without_queue(got) == without_queue(unhashed(reported(RSS)))
        driver.hash_config(types, RSS.key)
        got = served.flows(driver)
        assert without_queue(got) == without_queue(reported(RSS.replace(hash_types=types)))


def test_neither(netns: Namespace, tmp_path: Path) -> None:
    left_out = (Feature.RSS, Feature.HASH_REPORT, Feature.HASH_TUNNEL, Feature.MQ)
    with serving(tmp_path) as served, served.driver(*left_out, pairs=1) as driver:
        assert {(got.queue, got.frame) for got in served.flows(driver)} == {
            (0, frame) for frame in FLOWS
        }


def test_software_offers_no_rss(netns: Namespace, tmp_path: Path) -> None:
    with serving(tmp_path, engine=SOFTWARE) as served, served.driver() as driver:
        assert Feature.RSS not in driver.features
        driver.hash_config(HashType.ALL, RSS.key)
        got = served.flows(driver)
        assert without_queue(got) == without_queue(reported(RSS))


def test_a_front_end_that_keeps_the_control_queue(netns: Namespace, tmp_path: Path) -> None:
    """As QEMU does: it says by enabling rings how many are used, and nothing else."""
    with serving(tmp_path) as served, served.driver(Feature.CTRL_VQ, Feature.RSS) as driver:
        assert served.backend.queues_in_use == QUEUES
        driver.front_end.enable(6, False)
        assert served.backend.queues_in_use == QUEUES - 1
        driver.front_end.enable(6)
        assert without_queue(served.flows(driver)) == without_queue(unhashed(reported(RSS)))


def test_a_driver_that_ends_gets_no_other_queues(netns: Namespace, tmp_path: Path) -> None:
    """The control queue may go first, as with virtio_uml: what it said holds until the end."""
    with serving(tmp_path) as served, served.driver() as driver:
        driver.queue_pairs(1)
        before = len(served.of("queues"))
        for index in reversed(range(2, 2 * QUEUES + 1)):
            driver.front_end.enable(index, False)
        driver.front_end.features()
        assert served.of("queues")[before:] == []
        assert served.backend.queues_in_use == 1


@pytest.mark.parametrize("reporting", [Reporting.RECORD, Reporting.REHASH])
def test_who_cannot_say_gets_what_the_operator_says(
    netns: Namespace, tmp_path: Path, reporting: Reporting
) -> None:
    options: dict[str, Any] = {"unasked": RSS, "reporting": reporting}
    with serving(tmp_path, **options) as served:
        with served.driver(Feature.CTRL_VQ, Feature.RSS) as driver:
            assert served.flows(driver) == reported(RSS)
        with served.driver() as driver:
            assert {(got.queue, got.hash_value) for got in served.flows(driver)} == {(0, 0)}
            other = RssConfig.random(QUEUES)
            driver.rss_config(other)
            assert served.flows(driver) == reported(other)


def test_the_last_command_wins(netns: Namespace, tmp_path: Path) -> None:
    """Virtio 1.3, 5.1.6.5.6: between automatic steering and RSS."""
    with serving(tmp_path) as served, served.driver() as driver:
        assert {got.queue for got in served.flows(driver)} == {0}
        driver.rss_config(RSS)
        assert served.backend.queues_in_use == QUEUES
        driver.queue_pairs(2)
        assert served.backend.queues_in_use == 2
        got = served.flows(driver)
        assert {got.queue for got in got} <= {0, 1}
        # The hash stays that of the RSS configuration: it is the only one there is.
        assert without_queue(got) == without_queue(reported(RSS))
        driver.rss_config(RSS)
        assert served.flows(driver) == reported(RSS)


def test_a_refused_command_changes_nothing(netns: Namespace, tmp_path: Path) -> None:
    with serving(tmp_path) as served, served.driver() as driver:
        driver.rss_config(RSS)
        beyond = RSS.replace(queues=8, indirection_table=(7,) * 128)
        with pytest.raises(CommandError):
            driver.rss_config(beyond, max_tx_vq=1)
        with pytest.raises(CommandError):
            driver.queue_pairs(QUEUES + 1)
        assert driver.command(b"\x04\x01 what is this") == 1
        assert driver.command(b"\x04", pieces=()) == 1
        assert served.flows(driver) == reported(RSS)
        refused = [entry for entry in served.of("control") if entry["answer"] == "refused"]
        assert len(refused) == 4
        assert all(entry["reason"] for entry in refused)


def test_hashes_follow_a_change_of_key(netns: Namespace, tmp_path: Path) -> None:
    """Under traffic each packet's queue and hash are of one configuration, old or new."""
    first, second = RSS, RssConfig.random(QUEUES).replace(hash_types=HashType.ALL)
    told = {
        frame: {
            (verdict.queue, verdict.hash_value, verdict.hash_report)
            for verdict in (reference.classify(frame, rss) for rss in (first, second))
        }
        for frame in FLOWS
    }
    seen: set[tuple[bytes, int]] = set()
    with serving(tmp_path) as served, served.driver() as driver:
        driver.rss_config(first)
        stop = threading.Event()

        def traffic() -> None:
            while not stop.is_set():
                send(served.tap.name)
                time.sleep(0.002)

        thread = threading.Thread(target=traffic)
        thread.start()
        try:
            for rss in itertools.islice(itertools.cycle([second, first]), 40):
                driver.rss_config(rss)
                for pair, packet in driver.receive_any(100, timeout=0.02):
                    header = packet.header
                    verdict = (pair, header.hash_value, header.hash_report)
                    assert verdict in told[packet.frame]
                    seen.add((packet.frame, header.hash_value))
        finally:
            stop.set()
            thread.join()
    assert len(seen) > len(FLOWS)  # of both


def test_tunnels(netns: Namespace, tmp_path: Path) -> None:
    rss = RSS.replace(tunnels=TunnelType.ALL)
    with serving(tmp_path) as served, served.driver() as driver:
        assert driver.config().supported_tunnel_types == TunnelType.ALL

        def agree(config: RssConfig) -> None:
            send(served.tap.name, TUNNELLED)
            for pair, packet in driver.receive_any(len(TUNNELLED)):
                expected = reference.classify(packet.frame, config)
                got = (packet.header.hash_value, packet.header.hash_report, pair)
                assert got == (expected.hash_value, expected.hash_report, expected.queue)

        driver.rss_config(rss)
        agree(rss.replace(tunnels=TunnelType.NONE))  # 5.1.6.4.4: at first none is enabled
        driver.hash_tunnel(TunnelType.GENEVE | TunnelType.GRE_2784)
        agree(rss.replace(tunnels=TunnelType.GENEVE | TunnelType.GRE_2784))
        with pytest.raises(CommandError):
            driver.hash_tunnel(TunnelType.VXLAN | 1 << 9)
        agree(rss.replace(tunnels=TunnelType.GENEVE | TunnelType.GRE_2784))
        driver.hash_tunnel(TunnelType.ALL)
        agree(rss)
        driver.hash_tunnel(TunnelType.NONE)
        agree(rss.replace(tunnels=TunnelType.NONE))


def test_tunnels_without_rss(netns: Namespace, tmp_path: Path) -> None:
    """5.1.6.4.3: then types and key are those of HASH_CONFIG, tunnels the same."""
    with serving(tmp_path) as served, served.driver(Feature.RSS) as driver:
        rss = RSS.replace(tunnels=TunnelType.ALL)
        driver.hash_config(HashType.ALL, rss.key)
        driver.hash_tunnel(TunnelType.ALL)
        send(served.tap.name, TUNNELLED)
        for _, packet in driver.receive_any(len(TUNNELLED)):
            assert packet.header.hash_value == reference.classify(packet.frame, rss).hash_value


def test_tunnels_without_the_feature(netns: Namespace, tmp_path: Path) -> None:
    with serving(tmp_path) as served, served.driver(Feature.HASH_TUNNEL) as driver:
        assert driver.command(HashTunnelSet(TunnelType.VXLAN)) == 1
        assert served.backend.device.state.tunnel_types is TunnelType.NONE


def test_the_next_front_end(netns: Namespace, tmp_path: Path) -> None:
    """One that goes away without a word leaves nothing behind for the next."""
    with serving(tmp_path) as served:
        for number in range(3):
            with FrontEnd.connect(served.path) as front_end:
                driver = FakeDriver(front_end, pairs=QUEUES)
                served.settle(front_end)
                driver.rss_config(RSS)
                assert served.flows(driver) == reported(RSS)
                front_end.close()
                served.wait_for("disconnected", number + 1)
                driver.close()
            assert served.backend.queues_in_use == 0
            assert served.backend.device.state == DeviceState.initial(served.backend.device.offer)
        with served.driver(Feature.HASH_REPORT) as driver:
            got = served.flows(driver)
            assert {(packet.queue, packet.frame) for packet in got} == {(0, f) for f in FLOWS}


def test_a_second_front_end_waits(netns: Namespace, tmp_path: Path) -> None:
    with (
        serving(tmp_path) as served,
        served.driver() as driver,
        FrontEnd.connect(served.path) as waiting,
    ):
        assert served.flows(driver)
        driver.close()
        driver.front_end.close()
        assert waiting.features() == served.backend.features() | 1 << 30 | 1 << 26


def test_a_driver_begins_anew(netns: Namespace, tmp_path: Path) -> None:
    """Reset by features alone, as Linux's virtio_uml does when its driver is bound again."""
    with serving(tmp_path) as served, FrontEnd.connect(served.path) as front_end:
        with FakeDriver(front_end, pairs=QUEUES) as driver:
            served.settle(front_end)
            driver.rss_config(RSS)
        features = driver.features - {Feature.HASH_REPORT}
        with FakeDriver(front_end, features=features, pairs=QUEUES) as driver:
            served.settle(front_end)
            assert served.backend.device.state.steering is None
            assert {(got.queue, got.frame) for got in served.flows(driver)} == {
                (0, frame) for frame in FLOWS
            }


def test_a_state_that_moved_here(netns: Namespace, tmp_path: Path) -> None:
    """A driver that negotiates what it had finds its RSS in force, and is asked to announce."""
    with serving(tmp_path) as served:
        with served.driver() as driver:
            driver.rss_config(RSS)
        served.wait_for("disconnected")
        left = served.backend.left
    assert left.steering is not None
    with serving(tmp_path, state=left) as served, served.driver() as driver:
        assert served.of("features")[-1]["imported"]
        assert served.flows(driver) == reported(RSS)
        status = driver.config().status
        assert status is not None
        assert status & 2
        driver.announce_ack()
        assert driver.config().status == 1
    with serving(tmp_path, state=left) as served, served.driver(Feature.HASH_REPORT) as driver:
        assert not served.of("features")[-1]["imported"]
        assert {got.queue for got in served.flows(driver)} == {0}


def test_a_change_of_configuration_is_told(netns: Namespace, tmp_path: Path) -> None:
    with serving(tmp_path) as served, served.driver() as driver:
        driver.front_end.open_backend_channel()
        assert driver.config().status == 1
        served.backend.set_link(False)
        assert driver.front_end.backend_request().name == "CONFIG_CHANGE_MSG"
        assert driver.config().status == 0


def test_mtu(netns: Namespace, tmp_path: Path) -> None:
    with serving(tmp_path, mtu=9000) as served, served.driver() as driver:
        assert driver.config().mtu == 9000
        assert "mtu 9000" in link_line(served.tap.name)
        driver.front_end.set_mtu(1400)
        assert "mtu 1400" in link_line(served.tap.name)
        with pytest.raises(VhostUserError):
            driver.front_end.set_mtu(60)


def _heard(name: str) -> socket.socket:
    """What comes out of a tap on the host's side."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind((name, 3))
    raw.settimeout(5)
    return raw


def test_frames_of_the_guest(netns: Namespace, tmp_path: Path) -> None:
    with serving(tmp_path) as served, served.driver() as driver:
        with _heard(served.tap.name) as host:
            for number, frame in enumerate(FLOWS):
                driver.send(number % QUEUES, frame)
            driver.flush()
            assert {host.recv(1 << 16) for _ in FLOWS} == set(FLOWS)
        counters = served.backend.counters()
        assert sum(pair.transmit.packets for pair in counters) == len(FLOWS)


def test_checksums_are_left_to_the_host(netns: Namespace, tmp_path: Path) -> None:
    """Virtio 1.3, 5.1.6.2: a packet socket is told that the checksum is still to be made."""
    frame = FLOWS[0]
    partial = Header(HeaderFlag.NEEDS_CSUM, csum_start=34, csum_offset=6)
    with serving(tmp_path) as served, served.driver() as driver:
        with _heard(served.tap.name) as host:
            host.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
            driver.send(1, frame, partial)
            data, ancillary, _, _ = host.recvmsg(1 << 16, 256)
        assert data == frame
        status = int.from_bytes(ancillary[0][2][:4], "little")
        assert status & 8  # TP_STATUS_CSUMNOTREADY


def test_an_arrival_is_announced(netns: Namespace, tmp_path: Path) -> None:
    with serving(tmp_path) as served, served.driver() as driver, _heard("tap0") as host:
        driver.front_end.send_rarp(MAC)
        frame = host.recv(1 << 16)
        assert frame[:14] == b"\xff" * 6 + MAC + b"\x80\x35"
        assert frame[22:28] == MAC


def test_a_broken_control_queue_is_left_alone(netns: Namespace, tmp_path: Path) -> None:
    """The others go on, and setting it up anew mends it."""
    with serving(tmp_path) as served, served.driver() as driver:
        driver.rss_config(RSS)
        queue = driver.queues[-1]
        queue.ring.make_available(queue.ring.size)  # no such head
        queue.publish()
        assert served.wait_for("fault")["queue"] == "control"
        assert served.flows(driver) == reported(RSS)
        assert not queue.used(0.1)


def test_a_ring_that_cannot_be_served(netns: Namespace, tmp_path: Path) -> None:
    """The message fails, no packet goes to that ring, and its right address mends it."""
    nowhere = VringAddress(2, RingFlag.NONE, 0, 0, 0, 0)
    with serving(tmp_path) as served, served.driver() as driver:
        driver.rss_config(RSS)
        with pytest.raises(VhostUserError):
            driver.front_end.tell(Request.SET_VRING_ADDR, nowhere)
        assert served.backend.queues_in_use == 1
        assert served.wait_for("fault")["queue"] == "pair 1"
        assert {got.queue for got in served.flows(driver)} == {0}
        driver.front_end.set_address(driver.queues[2], driver.memory)
        assert served.flows(driver) == reported(RSS)


def test_the_tap_is_deleted(netns: Namespace, tmp_path: Path) -> None:
    """Nothing is left to serve: the server ends and says why."""

    def lose_the_tap() -> None:
        with serving(tmp_path) as served, served.driver() as driver:
            driver.rss_config(RSS)
            subprocess.run(["ip", "link", "del", "tap0"], check=True)
            served.wait_for("fault")
            driver.front_end.close()  # or it would wait for answers

    with pytest.raises(DeviceError, match="tap0"):
        lose_the_tap()


# The socket


def test_a_path_in_use(netns: Namespace, tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(tmp_path / "stale"))
        for name, raises in (("vhost", "in use"), ("file", "no socket")):
            (tmp_path / "file").touch()
            with pytest.raises(DeviceError, match=raises):
                _listen(tmp_path / name)
        _listen(tmp_path / "stale")
        with pytest.raises(ConfigError, match="107"):
            _listen(tmp_path / ("x" * 108))
        with pytest.raises(DeviceError, match="no such file"):
            _listen(tmp_path / "nowhere" / "vhost")
        assert served.path.is_socket()
    assert not served.path.exists()


def _listen(path: Path) -> None:
    server._listen(path).close()


# The command


@pytest.fixture(name="command")
def _command(netns: Namespace, tmp_path: Path) -> list[str]:
    program = str(Path(sys.executable).parent / "vnethash")
    return [program, "serve", "--socket", str(tmp_path / "vhost"), "--tap", "tap0"]


def _started(command: list[str]) -> "subprocess.Popen[str]":
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert json.loads(process.stdout.readline())["event"] == "listening"
    return process


def test_the_command_serves_until_told(command: list[str], tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with (
        _started([*command, "--json", "--state", str(state)]) as process,
        FrontEnd.connect(tmp_path / "vhost") as front_end,
        FakeDriver(front_end, pairs=QUEUES) as driver,
    ):
        driver.rss_config(RSS)
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    names = [event["event"] for event in events]
    assert names[0] == "connected"
    assert names[-2:] == ["disconnected", "stopped"]
    control = [event for event in events if event["event"] == "control"]
    assert control[-1]["command"] == "MQ_RSS_CONFIG"
    assert not (tmp_path / "vhost").exists()
    assert "tap0" not in {name for _, name in socket.if_nameindex()}

    saved = json.loads(state.read_text())
    assert saved["state"]["hash_key"] == RSS.key.hex()
    with _started([*command, "--json", "--state", str(state)]) as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert process.returncode == 0
    done = subprocess.run(
        [*command, "--state", str(state), "--queue-pairs", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "cannot be taken up here" in done.stderr


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["--features", "rss,nonsense"], 2, "nonsense"),
        (["--features=-ctrl-vq"], 2, "ctrl-vq"),
        (["--mac", "01:00:00:00:00:00"], 2, "mac"),
        (["--engine", "software", "--features", "all,rss"], 2, "rss is not available"),
        (["--socket", "/nowhere/vhost"], 1, "no such file"),
        (["--state", "/dev/null"], 2, "is not valid"),
        (["--engine", "program"], 2, "program"),
        (["--program", "/dev/null"], 1, "hash program"),
    ],
)
def test_the_command_refuses(
    command: list[str], options: list[str], status: int, says: str
) -> None:
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert (done.returncode, says in done.stderr) == (status, True), done.stderr
    assert "tap0" not in {name for _, name in socket.if_nameindex()}


def test_a_program_decides(netns: Namespace, tmp_path: Path) -> None:
    """What a hash program says of a packet is in the guest's header."""
    with serving(tmp_path, program=example("xor")) as served, served.driver() as driver:
        driver.rss_config(RSS)
        got = served.flows(driver)
    assert {packet.frame for packet in got} == set(FLOWS)
    assert {(packet.queue, packet.hash_value, packet.hash_report) for packet in got} == {
        (1, 3, ReportType.TCPv4)
    }
