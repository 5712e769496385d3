# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Guests come and go, one is killed, the backend is told to stop while one runs."""

import contextlib
import socket
import time
from pathlib import Path

import pytest

from tests.guest import agent
from tests.guest.vhost import GUEST, TAP, Guest, Wire, backend, bound, connect, served

pytestmark = [pytest.mark.guest, pytest.mark.kernel]


def works(wire: Wire) -> None:
    """Packets pass both ways, on all queues."""
    wire.ethtool("-L", "combined", "4")
    wire.ethtool("-K", "rxhash", "on")
    wire.ethtool("-X", "equal", "4")
    assert agent.ping(GUEST, 3, 1000) == 3
    wire.to_guest([1, 2], 300_000)
    wire.to_host([3, 4], 300_000)


def fill(connection: socket.socket) -> None:
    """Send until the buffers of both ends are full."""
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            connection.send(bytes(1 << 16))


def test_driver_comes_and_goes(guest: Guest) -> None:
    """Each time the device begins anew, and there is no carrier while nobody is there."""
    with backend(guest) as serving:
        for turn in range(1, 4):
            with bound(guest, serving) as wire:
                serving.wait_for("connected", turn)
                assert "4" not in wire.ethtool("-l").rpartition("Combined:")[2]
                works(wire)
                assert serving.carrier
            serving.wait_for("disconnected", turn)
            assert not serving.carrier
        serving.end()


def test_state_is_taken_up(tmp_path: Path, guest: Guest) -> None:
    """A backend goes on where another left off, and has the driver tell the network."""
    state = ("--state", str(tmp_path / "state"))
    with served(guest, *state) as wire:
        works(wire)
        assert not wire.backend.wait_for("features")["imported"]
    with served(guest, *state) as wire:
        assert wire.backend.wait_for("features")["imported"]
        deadline = time.monotonic() + 5
        while not any(entry["command"] == "ANNOUNCE_ACK" for entry in wire.backend.controls()):
            assert time.monotonic() < deadline, wire.backend.events
            time.sleep(0.01)
        works(wire)


def test_killed_guest(guest: Guest) -> None:
    """The next one is served by the same backend, as if nothing had been."""
    with Guest(guest.socket_path) as victim, backend(guest) as serving:
        works(connect(victim, serving))
        victim.begin("tcp_receive", address=GUEST, port=5003, connections=1)
        with agent.connect(GUEST, 5003) as connection:
            fill(connection)
            victim.kill()
            serving.wait_for("disconnected")
        with bound(guest, serving) as wire:
            works(wire)
        serving.end()


def test_backend_is_told_to_stop(tmp_path: Path, guest: Guest) -> None:
    """It ends at once and takes its tap along; the guest loses the device and lives on."""
    with Guest(tmp_path / "vhost") as own:
        with backend(own) as serving:
            works(connect(own, serving))
            own.begin("tcp_receive", address=GUEST, port=5003, connections=1)
            with agent.connect(GUEST, 5003) as connection:
                fill(connection)
                assert serving.stop() == 0
            assert serving.said() == ""
        assert TAP not in {name for _, name in socket.if_nameindex()}
        deadline = time.monotonic() + 5
        while "eth0" in own.run("ls", "/sys/class/net"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        own.power_off()
