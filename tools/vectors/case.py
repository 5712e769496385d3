# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""How a case is written, and how it becomes a vector.

The author of a case says by hand what is hashed and reported. From that come
value, index and queue; the dissector of the reference is not asked, but has to
agree (tests/unit/test_vectors.py).
"""

from dataclasses import dataclass, field

from tools.vectors.headers import A4, A6, B4, B6, ports
from tools.vectors.statements import statement
from vnethash.rss.classified import Classified
from vnethash.rss.config import RssConfig
from vnethash.rss.dissect import dissect
from vnethash.rss.reference import toeplitz
from vnethash.vectors.model import Demand, LinkType, Vector
from vnethash.virtio.hash_types import ReportType

STANDARD = "standard"


def usual_input(report: ReportType) -> bytes:
    """What is hashed for ``report`` between the usual addresses and ports."""
    if report is ReportType.NONE:
        return b""
    addresses = A4 + B4 if report.name.endswith("v4") else A6 + B6
    return addresses + (ports() if report.name.startswith(("TCP", "UDP")) else b"")


@dataclass
class Topic:
    """A file of vectors: cases about one thing."""

    name: str
    title: str
    configurations: dict[str, RssConfig]
    vectors: list[Vector] = field(default_factory=list)

    def demanded(
        self,
        name: str,
        report: str,
        frame: bytes,
        reason: str,
        *,
        hashed: bytes | None = None,
        config: str = STANDARD,
        raw: bool = False,
        value: int | None = None,
        demand: Demand = Demand.SPECIFICATION,
    ) -> None:
        """A case the specification decides.

        ``hashed`` is the input of the hash if that is not between the usual
        addresses, ``value`` a published hash, which is then not calculated
        here. ``raw``: the frame starts with its IP header.
        """
        kind = ReportType[report]
        if hashed is None:
            hashed = usual_input(kind)
        rss = self.configurations[config]
        case = f"{self.name}/{name}"
        self.vectors.append(
            Vector(
                id=case,
                statement=statement(
                    case, demand, kind, has_extension=_has_extension(frame, rss, raw=raw)
                ),
                configuration=config,
                config=rss,
                link_type=LinkType.RAW if raw else LinkType.ETHERNET,
                frame=frame,
                hashed=hashed,
                expected=_expected(kind, hashed, rss, value),
                reason=reason,
            )
        )

    def open(
        self,
        name: str,
        report: str,
        frame: bytes,
        reason: str,
        *,
        hashed: bytes | None = None,
        config: str = STANDARD,
        raw: bool = False,
    ) -> None:
        """A case the specification leaves open, with the rule of vnethash."""
        self.demanded(
            name,
            report,
            frame,
            reason,
            hashed=hashed,
            config=config,
            raw=raw,
            demand=Demand.OPEN,
        )


def _has_extension(frame: bytes, rss: RssConfig, *, raw: bool) -> bool:
    return dissect(frame, l3=raw, tunnels=rss.tunnels).has_extension


def _expected(report: ReportType, hashed: bytes, rss: RssConfig, value: int | None) -> Classified:
    if report is ReportType.NONE:
        return Classified(0, report, None, rss.unclassified_queue)
    if value is None:
        value = toeplitz(rss.key, hashed)
    index = value % len(rss.indirection_table)
    return Classified(value, report, index, rss.indirection_table[index])
