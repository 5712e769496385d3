# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The published vectors, whose hashes are not calculated here."""

from tools.vectors import headers as h
from tools.vectors.case import Topic
from tools.vectors.topics.configurations import ONLY_STANDARD
from vnethash.rss import vectors


def topics() -> list[Topic]:
    topic = Topic(
        "microsoft",
        "Microsoft's published vectors",
        ONLY_STANDARD,
    )
    for version, published in (("4", vectors.IPV4), ("6", vectors.IPV6)):
        for number, vector in enumerate(published, 1):
            _add(topic, version, number, vector)
    return [topic]


def _add(topic: Topic, version: str, number: int, vector: vectors.Vector) -> None:
    source, destination = h.address(vector.source), h.address(vector.destination)
    pair = (vector.source_port, vector.destination_port)
    line = f"line {number} of the table for IPv{version}"

    def packet(upper: h.Upper) -> bytes:
        if version == "4":
            return h.ethernet(h.ipv4(upper, source=source, destination=destination))
        return h.ethernet(h.ipv6(upper, source=source, destination=destination))

    with_ports = source + destination + h.ports(pair)
    topic.demanded(
        f"ipv{version}-{number}-tcp",
        f"TCPv{version}",
        packet(h.tcp(pair)),
        f"Addresses and TCP ports of {line}.",
        hashed=with_ports,
        value=vector.tcp_hash,
    )
    topic.demanded(
        f"ipv{version}-{number}-udp",
        f"UDPv{version}",
        packet(h.udp(pair)),
        f"The same ports as UDP ports: the input, and so the hash, is that of TCP in {line}.",
        hashed=with_ports,
        value=vector.tcp_hash,
    )
    topic.demanded(
        f"ipv{version}-{number}-addresses",
        f"IPv{version}",
        packet(h.icmp() if version == "4" else h.icmpv6()),
        f"Neither TCP nor UDP: the addresses alone, of {line}.",
        hashed=source + destination,
        value=vector.address_hash,
    )
