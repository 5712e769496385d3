# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Change the RSS configuration of a tap while packets pass.

Needs root: it works in a network namespace of its own.
"""

import socket

from vnethash import ReportType, RssConfig, Tap
from vnethash.kernel import netns
from vnethash.kernel.links import Links


def send_and_count(tap: Tap) -> list[int]:
    """Datagrams of 64 flows by queue."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
        flow.bind(("192.0.2.1", 5000))
        for port in range(64):
            flow.sendto(b"hello", ("192.0.2.2", 1000 + port))
    counts = [0] * len(tap.queues)
    for queue in tap:
        for packet in queue.receive_batch(128, timeout=0.2):
            counts[packet.queue] += packet.hash_report is ReportType.UDPv4
    return counts


def main() -> None:
    with netns.fresh(), Tap.open("tap0", queues=4) as tap, Links() as links:
        links.add_address(tap.name, "192.0.2.1/24")
        links.add_neighbour(tap.name, "192.0.2.2", "02:00:00:00:00:02")

        print("queues in turn:       ", send_and_count(tap))
        tap.configure(RssConfig.weighted([0, 0, 1, 3]))
        print("weights 0, 0, 1 and 3:", send_and_count(tap))
        tap.configure(RssConfig.random(4), reporting="rehash")
        print("random key, rehash:   ", send_and_count(tap))

        udp = tap.stats().by_report[ReportType.UDPv4]
        print(f"UDPv4: {udp.packets} packets, {udp.bytes} bytes")


if __name__ == "__main__":
    main()
