# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The specification in Python: what every faster implementation is judged by.

virtio 1.3, 5.1.6.4.3 (which fields are hashed), 5.1.6.4.4 (whose, of a packet
in a tunnel), 5.1.6.4.5 (what is reported), 5.1.6.5.7 (which queue). It also
explains its answers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vnethash.errors import ConfigError
from vnethash.rss.classified import Classified
from vnethash.rss.config import RssConfig
from vnethash.rss.dissect import Headers, Protocol, dissect
from vnethash.virtio.hash_types import HashType, ReportType, format_tunnel_types
from vnethash.virtio.header import Buffer

__all__ = [
    "Explanation",
    "HashedField",
    "Headers",
    "PassedOver",
    "Protocol",
    "Rule",
    "classify",
    "classify_tuple",
    "dissect",
    "explain",
    "explain_tuple",
    "toeplitz",
]


def toeplitz(key: Buffer, data: Buffer) -> int:
    """The 32-bit Toeplitz hash of ``data``, bit by bit.

    For every bit set in the input, counted from the left, the 32 bits of the
    key that start at the same place are added without carry. ConfigError if
    the key is not at least 4 bytes longer than ``data``.
    """
    key, data = bytes(key), bytes(data)
    if len(key) < len(data) + 4:
        raise ConfigError(
            "key", f"must have {len(data) + 4} bytes for {len(data)} bytes of input, not {len(key)}"
        )
    key_bits = int.from_bytes(key, "big")
    result = 0
    for position in range(8 * len(data)):
        byte = data[position // 8]
        if byte >> (7 - position % 8) & 1:
            result ^= key_bits >> (8 * len(key) - 32 - position) & 0xFFFFFFFF
    return result


@dataclass(frozen=True, slots=True)
class Rule:
    """One "if this type is set and the packet has ..." of the specification."""

    hash_type: HashType
    l4: Protocol | None
    """The header the packet must have, and whose ports are hashed; None: addresses only."""
    section: str
    is_extended: bool = False
    """Home address and routing header stand in for the addresses of the IPv6 header."""


_IPV4 = (
    Rule(HashType.TCPv4, Protocol.TCP, "5.1.6.4.3.2"),
    Rule(HashType.UDPv4, Protocol.UDP, "5.1.6.4.3.2"),
    Rule(HashType.IPv4, None, "5.1.6.4.3.2"),
)
_IPV6 = (
    Rule(HashType.TCPv6, Protocol.TCP, "5.1.6.4.3.3"),
    Rule(HashType.UDPv6, Protocol.UDP, "5.1.6.4.3.3"),
    Rule(HashType.IPv6, None, "5.1.6.4.3.3"),
)
_IPV6_EXTENDED = (
    Rule(HashType.TCP_EX, Protocol.TCP, "5.1.6.4.3.4", is_extended=True),
    Rule(HashType.UDP_EX, Protocol.UDP, "5.1.6.4.3.4", is_extended=True),
    Rule(HashType.IP_EX, None, "5.1.6.4.3.4", is_extended=True),
)


@dataclass(frozen=True, slots=True)
class HashedField:
    """One part of the hash input, in network order."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A rule that came before the chosen one, and why it was not."""

    rule: Rule
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a packet was classified."""

    headers: Headers
    passed_over: tuple[PassedOver, ...]
    rule: Rule | None
    """The rule that chose the hash type; None if no hash was calculated."""
    reason: str
    """Why that rule, or why none, in a sentence."""
    fields: tuple[HashedField, ...]
    """What was hashed, in order; empty if nothing was."""
    classified: Classified

    @property
    def data(self) -> bytes:
        """All the bytes that were hashed."""
        return b"".join(field.data for field in self.fields)

    def to_json(self) -> dict[str, Any]:
        """JSON types only; bytes in hexadecimal."""
        return {
            "headers": list(self.headers.seen),
            "tunnel": format_tunnel_types(self.headers.tunnel),
            "passed_over": [
                {"hash_type": passed.rule.hash_type.name, "why": passed.why}
                for passed in self.passed_over
            ],
            "hash_type": self.rule.hash_type.name if self.rule else None,
            "section": self.rule.section if self.rule else None,
            "reason": self.reason,
            "fields": [{"name": field.name, "bytes": field.data.hex()} for field in self.fields],
            "input": self.data.hex(),
        }


def classify(frame: Buffer, config: RssConfig, *, l3: bool = False) -> Classified:
    """Hash, report type and queue of a frame; ``l3``: it has no Ethernet header."""
    return explain(frame, config, l3=l3).classified


def explain(frame: Buffer, config: RssConfig, *, l3: bool = False) -> Explanation:
    """As ``classify``, with the reasons."""
    return _explain(dissect(frame, l3=l3, tunnels=config.tunnels), config)


def classify_tuple(
    config: RssConfig,
    source: object,
    destination: object,
    protocol: Protocol | None = None,
    source_port: int | None = None,
    destination_port: int | None = None,
) -> Classified:
    """Hash, report type and queue of a packet between two addresses, without extension headers.

    Addresses are whatever ``ipaddress.ip_address`` takes. Ports are needed
    with a protocol and not used without. ConfigError if an address or port
    is none, or if the addresses are of different families.
    """
    return explain_tuple(
        config, source, destination, protocol, source_port, destination_port
    ).classified


def explain_tuple(
    config: RssConfig,
    source: object,
    destination: object,
    protocol: Protocol | None = None,
    source_port: int | None = None,
    destination_port: int | None = None,
) -> Explanation:
    """As ``classify_tuple``, with the reasons."""
    version, source_bytes = _address("source", source)
    destination_version, destination_bytes = _address("destination", destination)
    if version != destination_version:
        raise ConfigError(
            "destination", f"is IPv{destination_version}, but the source is IPv{version}"
        )
    seen: tuple[str, ...] = (f"IPv{version}",)
    ports, why_no_l4 = b"", "no protocol with ports was given"
    if protocol is not None:
        ports = _port("source", source_port, protocol)
        ports += _port("destination", destination_port, protocol)
        seen, why_no_l4 = (*seen, protocol.name), ""
    headers = Headers(
        version=version,
        source=source_bytes,
        destination=destination_bytes,
        l4=protocol,
        ports=ports,
        seen=seen,
        why_no_l4=why_no_l4,
    )
    return _explain(headers, config)


def _explain(headers: Headers, config: RssConfig) -> Explanation:
    passed_over: list[PassedOver] = []
    for rule in _rules(headers):
        why = _why_not(rule, headers, config.hash_types)
        if why:
            passed_over.append(PassedOver(rule, why))
            continue
        fields = tuple(_fields(rule, headers))
        value = toeplitz(config.key, b"".join(field.data for field in fields))
        return Explanation(
            headers=headers,
            passed_over=tuple(passed_over),
            rule=rule,
            reason=_reason(rule),
            fields=fields,
            classified=_steer(value, rule.hash_type.report, config),
        )
    reason = f"not IP: {headers.why_no_ip}" if headers.version == 0 else "no enabled type applies"
    return Explanation(
        headers=headers,
        passed_over=tuple(passed_over),
        rule=None,
        reason=reason,
        fields=(),
        classified=Classified(0, ReportType.NONE, None, config.unclassified_queue),
    )


def _rules(headers: Headers) -> tuple[Rule, ...]:
    """The rules for such a packet, in the order of the specification."""
    if headers.version == 4:
        return _IPV4
    if headers.version == 6 and headers.has_extension:
        # "Else skip IPv6 extension headers and calculate the hash as defined
        # for an IPv6 packet without extension headers"
        return _IPV6_EXTENDED + _IPV6
    if headers.version == 6:
        return _IPV6
    return ()


def _why_not(rule: Rule, headers: Headers, enabled: HashType) -> str:
    """Why the rule does not apply; empty if it does."""
    if rule.hash_type not in enabled:
        return "not enabled"
    if rule.l4 is not None and headers.l4 is not rule.l4:
        return f"no {rule.l4.name} header" + (
            f" ({headers.why_no_l4})" if headers.why_no_l4 else f", but {headers.seen[-1]}"
        )
    return ""


def _reason(rule: Rule) -> str:
    if rule.l4 is None:
        return f"{rule.hash_type.name} is enabled and no type before it applies"
    return f"{rule.hash_type.name} is enabled and the packet has a {rule.l4.name} header"


def _fields(rule: Rule, headers: Headers) -> Iterator[HashedField]:
    """What is hashed, in the order of the specification."""
    if rule.is_extended and headers.home_address is not None:
        yield HashedField("home address", headers.home_address)
    else:
        yield HashedField("source address", headers.source)
    if rule.is_extended and headers.routing_address is not None:
        yield HashedField("routing header address", headers.routing_address)
    else:
        yield HashedField("destination address", headers.destination)
    if rule.l4 is not None:
        yield HashedField(f"source {rule.l4.name} port", headers.ports[0:2])
        yield HashedField(f"destination {rule.l4.name} port", headers.ports[2:4])


def _steer(value: int, report: ReportType, config: RssConfig) -> Classified:
    """The mask, then the table (virtio 1.3, 5.1.6.5.7)."""
    index = value & (len(config.indirection_table) - 1)
    return Classified(value, report, index, config.indirection_table[index])


def _address(name: str, address: object) -> tuple[int, bytes]:
    from ipaddress import ip_address  # not needed for frames

    try:
        parsed = ip_address(address)  # type: ignore[arg-type]  # it says what it takes
    except ValueError:
        raise ConfigError(name, f"{str(address)!r} is not an IPv4 or IPv6 address") from None
    return parsed.version, parsed.packed


def _port(name: str, port: int | None, protocol: Protocol) -> bytes:
    if port is None:
        raise ConfigError(f"{name} port", f"is needed with {protocol.name}")
    if not 0 <= port <= 0xFFFF:
        raise ConfigError(f"{name} port", f"must be from 0 to 65535, not {port}")
    return port.to_bytes(2, "big")
