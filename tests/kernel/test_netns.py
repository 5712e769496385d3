# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import socket
import threading
import time

import pytest

from tests.kernel.least_privilege import RefusedError, with_only
from vnethash.errors import VnethashError
from vnethash.kernel import netns
from vnethash.kernel.caps import Cap
from vnethash.kernel.links import Links
from vnethash.kernel.netns import Namespace


def test_enters_and_returns() -> None:
    outside = netns.current_inode()
    with netns.fresh() as first:
        assert netns.current_inode() == first.inode != outside
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
        with netns.fresh() as second:
            assert netns.current_inode() == second.inode != first.inode
            with first:
                assert netns.current_inode() == first.inode
            assert netns.current_inode() == second.inode
        assert netns.current_inode() == first.inode
    assert netns.current_inode() == outside
    assert first.closed


def test_returns_after_an_error() -> None:
    outside = netns.current_inode()
    with pytest.raises(RuntimeError), netns.fresh():
        raise RuntimeError
    assert netns.current_inode() == outside


def test_moves_this_thread_and_those_it_starts() -> None:
    outside = netns.current_inode()
    started = threading.Event()
    seen: list[int] = []

    def look_later() -> None:
        started.wait()
        seen.append(netns.current_inode())

    before = threading.Thread(target=look_later)
    before.start()
    with netns.fresh() as namespace:
        started.set()
        before.join()
        inside = threading.Thread(target=look_later)
        inside.start()
        inside.join()
        assert seen == [outside, namespace.inode]


def test_links_end_with_the_namespace() -> None:
    with netns.fresh(), Links() as links:
        other = Namespace.create()
        links.add_veth("here", "there", peer_namespace=other)
        other.close()
        deadline = time.monotonic() + 10  # the kernel clears namespaces away in its own time
        while "here" in [name for _, name in socket.if_nameindex()]:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_current_and_open() -> None:
    with Namespace.current() as here, Namespace.open("/proc/self/ns/net") as same:
        assert here.inode == same.inode == netns.current_inode()
    here.close()
    same.close()
    with pytest.raises(VnethashError, match="open network namespace /run/netns/nope"):
        Namespace.open("/run/netns/nope")


def test_a_file_that_is_no_namespace() -> None:
    outside = netns.current_inode()
    nothing = Namespace.open("/dev/null")
    with pytest.raises(VnethashError, match="enter a network namespace"), nothing:
        pass
    nothing.close()
    assert netns.current_inode() == outside


def test_an_unclosed_namespace_warns() -> None:
    namespace = Namespace.create()
    with pytest.warns(ResourceWarning, match="<Namespace fd .* was not closed"):
        del namespace


def test_needs_sys_admin_only() -> None:
    def make() -> bool:
        with netns.fresh():
            return True

    assert with_only({Cap.SYS_ADMIN}, make) is True
    with pytest.raises(RefusedError, match="CAP_SYS_ADMIN") as caught:
        with_only({Cap.NET_ADMIN, Cap.BPF}, make)
    assert caught.value.kind == "NotPermitted"
