# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import errno
import os
import re
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.kernel import programs
from tests.kernel.least_privilege import RefusedError, with_only
from vnethash.errors import ConfigError, DeviceError
from vnethash.kernel import link
from vnethash.kernel.bpf import ProgramType
from vnethash.kernel.caps import Cap
from vnethash.kernel.netns import Namespace
from vnethash.kernel.tun import (
    QUEUES_MAX,
    Offload,
    TunDevice,
    TunFlag,
    borrow_queue,
    read_features,
    read_interface,
    read_vnet_header_size,
)

pytestmark = pytest.mark.usefixtures("netns")

FRAME = bytes.fromhex("02000000000202000000000188b5") + bytes(46)


def link_names() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def tun_of(name: str) -> link.TunInfo:
    info = link.link_info(name).tun
    assert info is not None
    return info


def send(name: str, frame: bytes = FRAME) -> None:
    """Have the kernel transmit a frame on the tap, which its reader gets."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((name, 0))
        raw.send(frame)


def readable(device: TunDevice) -> list[int]:
    """Indices of the queues that have something to read."""
    ready, _, _ = select.select(device.fds, [], [], 2)
    return [device.fds.index(fd) for fd in ready]


def test_makes_a_multi_queue_tap() -> None:
    with TunDevice.create("tap7", 3) as tap:
        assert tap.name == "tap7"
        assert tap.ifindex == socket.if_nametoindex("tap7")
        assert len(set(tap.fds)) == 3
        assert tap.vnet_header_size == 12
        assert tap.flags & TunFlag.TAP
        assert TunFlag.MULTI_QUEUE | TunFlag.VNET_HDR | TunFlag.NO_PI in tap.flags
        assert all(not os.get_blocking(fd) for fd in tap.fds)
        assert not any(os.get_inheritable(fd) for fd in tap.fds)
        assert tun_of("tap7") == link.TunInfo(
            l3=False, vnet_header=True, persist=False, multi_queue=True, queues=3,
            disabled_queues=0,
        )  # fmt: skip
    assert link_names() == ["lo"]


def test_makes_a_tun_and_numbers_names() -> None:
    with TunDevice.create(None, 1, l3=True) as tun, TunDevice.create("net%d", 2) as tap:
        assert (tun.name, tap.name) == ("tun0", "net0")
        assert tun_of("tun0").l3
        assert not tun_of("net0").l3


def test_blocking_on_request() -> None:
    with TunDevice.create(None, 1, nonblocking=False) as tap:
        assert os.get_blocking(tap.fds[0])


@pytest.mark.parametrize("queues", [0, -1, QUEUES_MAX + 1])
def test_rejects_a_number_of_queues(queues: int) -> None:
    with pytest.raises(ConfigError, match=f"1 to 256 queues, not {queues}") as caught:
        TunDevice.create(None, queues)
    assert caught.value.field == "queues"
    assert link_names() == ["lo"]


def test_takes_as_many_queues_as_the_driver_has() -> None:
    with TunDevice.create("wide", QUEUES_MAX) as tap:
        assert tun_of("wide").queues == QUEUES_MAX == len(tap.fds)


def test_rejects_a_name_in_use() -> None:
    with (
        TunDevice.create("tap0", 2),
        pytest.raises(DeviceError, match="tap0 is in use by another process"),
    ):
        TunDevice.create("tap0", 2)
    with pytest.raises(DeviceError, match="lo is in use by a link that is no tap"):
        TunDevice.create("lo", 2)


def test_takes_a_persistent_device_nobody_holds() -> None:
    with TunDevice.create("kept", 4, persist=True) as first:
        assert TunFlag.PERSIST in first.flags
        ifindex = first.ifindex
    assert tun_of("kept").queues == 0
    with TunDevice.create("kept", 2) as second:
        assert second.ifindex == ifindex
        assert tun_of("kept").queues == 2
        with pytest.raises(DeviceError, match="kept is in use"):
            TunDevice.create("kept", 2)
        second.set_persist(False)
        assert TunFlag.PERSIST not in second.flags
    assert link_names() == ["lo"]


def test_rejects_a_persistent_device_of_another_kind() -> None:
    with TunDevice.create("kept", 2, persist=True, l3=True):
        pass
    with pytest.raises(DeviceError, match="kept exists and is a tun"):
        TunDevice.create("kept", 2)


def test_rejects_a_device_with_a_single_queue() -> None:
    from pyroute2 import IPRoute

    with IPRoute() as route:
        route.link("add", ifname="single", kind="tuntap", mode="tap")
    with pytest.raises(DeviceError, match="single exists and has a single queue") as caught:
        TunDevice.create("single", 2)
    assert "multi_queue" in str(caught.value.hint)


def test_a_refused_offload_leaves_no_device() -> None:
    with pytest.raises(ConfigError, match="USO4 and USO6 go together"):
        TunDevice.create("gone", 2, offloads=Offload.CSUM | Offload.USO4)
    with pytest.raises(ConfigError, match="must be at least 10"):
        TunDevice.create("gone", 2, vnet_header_size=8)
    assert link_names() == ["lo"]


def test_header_size() -> None:
    with TunDevice.create(None, 2, vnet_header_size=20) as tap:
        assert tap.vnet_header_size == 20
        tap.set_vnet_header_size(10)
        # It belongs to the device, so that any queue tells.
        assert [read_vnet_header_size(fd) for fd in tap.fds] == [10, 10]


def test_offloads_show_as_features() -> None:
    with TunDevice.create("off", 2, offloads=Offload.CSUM | Offload.TSO4) as tap:
        features = link.features("off")
        assert features["tx-tcp-segmentation"]
        assert not features["tx-tcp6-segmentation"]
        assert features["tx-checksum-ip-generic"]
        tap.set_offloads(Offload.NONE)
        features = link.features("off")
        assert not features["tx-tcp-segmentation"]
        assert not features["tx-checksum-ip-generic"]


def test_steering_chooses_the_queue() -> None:
    with TunDevice.create("tap0", 4) as tap:
        link.quiet("tap0")
        link.set_up("tap0")
        for queue in (3, 1):
            with programs.steering(queue) as program:
                tap.set_steering(program.fd)
            send("tap0")
            assert readable(tap) == [queue]
            assert os.read(tap.fds[queue], 2048)[12:] == FRAME
        tap.set_steering(None)


def test_filter_cuts_and_drops() -> None:
    with TunDevice.create("tap0", 1) as tap:
        link.quiet("tap0")
        link.set_up("tap0")
        with programs.steering(20) as cut:
            tap.set_filter(cut.fd)
        send("tap0")
        assert os.read(tap.fds[0], 2048)[12:] == FRAME[:20]
        with programs.steering(0) as drop:
            tap.set_filter(drop.fd)
        send("tap0")
        with pytest.raises(BlockingIOError):
            os.read(tap.fds[0], 2048)
        tap.set_filter(None)
        send("tap0")
        assert os.read(tap.fds[0], 2048)[12:] == FRAME


def test_rejects_a_steering_program_of_another_type() -> None:
    with (
        TunDevice.create(None, 2) as tap,
        programs.returning(0, ProgramType.SCHED_CLS) as program,
        pytest.raises(DeviceError, match="steering program") as caught,
    ):
        tap.set_steering(program.fd)
    assert "socket filter" in str(caught.value.hint)


def test_queues_leave_and_return() -> None:
    with TunDevice.create("tap0", 3) as tap:
        tap.detach_queue(0)
        assert (tun_of("tap0").queues, tun_of("tap0").disabled_queues) == (2, 1)
        assert tap.vnet_header_size == 12  # asked through a queue in use
        with pytest.raises(DeviceError, match="it is detached already"):
            tap.detach_queue(0)
        tap.attach_queue(0)
        assert tun_of("tap0").queues == 3
        with pytest.raises(DeviceError, match="it is attached already"):
            tap.attach_queue(0)
        with pytest.raises(ConfigError, match="there are 3 queues, no number 3"):
            tap.detach_queue(3)


def test_detached_and_closed_devices_say_so() -> None:
    tap = TunDevice.create("tap0", 1)
    tap.detach_queue(0)
    with pytest.raises(DeviceError, match="all queues are detached"):
        tap.set_steering(None)
    tap.close()
    tap.close()
    assert tap.closed
    with pytest.raises(DeviceError, match="closed"):
        tap.set_vnet_header_size(12)


def test_a_deleted_device_is_a_device_error() -> None:
    from vnethash.kernel.links import Links

    with TunDevice.create("tap0", 2) as tap:
        with Links() as links:
            links.delete("tap0")
        with pytest.raises(DeviceError, match="gone"):
            tap.set_vnet_header_size(12)


def test_an_unclosed_device_warns_and_closes() -> None:
    tap = TunDevice.create("tap0", 2)
    with pytest.warns(ResourceWarning, match="<TunDevice tap0 queues 2> was not closed"):
        del tap
    assert link_names() == ["lo"]


def test_reads_features() -> None:
    assert TunFlag.TAP | TunFlag.MULTI_QUEUE | TunFlag.VNET_HDR in read_features()


def test_needs_net_admin_only() -> None:
    def open_tap() -> str:
        with TunDevice.create("least", 2, offloads=Offload.CSUM | Offload.TSO4) as tap:
            return tap.name

    assert with_only({Cap.NET_ADMIN}, open_tap) == "least"
    with pytest.raises(RefusedError, match="CAP_NET_ADMIN") as caught:
        with_only({Cap.BPF, Cap.SYS_ADMIN}, open_tap)
    assert caught.value.kind == "NotPermitted"


def test_a_process_out_of_descriptors_keeps_none() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
    try:
        with pytest.raises(DeviceError, match=re.escape(os.strerror(errno.EMFILE))):
            TunDevice.create("many", 100)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert link_names() == ["lo"]


# Borrowing


@contextmanager
def held_elsewhere(name: str) -> Iterator[None]:
    """A tap with two queues that only another process holds."""
    ready, tell = os.pipe()
    stop, hold = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(hold)
            with TunDevice.create(name, 2):
                os.write(tell, b"1")
                os.read(stop, 1)
        finally:
            os._exit(0)
    os.close(tell)
    os.close(stop)
    try:
        assert os.read(ready, 1) == b"1"
        yield
    finally:
        os.close(hold)
        os.close(ready)
        os.waitpid(pid, 0)


def test_borrows_a_queue_of_another_process() -> None:
    with held_elsewhere("theirs"):
        fd = borrow_queue("theirs")
        try:
            assert read_interface(fd)[0] == "theirs"
            assert not os.get_inheritable(fd)
            assert tun_of("theirs").queues == 2  # none was added
        finally:
            os.close(fd)


def test_does_not_borrow_from_another_namespace() -> None:
    other = Namespace.create()
    try:
        with other:
            there = TunDevice.create("same", 2)
        with there:
            with TunDevice.create("same", 2) as here:
                fd = borrow_queue("same")
                try:
                    # The setting shows which of the two it is.
                    here.set_vnet_header_size(20)
                    assert read_vnet_header_size(fd) == 20
                    assert there.vnet_header_size == 12
                finally:
                    os.close(fd)
            with pytest.raises(DeviceError, match="no process here holds a queue of same"):
                borrow_queue("same")
    finally:
        other.close()


def test_a_tap_nobody_holds_cannot_be_borrowed() -> None:
    with TunDevice.create("kept", 2, persist=True):
        pass
    with pytest.raises(DeviceError, match="no process here holds a queue of kept"):
        borrow_queue("kept")


def test_borrowing_needs_ptrace() -> None:
    def borrow() -> str:
        fd = borrow_queue("theirs")
        os.close(fd)
        return "borrowed"

    with held_elsewhere("theirs"):
        # The holder has more capabilities than the borrower, which is what counts.
        assert with_only({Cap.NET_ADMIN, Cap.SYS_PTRACE}, borrow) == "borrowed"
        with pytest.raises(RefusedError, match="CAP_SYS_PTRACE") as caught:
            with_only({Cap.NET_ADMIN}, borrow)
    assert caught.value.kind == "NotPermitted"
