# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What an analysis found as Arrow tables: for notebooks, DuckDB, Polars, and files.

All functions raise DependencyMissing without pyarrow.
"""

import socket
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vnethash.analysis.extras import load
from vnethash.analysis.flows import Flows, is_ipv6
from vnethash.analysis.result import Analysis, Load, Reason
from vnethash.errors import ConfigError
from vnethash.virtio.hash_types import ReportType
from vnethash.writing import replacing

_TRANSPORTS = ("tcp", "udp")


def flows_table(analysis: Analysis) -> Any:
    """One row a flow, the heaviest first.

    ``source``, ``destination``: text; ``source_port``, ``destination_port``,
    ``protocol`` (tcp, udp): null where the flow is of addresses alone;
    ``packets``, ``bytes``; ``hash_report``: name of the report type;
    ``hash_value``, ``bucket``: null without a hash, the first also if the
    analysis is anonymous; ``queue``.
    """
    pa = _pyarrow()
    flows = analysis.flows
    has_ports = (flows["kind"] - 1) % 3 > 0  # IPv4, TCPv4, UDPv4, IPv6, ...
    ports = np.ascontiguousarray(flows["ports"]).view(">u2").astype(np.uint16).reshape(-1, 2)
    transport = np.where(has_ports, (flows["kind"] - 2) % 3, 0).astype(np.int8)
    hashed = flows["report"] > 0
    tells_hash = hashed & (not analysis.anonymous)
    source, destination = _addresses(flows)
    return pa.table(
        {
            "source": source,
            "destination": destination,
            "source_port": _nullable(ports[:, 0], has_ports),
            "destination_port": _nullable(ports[:, 1], has_ports),
            "protocol": _words(transport, _TRANSPORTS, has_ports),
            "packets": _column(flows["packets"]),
            "bytes": _column(flows["bytes"]),
            "hash_value": _nullable(flows["hash_value"], tells_hash),
            "hash_report": _words(flows["report"].astype(np.int8), _names(ReportType)),
            "bucket": _nullable(analysis.flow_buckets, hashed),
            "queue": _column(analysis.flow_queues),
        }
    )


def queues_table(analysis: Analysis) -> Any:
    """One row a queue: ``queue``, ``packets``, ``bytes``, ``flows``."""
    queues = np.arange(analysis.rss.queues, dtype=np.uint16)
    return _pyarrow().table({"queue": queues, **_load(analysis.by_queue)})


def buckets_table(analysis: Analysis) -> Any:
    """One row an entry of the indirection table: ``bucket``, ``queue``, ``packets``,
    ``bytes``, ``flows``. Packets without a hash are in none."""
    table = np.array(analysis.rss.indirection_table, np.uint16)
    buckets = np.arange(len(table), dtype=np.uint32)
    return _pyarrow().table({"bucket": buckets, "queue": table, **_load(analysis.by_bucket)})


def windows_table(analysis: Analysis) -> Any:
    """One row a window and queue: ``start`` (null for packets without a time), ``queue``,
    ``packets``, ``bytes``. No rows if the analysis has no windows."""
    pa = _pyarrow()
    start = pa.timestamp("ns", tz="UTC")
    queues = analysis.rss.queues
    windows = analysis.windows
    if windows is None:
        columns = {"queue": pa.uint16(), "packets": pa.uint64(), "bytes": pa.uint64()}
        return pa.schema({"start": start, **columns}).empty_table()
    packets, octets = windows.by_queue(analysis.rss)
    untimed_packets, untimed_octets = windows.untimed_by_queue(analysis.rss)
    rows = len(packets)
    if untimed_packets.any():
        packets = np.vstack([packets, untimed_packets])
        octets = np.vstack([octets, untimed_octets])
    starts = np.zeros(len(packets), np.int64)
    starts[:rows] = windows.starts_ns
    timed = np.arange(len(packets)) < rows
    return pa.table(
        {
            "start": _nullable(np.repeat(starts, queues), np.repeat(timed, queues)).cast(start),
            "queue": np.tile(np.arange(queues, dtype=np.uint16), len(packets)),
            "packets": packets.reshape(-1),
            "bytes": octets.reshape(-1),
        }
    )


def unhashed_table(analysis: Analysis) -> Any:
    """Why packets have no hash: ``reason``, ``packets``, ``bytes``; one row a `Reason`."""
    return _pyarrow().table(
        {
            "reason": [name.lower() for name in _names(Reason)],
            "packets": np.ascontiguousarray(analysis.unhashed[:, 0]),
            "bytes": np.ascontiguousarray(analysis.unhashed[:, 1]),
        }
    )


def sources_table(analysis: Analysis) -> Any:
    """One row a file: ``path``, ``packets``, ``bytes_read``, ``error``, ``offset``."""
    pa = _pyarrow()
    schema = pa.schema(
        {
            "path": pa.string(),
            "packets": pa.uint64(),
            "bytes_read": pa.uint64(),
            "error": pa.string(),
            "offset": pa.uint64(),
        }
    )
    rows = [{**asdict(source), "path": source.name} for source in analysis.sources]
    return pa.Table.from_pylist(rows, schema)


def write_table(table: Any, path: Path) -> None:
    """Write an Arrow table as its name ends: .parquet, .csv, .arrow or .feather (Arrow IPC).

    Raises ConfigError for another ending, OSError.
    """
    pa = _pyarrow()
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(
            "output",
            f"{path.name}: tables are written as {', '.join(ENDINGS)}",
            hint="let the name of the file end in one of them",
        )
    with replacing(path) as file:
        if ending == ".parquet":
            load("pyarrow.parquet", "tables").write_table(table, file, compression="zstd")
        elif ending == ".csv":
            load("pyarrow.csv", "tables").write_csv(table, file)
        else:
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)


ENDINGS = (".parquet", ".csv", ".arrow", ".feather")
"""Of the files that `write_table` writes."""


def _pyarrow() -> Any:
    return load("pyarrow", "tables")


def _load(load: Load) -> dict[str, Any]:
    return load._asdict()


def _column(values: NDArray[Any]) -> Any:
    return _pyarrow().array(np.ascontiguousarray(values))


def _nullable(values: NDArray[Any], valid: NDArray[np.bool_]) -> Any:
    return _pyarrow().array(np.ascontiguousarray(values), mask=~valid)


def _words(
    indices: NDArray[np.int8], words: tuple[str, ...], valid: NDArray[np.bool_] | None = None
) -> Any:
    """A dictionary column."""
    pa = _pyarrow()
    mask = None if valid is None else ~valid
    return pa.DictionaryArray.from_arrays(pa.array(indices, mask=mask), list(words))


def _names(values: type[IntEnum]) -> tuple[str, ...]:
    return tuple(value.name for value in values)


def _addresses(flows: Flows) -> tuple[Any, Any]:
    """Source and destination as text (RFC 5952)."""
    pa = _pyarrow()
    raw = flows["addresses"]
    six = is_ipv6(flows)
    # Where each row is in what is the IPv4 flows first, then those of IPv6.
    place = np.empty(len(flows), np.int64)
    place[np.argsort(six, kind="stable")] = np.arange(len(flows))

    def text(end: int) -> Any:
        four = _ipv4_text(raw[~six, 4 * end : 4 * end + 4])
        return pa.concat_arrays([four, _ipv6_text(raw[six, 16 * end : 16 * end + 16])]).take(
            pa.array(place)
        )

    return text(0), text(1)


def _ipv4_text(raw: NDArray[np.uint8]) -> Any:
    """Shape (n, 4) to n strings."""
    octets = _pyarrow().array([str(octet) for octet in range(256)])
    parts = (octets.take(_column(raw[:, place])) for place in range(4))
    return load("pyarrow.compute", "tables").binary_join_element_wise(*parts, ".")


def _ipv6_text(raw: NDArray[np.uint8]) -> Any:
    """Shape (n, 16) to n strings: each address once, as many flows share them."""
    pa = _pyarrow()
    buffer = pa.py_buffer(raw.tobytes())
    encoded = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(raw), [None, buffer]
    ).dictionary_encode()
    texts = [socket.inet_ntop(socket.AF_INET6, one) for one in encoded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(encoded.indices)
