# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""QEMU as the front end: what it takes of the device, traffic, reconnecting, migration."""

import gc
import hashlib
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.guest import qemu
from tests.guest.qemu import Guest
from tests.guest.vhost import GUEST, HOST, MAC, TAP, Backend
from tests.kernel.leaks import snapshot
from vnethash.kernel import link, netns
from vnethash.kernel.links import Links
from vnethash.virtio.features import Feature, format_features

pytestmark = [pytest.mark.guest, pytest.mark.kernel]

_PAIRS = 2
_BULK = 6_000_000
_SOME = 500_000
_PORT = 5001

# More bytes than a packet has, on average, unless large segments come as one.
_WHOLE = 2000

# What QEMU answers for itself: it has these to offer to any guest.
_OF_QEMU = {
    *(Feature.MAC, Feature.STATUS, Feature.CTRL_VQ, Feature.CTRL_RX, Feature.CTRL_VLAN),
    *(Feature.CTRL_MAC_ADDR, Feature.CTRL_GUEST_OFFLOADS),
}

# What makes the data path fast; without these the guest would do with frames of 1500 bytes.
_WANTED = {
    *(Feature.MQ, Feature.MRG_RXBUF, Feature.VERSION_1, Feature.EVENT_IDX, Feature.INDIRECT_DESC),
    *(Feature.CSUM, Feature.HOST_TSO4, Feature.HOST_TSO6),
    *(Feature.GUEST_CSUM, Feature.GUEST_TSO4, Feature.GUEST_TSO6),
}


