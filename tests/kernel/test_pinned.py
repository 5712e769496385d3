# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Attaching to a tap that somebody else owns; here the test itself is the owner."""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernel import flows, programs
from tests.kernel.least_privilege import RefusedError, with_only
from tests.kernel.pins import own_bpffs
from vnethash.engines import pin_folder, pinned
from vnethash.engines.pin_folder import PinFolder
from vnethash.engines.pinned import PinnedTap, attach, detach, list_attached
from vnethash.engines.stages import Stages
from vnethash.errors import BpfError, ConfigError, DeviceError, VnethashError
from vnethash.kernel import link, pin_root, tc, tun_ioctl
from vnethash.kernel.bpf import Link, Map
from vnethash.kernel.caps import Cap
from vnethash.kernel.egress import CLSACT, TCX
from vnethash.kernel.netns import Namespace
from vnethash.kernel.probe import probe
from vnethash.kernel.tun import Offload, TunDevice, TunFlag
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig
from vnethash.rss.keys import SYMMETRIC_KEY

pytestmark = pytest.mark.usefixtures("netns", "pins")

ALL_TO_3 = RssConfig(4, indirection_table=(3,), unclassified_queue=3)


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with own_bpffs(tmp_path / "bpffs", monkeypatch) as folder:
        yield folder


@pytest.fixture(params=[TCX, CLSACT])
def point(request: pytest.FixtureRequest) -> str:
    """Each attach point this kernel has."""
    result = probe(request.param)
    if not result:
        pytest.skip(f"{result.name} not supported: {result.reason}")
    return str(request.param)


@contextmanager
def owned(name: str = "tap0", queues: int = 4, **options: object) -> Iterator[TunDevice]:
    """A tap that is up and carries nothing but what the test sends."""
    with TunDevice.create(name, queues, **options) as tap:  # type: ignore[arg-type]
        link.quiet(tap.name)
        link.set_up(tap.name)
        yield tap


@pytest.fixture
def tap(netns: Namespace) -> Iterator[TunDevice]:
    with owned() as device:
        yield device


def through(tap: TunDevice) -> set[flows.Got]:
    flows.send(tap.name)
    return flows.read(tap.fds)


def is_left_to_the_kernel(tap: TunDevice) -> bool:
    """Whether frames come as sent, and on queues that ALL_TO_3 does not use."""
    got = through(tap)
    return {packet.frame for packet in got} == set(flows.FLOWS) and len(
        {packet.queue for packet in got}
    ) > 1


def folder_of(name: str) -> PinFolder:
    root = pin_root.find()
    assert root is not None
    return PinFolder(root, name)


@pytest.mark.parametrize("reporting", list(Reporting))
def test_steers_and_reports_with_nobody_holding_it(
    tap: TunDevice, point: str, reporting: Reporting
) -> None:
    with attach("tap0", reporting=reporting, point=point) as attached:
        assert (attached.name, attached.ifindex) == ("tap0", tap.ifindex)
        assert (attached.queues, attached.attach_point) == (4, point)
        assert attached.device().tun == link.link_info("tap0").tun
    assert link.link_info("tap0").tun == link.TunInfo(
        l3=False, vnet_header=True, persist=False, multi_queue=True, queues=4, disabled_queues=0
    )
    rss = RssConfig.default(4)
    assert through(tap) == flows.expected(rss, record=reporting is Reporting.RECORD)
    with PinnedTap.open("tap0") as attached:
        assert attached.current() == (rss, reporting)
        stats = attached.stats()
        assert stats.total.packets == len(flows.FLOWS)
        assert stats.total.bytes == sum(map(len, flows.FLOWS))
        by_queue = [0] * 4
        for got in flows.expected(rss, record=False):
            by_queue[got.queue] += 1
        assert [queue.total.packets for queue in stats.queues] == by_queue
        attached.detach()


def test_detach_restores_the_device(tap: TunDevice, point: str) -> None:
    attach("tap0", ALL_TO_3, Reporting.RECORD, point=point).close()
    assert list_attached() == ["tap0"]
    assert {got.queue for got in through(tap)} == {3}
    assert tc.has_clsact(tap.ifindex) == (point == CLSACT)
    detach("tap0")
    assert list_attached() == []
    assert not tc.has_clsact(tap.ifindex)
    assert is_left_to_the_kernel(tap)
    with pytest.raises(DeviceError, match="tap0 is not attached"):
        detach("tap0")
    with pytest.raises(DeviceError, match="tap0 is not attached"):
        PinnedTap.open("tap0")


