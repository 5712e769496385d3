# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Read all queues of a tap in one event loop, a task for each, until 32 datagrams came.

Needs root: it works in a network namespace of its own.
"""

import asyncio
import socket
from collections import Counter

from vnethash import Queue, ReportType, Tap
from vnethash.kernel import netns
from vnethash.kernel.links import Links

DATAGRAMS = 32


def send() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
        flow.bind(("192.0.2.1", 5000))
        for port in range(DATAGRAMS):
            flow.sendto(b"hello", ("192.0.2.2", 1000 + port))


async def read(tap: Tap) -> Counter[int]:
    by_queue: Counter[int] = Counter()
    complete = asyncio.Event()

    async def drain(queue: Queue) -> None:
        async for packet in queue:
            if packet.hash_report is ReportType.UDPv4:  # the kernel sends packets of its own too
                by_queue[queue.index] += 1
            if by_queue.total() == DATAGRAMS:
                complete.set()

    readers = [asyncio.create_task(drain(queue)) for queue in tap]
    send()
    await asyncio.wait_for(complete.wait(), 5)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    return by_queue


def main() -> None:
    with netns.fresh(), Tap.open("tap0", queues=4) as tap, Links() as links:
        links.add_address(tap.name, "192.0.2.1/24")
        links.add_neighbour(tap.name, "192.0.2.2", "02:00:00:00:00:02")
        for queue, packets in sorted(asyncio.run(read(tap)).items()):
            print(f"queue {queue}: {packets} packets")


if __name__ == "__main__":
    main()
