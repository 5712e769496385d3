# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Ports that make a flow land on a wanted queue, by linear algebra instead of search.

Toeplitz is linear over GF(2): a bit of the port adds the same 32 bits of the key to
the hash, whatever the rest of the input is. So a port lands in a bucket if it solves
linear equations in its 16 bits, one for each bit of the table's index. The solutions
for one bucket are any of them, plus all sums without carry of some basis.
"""

import dataclasses
import heapq
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from vnethash.errors import ConfigError, NoPort
from vnethash.rss.config import RssConfig
from vnethash.rss.dissect import Protocol
from vnethash.rss.reference import Explanation, explain_tuple, toeplitz
from vnethash.rss.tunnels import UDP_TUNNELS

EPHEMERAL = range(32768, 61000)
"""Where Linux takes ports from that nobody chooses (net.ipv4.ip_local_port_range)."""

_BITS = 16


class AffineSpace:
    """Sums without carry of an offset and any vectors of a basis: a sequence, in ascending order.

    The basis is reduced: no vector has the leading bit of another. So, once the offset has
    none of them either, sums are ordered as the numbers are whose bits tell which vectors are
    in them.
    """

    def __init__(self, offset: int, basis: Sequence[int]) -> None:
        self._offset = _reduced(offset, basis)
        self._basis = sorted(basis)

    def __len__(self) -> int:
        return 1 << len(self._basis)

    def __getitem__(self, index: int) -> int:
        value = self._offset
        for place, vector in enumerate(self._basis):
            if index >> place & 1:
                value ^= vector
        return value

    def within(self, span: range) -> range:
        """The indices of what lies from ``span.start`` to before ``span.stop``."""
        return range(bisect_left(self, span.start), bisect_left(self, span.stop))


class LinearMap:
    """Bits to bits, linear over GF(2), and what it takes to a value."""

    def __init__(self, columns: Sequence[int]) -> None:
        """``columns[n]`` is what bit n of the input adds to the output."""
        # Outputs in echelon form, each with an input that makes it, greatest first.
        self._pivots: list[tuple[int, int]] = []
        self._kernel: list[int] = []
        for bit, column in enumerate(columns):
            rest, made = self._reduce(column, 1 << bit)
            if rest:
                self._pivots = sorted([*self._pivots, (rest, made)], reverse=True)
            else:
                # Inputs come by their highest bit: no other has the leading one of this.
                self._kernel.append(_reduced(made, self._kernel))

    @property
    def rank(self) -> int:
        """The map reaches two to this power outputs."""
        return len(self._pivots)

    def solve(self, output: int) -> AffineSpace | None:
        """All inputs that ``output`` comes of; None without any."""
        rest, made = self._reduce(output, 0)
        return None if rest else AffineSpace(made, self._kernel)

    def _reduce(self, output: int, made: int) -> tuple[int, int]:
        """What pivots leave of ``output``, and ``made`` plus the inputs of those pivots."""
        for pivot, source in self._pivots:
            if output ^ pivot < output:
                output, made = output ^ pivot, made ^ source
        return output, made


def _reduced(vector: int, basis: Sequence[int]) -> int:
    """``vector`` less what of ``basis`` is in it: without the leading bit of any of them."""
    for other in basis:
        vector = min(vector, vector ^ other)
    return vector


class Landing(NamedTuple):
    """What a flow comes to with a port."""

    port: int
    hash_value: int
    bucket: int | None
    """Entry of the indirection table; None without a hash."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that were asked for: iterated in ascending order, found as they are taken."""

    sought: str
    """Of which end they are: source or destination."""
    span: range
    spaces: tuple[tuple[int | None, AffineSpace], ...]
    """Each bucket of the queue that a port leads to, and all ports that do."""
    base: int
    """The hash with a port of 0."""
    columns: tuple[int, ...]
    """What each bit of the port adds to it."""

    def __len__(self) -> int:
        return sum(len(space.within(self.span)) for _, space in self.spaces)

    def __iter__(self) -> Iterator[Landing]:
        landings = (
            map(partial(self._landing, *found), found[1].within(self.span)) for found in self.spaces
        )
        return heapq.merge(*landings)

    def _landing(self, bucket: int | None, space: AffineSpace, index: int) -> Landing:
        port = space[index]
        return Landing(port, self.base ^ _added(self.columns, port), bucket)


