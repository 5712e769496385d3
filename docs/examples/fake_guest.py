# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Run `vnethash serve`, drive it as a guest's driver would, print what the guest receives.

Needs root: it works in a network namespace of its own.
"""

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vnethash import RssConfig
from vnethash.kernel import netns
from vnethash.kernel.links import Links
from vnethash.testing import FakeDriver, FrontEnd

GUEST = "02:00:00:00:00:02"


@contextmanager
def backend(path: Path) -> Iterator[None]:
    """`vnethash serve` on a tap of its own, until it is told to stop."""
    command = [sys.executable, "-m", "vnethash.cli.main", "serve", "--json"]
    command += ["--socket", str(path), "--tap", "tap0", "--mac", GUEST]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        listening = json.loads(process.stdout.readline())
        print(f"listening for {listening['tap']}, engine {listening['engine']}")
        yield
        process.terminate()


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        netns.fresh(),
        backend(Path(folder, "vm0.sock")),
        FrontEnd.connect(Path(folder, "vm0.sock")) as front_end,
        FakeDriver(front_end, pairs=4) as driver,
        Links() as links,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow,
    ):
        driver.rss_config(RssConfig.default(4))
        links.add_address("tap0", "192.0.2.1/24")
        links.add_neighbour("tap0", "192.0.2.2", GUEST)
        flow.bind(("192.0.2.1", 5000))
        # The kernel sends nothing until it has noticed the carrier.
        while not driver.receive_any(timeout=0.1):
            flow.sendto(b"anybody there?", ("192.0.2.2", 1))
        for port in range(7, 15):
            flow.sendto(b"hello", ("192.0.2.2", port))
        left = 8
        while left:
            for queue, packet in driver.receive_any():
                if packet.frame.endswith(b"hello"):
                    left -= 1
                    header = packet.header
                    print(
                        f"queue {queue}  {header.hash_report.name:<7}  "
                        f"{header.hash_value:#010x}  {len(packet.frame)} bytes"
                    )


if __name__ == "__main__":
    main()