def test_leaves_the_filters_of_others(tap: TunDevice) -> None:
    with programs.returning(-1) as program:
        theirs = tc.attach(program.fd, tap.ifindex, priority=7)
    attach("tap0", ALL_TO_3, point=CLSACT).close()
    detach("tap0")
    assert [item.priority for item in tc.filters(tap.ifindex)] == [theirs.priority]


def test_taps_without_ethernet_headers_and_with_dots_in_their_names() -> None:
    config = RssConfig.default(2)
    with owned("vm.1%d", 2, l3=True) as tun, attach(tun.name, config, Reporting.RECORD) as attached:
        assert tun.name == "vm.10"
        assert list_attached() == ["vm.10"]
        attached.detach()


def test_configures_live(tap: TunDevice) -> None:
    with attach("tap0", max_indirection=256) as attached:
        assert attached.max_indirection == 256
        attached.configure(ALL_TO_3)
        assert through(tap) == flows.expected(ALL_TO_3, record=False)
        attached.configure(reporting=Reporting.RECORD)
        assert attached.current() == (ALL_TO_3, Reporting.RECORD)
        assert through(tap) == flows.expected(ALL_TO_3, record=True)
        attached.update(lambda rss: rss.replace(key=SYMMETRIC_KEY, indirection_table=(0, 1)))
        changed = ALL_TO_3.replace(key=SYMMETRIC_KEY, indirection_table=(0, 1))
        assert through(tap) == flows.expected(changed, record=True)
        with pytest.raises(ConfigError, match="queues: is 8, but tap0 was attached with 4"):
            attached.configure(RssConfig.default(8))
        longer = ALL_TO_3.replace(indirection_table=(0, 1) * 256)
        with pytest.raises(ConfigError, match="has 512 entries"):
            attached.configure(longer)
        assert attached.current() == (changed, Reporting.RECORD)
        attached.detach()


def test_a_queue_the_owner_gave_up_cannot_be_named(tap: TunDevice) -> None:
    with attach("tap0") as attached:
        tap.detach_queue(3)
        with pytest.raises(ConfigError, match="entry 0 is queue 3, but tap0 has only 3 queues now"):
            attached.configure(ALL_TO_3)
        with pytest.raises(ConfigError, match="unclassified_queue: is queue 3"):
            attached.configure(ALL_TO_3.replace(indirection_table=(0,)))
        attached.configure(ALL_TO_3.replace(indirection_table=(2,), unclassified_queue=2))
        detach("tap0")


@pytest.mark.parametrize("whole", [True, False])
def test_marks_udp_gso_only_where_the_device_takes_it_whole(whole: bool) -> None:
    offloads = Offload.CSUM | Offload.USO4 | Offload.USO6 if whole else Offload.CSUM
    if whole and not (uso := probe("USO offloads")):
        pytest.skip(f"USO not supported: {uso.reason}")
    with owned(offloads=offloads) as tap, attach("tap0") as attached:
        assert attached._maps._state.record_udp_gso == whole
        tap.set_offloads(Offload.NONE)
        attached.configure(ALL_TO_3)
        assert attached._maps._state.record_udp_gso == 0
        attached.detach()


# Refusals


def _single() -> ExitStack:
    stack = ExitStack()
    fd = tun_ioctl.open_queue(nonblocking=True)
    stack.callback(os.close, fd)
    tun_ioctl.set_interface(fd, "tap0", TunFlag.TAP | TunFlag.NO_PI)
    return stack


def _one_of_many() -> ExitStack:
    stack = ExitStack()
    stack.enter_context(owned(queues=1))
    return stack


def _ownerless() -> ExitStack:
    stack = ExitStack()
    tap = TunDevice.create("tap0", 2, persist=True)
    tap.close()

    def remove() -> None:
        with TunDevice.create("tap0", 2) as again:
            again.set_persist(False)

    stack.callback(remove)
    return stack


