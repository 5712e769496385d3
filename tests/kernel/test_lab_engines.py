# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What only a kernel of the lab does, for the engines that it has.

Traffic of all kinds goes through these engines in the tests for every engine
(ENGINES of wire.py); here is what sets them apart. On other kernels the tests
are skipped; with VNETHASH_REQUIRE_LAB=tun-cb a kernel that is not that one fails.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from tests import frames
from tests.kernel import flows
from tests.kernel.hash_programs import EXAMPLES
from tests.kernel.least_privilege import RefusedError, with_only
from tests.kernel.wire import LAB_HERE, collect, fitting, open_tap, quiet_tap, sender
from vnethash.engines.base import Setup
from vnethash.engines.select import LAB, STEERING, TUN_RSS, best, choose, engine_named
from vnethash.engines.stages import DEFAULT_MAX_INDIRECTION
from vnethash.errors import ConfigError, DeviceError, ProgramRefused, Unsupported
from vnethash.kernel import link, probe
from vnethash.kernel.bpf import BpfObject, ProgramType
from vnethash.kernel.caps import Cap
from vnethash.kernel.links import Links
from vnethash.kernel.tun import Offload, TunDevice
from vnethash.kernel.tun_ioctl import read_hash_types
from vnethash.native import STAGES_OBJECT
from vnethash.programs import compile_program
from vnethash.programs.check import defines_for
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.tap import Tap
from vnethash.virtio.hash_types import HashType, ReportType

pytestmark = pytest.mark.usefixtures("netns")
REQUIRED = os.environ.get("VNETHASH_REQUIRE_LAB")
XOR = Path(__file__).parents[1] / "lab" / "xor_vnet_hash.bpf.c"

TUNSETOWNER = 0x400454CC  # include/uapi/linux/if_tun.h

ARP = frames.ethernet(0x0806, bytes(28))
UDP = frames.ethernet(0x0800, frames.ipv4(frames.udp()))


def here(names: tuple[str, ...]) -> pytest.MarkDecorator:
    """For each of these engines that the running kernel has; skipped if that is none."""
    found: list[object] = [name for name in names if name in LAB_HERE]
    no = pytest.mark.skip(f"the running kernel has none of {', '.join(names)}")
    return pytest.mark.parametrize("engine", found or [pytest.param("none", marks=no)])


every_engine = here(LAB)
every_steering = here(STEERING)


@pytest.mark.skipif(REQUIRED not in (*LAB, "stock"), reason="VNETHASH_REQUIRE_LAB names no kernel")
def test_the_kernel_is_the_one_asked_for() -> None:
    assert [REQUIRED] * (REQUIRED != "stock") == LAB_HERE


@pytest.mark.skipif(bool(LAB_HERE), reason="the running kernel is one of the lab's")
@pytest.mark.parametrize("engine", LAB)
def test_other_kernels_refuse(engine: str) -> None:
    result = probe.probe(engine)
    assert result.state == "unsupported"
    assert "vnethash lab build" in str(result.needs)
    with pytest.raises(Unsupported) as caught:
        open_unfitted(engine)
    assert caught.value.reason == result.reason
    assert [name for _, name in socket.if_nameindex()] == ["lo"]


def open_unfitted(engine: str) -> Tap:
    return Tap.open("tap0", queues=2, engine=engine)


@every_engine
def test_auto_takes_it(engine: str) -> None:
    assert probe.probe(engine)
    rss = fitting(engine, RssConfig.default(2))
    assert best(rss.hash_types).name == engine
    with Tap.open("tap0", rss=rss) as tap:
        assert (tap.engine, tap.attach_point) == (
            engine,
            "driver" if engine == TUN_RSS else "steering",
        )


@here((TUN_RSS,))
def test_a_fixed_algorithm_knows_its_hash_types_only(engine: str) -> None:
    assert read_hash_types() == HashType(0x3F)
    rule = "does not know IP_EX, TCP_EX, UDP_EX"
    with pytest.raises(ConfigError, match=rule) as caught:
        open_unfitted(engine)
    assert caught.value.field == "hash_types"
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    choice = choose()
    assert choice.name == "ebpf"
    ((rejected, reason),) = choice.rejected
    assert rejected == engine
    assert rule in reason
    with quiet_tap(engine=engine) as tap, sender(tap) as wire:
        before = tap.rss
        with pytest.raises(ConfigError, match=rule):
            tap.configure(RssConfig.default(4))
        wire.send(UDP)
        (packet,) = collect(tap, 1)
        assert packet.hash_value == reference.classify(UDP, before).hash_value


def read_raw(tap: Tap) -> bytes:
    """What one read of a queue leaves in a buffer that was full of ones."""
    for fd in tap._device.fds:
        buffer = bytearray(b"\xff" * 2048)
        try:
            return bytes(buffer[: os.readv(fd, [buffer])])
        except BlockingIOError:
            continue
    raise AssertionError("no queue has a packet")