@pytest.fixture(name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a short name: a socket's path has 107 bytes at most."""
    return tmp_path_factory.mktemp("qemu")


@pytest.fixture(name="network", scope="module", autouse=True)
def _network() -> Iterator[None]:
    """A network namespace for the tests here; fail if anything is left in the end."""
    if reason := qemu.missing():
        if os.environ.get("VNETHASH_REQUIRE_KERNEL"):
            pytest.fail(reason)
        pytest.skip(reason)
    gc.collect()
    before = snapshot()
    with netns.fresh():
        link.set_up("lo")
        yield
    gc.collect()
    left = snapshot() - before
    assert not left, f"left behind: {', '.join(sorted(left))}"


@contextmanager
def serving(path: Path, *options: str, name: str = TAP) -> Iterator[Backend]:
    """A backend, its tap up and quiet; must not complain, and stop when told to."""
    with Backend(path, *options, "--tap", name, pairs=_PAIRS) as backend:
        link.quiet(name)
        yield backend
        assert backend.running, backend.said()
        assert backend.stop() == 0, backend.said()
        assert backend.said() == ""


def give_address(name: str = TAP) -> None:
    """The host's end, at a tap or a bridge."""
    link.set_mac(name, "02:00:00:00:00:01")  # the same when it is made anew
    with Links() as links:
        links.add_address(name, f"{HOST}/24")
        links.add_neighbour(name, GUEST, MAC)


def bring_up(guest: Guest) -> None:
    """The guest's end."""
    guest.ask(f"ip addr add {GUEST}/24 dev eth0 && ip link set eth0 up")


@contextmanager
def connected(folder: Path, *options: str, device: str = "") -> Iterator[tuple[Backend, Guest]]:
    """A guest behind a backend, with addresses."""
    path = folder / "vhost"
    with serving(path, *options) as backend:
        give_address()
        arguments = qemu.network(path, queue_pairs=_PAIRS, device=device)
        with qemu.boot(arguments, cpus=_PAIRS) as guest:
            bring_up(guest)
            yield backend, guest
        backend.wait_for("disconnected")


@contextmanager
def answering(
    handle: Callable[[socket.socket], str], connections: int
) -> Iterator[Callable[[], list[str]]]:
    """Accept connections on the host; what is yielded waits for what ``handle`` made of them."""
    with (
        socket.create_server((HOST, _PORT)) as server,
        ThreadPoolExecutor(connections) as executor,
    ):
        server.settimeout(30)

        def accept() -> str:
            peer, _ = server.accept()
            with peer:
                peer.settimeout(30)
                return handle(peer)

        futures: list[Future[str]] = [executor.submit(accept) for _ in range(connections)]
        yield lambda: [future.result(30) for future in futures]


def digest_of_all(peer: socket.socket) -> str:
    digest = hashlib.sha256()
    while part := peer.recv(1 << 16):
        digest.update(part)
    return digest.hexdigest()


def sender(seed: int, size: int) -> Callable[[socket.socket], str]:
    """Sends so many random bytes; returns their digest."""
    payload = random.Random(seed).randbytes(size)

    def send(peer: socket.socket) -> str:
        peer.sendall(payload)
        peer.shutdown(socket.SHUT_WR)
        return hashlib.sha256(payload).hexdigest()

    return send


def netcat(redirected: str, connections: int) -> str:
    """Connect so often to the host at once, from one CPU and the other: each has its queue."""
    command = f"taskset $((1 + i % {_PAIRS})) nc {HOST} {_PORT} {redirected}"
    return f"for i in $(seq {connections}); do {command} & done; wait"


def to_guest(guest: Guest, size: int = _SOME, connections: int = 3) -> None:
    """Data from the host; the guest has to see the same bytes."""
    with answering(sender(1, size), connections) as sent:
        said = guest.ask(netcat("</dev/null | sha256sum", connections), timeout=40)
        assert [line.split()[0] for line in said.splitlines()] == sent()


def to_host(guest: Guest, size: int = _SOME, connections: int = 3) -> None:
    """Data from the guest; the host has to see the same bytes."""
    guest.ask(f"head -c {size} /dev/urandom >/tmp/payload")
    wanted = guest.ask("sha256sum </tmp/payload").split()[0]
    with answering(digest_of_all, connections) as received:
        guest.ask(netcat("</tmp/payload", connections), timeout=40)
        assert received() == [wanted] * connections


def statistic(guest: Guest, name: str) -> int:
    return int(guest.ask(f"cat /sys/class/net/eth0/statistics/{name}"))


def mean_size(guest: Guest, direction: str, move: Callable[[Guest, int], None]) -> float:
    """Bytes per packet while ``move`` moves much; direction "rx" or "tx", of the guest."""
    names = f"{direction}_bytes", f"{direction}_packets"
    before = [statistic(guest, name) for name in names]
    move(guest, _BULK)
    size, packets = (statistic(guest, name) - old for name, old in zip(names, before, strict=True))
    return size / packets


def packets_by_queue(guest: Guest, direction: str) -> list[int]:
    said = guest.ask("ethtool -S eth0").split()
    return [
        int(said[said.index(f"{direction}_queue_{queue}_packets:") + 1]) for queue in range(_PAIRS)
    ]


def ping(guest: Guest) -> None:
    guest.ask(f"ping -c 3 -i 0.2 -W 2 {HOST}")


# One guest for the next few


@pytest.fixture(name="pair", scope="module")
def _pair(
    network: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Backend, Guest]]:
    with connected(tmp_path_factory.mktemp("qemu")) as pair:
        yield pair


def test_features(pair: tuple[Backend, Guest]) -> None:
    """The driver has what we offer, but for RSS and hashing; control is QEMU's."""
    backend, guest = pair
    ours = set(backend.wait_for("features")["features"])
    assert ours >= set(format_features(_WANTED))
    assert not ours & {"ctrl-vq", "rss", "hash-report"}
    theirs = set(format_features(guest.features()))
    assert theirs >= (ours - {"guest-announce"}) | set(format_features(_OF_QEMU))


def test_ping(pair: tuple[Backend, Guest]) -> None:
    ping(pair[1])


def test_bulk_to_the_guest_keeps_large_segments(pair: tuple[Backend, Guest]) -> None:
    assert mean_size(pair[1], "rx", to_guest) > _WHOLE


def test_bulk_to_the_host_keeps_large_segments(pair: tuple[Backend, Guest]) -> None:
    assert mean_size(pair[1], "tx", to_host) > _WHOLE


def test_all_queues_are_used(pair: tuple[Backend, Guest]) -> None:
    """The guest sends on both; automatic steering returns a flow to where it came from."""
    _, guest = pair
    before = packets_by_queue(guest, "rx"), packets_by_queue(guest, "tx")
    to_host(guest, connections=4)
    after = packets_by_queue(guest, "rx"), packets_by_queue(guest, "tx")
    for old, new in zip(before, after, strict=True):
        assert all(now > then for then, now in zip(old, new, strict=True)), (before, after)