@pytest.mark.parametrize(
    ("make", "name", "message", "hint"),
    [
        (ExitStack, "tap0", "there is no link tap0", "ip link"),
        (ExitStack, "lo", "lo is no tap", "ip -d link"),
        (_single, "tap0", "tap0 has a single queue: there is nothing to steer", "multi_queue"),
        (_one_of_many, "tap0", "tap0 has a single queue open: there is", "IFF_MULTI_QUEUE"),
        (_ownerless, "tap0", "no process here holds a queue of tap0", "start what reads"),
    ],
)
def test_devices_there_is_nothing_to_steer_on(
    make: Callable[[], ExitStack], name: str, message: str, hint: str
) -> None:
    with make():
        with pytest.raises(DeviceError, match=message) as caught:
            attach(name)
        assert hint in str(caught.value.hint)


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 16])
def test_names_no_link_can_have(name: str) -> None:
    for act in (attach, detach, PinnedTap.open):
        with pytest.raises(ConfigError, match="name: "):
            act(name)


def test_attached_twice(tap: TunDevice, point: str) -> None:
    attach("tap0", ALL_TO_3, point=point).close()
    with pytest.raises(DeviceError, match="tap0 is attached already") as caught:
        attach("tap0")
    assert "vnethash configure tap0" in str(caught.value.hint)
    assert {got.queue for got in through(tap)} == {3}
    detach("tap0")


def test_header_that_a_record_does_not_complete() -> None:
    message = "needs a virtio-net header of 12 bytes .* the owner of tap0 reads one of 10 bytes"
    with owned(vnet_header_size=10) as tap:
        with pytest.raises(DeviceError, match=message):
            attach("tap0", reporting=Reporting.RECORD)
        with attach("tap0", ALL_TO_3, Reporting.REHASH) as attached:
            with pytest.raises(DeviceError, match=message):
                attached.configure(reporting=Reporting.RECORD)
            assert attached.current() == (ALL_TO_3, Reporting.REHASH)
            tap.set_vnet_header_size(12)
            attached.configure(reporting=Reporting.RECORD)
            attached.detach()


def test_no_header_at_all() -> None:
    with ExitStack() as stack:
        for _ in range(2):
            fd = tun_ioctl.open_queue(nonblocking=True)
            stack.callback(os.close, fd)
            flags = TunFlag.TAP | TunFlag.NO_PI | TunFlag.MULTI_QUEUE
            tun_ioctl.set_interface(fd, "tap0", flags)
        with pytest.raises(DeviceError, match="the owner of tap0 reads none"):
            attach("tap0", reporting=Reporting.RECORD)
        attach("tap0").close()
        detach("tap0")


def _refuse(*_: object, **__: object) -> None:
    raise BpfError("refused")


def _occupied(_: pytest.MonkeyPatch) -> None:
    folder = folder_of("tap0")
    (folder / "something").mkdir(parents=True)


def _blocked(_: pytest.MonkeyPatch) -> None:
    folder = folder_of("tap0")
    folder.path.parent.mkdir(parents=True)
    with programs.returning(0) as program:
        program.pin(folder.path)


def _at(target: object, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(target, name, _refuse)


def _steering(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tun_ioctl, "set_steering", _refuse)


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(_occupied, id="pin path holds something else"),
        pytest.param(_blocked, id="pin path is a pin"),
        pytest.param(_at(Stages, "load"), id="loading"),
        pytest.param(_at(Map, "pin"), id="pinning a map"),
        pytest.param(_at(PinFolder, "write_record"), id="writing the record"),
        pytest.param(_at(pinned, "_attach_hook"), id="attaching"),
        pytest.param(_steering, id="steering"),
    ],
)
def test_a_failed_attach_leaves_the_device_as_it_was(
    tap: TunDevice,
    point: str,
    break_it: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    pins: Path,
) -> None:
    with programs.steering(2) as own:
        tap.set_steering(own.fd)
    with monkeypatch.context() as patch:
        break_it(patch)
        before = set(pins.rglob("*"))
        with pytest.raises(VnethashError):
            attach("tap0", ALL_TO_3, Reporting.RECORD, point=point)
        assert set(pins.rglob("*")) == before
    assert through(tap) == {flows.Got(2, frame) for frame in flows.FLOWS}
    assert tc.filters(tap.ifindex) == []
    assert not tc.has_clsact(tap.ifindex)
    path = folder_of("tap0").path
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    attach("tap0", ALL_TO_3, point=point).close()
    detach("tap0")


