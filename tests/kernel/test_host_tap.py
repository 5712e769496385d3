# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The host's side of a served device: who gets a packet, and with which hash."""

import dataclasses
import fcntl
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kernel.flows import FLOWS, Got, expected, read, send
from vnethash.engines.select import EBPF, SOFTWARE
from vnethash.errors import ConfigError, DeviceError, Unsupported
from vnethash.kernel import link
from vnethash.kernel.netns import Namespace
from vnethash.kernel.tun import Offload, TunDevice
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.vhost_user.host_tap import HostTap, Wanted
from vnethash.virtio.hash_types import HashType, ReportType

SIOCGIFMTU = 0x8921  # include/uapi/linux/sockios.h

QUEUES = 4
RSS = RssConfig.symmetric(QUEUES)
AT_RESET = Wanted.at_reset(QUEUES)


@contextmanager
def host_tap(**options: Any) -> Iterator[HostTap]:
    with HostTap.open("tap0", QUEUES, **options) as tap:
        link.quiet(tap.name)
        yield tap


def _ask(request: int) -> bytes:
    """netdevice(7) about the tap; /sys shows another namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return fcntl.ioctl(any_socket, request, b"tap0".ljust(40, b"\0"))[16:]


def carrier() -> bool:
    """Whether the kernel sends into the tap: it acts on its carrier a little later.

    The flag IFF_RUNNING is there before (net/core/link_watch.c).
    """
    command = ["ip", "-o", "link", "show", "tap0"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return "qdisc noop" not in shown and "NO-CARRIER" not in shown


def mtu() -> int:
    size: int = struct.unpack_from("i", _ask(SIOCGIFMTU))[0]
    return size


def wait_for_carrier(there: bool = True) -> None:
    deadline = time.monotonic() + 5
    while carrier() != there:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def flows(tap: HostTap, queues: int = QUEUES) -> set[Got]:
    """What comes of FLOWS on the queues in use."""
    wait_for_carrier()
    send(tap.name)
    return read([tap.fd(queue) for queue in range(queues)])


def test_there_is_a_carrier_while_a_queue_is_in_use(netns: Namespace) -> None:
    with host_tap() as tap:
        wait_for_carrier(False)
        tap.use_queues(1)
        wait_for_carrier()
        tap.use_queues(0)
        wait_for_carrier(False)


def test_nothing_old_comes_out_of_a_queue_in_use(netns: Namespace) -> None:
    with host_tap() as tap:
        tap.use_queues(1)
        wait_for_carrier()
        send(tap.name)
        tap.use_queues(0)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((tap.name, 0))
            raw.send(FLOWS[0][:12] + b"\x88\xb6" + bytes(46))
        tap.use_queues(1)
        assert {got.frame for got in flows(tap, 1)} == set(FLOWS)


@pytest.mark.parametrize("reports", [True, False])
def test_rss(netns: Namespace, reports: bool) -> None:
    with host_tap() as tap:
        tap.use_queues(QUEUES)
        tap.apply(Wanted(RSS, False, reports, Offload.NONE))
        assert flows(tap) == expected(RSS, record=reports)


def test_automatic_steering_with_reports(netns: Namespace) -> None:
    """A record carries the hash, and the kernel chose the queue."""
    rss = RSS.replace(hash_types=HashType.TCPv4 | HashType.UDPv6)
    with host_tap() as tap:
        tap.use_queues(QUEUES)
        tap.apply(Wanted(RSS, False, False, Offload.NONE))
        tap.apply(Wanted(rss, True, True, Offload.NONE))
        got = flows(tap)
    assert {dataclasses.replace(packet, queue=0) for packet in got} == {
        dataclasses.replace(packet, queue=0) for packet in expected(rss, record=True)
    }
    types = {packet.hash_report for packet in got}
    assert types == {ReportType.NONE, ReportType.TCPv4, ReportType.UDPv6}
    steered = {reference.classify(packet.frame, rss).queue == packet.queue for packet in got}
    assert False in steered


def test_a_flow_comes_to_the_queue_it_was_sent_from(netns: Namespace) -> None:
    """Automatic steering, virtio 1.3, 5.1.6.5.6.1: as tun learns it."""
    request = FLOWS[0]
    answer = request[6:12] + request[:6] + request[12:26] + request[30:34] + request[26:30]
    answer += request[36:38] + request[34:36] + request[38:]
    with host_tap() as tap:
        tap.use_queues(QUEUES)
        wait_for_carrier()
        for queue in range(QUEUES):
            with open(tap.fd(queue), "wb", buffering=0, closefd=False) as wire:
                wire.write(bytes(12) + answer)
            time.sleep(0.05)  # tun refuses to learn a flow anew at once
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind((tap.name, 0))
                raw.send(request)
            came = [number for number in range(QUEUES) if _pending(tap, number)]
            assert came == [queue]


def _pending(tap: HostTap, queue: int) -> bytes:
    with open(tap.fd(queue), "rb", buffering=0, closefd=False) as wire:
        return wire.read(1 << 16) or b""


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_queues_in_use(netns: Namespace, count: int) -> None:
    with host_tap() as tap:
        tap.use_queues(QUEUES)
        tap.use_queues(count)
        assert {packet.frame for packet in flows(tap, count)} == set(FLOWS)
        tap.use_queues(QUEUES)
        tap.apply(Wanted(RSS, False, True, Offload.NONE))
        assert flows(tap) == expected(RSS, record=True)


def test_what_cannot_be_applied_changes_nothing(netns: Namespace) -> None:
    wanted = Wanted(RSS, False, True, Offload.CSUM)
    long = RSS.replace(indirection_table=(0,) * 4096)
    with host_tap() as tap:
        tap.use_queues(QUEUES)
        tap.apply(wanted)
        with pytest.raises(ConfigError, match="4096 entries"):
            tap.apply(Wanted(long, False, False, Offload.CSUM | Offload.TSO4))
        assert link.features(tap.name)["tx-tcp-segmentation"] is False
        assert flows(tap) == expected(RSS, record=True)


def test_without_bpf_there_is_no_rss(netns: Namespace) -> None:
    with host_tap(engine=SOFTWARE) as tap:
        assert not tap.steers
        assert not tap.takes_records
        tap.use_queues(QUEUES)
        tap.apply(Wanted(RSS, True, True, Offload.NONE))
        with pytest.raises(Unsupported, match="RSS"):
            tap.apply(Wanted(RSS, False, True, Offload.NONE))
        got = flows(tap)
    assert {packet.frame for packet in got} == set(FLOWS)
    assert {packet.hash_value for packet in got} == {None}


def test_auto_takes_bpf_and_records(netns: Namespace) -> None:
    with host_tap() as tap:
        assert (tap.engine, tap.steers, tap.takes_records, tap.rehashes) == (EBPF, True, True, True)
        assert tap.attach_point in ("tcx", "clsact")


def test_rehash_leaves_the_frames_alone(netns: Namespace) -> None:
    with host_tap(reporting=Reporting.REHASH) as tap:
        assert not tap.takes_records
        tap.use_queues(QUEUES)
        tap.apply(Wanted(RSS, False, True, Offload.NONE))
        assert flows(tap) == expected(RSS, record=False)


def test_no_engine_of_the_lab(netns: Namespace) -> None:
    with pytest.raises(ConfigError, match="serves no guest"):
        HostTap.open("tap0", QUEUES, engine="tun-rss")


def test_a_persistent_tap_is_left_as_it_was(netns: Namespace) -> None:
    with TunDevice.create("tap0", QUEUES, persist=True) as device:
        try:
            device.close()
            with host_tap(mtu=9000) as tap:
                tap.use_queues(2)
                tap.apply(dataclasses.replace(AT_RESET, offloads=Offload.CSUM))
                assert mtu() == 9000
            assert link.link_info("tap0").tun is not None
        finally:
            with TunDevice.create("tap0", QUEUES) as again:
                assert again.vnet_header_size == 12
                again.set_persist(False)


def test_a_failed_open_leaves_nothing(netns: Namespace) -> None:
    with pytest.raises(DeviceError):
        HostTap.open("tap0", QUEUES, mtu=100000)
    assert "tap0" not in {name for _, name in socket.if_nameindex()}
