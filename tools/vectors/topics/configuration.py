# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What the configuration decides: hash types, tables, keys, the unclassified queue."""

from collections.abc import Sequence
from itertools import chain, combinations
from random import Random

from tools.vectors import headers as h
from tools.vectors.case import Topic
from tools.vectors.topics.configurations import ONLY_STANDARD, STANDARD, turning_table
from vnethash.rss.config import RssConfig
from vnethash.rss.keys import KEY_LENGTH, SYMMETRIC_KEY
from vnethash.virtio.hash_types import HashType


def topics() -> list[Topic]:
    return [_hash_types(), _tables(), _keys()]


# For each kind of packet, the hash types that apply, in the order in which the
# specification asks for them, with what each reports.
_KINDS: tuple[tuple[str, bytes, list[tuple[HashType, str]]], ...] = (
    ("icmp", h.ethernet(h.ipv4(h.icmp())), [(HashType.IPv4, "IPv4")]),
    (
        "tcpv4",
        h.ethernet(h.ipv4(h.tcp())),
        [(HashType.TCPv4, "TCPv4"), (HashType.IPv4, "IPv4")],
    ),
    (
        "udpv4",
        h.ethernet(h.ipv4(h.udp())),
        [(HashType.UDPv4, "UDPv4"), (HashType.IPv4, "IPv4")],
    ),
    ("icmpv6", h.ethernet(h.ipv6(h.icmpv6())), [(HashType.IPv6, "IPv6")]),
    (
        "tcpv6",
        h.ethernet(h.ipv6(h.tcp())),
        [(HashType.TCPv6, "TCPv6"), (HashType.IPv6, "IPv6")],
    ),
    (
        "udpv6",
        h.ethernet(h.ipv6(h.udp())),
        [(HashType.UDPv6, "UDPv6"), (HashType.IPv6, "IPv6")],
    ),
    (
        "icmpv6-ex",
        h.ethernet(h.ipv6(h.icmpv6(), [h.hop_by_hop()])),
        [(HashType.IP_EX, "IPv6_EX"), (HashType.IPv6, "IPv6")],
    ),
    (
        "tcpv6-ex",
        h.ethernet(h.ipv6(h.tcp(), [h.hop_by_hop()])),
        [
            *[(HashType.TCP_EX, "TCPv6_EX"), (HashType.IP_EX, "IPv6_EX")],
            *[(HashType.TCPv6, "TCPv6"), (HashType.IPv6, "IPv6")],
        ],
    ),
    (
        "udpv6-ex",
        h.ethernet(h.ipv6(h.udp(), [h.hop_by_hop()])),
        [
            *[(HashType.UDP_EX, "UDPv6_EX"), (HashType.IP_EX, "IPv6_EX")],
            *[(HashType.UDPv6, "UDPv6"), (HashType.IPv6, "IPv6")],
        ],
    ),
)


def _subsets(types: Sequence[HashType]) -> list[HashType]:
    """All, the larger first."""
    sizes = range(len(types), -1, -1)
    chosen = chain.from_iterable(combinations(types, size) for size in sizes)
    return [HashType(sum(subset)) for subset in chosen]


def _name(types: HashType) -> str:
    return "+".join(str(member.name) for member in HashType if member in types) or "none"


def _hash_types() -> Topic:
    topic = Topic(
        "hash-types",
        "Which of the enabled types is taken",
        {},
    )

    def add(case: str, frame: bytes, types: HashType, report: str, why: str) -> None:
        config = _name(types)
        topic.configurations[config] = STANDARD.replace(hash_types=types)
        topic.demanded(case, report, frame, why, config=config)

    for kind, frame, order in _KINDS:
        applicable = [hash_type for hash_type, _ in order]
        # The type of the other transport header must not catch the packet.
        others = [t for t in HashType if t not in applicable and t.bit_count() == 1]
        for types in _subsets(applicable):
            report = next((r for t, r in order if t in types), "NONE")
            missing = [str(t.name) for t, _ in order if t not in types]
            if not missing:
                why = f"All types that apply are enabled: {report} comes first."
            elif report == "NONE":
                why = f"None of the types that apply ({', '.join(missing)}) is enabled: no hash."
            else:
                why = f"Without {', '.join(missing)} the hash is that of {report}."
            add(f"{kind}/{_name(types).lower()}", frame, types, report, why)
        add(
            f"{kind}/others",
            frame,
            HashType(sum(others)),
            "NONE",
            "Every type but those that apply to such a packet is enabled: no hash.",
        )
    return topic