@pytest.mark.parametrize("point", [TCX], indirect=True)
def test_a_link_that_cannot_be_pinned_is_taken_off(
    tap: TunDevice, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Link, "pin", _refuse)
        with pytest.raises(BpfError, match="refused"):
            attach("tap0", ALL_TO_3, Reporting.RECORD, point=point)
    assert list_attached() == []
    assert is_left_to_the_kernel(tap)


def test_a_failure_after_steering_was_set_undoes_it(
    tap: TunDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PinnedTap, "_open", _refuse)
        with pytest.raises(BpfError, match="refused"):
            attach("tap0", ALL_TO_3, Reporting.RECORD)
    assert list_attached() == []
    assert is_left_to_the_kernel(tap)


@pytest.mark.parametrize("caps", [[Cap.NET_ADMIN], [Cap.BPF]])
def test_without_the_rights(tap: TunDevice, caps: list[Cap]) -> None:
    def code() -> object:
        attach("tap0", ALL_TO_3).close()
        return None

    with pytest.raises(RefusedError, match="operation not permitted without CAP_"):
        with_only(caps, code)
    assert list_attached() == []
    assert is_left_to_the_kernel(tap)


# What others do meanwhile


def test_a_tap_that_is_gone(point: str) -> None:
    with owned():
        attach("tap0", point=point).close()
    with PinnedTap.open("tap0") as attached:
        with pytest.raises(DeviceError, match="the device tap0 is gone") as caught:
            attached.device()
        assert "vnethash detach tap0" in str(caught.value.hint)
        with pytest.raises(DeviceError, match="is gone"):
            attached.configure(ALL_TO_3)
    detach("tap0")
    assert list_attached() == []


def test_a_new_tap_of_the_same_name(point: str) -> None:
    with owned():
        attach("tap0", point=point).close()
    with owned() as tap:
        with (
            PinnedTap.open("tap0") as attached,
            pytest.raises(DeviceError, match="is gone"),
        ):
            attached.device()
        attach("tap0", ALL_TO_3, point=point).close()
        assert {got.queue for got in through(tap)} == {3}
        detach("tap0")


def test_leftovers_of_another_namespace_with_the_same_number(tap: TunDevice) -> None:
    if not (tcx := probe("tcx")):
        pytest.skip(f"tcx not supported: {tcx.reason}; a filter would stay on the device")
    attach("tap0").close()
    folder = folder_of("tap0")
    record = folder.read_record()
    assert record is not None
    with Map.from_pin(folder / pin_folder.RECORD) as kept:
        kept.update(0, replace(record, cookie=record.cookie + 1).pack())
    with (
        PinnedTap.open("tap0") as attached,
        pytest.raises(DeviceError, match="is gone"),
    ):
        attached.device()
    attach("tap0", ALL_TO_3).close()
    assert {got.queue for got in through(tap)} == {3}
    detach("tap0")


@pytest.mark.parametrize("then", [attach, detach])
def test_a_hash_stage_that_was_taken_off(
    tap: TunDevice, point: str, then: Callable[[str], PinnedTap | None]
) -> None:
    attach("tap0", ALL_TO_3, point=point).close()
    folder = folder_of("tap0")
    if point == TCX:
        with Link.from_pin(folder / pin_folder.LINK) as hook:
            hook.detach()
    else:
        record = folder.read_record()
        assert record is not None
        tc.detach(record.filter)
    with (
        PinnedTap.open("tap0") as attached,
        pytest.raises(DeviceError, match="no longer on tap0"),
    ):
        attached.device()
    again = then("tap0")
    if again is not None:
        assert through(tap) == flows.expected(RssConfig.default(4), record=False)
        again.detach()
    assert list_attached() == []
    assert is_left_to_the_kernel(tap)


def test_a_filter_in_our_place_stays(tap: TunDevice) -> None:
    attach("tap0", point=CLSACT).close()
    record = folder_of("tap0").read_record()
    assert record is not None
    with programs.returning(-1) as program:
        tc.replace(record.filter, program.fd)
        detach("tap0")
        assert tc.program_id(record.filter) == program.id


def _rename(old: str, new: str) -> None:
    """ip link set OLD name NEW (SIOCSIFNAME)."""
    link.set_down(old)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, 0x8923, struct.pack("16s16s8x", old.encode(), new.encode()))
    link.set_up(new)


