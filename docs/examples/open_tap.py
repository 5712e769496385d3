# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Open a tap with four queues, have the kernel send through it, print each packet's hash.

Needs root: it works in a network namespace of its own.
"""

import socket

from vnethash import Tap
from vnethash.kernel import netns
from vnethash.kernel.links import Links


def main() -> None:
    with netns.fresh(), Tap.open("tap0", queues=4) as tap, Links() as links:
        links.add_address(tap.name, "192.0.2.1/24")
        links.add_neighbour(tap.name, "192.0.2.2", "02:00:00:00:00:02")
        print(f"{tap.name}: engine {tap.engine} at {tap.attach_point}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
            flow.bind(("192.0.2.1", 5000))
            for port in range(7, 15):
                flow.sendto(b"hello", ("192.0.2.2", port))
        for queue in tap:
            for packet in queue.receive_batch(timeout=0.2):
                print(
                    f"queue {packet.queue}  {packet.hash_report.name:<7}  "
                    f"{packet.hash_value:#010x}  {len(packet.frame)} bytes"
                )


if __name__ == "__main__":
    main()