def test_fewer_queues(pair: tuple[Backend, Guest]) -> None:
    """QEMU keeps VQ_PAIRS_SET to itself, and says it by disabling rings."""
    backend, guest = pair
    before = packets_by_queue(guest, "rx")
    guest.ask("ethtool -L eth0 combined 1")
    wait_for_queues(backend, 1)
    to_guest(guest, connections=4)
    guest.ask("ethtool -L eth0 combined 2")
    wait_for_queues(backend, 2)
    after = packets_by_queue(guest, "rx")
    assert (after[0] > before[0], after[1]) == (True, before[1])
    to_guest(guest, connections=4)
    assert packets_by_queue(guest, "rx")[1] > before[1]


def wait_for_queues(backend: Backend, count: int) -> None:
    """QEMU does not wait for rings to come and go."""
    deadline = time.monotonic() + 10
    while [entry for entry in backend.look() if entry["event"] == "queues"][-1]["in_use"] != count:
        assert time.monotonic() < deadline, backend.events
        time.sleep(0.01)


def test_no_command_comes_to_us(pair: tuple[Backend, Guest]) -> None:
    backend, guest = pair
    guest.ask("ip link set eth0 promisc on; ip link set eth0 promisc off")
    assert backend.controls() == []
    assert [entry for entry in backend.events if entry["event"] in ("refused", "fault")] == []


# Guests of their own


@pytest.fixture(name="alone")
def _alone(network: None) -> Iterator[None]:
    """A network namespace for one test."""
    with netns.fresh():
        link.set_up("lo")
        yield


def test_rss_and_hash_that_qemu_was_asked_for(alone: None, folder: Path) -> None:
    """QEMU takes no RSS from a backend of vhost-user; its hash reporting is the header alone."""
    with connected(folder, device=",rss=on,hash=on") as (backend, guest):
        features = guest.features()
        assert Feature.RSS not in features
        # Older ones hand HASH_REPORT on, and keep what the guest then asks for to themselves.
        ours = backend.wait_for("features")["features"]
        assert ("hash-report" in ours) == (Feature.HASH_REPORT in features)
        assert "rss" not in ours
        ping(guest)
        to_guest(guest)
        to_host(guest)
        assert backend.controls() == []


def test_guest_that_starts_again(alone: None, folder: Path) -> None:
    """A driver that is unbound and bound resets the device in one connection."""
    with connected(folder) as (backend, guest):
        ping(guest)
        driver = "/sys/bus/virtio/drivers/virtio_net"
        guest.ask(f"echo virtio0 >{driver}/unbind")
        wait_for_queues(backend, 0)
        guest.ask(f"echo virtio0 >{driver}/bind")
        bring_up(guest)
        ping(guest)
        to_guest(guest)
        wait_for_queues(backend, _PAIRS)
        assert len([entry for entry in backend.look() if entry["event"] == "connected"]) == 1


def test_backend_that_starts_again(alone: None, folder: Path) -> None:
    """QEMU finds the next one and traffic goes on: after a stop, and amid a transfer."""
    path = folder / "again"
    carrier = "cat /sys/class/net/eth0/carrier"
    with ExitStack() as stack:
        with serving(path):
            give_address()
            guests = stack.enter_context(ExitStack())
            guest = guests.enter_context(reconnecting(path))
            bring_up(guest)
            ping(guest)
        assert guest.ask(carrier) == "0\n"
        with Backend(path, pairs=_PAIRS) as dying:
            link.quiet(TAP)
            give_address()
            guest.ask(f"while [ $({carrier}) = 0 ]; do sleep 0.1; done")
            to_host(guest)
            with answering(sender(3, 3 * _BULK), 1) as sent:
                before = statistic(guest, "rx_bytes")
                guest.ask(f"nc {HOST} {_PORT} </dev/null | sha256sum >/tmp/digest &")
                while statistic(guest, "rx_bytes") < before + _SOME:
                    pass
                dying.close()  # by SIGKILL, and the tap goes with it
                backend = stack.enter_context(serving(path))
                give_address()
                (wanted,) = sent()
            assert guest.ask("wait; cat /tmp/digest").split()[0] == wanted
        to_host(guest)
        guests.close()
        backend.wait_for("disconnected")


