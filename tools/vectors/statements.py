# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which row of docs/conformance.md a case tests."""

from fnmatch import fnmatchcase

from vnethash.vectors.model import Demand
from vnethash.vectors.statements import of_report
from vnethash.virtio.hash_types import ReportType

# Of cases that the specification decides; of the others of these, what is
# reported says it.
_DEMANDED = (
    ("microsoft/*", "HASH-7"),
    ("keys/zero/*", "REP-6"),
    ("keys/symmetric/zero", "REP-6"),
    ("keys/*", "HASH-7"),
    ("tables/*unclassified*", "STEER-2"),
    ("tables/no-types-*", "STEER-2"),
    ("tables/*", "STEER-3"),
    ("not-hashed/*", "REP-2"),
    ("hash-types/*-ex/others", "EXT-5"),
    ("hash-types/*-ex/none", "EXT-5"),
    ("hash-types/*6/others", "IP6-4"),
    ("hash-types/*6/none", "IP6-4"),
    ("hash-types/*/others", "IP4-4"),
    ("hash-types/*/none", "IP4-4"),
    ("mobile/*-without-ex-*", "EXT-5"),
    ("mobile/home-*", "EXT-6"),
    ("mobile/routing-*", "EXT-7"),
    ("mobile/both-*", "EXT-6"),
    ("tunnel-*/*/off", "TUN-7"),
    ("tunnel-*/*/others", "TUN-7"),
    ("tunnel-*/*-off", "TUN-7"),
    ("tunnel-*/nvgre/not-*", "TUN-7"),
    ("tunnel-*/gre-7676/ipv4-in-ipv4", "TUN-7"),
    ("tunnel-*/no-tunnel-*", "TUN-7"),
    ("tunnel-*/nested-*", "TUN-8"),
    ("tunnel-*", "TUN-6"),
)

_OPEN = (
    ("truncation/vlan*", "OPEN-4"),
    ("truncation/home-address-*", "OPEN-14"),
    ("truncation/routing-2-*", "OPEN-14"),
    ("truncation/hop-by-hop-*", "OPEN-11"),
    ("truncation/fragment-*", "OPEN-11"),
    ("truncation/authentication-*", "OPEN-11"),
    ("truncation/*", "OPEN-1"),
    ("lengths/ipv4-header-beyond*", "OPEN-3"),
    ("lengths/ipv4-header-*", "OPEN-8"),
    ("lengths/extension-*", "OPEN-11"),
    ("lengths/authentication-*", "OPEN-11"),
    ("lengths/home-header-declared", "OPEN-14"),
    ("lengths/home-*", "OPEN-11"),
    ("lengths/*", "OPEN-2"),
    ("vlan/tpid-*", "OPEN-6"),
    ("vlan/*", "OPEN-4"),
    ("snap/*", "OPEN-5"),
    ("raw-ip/*", "OPEN-7"),
    ("not-hashed/*", "OPEN-6"),
    ("ipv?/version-*", "OPEN-8"),
    ("ipv4/header-checksum-wrong", "OPEN-8"),
    ("ipv4/*", "OPEN-3"),
    ("ipv4-fragments/*", "OPEN-9"),
    ("ipv6/next-*", "OPEN-10"),
    ("ipv6-extension-headers/fragment-*", "OPEN-13"),
    ("ipv6-extension-headers/*", "OPEN-10"),
    ("ipv6-chains/*", "OPEN-12"),
    ("ipv6-fragments/*", "OPEN-13"),
    ("mobile/*-in-first-fragment", "OPEN-14"),
    ("mobile/both-then-cut", "OPEN-14"),
    ("mobile/home-behind-first-fragment", "OPEN-13"),
    ("mobile/home-ninth-header", "OPEN-12"),
    ("mobile/home-behind-overrun", "OPEN-17"),
    ("mobile/home-overruns", "OPEN-17"),
    ("mobile/home-option-without-length", "OPEN-17"),
    ("mobile/home-*", "OPEN-16"),
    ("mobile/routing-*", "OPEN-15"),
    ("tunnel-inside/outer-*fragment", "OPEN-21"),
    ("tunnel-inside/outer-*-cut-*", "OPEN-21"),
    ("tunnel-inside/vxlan-cut-63", "OPEN-21"),
    ("tunnel-inside/*", "OPEN-22"),
    ("tunnel-ipip/*", "OPEN-23"),
    ("tunnel-gre/nvgre/as-gre-2890", "OPEN-27"),
    ("tunnel-gre/gre-2*/udpv6", "OPEN-27"),
    ("tunnel-gre/*", "OPEN-24"),
    ("tunnel-udp/gre-in-udp/*", "OPEN-24"),
    ("tunnel-udp/vxlan-gpe/no-protocol", "OPEN-26"),
    ("tunnel-udp/*", "OPEN-25"),
)


def statement(name: str, demand: Demand, report: ReportType, *, has_extension: bool) -> str:
    """The row; KeyError for a case that has none, which is to be added above."""
    patterns = _DEMANDED if demand is Demand.SPECIFICATION else _OPEN
    for pattern, row in patterns:
        if fnmatchcase(name, pattern):
            return row
    if demand is Demand.OPEN:
        raise KeyError(name)
    return of_report(report, has_extension=has_extension)