def _tables() -> Topic:
    configurations = dict(ONLY_STANDARD)
    topic = Topic(
        "tables",
        "Indirection tables, their mask, the unclassified queue",
        configurations,
    )
    tcp, arp = h.ethernet(h.ipv4(h.tcp())), h.ethernet(bytes(46), 0x0806)
    for entries in [2**n for n in range(10)] + [32768]:
        name = f"{entries}-entries"
        configurations[name] = STANDARD.replace(indirection_table=turning_table(entries))
        topic.demanded(
            name,
            "TCPv4",
            tcp,
            f"A table of {entries} entries: the index is the hash masked with {entries - 1:#x}.",
            config=name,
        )
    for number in range(8):
        pair = (49200 + number, 443)
        topic.demanded(
            f"flow-{number + 1}",
            "TCPv4",
            h.ethernet(h.ipv4(h.tcp(pair))),
            "One of eight flows that differ in a port and go to entries of their own.",
            hashed=h.A4 + h.B4 + h.ports(pair),
        )
    configurations["one-queue"] = RssConfig.default(1)
    topic.demanded(
        "one-queue", "TCPv4", tcp, "One queue: the hash is told all the same.", config="one-queue"
    )
    configurations["300-queues"] = RssConfig(
        300, indirection_table=tuple(299 - entry for entry in range(256)), unclassified_queue=299
    )
    topic.demanded(
        "queue-above-255", "TCPv4", tcp, "Numbers of queues have 16 bits.", config="300-queues"
    )
    topic.demanded(
        "unclassified-above-255",
        "NONE",
        arp,
        "The unclassified queue has 16 bits.",
        config="300-queues",
    )
    configurations["same-queue"] = STANDARD.replace(indirection_table=(5,) * 128)
    topic.demanded(
        "same-queue", "TCPv4", tcp, "Every entry is the same queue.", config="same-queue"
    )
    for queue in (0, 3):
        name = f"unclassified-{queue}"
        configurations[name] = STANDARD.replace(unclassified_queue=queue)
        topic.demanded(name, "NONE", arp, f"The unclassified queue is {queue}.", config=name)
    configurations["unused-queue"] = STANDARD.replace(
        indirection_table=tuple(entry % 4 for entry in range(128)), unclassified_queue=6
    )
    topic.demanded(
        "unclassified-only",
        "NONE",
        arp,
        "The unclassified queue is one that the table does not name.",
        config="unused-queue",
    )
    configurations["no-types"] = STANDARD.replace(hash_types=HashType.NONE)
    for name, frame in (("tcpv4", tcp), ("tcpv6", h.ethernet(h.ipv6(h.tcp())))):
        topic.demanded(
            f"no-types-{name}",
            "NONE",
            frame,
            "No hash type is enabled: all packets go to the unclassified queue.",
            config="no-types",
        )
    return topic


def _keys() -> Topic:
    random = Random("vectors")
    configurations = {
        "zero": STANDARD.replace(key=bytes(KEY_LENGTH)),
        "ones": STANDARD.replace(key=b"\xff" * KEY_LENGTH),
        "first-bit": STANDARD.replace(key=b"\x80" + bytes(KEY_LENGTH - 1)),
        "last-bits": STANDARD.replace(key=bytes(KEY_LENGTH - 1) + b"\xff"),
        "symmetric": STANDARD.replace(key=SYMMETRIC_KEY),
        **{
            f"random-{number}": STANDARD.replace(key=random.randbytes(KEY_LENGTH))
            for number in (1, 2, 3)
        },
    }
    topic = Topic("keys", "Toeplitz keys", configurations)
    frames = (
        ("tcpv4", "TCPv4", h.ethernet(h.ipv4(h.tcp()))),
        ("icmp", "IPv4", h.ethernet(h.ipv4(h.icmp()))),
        ("udpv6", "UDPv6", h.ethernet(h.ipv6(h.udp()))),
        ("icmpv6", "IPv6", h.ethernet(h.ipv6(h.icmpv6()))),
    )
    reasons = {
        "zero": "Every hash is 0, and yet a hash: the report type tells, not the value.",
        "ones": "Every bit of the key set.",
        "first-bit": "Only the first bit of the key, which the first bit of the input takes in.",
        "last-bits": "Only the last byte of the key, which only the longest input reaches.",
        "symmetric": "A key that repeats every 16 bits.",
    }
    for config in configurations:
        reason = reasons.get(config, "A key without any pattern.")
        for name, report, frame in frames:
            topic.demanded(f"{config}/{name}", report, frame, reason, config=config)
    topic.demanded(
        "symmetric/tcpv4-back",
        "TCPv4",
        h.ethernet(h.ipv4(h.tcp(h.PORTS[::-1]), source=h.B4, destination=h.A4)),
        "With this key the other direction of a flow has the same hash.",
        hashed=h.B4 + h.A4 + h.ports(h.PORTS[::-1]),
        config="symmetric",
    )
    # The words of 16 bits cancel each other.
    words = [h.A4[:2], h.A4[2:], h.B4[:2], h.B4[2:], (443).to_bytes(2, "big")]
    other = 0
    for word in words:
        other ^= int.from_bytes(word, "big")
    topic.demanded(
        "symmetric/zero",
        "TCPv4",
        h.ethernet(h.ipv4(h.tcp((other, 443)))),
        "An ordinary flow whose hash happens to be 0: it goes to the queue of entry 0, "
        "not to the unclassified queue.",
        hashed=h.A4 + h.B4 + h.ports((other, 443)),
        config="symmetric",
    )
    return topic
