# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Make a capture to try `vnethash analyze`, `plan` and `report` with: few flows, most packets.

    python skewed_traffic.py office.pcap [PACKETS [DAY]]

Half a minute of clients that fetch from servers over TCP and QUIC, IPv4 and IPv6;
how much of each flow there is follows Zipf's law. A third of the flows are others each
day. The same file every time.
"""

import random
import struct
import sys
from collections.abc import Iterator
from ipaddress import ip_address

from vnethash.capture import Frame, write_pcap

FLOWS = 1500
SECONDS = 30
START_NS = 1_767_225_600 * 10**9
TCP, UDP = 6, 17


def packet(flow: int, size: int) -> bytes:
    """A packet from a server to a client, ``size`` bytes on the wire."""
    dice = random.Random(flow)
    protocol, server_port = (UDP, 443) if dice.random() < 0.3 else (TCP, dice.choice((443, 80)))
    ports = struct.pack("!HH", server_port, dice.randrange(32768, 61000))
    if protocol == TCP:
        transport = ports + struct.pack("!IIBBHHH", 1, 1, 0x50, 0x10, 512, 0, 0)
    else:
        transport = ports + struct.pack("!HH", size - 34, 0)
    server, client = dice.randrange(40), dice.randrange(200)
    if dice.random() < 0.25:
        addresses = f"2001:db8:1::{server + 1:x}", f"2001:db8:ff::{client + 1:x}"
        head = struct.pack("!IHBB", 6 << 28, size - 54, protocol, 64)
        kind = 0x86DD
    else:
        addresses = f"198.51.100.{server + 1}", f"10.20.0.{client + 1}"
        head = struct.pack("!BBHHHBBH", 0x45, 0, size - 14, 0, 0x4000, 64, protocol, 0)
        kind = 0x0800
    ethernet = bytes.fromhex("020000000002020000000001") + struct.pack("!H", kind)
    packed = b"".join(ip_address(address).packed for address in addresses)
    frame = ethernet + head + packed + transport
    return frame + bytes(max(0, 60 - len(frame)))


def traffic(packets: int, day: int = 0) -> Iterator[Frame]:
    """Frames as captured with a snapshot length of 96 bytes."""
    dice = random.Random(2026 + day)
    weights = [1 / (rank + 3) ** 1.1 for rank in range(FLOWS)]
    flows = dice.choices(range(FLOWS), weights, k=packets)
    times = sorted(dice.randrange(SECONDS * 10**9) for _ in range(packets))
    arp = bytes.fromhex("ffffffffffff0200000000010806") + bytes(46)
    for index, (flow, time) in enumerate(zip(flows, times, strict=True)):
        if index % 400 == 399:
            yield Frame(index, arp, len(arp), START_NS + time, 1)
            continue
        size = dice.choice((74, 74, 1514, 1514, 1514, 600))
        name = flow + day * FLOWS if flow % 3 == 2 else flow
        yield Frame(index, packet(name, size)[:96], size, START_NS + time, 1)


def main() -> None:
    path, packets, day = (*sys.argv[1:], *("40000", "0")[len(sys.argv) - 2 :])
    written = write_pcap(path, traffic(int(packets), int(day)))
    print(f"{path}: {written} packets")


if __name__ == "__main__":
    main()