def test_a_tap_that_was_renamed(tap: TunDevice, point: str) -> None:
    attach("tap0", point=point).close()
    _rename("tap0", "vm0")
    with owned("tap0"), pytest.raises(DeviceError, match="attached as tap0 is called vm0 now"):
        attach("tap0")
    with PinnedTap.open("tap0") as attached:
        assert attached.device().name == "vm0"
        attached.configure(ALL_TO_3, reporting=Reporting.RECORD)
        flows.send("vm0")
        assert flows.read(tap.fds) == flows.expected(ALL_TO_3, record=True)
    detach("tap0")
    flows.send("vm0")
    assert len({got.queue for got in flows.read(tap.fds)}) > 1


def test_detaching_a_tap_that_waits_for_an_owner() -> None:
    with owned(persist=True):
        attach("tap0", ALL_TO_3, Reporting.RECORD).close()
    with owned() as tap:
        assert {got.queue for got in through(tap)} == {3}
    detach("tap0")
    with owned() as tap:
        assert is_left_to_the_kernel(tap)
        tap.set_persist(False)


@pytest.mark.parametrize("then", [attach, detach])
def test_an_attach_that_was_killed(
    tap: TunDevice, point: str, then: Callable[[str], PinnedTap | None]
) -> None:
    pid = os.fork()
    if pid == 0:
        tun_ioctl.set_steering = lambda *_: os._exit(0)
        try:
            attach("tap0", ALL_TO_3, Reporting.RECORD, point=point)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert list_attached() == ["tap0"]
    with pytest.raises(DeviceError, match="attaching tap0 was not completed"):
        PinnedTap.open("tap0")
    again = then("tap0")
    if again is not None:
        again.detach()
    assert list_attached() == []
    assert not tc.has_clsact(tap.ifindex)
    assert is_left_to_the_kernel(tap)


def test_pins_of_another_version(tap: TunDevice) -> None:
    attach("tap0", ALL_TO_3).close()
    folder = folder_of("tap0")
    record = folder.read_record()
    assert record is not None
    with Map.from_pin(folder / pin_folder.RECORD) as kept:
        kept.update(0, replace(record, layout=record.layout + 1).pack())
    with pytest.raises(DeviceError, match="attached by another version of vnethash"):
        PinnedTap.open("tap0")
    detach("tap0")
    assert is_left_to_the_kernel(tap)


def test_pins_that_are_missing(tap: TunDevice) -> None:
    attach("tap0", ALL_TO_3).close()
    (folder_of("tap0") / pin_folder.COUNTERS).unlink()
    with pytest.raises(BpfError, match="counters") as caught:
        PinnedTap.open("tap0")
    assert "vnethash detach tap0" in str(caught.value.hint)
    detach("tap0")
    assert is_left_to_the_kernel(tap)


# Where the pins are


def test_the_file_system_that_is_named_must_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(pin_root.VARIABLE, str(tmp_path))
    with pytest.raises(ConfigError, match="is not in a BPF file system"):
        pin_root.ensure()


# Under a PID namespace and mount namespaces of its own: nothing of it is seen outside.
_HOST = """
import ctypes, os, subprocess, sys
from vnethash.engines import pinned
from vnethash.kernel import bpffs
from vnethash.kernel.tun import TunDevice
libc = ctypes.CDLL(None)
while bpffs.is_mounted():
    bpffs.unmount(bpffs.MOUNT_POINT)
def command(code):
    script = "umount -l /sys && mount -t sysfs sysfs /sys && exec " + sys.executable + " -c "
    code = "from vnethash.engines import pinned; " + code
    arguments = ["unshare", "--mount", "sh", "-c", script + "'" + code + "'"]
    subprocess.run(arguments, check=True)
with TunDevice.create("tap0", 4):
    command('pinned.attach("tap0").close()')
    assert bpffs.is_mounted(), "mounted where it ended with the command"
    assert pinned.list_attached() == ["tap0"]
    command('assert pinned.list_attached() == ["tap0"]')
    command('pinned.detach("tap0")')
    assert pinned.list_attached() == []
print("all right")
"""


def test_pins_outlive_the_mount_namespace_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pin_root.VARIABLE)
    unshare = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]
    done = subprocess.run(
        [*unshare, sys.executable, "-c", _HOST], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("all right\n", "")