@every_engine
@pytest.mark.parametrize("queues", [1, 4])
def test_header_as_the_kernel_writes_it(engine: str, queues: int) -> None:
    """A queue that is the only one is not chosen, and its packets have a hash all the same."""
    with quiet_tap(engine=engine, queues=queues) as tap, sender(tap) as wire:
        for frame in (UDP, ARP):
            wire.send(frame)
            raw = read_raw(tap)
            expected = reference.classify(frame, tap.rss)
            assert raw[:10] == bytes(10)
            assert raw[10:20] == struct.pack(
                "<HIHH", 1, expected.hash_value, expected.hash_report, 0
            )
            assert raw[20:] == frame
        for reporting in (Reporting.REHASH, Reporting.OFF):
            tap.configure(reporting=reporting)
            wire.send(UDP)
            assert read_raw(tap) == bytes(10) + b"\1" + bytes(9) + UDP


@contextmanager
def bridge(*names: str) -> Iterator[None]:
    with Links() as links:
        links.add_bridge("br0")
        for name in names:
            links.enslave(name, "br0")
        for name in (*names, "br0"):
            link.quiet(name)
            link.set_up(name)
        yield


@every_engine
def test_a_hash_is_never_told_of_another_tap(engine: str) -> None:
    """One frame for all ports of a bridge: the taps have it each with a hash of its own."""
    rss = fitting(engine, RssConfig.default(4))
    with (
        open_tap("one", engine, rss=rss) as one,
        open_tap("two", engine, rss=fitting(engine, RssConfig.random(4))) as two,
        open_tap("quiet", engine, rss=rss, reporting=Reporting.OFF) as quiet,
        TunDevice.create("plain", 1, vnet_header_size=20) as plain,
        TunDevice.create("source", 1) as source,
        bridge("one", "two", "quiet", "plain", "source"),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as watcher,
    ):
        watcher.bind(("one", 0))  # who watches has a clone as well
        for frame in flows.FLOWS:
            os.write(source.fds[0], bytes(12) + frame)
        for tap in (one, two):
            packets = collect(tap, len(flows.FLOWS))
            assert sorted(packet.frame for packet in packets) == sorted(flows.FLOWS)
            for packet in packets:
                expected = reference.classify(packet.frame, tap.rss)
                got = (packet.hash_value, packet.hash_report, packet.queue)
                assert got == (expected.hash_value, expected.hash_report, expected.queue)
        assert {p.hash_report for p in collect(quiet, len(flows.FLOWS))} == {ReportType.NONE}
        for frame in flows.FLOWS:
            assert os.read(plain.fds[0], 2048) == bytes(10) + b"\1" + bytes(9) + frame


@every_engine
def test_what_was_forwarded_with_a_hash_comes_without_elsewhere(engine: str) -> None:
    """From one tap through this process into another: the header of the first says nothing."""
    with (
        open_tap("one", engine) as one,
        TunDevice.create("plain", 1, vnet_header_size=20) as plain,
        bridge("one", "plain"),
    ):
        with sender(one) as wire:
            wire.send(UDP)
        packet = next(iter(collect(one, 1)))
        assert packet.has_record
        one.queues[0].send(packet.frame, packet.header)
        assert os.read(plain.fds[0], 2048)[10:] == b"\1" + bytes(9) + UDP


def setup_for(device: TunDevice, engine: str) -> Setup:
    rss = fitting(engine, RssConfig(2, indirection_table=(1,), unclassified_queue=1))
    reporting = Reporting.RECORD
    return Setup(device, rss, reporting, Offload.NONE, False, DEFAULT_MAX_INDIRECTION)


def flood(device: TunDevice) -> list[int]:
    """How many of 64 flows each queue of two gets, behind a header of 12 bytes."""
    link.quiet(device.name)
    link.set_up(device.name)
    sent = [frames.ethernet(0x0800, frames.ipv4(frames.udp(port))) for port in range(64)]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device.name, 0))
        for frame in sent:
            wire.send(frame)
    counts = [0, 0]
    for queue, fd in enumerate(device.fds):
        for _ in sent:
            try:
                assert os.read(fd, 2048)[12:] in sent
            except BlockingIOError:
                break
            counts[queue] += 1
    return counts


@every_engine
def test_closing_leaves_the_device_as_it_was(engine: str) -> None:
    with TunDevice.create("tap0", 2) as device:
        attachment = engine_named(engine).attach(setup_for(device, engine))
        assert device.vnet_header_size == 20 == attachment.header
        attachment.close()
        assert device.vnet_header_size == 12
        counts = flood(device)
        assert sum(counts) == 64
        assert counts[0]  # or it were still steered to queue 1