def find_ports(
    config: RssConfig,
    source: object,
    destination: object,
    protocol: Protocol,
    queue: int,
    *,
    source_port: int | None = None,
    destination_port: int | None = None,
    within: range = EPHEMERAL,
) -> Ports:
    """All ports ``within`` a range that take a flow to ``queue``.

    One of the two ports is left out: that is the one sought. Raises NoPort, which says why,
    if there is none; ConfigError for what is no address, port or queue.
    """
    if not 0 <= queue < config.queues:
        raise ConfigError("queue", f"is {queue}, but queues are 0 to {config.queues - 1}")
    if not 0 <= within.start < within.stop <= 1 << _BITS or within.step != 1:
        raise ConfigError("range", "must be of ports from 0 to 65535, the lower one first")
    if (source_port is None) == (destination_port is None):
        raise ConfigError(
            "port",
            "must be given for one of the two ends: that of the other is looked for",
            hint="write SRC DST:PORT for a source port, SRC:PORT DST for a destination port",
        )
    if protocol is Protocol.UDP and config.tunnels & UDP_TUNNELS.get(destination_port or 0, 0):
        raise NoPort(
            queue,
            f"what goes to UDP port {destination_port} is a tunnel and steered by what it carries",
            hint="ask for a flow within it, or leave its tunnel type out",
        )
    sought = "source" if source_port is None else "destination"
    # A port of 0 adds nothing to the hash.
    explained = explain_tuple(
        config, source, destination, protocol, source_port or 0, destination_port or 0
    )
    columns = _columns(config.key, explained, sought)
    ports = Ports(
        sought,
        within,
        tuple(_spaces(config, explained, columns, queue)),
        explained.classified.hash_value,
        columns,
    )
    if not len(ports):
        raise _no_port(config, explained, ports, queue)
    return ports


def _columns(key: bytes, explained: Explanation, sought: str) -> tuple[int, ...]:
    """What each bit of the port adds to the hash."""
    if explained.rule is None or explained.rule.l4 is None:
        return (0,) * _BITS
    length = len(explained.data)
    lowest = _BITS if sought == "source" else 0  # the destination port is behind it
    return tuple(toeplitz(key, (1 << lowest + bit).to_bytes(length, "big")) for bit in range(_BITS))


def _spaces(
    config: RssConfig, explained: Explanation, columns: Sequence[int], queue: int
) -> Iterator[tuple[int | None, AffineSpace]]:
    """The ports that lead to each bucket of the queue."""
    if explained.rule is None:
        if queue == config.unclassified_queue:
            yield None, AffineSpace(0, [1 << bit for bit in range(_BITS)])
        return
    mask = len(config.indirection_table) - 1
    indices = LinearMap([column & mask for column in columns])
    for bucket, target in enumerate(config.indirection_table):
        if target == queue:
            space = indices.solve((bucket ^ explained.classified.hash_value) & mask)
            if space is not None:
                yield bucket, space


def _no_port(config: RssConfig, explained: Explanation, ports: Ports, queue: int) -> NoPort:
    """Why there is none."""
    if explained.rule is None:
        return NoPort(
            queue,
            f"{explained.reason}, so that without a hash it is on queue "
            f"{config.unclassified_queue} with any port",
            hint="enable the hash type of the flow",
        )
    if explained.rule.l4 is None:
        return NoPort(
            queue,
            f"{explained.reason}, and that type hashes no ports: with any it is on queue "
            f"{explained.classified.queue}",
            hint=f"enable the hash type of {explained.headers.seen[-1]} over "
            f"IPv{explained.headers.version}",
        )
    if queue not in config.indirection_table:
        return NoPort(queue, "no entry of the indirection table is that queue")
    if not ports.spaces:
        entries = len(config.indirection_table)
        reached = 1 << LinearMap([column & entries - 1 for column in ports.columns]).rank
        return NoPort(
            queue,
            f"with this key ports lead to {reached} of {entries} entries of the indirection table, "
            "and none of these is that queue",
            hint="take a key that looks random",
        )
    span, others = ports.span, dataclasses.replace(ports, span=range(1 << _BITS))
    nearest = min(
        (landing.port for landing in others),
        key=lambda port: (max(span.start - port, port - span.stop + 1), port),
    )
    return NoPort(
        queue,
        f"of {len(others)} that do none is from {span.start} to {span.stop - 1}",
        hint=f"give another range; the nearest is {nearest}",
    )


def _added(columns: Sequence[int], port: int) -> int:
    """What a port adds to the hash."""
    added = 0
    for bit, column in enumerate(columns):
        if port >> bit & 1:
            added ^= column
    return added
