# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""An analysis as JSON."""

from typing import Any

import numpy as np

from vnethash.analysis.flows import Flows, endpoints
from vnethash.analysis.result import Analysis, Load, Reason
from vnethash.analysis.statistics import evenness, over_time
from vnethash.stats import Measure
from vnethash.virtio.hash_types import ReportType


def summary(
    analysis: Analysis,
    *,
    by: Measure = Measure.PACKETS,
    flows: int = 10,
    windows: bool = False,
) -> dict[str, Any]:
    """What was found, in JSON types: with the heaviest flows, and on request all windows."""
    queues = analysis.by_queue
    found: dict[str, Any] = {
        "rss": analysis.rss_json(),
        "packets": analysis.packets,
        "bytes": analysis.bytes,
        "flows": len(analysis.flows),
        "captured_short": analysis.captured_short,
        "queues": _loads("queue", queues),
        "evenness": {name: _evenness(getattr(queues, name)) for name in Load._fields},
        "over_time": _over_time(analysis, by),
        "buckets": _loads("bucket", analysis.by_bucket),
        "report_types": {
            report.name: load
            for report, load in zip(ReportType, _loads(None, analysis.by_report), strict=True)
            if load["packets"]
        },
        "not_hashed": {
            reason.name.lower(): {"packets": packets, "bytes": octets}
            for reason, (packets, octets) in zip(Reason, analysis.unhashed.tolist(), strict=True)
        },
        "ether_types": {f"{number:#06x}": n for number, n in analysis.ether_types.items()},
        "heaviest_flows": [_flow(analysis, row) for row in heaviest(analysis.flows, flows, by)],
        "files": [
            {
                "path": source.name,
                "packets": source.packets,
                "bytes_read": source.bytes_read,
                "error": source.error,
                "offset": source.offset,
            }
            for source in analysis.sources
        ],
    }
    if windows and analysis.windows is not None:
        found["windows"] = _windows(analysis)
    return found


def heaviest(flows: Flows, count: int, by: Measure = Measure.BYTES) -> "np.ndarray[Any, Any]":
    """Numbers of the ``count`` flows with most bytes or packets, most first."""
    if by is Measure.BYTES:
        return np.arange(min(count, len(flows)))  # their order
    order = np.argsort(~flows["packets"], kind="stable")
    return order[:count]


def _loads(name: str | None, load: Load) -> list[dict[str, int]]:
    rows = zip(*(amounts.tolist() for amounts in load), strict=True)
    return [
        ({} if name is None else {name: number}) | dict(zip(Load._fields, row, strict=True))
        for number, row in enumerate(rows)
    ]


def _evenness(loads: Any) -> dict[str, float]:
    even = evenness(loads)
    return {"imbalance": even.imbalance, "variation": even.variation}


def _over_time(analysis: Analysis, by: Measure) -> dict[str, Any] | None:
    if analysis.windows is None:
        return None
    course = over_time(analysis, by)
    told = len(course.imbalances) > 0
    return {
        "by": by.value,
        "window_ns": analysis.windows.length_ns,
        "windows": len(analysis.windows.starts_ns),
        "telling": len(course.imbalances),
        "median": float(np.median(course.imbalances)) if told else None,
        "worst": float(course.imbalances.max()) if told else None,
        "worst_start_ns": course.worst_ns if told else None,
    }


def _flow(analysis: Analysis, number: int) -> dict[str, Any]:
    flow = analysis.flows[number]
    source, destination, source_port, destination_port = endpoints(flow)
    is_hashed = bool(flow["report"])
    return {
        "source": source,
        "destination": destination,
        "source_port": source_port,
        "destination_port": destination_port,
        "kind": ReportType(flow["kind"]).name,
        "packets": int(flow["packets"]),
        "bytes": int(flow["bytes"]),
        "hash_value": None if analysis.anonymous else int(flow["hash_value"]),
        "hash_report": ReportType(flow["report"]).name,
        "bucket": int(analysis.flow_buckets[number]) if is_hashed else None,
        "queue": int(analysis.flow_queues[number]),
    }


def _windows(analysis: Analysis) -> list[dict[str, Any]]:
    assert analysis.windows is not None
    packets, octets = analysis.windows.by_queue(analysis.rss)
    rows = zip(analysis.windows.starts_ns.tolist(), packets.tolist(), octets.tolist(), strict=True)
    return [{"start_ns": start, "packets": some, "bytes": size} for start, some, size in rows]
