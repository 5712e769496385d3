# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which column of a flow table is what, by the names that exporters give them, or by the user's.

Names are compared without case and punctuation: ``id.orig_h`` is ``idorigh``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from vnethash.analysis.tables.cells import parse_address
from vnethash.errors import ConfigError, FlowTableError


class Role(StrEnum):
    """What a column can be."""

    SOURCE = "source"
    DESTINATION = "destination"
    SOURCE_PORT = "source_port"
    DESTINATION_PORT = "destination_port"
    PROTOCOL = "protocol"
    PACKETS = "packets"
    BYTES = "bytes"
    REVERSE_PACKETS = "reverse_packets"
    REVERSE_BYTES = "reverse_bytes"
    TIME = "time"


Given = Mapping[Role, str]
"""Names of columns; a number is a position, from 1; an empty name says that there is none."""

# In the order of preference. Columns joined by "+" are one: a row has its value in one of them.
_USUAL: Mapping[Role, str] = {
    Role.SOURCE: "sourceipv4address+sourceipv6address ipv4srcaddr+ipv6srcaddr idorigh origh"
    " srcaddr sa sip srcip srcipaddr srcipaddress sourceaddress sourceip saddr ipsrc+ipv6src"
    " src4addr+src6addr source src",
    Role.DESTINATION: "destinationipv4address+destinationipv6address ipv4dstaddr+ipv6dstaddr"
    " idresph resph dstaddr da dip dstip destip dstipaddr dstipaddress destinationaddress"
    " destinationip daddr ipdst+ipv6dst dst4addr+dst6addr destination dst dest",
    Role.SOURCE_PORT: "sourcetransportport l4srcport idorigp origp srcport sp sport sourceport"
    " portsrc tcpsrcport+udpsrcport",
    Role.DESTINATION_PORT: "destinationtransportport l4dstport idrespp respp dstport dp dport"
    " dsport destport destinationport portdst tcpdstport+udpdstport",
    Role.PROTOCOL: "protocolidentifier protocol proto prot pro pr ipproto+ipv6nxt ipprotocol"
    " transport networktransport l4proto",
    Role.TIME: "flowstartmilliseconds flowstartmicroseconds flowstartnanoseconds"
    " flowstartseconds flowstart firstseen ts stime starttime start first timestamp"
    " frametimeepoch time",
}

# The way there, and the way back where the table has both in a row.
_COUNTS: Mapping[tuple[Role, Role], str] = {
    (Role.PACKETS, Role.REVERSE_PACKETS): "packetdeltacount/reversepacketdeltacount"
    " packettotalcount/reversepackettotalcount origpkts/resppkts flowpktstoserver/flowpktstoclient"
    " pktstoserver/pktstoclient spkts/dpkts inpkts/outpkts inpackets/outpackets ipkt/opkt"
    " totalfwdpackets/totalbackwardpackets totalfwdpacket/totalbwdpackets totfwdpkts/totbwdpkts"
    " srcpkts/dstpkts sourcepackets/destinationpackets"
    " packets/reversepackets pkts dpkts packetcount numpackets totpkts totalpackets",
    (Role.BYTES, Role.REVERSE_BYTES): "octetdeltacount/reverseoctetdeltacount"
    " octettotalcount/reverseoctettotalcount origipbytes/respipbytes origbytes/respbytes"
    " srcbytes/dstbytes sourcebytes/destinationbytes"
    " flowbytestoserver/flowbytestoclient bytestoserver/bytestoclient sbytes/dbytes"
    " inbytes/outbytes ibyt/obyt totallengthoffwdpackets/totallengthofbwdpackets"
    " totallengthoffwdpacket/totallengthofbwdpacket totlenfwdpkts/totlenbwdpkts"
    " bytes/reversebytes octets doctets bytecount numbytes totbytes totalbytes framelen",
}

# Of both ways at once; and such as are of one way or of both, as the others in the table are.
_SUMS = frozenset({"totpkts", "totalpackets", "totbytes", "totalbytes"})
_EITHER = frozenset(
    {"packets", "pkts", "dpkts", "packetcount", "numpackets"}
    | {"bytes", "octets", "doctets", "bytecount", "numbytes"}
)

