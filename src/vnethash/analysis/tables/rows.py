# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Rows of a flow table as flows, and those that cannot be read as reasons why."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vnethash.analysis.flows import FLOW_DTYPE, Flows
from vnethash.analysis.tables import cells
from vnethash.analysis.tables.columns import Layout, Role
from vnethash.errors import FlowTableError
from vnethash.virtio.hash_types import ReportType

COUNT_MAX = 1 << 48
"""More packets or bytes than a row can tell of."""


class Rejected(NamedTuple):
    """Rows that cannot be read for one reason."""

    reason: str
    rows: int
    first: str
    """Where the first of them is, and what it says: ``line 7: 'x'``."""


class FlowBatch(NamedTuple):
    """Some rows of a table.

    ``flows`` have neither hash nor report type yet. Of a table with both directions
    in a row they can be twice as many. ``times_ns``, shape (n,), is
    `cells.UNTIMED` where there is none; None if the table has none.
    """

    flows: Flows
    times_ns: NDArray[np.int64] | None
    rejected: tuple[Rejected, ...]
    rows: int
    """That were read, with those rejected."""
    bytes_read: int
    """Of the file as it lies there, up to here."""
    left_out: int = 0
    """Further rows, which say themselves that they tell of no flow."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a file, as columns."""

    columns: Mapping[int, Any]
    """Arrow arrays by position, those that the layout uses."""
    rows: int
    numbers: NDArray[np.int64]
    """Shape (rows,): where each is in the file."""
    unit: str
    """What ``numbers`` count: line, row."""
    rejected: tuple[Rejected, ...] = ()
    """Rows that did not make it into columns."""
    bytes_read: int = 0
    layout: Layout | None = None
    """Of these rows, where columns come to light as the file is read."""


