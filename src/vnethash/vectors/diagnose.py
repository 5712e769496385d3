# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What a wrong hash is the hash of, found by trying what implementations get wrong."""

from collections.abc import Iterator

from vnethash.rss.dissect import Headers, dissect
from vnethash.rss.reference import toeplitz
from vnethash.vectors.answer import Answer
from vnethash.vectors.model import Vector
from vnethash.virtio.hash_types import TunnelType

_PORTS = 4


def diagnose(vector: Vector, answer: Answer) -> str:
    """A guess at what was hashed, as the end of a sentence; empty if none fits."""
    value = answer.told.get("hash_value")
    if not value or value == vector.expected.hash_value:
        return ""
    swapped = int.from_bytes(value.to_bytes(4, "big"), "little")
    if vector.hashed and swapped == vector.expected.hash_value:
        return "the right hash with its bytes in reverse"
    for found in _guesses(vector, value):
        return found
    for found in _guesses(vector, swapped):
        return f"with its bytes in reverse, {found}"
    return ""


def _guesses(vector: Vector, value: int) -> Iterator[str]:
    outer = dissect(vector.frame, l3=vector.is_raw)
    inner = dissect(vector.frame, l3=vector.is_raw, tunnels=TunnelType.ALL)
    known = [(outer, "IP header")]
    if inner.tunnel:
        known = [(outer, "outer IP header"), (inner, "inner IP header")]
    for headers, which in known:
        for data, name in _known(headers, which):
            if data and toeplitz(vector.config.key, data) == value:
                yield f"the hash of {name}"
    yield from _anywhere(vector, known, value)


def _known(headers: Headers, which: str) -> Iterator[tuple[bytes, str]]:
    """Inputs of the fields that were dissected, in wrong choices and orders."""
    source, destination = headers.source, headers.destination
    home, route = headers.home_address, headers.routing_address
    ports = headers.ports
    pairs = [(source, destination, f"the addresses of the {which}")]
    if home is not None:
        pairs.append((home, destination, "the home address and the destination address"))
    if route is not None:
        pairs.append((source, route, "the source address and that of the routing header"))
    if home is not None and route is not None:
        pairs.append((home, route, "the home address and that of the routing header"))
    for first, second, name in pairs:
        yield first + second, f"{name} alone"
        if ports:
            yield first + second + ports, f"{name} and the ports"
            yield first + second + ports[2:] + ports[:2], f"{name} and the ports exchanged"
            yield second + first + ports[2:] + ports[:2], f"{name} and the ports, both exchanged"
            yield second + first + ports, f"{name} exchanged, and the ports"
            yield ports + first + second, f"the ports, then {name}"
        yield second + first, f"{name} exchanged"


def _anywhere(vector: Vector, known: list[tuple[Headers, str]], value: int) -> Iterator[str]:
    """Addresses next to each other anywhere in the frame, alone or with four bytes anywhere.

    The hash is linear, so that the two parts are tried apart. A hit by chance
    is one in 2^32 for each of some ten thousand.
    """
    key, frame = vector.config.key, vector.frame
    for width in (8, 32):
        tails = {
            toeplitz(key, bytes(width) + frame[at : at + _PORTS]): at
            for at in reversed(range(len(frame) - _PORTS + 1))
        }
        for start in range(len(frame) - width + 1):
            addresses = frame[start : start + width]
            rest = toeplitz(key, addresses) ^ value
            name = f"bytes {start} to {start + width - 1} of the frame"
            for headers, which in known:
                if addresses == headers.source + headers.destination:
                    name = f"the addresses of the {which}"
            if rest == 0:
                yield f"the hash of {name}"
            elif rest in tails:
                at = tails[rest]
                yield f"the hash of {name}, and of bytes {at} to {at + _PORTS - 1} as ports"