# Rows that tell of no flow say so in these columns, of tables that have the others as well:
# elsewhere a column of that name says something else.
_ONLY: Mapping[str, tuple[str, frozenset[str]]] = {
    "logstatus": ("ok", frozenset({"srcaddr", "dstaddr"})),
    "eventtype": ("flow", frozenset({"srcip", "destip"})),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions of the columns, from 0; several of one role have its value in turn."""

    columns: Mapping[Role, tuple[int, ...]]
    only: Mapping[int, str]
    """Rows with another word in this column are none; in lower case."""
    nanoseconds: int | None
    """Of a number in the column of times; None: as large as it is, it can be but one unit."""

    @property
    def used(self) -> tuple[int, ...]:
        """All the columns that have to be read, in their order."""
        found = {index for indices in self.columns.values() for index in indices}
        return tuple(sorted(found | set(self.only)))


def parse_columns(text: str) -> dict[Role, str]:
    """``source=srcaddr,destination=dstaddr`` as names by role.

    ConfigError for a role that there is none of, or that is named twice.
    """
    given: dict[Role, str] = {}
    for part in text.split(","):
        role, equals, name = part.partition("=")
        if not equals or role.strip() not in list(Role):
            raise ConfigError(
                "columns",
                f"{part.strip()!r} is not ROLE=NAME",
                hint=f"roles are {', '.join(Role)}",
            )
        if role.strip() in given:
            raise ConfigError("columns", f"{role.strip()} is there twice")
        given[Role(role.strip())] = name.strip()
    return given


def find_columns(names: Sequence[str], given: Given) -> dict[Role, tuple[int, ...]]:
    """The columns of each role that there is, of a table whose columns have these names."""
    places: dict[str, int] = {}
    for index, name in enumerate(names):
        if _plain(name):
            places.setdefault(_plain(name), index)
    found: dict[Role, tuple[int, ...]] = {}
    for role, usual in _USUAL.items():
        groups = (_present(group.split("+"), places) for group in usual.split())
        found[role] = next((group for group in groups if group), ())
    by_position = _is_by_position(names, given)
    named = {role: _named(name, names, by_position) for role, name in given.items()}
    before = ("", "")
    for (forward, reverse), usual in _COUNTS.items():
        pairs = [_there_of(pair, places) for pair in usual.split()]
        if own := named.get(forward):
            name = _plain(names[own[0]])
            # The way back that is usual, unless there is none beside it.
            pairs = [(name, "" if name in _SUMS else next((p[1] for p in pairs if p[0]), ""))]
        pair = next((pair for pair in pairs if pair[0] and (own or _agree(before, pair))), ("", ""))
        found[forward], found[reverse] = (_present([name], places) for name in pair)
        before = pair if own or forward not in named else before
    found |= named
    return {role: indices for role, indices in found.items() if indices}


def find_layout(names: Sequence[str], given: Given, path: str) -> Layout:
    """What the columns of the table at ``path`` are. Raises FlowTableError without addresses."""
    columns = find_columns(names, given)
    for role, name in given.items():
        if name and role not in columns:
            raise FlowTableError(path, f"has no column {name!r} for {role}", hint=_there(names))
    needed = [Role.SOURCE, Role.DESTINATION]
    # Without its ports a TCP packet is hashed to another value.
    ports = [Role.SOURCE_PORT, Role.DESTINATION_PORT]
    if Role.PROTOCOL in columns or any(role in columns for role in ports):
        needed += ports
    for role in needed:
        if role not in columns:
            what = role.replace("_", " ")
            raise FlowTableError(
                path,
                f"no column is the {what}{'' if role in ports else ' address'}",
                hint=f"--columns {role}=NAME; {_there(names)}",
            )
    plain = [_plain(name) for name in names]
    only = {
        plain.index(name): word
        for name, (word, others) in _ONLY.items()
        if name in plain and others.issubset(plain)
    }
    time = [plain[index] for index in columns.get(Role.TIME, ())]
    return Layout(columns, only, _unit(time[0]) if time else None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def _there_of(pair: str, places: Mapping[str, int]) -> tuple[str, str]:
    """Names of the way there and the way back; empty for what is not in the table."""
    forward, _, reverse = pair.partition("/")
    if forward not in places:
        return "", ""
    return forward, reverse if reverse in places else ""


def _agree(packets: tuple[str, str], octets: tuple[str, str]) -> bool:
    """Whether both count one way, or both count both: else they are not of the same packets."""
    for (name, _), (other, back) in ((packets, octets), (octets, packets)):
        if name in _SUMS and (back or (other and other not in _SUMS | _EITHER)):
            return False
    lone = [name in _EITHER and not back for name, back in (packets, octets)]
    return not (lone[0] and octets[1]) and not (lone[1] and packets[1])


def _present(names: Iterable[str], places: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(places[name] for name in names if name in places)


def is_row(names: Sequence[str], given: Given) -> bool:
    """Whether what might be names are cells: by the positions given, one is an address."""
    cells = [
        names[place]
        for role in (Role.SOURCE, Role.DESTINATION)
        for place in _at(given.get(role, ""), names)
    ]
    # Small numbers are names of columns that have none, not addresses of 0.0.0.0/8.
    return any(
        int(cell) >= 1 << 24 if cell.isdecimal() else True
        for cell in cells
        if parse_address(cell) is not None
    )


def _is_by_position(names: Sequence[str], given: Given) -> bool:
    """Whether no number is a name: of a row, which has cells that look like one."""
    numbers = [name for name in given.values() if name.isdecimal()]
    return is_row(names, given) or not all(number in names for number in numbers)


def _at(name: str, names: Sequence[str]) -> tuple[int, ...]:
    """By position."""
    if name.isdecimal() and 1 <= int(name) <= len(names):
        return (int(name) - 1,)
    return ()


def _named(name: str, names: Sequence[str], by_position: bool) -> tuple[int, ...]:
    """Exactly so, or nearly so, or by position."""
    if by_position and name.isdecimal():
        return _at(name, names)
    plain = _plain(name)
    for index, other in enumerate(names):
        if name and name == other:
            return (index,)
    for index, other in enumerate(names):
        if plain and plain == _plain(other):
            return (index,)
    return ()


def _there(names: Sequence[str]) -> str:
    shown = ", ".join(name or "(no name)" for name in names[:20])
    return f"its columns are: {shown}{' ...' if len(names) > 20 else ''}"


def _unit(name: str) -> int | None:
    units = {"nanoseconds": 1, "microseconds": 1_000, "milliseconds": 1_000_000}
    for ending, unit in units.items():
        if name.endswith(ending):
            return unit
    return 1_000_000_000 if name.endswith("seconds") else None