def unreadable(path: str, error: Exception) -> FlowTableError:
    """What a library complains of, in a line."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0].rstrip(".")
    return FlowTableError(path, f"cannot be read further: {reason[:1].lower()}{reason[1:]}")


def merge_rejected(parts: Iterable[Rejected]) -> tuple[Rejected, ...]:
    """One of each reason, in the order they came."""
    merged: dict[str, Rejected] = {}
    for part in parts:
        before = merged.get(part.reason)
        merged[part.reason] = before._replace(rows=before.rows + part.rows) if before else part
    return tuple(merged.values())


def rejected_text(rejected: Iterable[Rejected]) -> str | None:
    """A line that says what could not be read; None if all could."""
    parts = merge_rejected(rejected)
    if not parts:
        return None
    rows = sum(part.rows for part in parts)
    told = ", ".join(f"{part.rows} {part.reason} ({part.first})" for part in parts)
    return f"{rows} row{'s' if rows > 1 else ''} cannot be read: {told}"


def read_rows(chunk: Chunk, layout: Layout) -> FlowBatch:
    """The flows of a chunk, which may know the layout better."""
    layout = chunk.layout or layout
    rows = _Rows(chunk, layout)
    source, destination = rows.addresses(Role.SOURCE), rows.addresses(Role.DESTINATION)
    rows.reject(Role.SOURCE, "without a source address", source.family == 0)
    rows.reject(Role.DESTINATION, "without a destination address", destination.family == 0)
    rows.reject(
        Role.DESTINATION, "with addresses of two families", source.family != destination.family
    )
    transport, ports = rows.transport_and_ports()
    packets, octets = rows.counts(Role.PACKETS, 1), rows.counts(Role.BYTES, 0)
    ways = [(source, destination, ports, packets, octets)]
    if Role.REVERSE_PACKETS in layout.columns or Role.REVERSE_BYTES in layout.columns:
        octets = rows.counts(Role.REVERSE_BYTES, 0)
        packets = rows.counts(Role.REVERSE_PACKETS, np.minimum(octets, 1))
        ways.append((destination, source, ports[:, ::-1], packets, octets))
    at = rows.times()
    flows, times = [], []
    for way in ways:
        # What did not send has no flow.
        there = rows.good & ((way[3] > 0) | (way[4] > 0))
        flows.append(_flows(there, transport, *way))
        times.append(at[there] if at is not None else None)
    return FlowBatch(
        np.concatenate(flows),
        None if at is None else np.concatenate([part for part in times if part is not None]),
        (*chunk.rejected, *rows.rejected),
        int(np.count_nonzero(rows.there)) + sum(part.rows for part in chunk.rejected),
        chunk.bytes_read,
        rows.left_out,
    )


def _flows(
    there: NDArray[np.bool_],
    transport: NDArray[np.int8],
    source: cells.Addresses,
    destination: cells.Addresses,
    ports: NDArray[np.uint16],
    packets: NDArray[np.int64],
    octets: NDArray[np.int64],
) -> Flows:
    flows = np.zeros(np.count_nonzero(there), FLOW_DTYPE)
    is_six = source.family[there] == 6
    addresses = np.zeros((len(flows), 32), np.uint8)
    first, second = source.packed[there], destination.packed[there]
    addresses[:, :16] = first
    addresses[is_six, 16:] = second[is_six]
    addresses[~is_six, 4:8] = second[~is_six, :4]
    flows["addresses"] = addresses
    with_ports = transport[there] != cells.OTHER
    sent = np.where(with_ports[:, None], ports[there], 0).astype(">u2")
    flows["ports"] = sent.view(np.uint8).reshape(-1, 4)
    flows["packets"], flows["bytes"] = packets[there], octets[there]
    flows["kind"] = np.where(is_six, ReportType.IPv6, ReportType.IPv4) + transport[there]
    return flows


class _Rows:
    """The columns of a chunk by role, and which rows are good so far."""

    def __init__(self, chunk: Chunk, layout: Layout) -> None:
        self._chunk, self._layout = chunk, layout
        self.there = self._rows_with_a_flow()
        self.good = self.there.copy()
        self.rejected: list[Rejected] = []

    def _rows_with_a_flow(self) -> NDArray[np.bool_]:
        there = np.zeros(self._chunk.rows, np.bool_)
        for indices in self._layout.columns.values():
            for index in indices:  # an empty line has nothing in any of them
                there |= _told(self._chunk.columns[index])
        told = np.count_nonzero(there)
        for index, word in self._layout.only.items():
            there &= cells.words(self._chunk.columns[index]) == word
        self.left_out = int(told - np.count_nonzero(there))
        return there

    def columns(self, role: Role) -> list[Any]:
        return [self._chunk.columns[index] for index in self._layout.columns.get(role, ())]

    def reject(self, role: Role, reason: str, which: NDArray[np.bool_]) -> None:
        """Rows are rejected for the first reason that there is."""
        bad = np.flatnonzero(which & self.good)
        if not len(bad):
            return
        self.good[bad] = False
        first, columns = int(bad[0]), self.columns(role)
        says = [cells.shown(column, first) for column in columns if column[first].is_valid]
        where = f"{self._chunk.unit} {self._chunk.numbers[first]}: {', '.join(says) or 'nothing'}"
        self.rejected.append(Rejected(reason, len(bad), where))

    def addresses(self, role: Role) -> cells.Addresses:
        first, *others = (cells.addresses(column) for column in self.columns(role))
        for other in others:
            # Exporters fill the column of the other family with zeros.
            empty = (first.family == 0) | ~first.packed.any(axis=1)
            instead = empty & (other.family > 0) & (other.packed.any(axis=1) | (first.family == 0))
            first = cells.Addresses(
                np.where(instead[:, None], other.packed, first.packed),
                np.where(instead, other.family, first.family),
            )
        return first

    def _numbers(self, role: Role) -> cells.Numbers:
        first, *others = (cells.whole_numbers(column) for column in self.columns(role))
        for other in others:
            first = cells.Numbers(
                np.where(first.valid, first.values, other.values), first.valid | other.valid
            )
        return first

    def transport_and_ports(self) -> tuple[NDArray[np.int8], NDArray[np.uint16]]:
        """Shapes (n,) and (n, 2). Without a protocol, a row with ports is of TCP."""
        rows = self._chunk.rows
        ports = np.zeros((rows, 2), np.uint16)
        if Role.SOURCE_PORT not in self._layout.columns:
            return np.zeros(rows, np.int8), ports
        roles = (Role.SOURCE_PORT, Role.DESTINATION_PORT)
        numbers = [self._numbers(role) for role in roles]
        no_ports = ~np.any([_told(column) for role in roles for column in self.columns(role)], 0)
        if self._layout.columns.get(Role.PROTOCOL):
            first, *others = (cells.transports(column) for column in self.columns(Role.PROTOCOL))
            for other in others:
                first = np.where(first == cells.UNKNOWN, other, first)
            transport = first
        else:
            transport = np.full(rows, cells.UNKNOWN, np.int8)
        # Of a row with neither, all that is hashed are addresses.
        transport = np.where((transport == cells.UNKNOWN) & no_ports, cells.OTHER, transport)
        if self._layout.columns.get(Role.PROTOCOL):
            self.reject(Role.PROTOCOL, "without a protocol", transport == cells.UNKNOWN)
        else:
            transport = np.where(transport == cells.UNKNOWN, cells.TCP, transport)
        for end, (role, number) in enumerate(zip(roles, numbers, strict=True)):
            # Of other protocols it is a type, a code, or nothing.
            within = number.valid & (number.values >= 0) & (number.values <= 0xFFFF)
            what = role.replace("_", " ")
            self.reject(role, f"without a {what}", ~within & (transport > cells.OTHER))
            ports[:, end] = np.where(within, number.values, 0)
        return transport, ports

    def counts(self, role: Role, default: int | NDArray[np.int64]) -> NDArray[np.int64]:
        """Shape (n,). Of the way back, nothing is zero."""
        if role not in self._layout.columns:
            return np.broadcast_to(np.asarray(default, np.int64), self._chunk.rows)
        numbers = self._numbers(role)
        values, valid = numbers
        if role in (Role.REVERSE_PACKETS, Role.REVERSE_BYTES):
            empty = ~_told(self.columns(role)[0])
            values, valid = np.where(empty, 0, values), valid | empty
        within = valid & (values >= 0) & (values <= COUNT_MAX)
        self.reject(role, f"without a number of {role.replace('_', ' ')}", ~within)
        return np.where(within, values, 0)

    def times(self) -> NDArray[np.int64] | None:
        columns = self.columns(Role.TIME)
        return cells.times(columns[0], self._layout.nanoseconds) if columns else None


def _told(column: Any) -> NDArray[np.bool_]:
    """Which cells say anything."""
    told: NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    return told