@contextmanager
def reconnecting(path: Path) -> Iterator[Guest]:
    """A guest that tries again when the backend has gone."""
    with ExitStack() as stack:
        for option in ("reconnect-ms=500", "reconnect=1"):  # before QEMU 9.2: the latter alone
            arguments = qemu.network(path, queue_pairs=_PAIRS, chardev=f",{option}")
            try:
                guest = stack.enter_context(qemu.boot(arguments, cpus=_PAIRS))
            except qemu.QemuError as error:
                if "Invalid parameter" not in str(error):
                    raise
            else:
                yield guest
                return
        pytest.fail("QEMU does not know how to connect again")


def test_guest_moves_to_another_qemu(alone: None, folder: Path) -> None:
    """Migration while data flows: what the backend writes is in the log of dirty pages."""
    paths = folder / "source", folder / "target"
    taps = "tap1", "tap2"
    with ExitStack() as stack:
        with Links() as links:
            links.add_bridge("br0")
            backends = []
            for path, name in zip(paths, taps, strict=True):
                backends.append(stack.enter_context(serving(path, name=name)))
                links.enslave(name, "br0")
        link.quiet("br0")
        link.set_up("br0")
        give_address("br0")
        arguments = [qemu.network(path, queue_pairs=_PAIRS) for path in paths]
        guests = stack.enter_context(ExitStack())
        source = guests.enter_context(qemu.boot(arguments[0], cpus=_PAIRS))
        bring_up(source)
        ping(source)
        target = guests.enter_context(
            qemu.boot([*arguments[1], "-incoming", "defer"], cpus=_PAIRS, started=False)
        )
        moving = f"unix:{folder / 'moving'}"
        target.qmp("migrate-incoming", uri=moving)
        # It goes on while there is more left than goes through in a millisecond.
        source.ask("while sleep 0.1; do head -c 2000000 /dev/zero >/tmp/written; done &")
        limits(source, downtime=1, bandwidth=1 << 25)
        source.qmp("migrate", uri=moving)
        until(source, lambda state: 0 < state.get("ram", {}).get("remaining", 0) < 30_000_000)
        limits(source, downtime=1, bandwidth=1 << 23)
        until(source, lambda state: state["ram"]["dirty-sync-count"] > 1)
        # All memory was copied once. What comes now, the guest leaves where the backend put it.
        source.ask("echo 4096 4000000 6000000 >/proc/sys/net/ipv4/tcp_rmem")
        with answering(sender(2, 1_000_000), 1) as sent:
            later = "{ while [ ! -e /tmp/go ]; do sleep 0.1; done; sha256sum; }"
            source.ask(f"nc {HOST} {_PORT} </dev/null | {later} >/tmp/digest &")
            (wanted,) = sent()
        limits(source, downtime=2000, bandwidth=1 << 28)
        until(source, lambda state: state["status"] == "completed")
        target.ask("kill %1; touch /tmp/go; wait %2")
        assert target.ask("cat /tmp/digest").split()[0] == wanted
        to_guest(target)
        to_host(target)
        guests.close()
        for backend in backends:
            backend.wait_for("disconnected")


def limits(guest: Guest, *, downtime: int, bandwidth: int) -> None:
    """When the migration may end, by milliseconds without a guest and bytes per second."""
    parameters = {"downtime-limit": downtime, "max-bandwidth": bandwidth}
    guest.qmp("migrate-set-parameters", **parameters)


def until(guest: Guest, reached: Callable[[dict[str, Any]], bool]) -> None:
    """Wait for a state of the migration."""
    deadline = time.monotonic() + 40
    while not reached(state := guest.qmp("query-migrate")):
        assert state["status"] != "failed", state
        assert time.monotonic() < deadline, state
        time.sleep(0.02)


def test_kernel_tells_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "PROGRAM", "no-such-qemu")
    reason = qemu.missing()
    assert reason is not None
    assert "apt install qemu-system-x86" in reason


def test_qemu_that_does_not_start() -> None:
    with (
        pytest.raises(qemu.QemuError, match="not a valid device"),
        qemu.boot(["-device", "nothing"]),
    ):
        pass
