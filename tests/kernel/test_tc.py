# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import errno
import os
from collections.abc import Iterator

import pytest

from tests.kernel import programs
from tests.kernel.least_privilege import RefusedError, with_only
from tests.kernel.test_tun import send
from vnethash.errors import BpfError, DeviceError
from vnethash.kernel import link, netlink, tc
from vnethash.kernel.caps import Cap
from vnethash.kernel.links import Links
from vnethash.kernel.netns import Namespace
from vnethash.kernel.tun import TunDevice

TC_ACT_UNSPEC = -1


@pytest.fixture
def tap(netns: Namespace) -> Iterator[TunDevice]:
    with TunDevice.create("tap0", 1) as device:
        link.quiet("tap0")
        link.set_up("tap0")
        yield device


def arrives(tap: TunDevice) -> bool:
    """Whether a frame sent on the tap reaches its reader."""
    try:
        send(tap.name)
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # what the sender sees of a drop at egress
            raise
    try:
        return bool(os.read(tap.fds[0], 2048))
    except BlockingIOError:
        return False


def test_no_other_link_is_asked_about(tap: TunDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dump of qdiscs is one of all links, however many there are."""
    request, asked = netlink.request, []

    def seen(kind: int, body: bytes, **how: bool) -> list[bytes]:
        asked.append((kind, how.get("dump", False)))
        return request(kind, body, **how)

    monkeypatch.setattr(netlink, "request", seen)
    assert not tc.has_clsact(tap.ifindex)
    with programs.returning(0) as accept:
        tc.detach(tc.attach(accept.fd, tap.ifindex))
    get_qdisc, get_filter = 38, 46  # include/uapi/linux/rtnetlink.h
    assert set(asked) == {(get_qdisc, False), (get_filter, True)}


def test_an_attached_program_runs(tap: TunDevice) -> None:
    with programs.dropping() as drop, programs.returning(0) as accept:
        assert not tc.has_clsact(tap.ifindex)
        attached = tc.attach(drop.fd, tap.ifindex)
        assert attached == tc.Attachment(tap.ifindex, True, 0xFFFF, tc.HANDLE, made_clsact=True)
        assert tc.program_id(attached) == drop.id
        assert not arrives(tap)
        tc.replace(attached, accept.fd)
        assert tc.program_id(attached) == accept.id
        assert arrives(tap)
        tc.replace(attached, drop.fd)
        assert not arrives(tap)
    tc.detach(attached)
    assert arrives(tap)
    assert tc.program_id(attached) is None
    assert not tc.has_clsact(tap.ifindex)
    tc.detach(attached)


def test_a_qdisc_that_was_there_stays(tap: TunDevice) -> None:
    with programs.returning(TC_ACT_UNSPEC) as first, programs.returning(0) as second:
        theirs = tc.attach(first.fd, tap.ifindex, priority=10, handle=1)
        ours = tc.attach(second.fd, tap.ifindex)
        assert not ours.made_clsact
        assert tc.filters(tap.ifindex) == [
            tc.Filter(10, 1, "bpf", first.id),
            tc.Filter(0xFFFF, tc.HANDLE, "bpf", second.id),
        ]
        tc.detach(ours)
        assert tc.filters(tap.ifindex) == [tc.Filter(10, 1, "bpf", first.id)]
        tc.detach(theirs)


@pytest.mark.parametrize("egress", [True, False])
def test_a_qdisc_of_ours_that_others_use_stays(tap: TunDevice, egress: bool) -> None:
    with programs.returning(TC_ACT_UNSPEC) as program:
        ours = tc.attach(program.fd, tap.ifindex)
        theirs = tc.attach(program.fd, tap.ifindex, egress=egress, priority=1)
        tc.detach(ours)
        assert tc.has_clsact(tap.ifindex)
        assert tc.program_id(theirs) == program.id


def test_ours_runs_last(tap: TunDevice) -> None:
    with programs.dropping() as drop, programs.returning(TC_ACT_UNSPEC) as go_on:
        with programs.returning(0) as accept:
            ours = tc.attach(drop.fd, tap.ifindex)
            tc.attach(go_on.fd, tap.ifindex, priority=1)
            assert not arrives(tap)
            tc.attach(accept.fd, tap.ifindex, priority=2)
            assert arrives(tap)
        tc.detach(ours)


def test_the_same_place_twice(tap: TunDevice) -> None:
    with programs.returning(0) as first, programs.dropping() as second:
        attached = tc.attach(first.fd, tap.ifindex)
        with pytest.raises(BpfError, match="is there already"):
            tc.attach(second.fd, tap.ifindex)
        assert tc.program_id(attached) == first.id


def test_a_refused_program_leaves_no_qdisc(tap: TunDevice) -> None:
    with programs.steering(0) as wrong_type, pytest.raises(BpfError, match="attach by clsact"):
        tc.attach(wrong_type.fd, tap.ifindex)
    assert not tc.has_clsact(tap.ifindex)


def test_a_device_that_is_gone(tap: TunDevice) -> None:
    with programs.returning(0) as program:
        attached = tc.attach(program.fd, tap.ifindex)
        with Links() as links:
            links.delete(tap.name)
        tc.detach(attached)
        with pytest.raises(DeviceError, match=f"no device with index {tap.ifindex}"):
            tc.attach(program.fd, tap.ifindex)


def test_attaching_needs_net_admin_only(tap: TunDevice) -> None:
    with programs.returning(0) as program:

        def attach() -> int:
            attached = tc.attach(program.fd, tap.ifindex)
            tc.detach(attached)
            return attached.ifindex

        assert with_only({Cap.NET_ADMIN}, attach) == tap.ifindex
        with pytest.raises(RefusedError, match="CAP_NET_ADMIN") as caught:
            with_only({Cap.BPF}, attach)
        assert caught.value.kind == "NotPermitted"