@every_engine
def test_a_failed_attach_leaves_the_device_as_it_was(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DeviceError("made to fail")

    with TunDevice.create("tap0", 2) as device:
        with monkeypatch.context() as patch:
            for name in ("set_steering", "set_steering_hash", "set_rss"):
                patch.setattr(TunDevice, name, fail)
            with pytest.raises(DeviceError, match="made to fail"):
                engine_named(engine).attach(setup_for(device, engine))
        assert device.vnet_header_size == 12
        assert flood(device)[0]


@every_engine
def test_a_device_that_went_away_is_closed_quietly(engine: str) -> None:
    with quiet_tap(engine=engine) as tap, Links() as links:
        links.delete(tap.name)


@here((TUN_RSS,))
def test_a_user_without_rights(engine: str) -> None:
    """RSS of the driver needs no more than a tap made for the user."""

    def use() -> list[object]:
        with open_tap("kept", engine, queues=2) as tap:
            tap.configure(fitting(engine, RssConfig.random(2)))
            return [tap.engine, tap._device.vnet_header_size]

    with TunDevice.create("kept", 2, persist=True) as device:
        fcntl.ioctl(device.fds[0], TUNSETOWNER, os.geteuid())
    try:
        assert with_only((), use) == [engine, 20]
    finally:
        with TunDevice.create("kept", 2) as device:
            device.set_persist(False)


@every_steering
def test_rights_of_a_steering_program(engine: str) -> None:
    def use() -> list[object]:
        with open_tap("tap0", queues=2) as tap:
            return [tap.engine, tap._device.vnet_header_size]

    enough = {Cap.NET_ADMIN, Cap.BPF, Cap.PERFMON}
    assert with_only(enough | {Cap.SYS_ADMIN}, use) == [engine, 20]
    assert with_only(enough, use) == [engine, 20]
    assert with_only({Cap.NET_ADMIN}, use) == ["software", 12]

    def ask_for_it() -> object:
        with Tap.open("tap0", queues=2, engine=engine) as tap:
            return tap.engine

    with pytest.raises(RefusedError) as caught:
        with_only({Cap.NET_ADMIN}, ask_for_it)
    assert caught.value.kind == "NotPermitted"


# Hash programs of the user's own


@cache
def example(name: str, engine: str) -> bytes:
    """The object of an example of the documentation, compiled for an engine."""
    return compile_program(EXAMPLES / f"{name}.c", defines=defines_for(engine)).image


@every_steering
@pytest.mark.parametrize("queues", [1, 2])
def test_a_program_of_the_users_own(engine: str, queues: int) -> None:
    with (
        open_tap("tap0", engine, queues=queues, program=example("xor", engine)) as tap,
        TunDevice.create("source", 1) as source,
        bridge("tap0", "source"),
    ):
        os.write(source.fds[0], bytes(12) + ARP)
        (packet,) = collect(tap, 1)
        assert (packet.hash_value, packet.hash_report) == (3, ReportType.TCPv4)
        assert packet.queue == queues - 1
        assert packet.has_record
        with pytest.raises(ConfigError, match="reporting"):
            tap.configure(reporting=Reporting.REHASH)
        tap.replace_program(example("symmetric", engine))
        os.write(source.fds[0], bytes(12) + UDP)
        (packet,) = collect(tap, 1)
        assert packet.hash_report is ReportType.UDPv4
        stats = tap.stats()
        assert stats.by_report[ReportType.TCPv4].packets == 1
        assert stats.by_report[ReportType.UDPv4].packets == 1


@every_steering
def test_a_program_for_another_kernel_is_refused(engine: str) -> None:
    with pytest.raises(ProgramRefused, match=r"is for stock kernels|does not call") as caught:
        Tap.open("tap0", engine=engine, program=STAGES_OBJECT)
    assert f"--engine {engine}" in str(caught.value.hint)
    with pytest.raises(ProgramRefused):
        Tap.open("tap0", program=example("xor", engine))
    assert [name for _, name in socket.if_nameindex()] == ["lo"]


@here(("tun-progtype",))
@pytest.mark.parametrize("queues", [1, 2])
def test_the_self_test_of_the_proposal(engine: str, queues: int) -> None:
    """Its program, its two taps on a bridge, its ARP frame, its three values."""
    with (
        BpfObject.open(compile_program(XOR).image, name=engine) as opened,
        TunDevice.create("tap0", queues, vnet_header_size=20) as tap,
        TunDevice.create("source", 1) as source,
        bridge("tap0", "source"),
    ):
        opened.set_program_type("prog", ProgramType.VNET_HASH)
        opened.load()
        tap.set_steering(opened.program("prog").fd)
        os.write(source.fds[0], bytes(12) + ARP)
        raw = os.read(tap.fds[queues - 1], 2048)
        assert raw == bytes(10) + struct.pack("<HIHH", 1, 3, 2, 0) + ARP
        tap.set_steering(None)
