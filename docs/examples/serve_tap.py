# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""`vnethash serve` in a process of your own: a tap, a device, and a server that joins them.

Needs root: it works in a network namespace of its own. The front end is a
fake driver that asks for RSS and goes away.
"""

import tempfile
import threading
from pathlib import Path

from vnethash import RssConfig
from vnethash.kernel import netns
from vnethash.testing import FakeDriver, FrontEnd
from vnethash.vhost_user.backend import Backend
from vnethash.vhost_user.host_tap import HostTap
from vnethash.vhost_user.offer import available, random_mac
from vnethash.vhost_user.server import Server
from vnethash.virtio.device import NetDevice, Offer


def drive(path: Path, server: Server) -> None:
    """What a guest's driver does."""
    with FrontEnd.connect(path) as front_end, FakeDriver(front_end, pairs=4) as driver:
        driver.rss_config(RssConfig.default(4))
    server.stop()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, netns.fresh(), HostTap.open("tap0", 4) as tap:
        path = Path(folder, "vm0.sock")
        offer = Offer(features=available(tap), queue_pairs=4, mac=random_mac())
        with Server(
            path,
            lambda selector, journal: Backend(NetDevice(offer), tap, selector, journal),
            lambda event, values: print(event, *values.get("command", "").split()),
        ) as server:
            front_end = threading.Thread(target=drive, args=[path, server])
            front_end.start()
            server.run()  # until server.stop(), from any thread
            front_end.join()


if __name__ == "__main__":
    main()
