# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The control queue in an event loop: nobody else waits for long."""

import os
import selectors
import time

from tests.unit.test_vring import add_command, driver
from vnethash.vhost_user.control_service import ControlService
from vnethash.vhost_user.memory import GuestMemory


def test_expensive_commands_leave_others_their_turn() -> None:
    """Slow ones one at a time, quick ones many; and all of them without another kick."""
    obeyed: list[bytes] = []
    faults: list[str] = []
    seconds = 0.03

    def obey(command: bytes) -> bool:
        obeyed.append(command)
        time.sleep(seconds)
        return True

    with (
        driver(size=64) as side,
        GuestMemory(side.shared.regions) as memory,
        selectors.DefaultSelector() as selector,
        ControlService(0, memory, side.setup, selector, obey, on_fault=faults.append) as service,
    ):

        def turn() -> int:
            before = len(obeyed)
            for key, _ in selector.select(0):
                key.data()
            return len(obeyed) - before

        commands = [bytes([1, 0, number]) for number in range(24)]
        for command in commands:
            add_command(side, command)
        assert turn() == 1
        os.eventfd_write(side.kick, 1)
        assert 1 <= turn() <= 2  # one for each that is heard
        seconds = 0.0
        while turn():
            pass
        assert obeyed == commands
        assert service.base == len(commands)
    assert faults == []
