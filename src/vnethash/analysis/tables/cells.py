# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Cells of a column as numbers and addresses: of whatever Arrow type, a column at a time.

What a cell says is read once for all rows that say the same. Nothing raises: of a cell
that cannot be read that much is told.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vnethash.analysis.extras import load

UNTIMED = np.iinfo(np.int64).min
"""The time of a row that has none."""

OTHER, TCP, UDP = range(3)
"""Transports, as far as RSS tells them apart."""
UNKNOWN = -1

_MAPPED = bytes(10) + b"\xff\xff"
_TRANSPORTS = {
    **dict.fromkeys(("6", "tcp", "tcp4", "tcp6"), TCP),
    **dict.fromkeys(("17", "udp", "udp4", "udp6"), UDP),
}
_IPV4_LONGEST = len("255.255.255.255")
_YEAR_2200 = 7_258_118_400


class Addresses(NamedTuple):
    """Shapes (n, 16), with IPv4 in the first 4 bytes, and (n,): 4, 6, or 0 if it is none."""

    packed: NDArray[np.uint8]
    family: NDArray[np.uint8]


class Numbers(NamedTuple):
    """Shape (n,); where ``valid`` is False, the cell is no whole number."""

    values: NDArray[np.int64]
    valid: NDArray[np.bool_]


def addresses(column: Any) -> Addresses:
    """Text, integers (IPv4), or packed in 4 or 16 bytes. ``::ffff:192.0.2.1`` is 192.0.2.1."""
    pa = load("pyarrow", "flow tables")
    types = pa.types
    if types.is_dictionary(column.type):
        return Addresses(*_of_uniques(column, addresses))
    if types.is_integer(column.type):
        signed = types.is_int32(column.type)  # which is where some writers put all 32 bits
        numbers = whole_numbers(column)
        values = numbers.values & 0xFFFFFFFF if signed else numbers.values
        good = numbers.valid & (values >= 0) & (values <= 0xFFFFFFFF)
        packed = np.zeros((len(values), 16), np.uint8)
        packed[:, :4] = np.where(good, values, 0).astype(">u4").view(np.uint8).reshape(-1, 4)
        return Addresses(packed, np.where(good, 4, 0).astype(np.uint8))
    if types.is_null(column.type):
        return Addresses(np.zeros((len(column), 16), np.uint8), np.zeros(len(column), np.uint8))
    if types.is_fixed_size_binary(column.type):
        return _parsed(column, _unpack)
    if not _is_text(column.type):
        column = column.cast(pa.string(), safe=False)
    encoded = column.dictionary_encode()
    if not _is_string(column.type) and _is_packed(encoded.dictionary.to_pylist()):
        return Addresses(*_of_uniques(encoded, lambda values: _parsed(values, _unpack)))
    return Addresses(*_of_uniques(encoded, _of_text))


def parse_address(cell: bytes | str) -> bytes | None:
    """4 or 16 bytes of what ``cell`` says, or None."""
    text = cell if isinstance(cell, str) else cell.decode("latin-1")
    try:
        packed = inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError):
        text = text.strip(" \t\"'")
        if text.isdecimal() and text.isascii():
            number = int(text) if len(text) <= 10 else 1 << 32
            return number.to_bytes(4, "big") if number <= 0xFFFFFFFF else None
        return parse_address(text) if text != cell and text.encode() != cell else None
    return packed[12:] if packed.startswith(_MAPPED) else packed


def whole_numbers(column: Any) -> Numbers:
    """Integers, and what looks like one: text, floats, decimals."""
    pa = load("pyarrow", "flow tables")
    types = pa.types
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_integer(column.type):
        raw = column.fill_null(0) if column.null_count else column
        values = raw.to_numpy(zero_copy_only=False).astype(np.int64)
        valid = np.ones(len(values), np.bool_)
        if types.is_uint64(column.type):
            valid = values >= 0
        return Numbers(values, valid & _valid(column))
    if types.is_floating(column.type) or types.is_decimal(column.type):
        floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        valid = np.isfinite(floats) & (np.abs(floats) < 2**53)
        values = np.where(valid, floats, 0).astype(np.int64)
        return Numbers(values, valid & (values == floats) & _valid(column))
    if not _is_text(column.type):
        nothing = np.zeros(len(column), np.int64)
        return Numbers(nothing, nothing.astype(np.bool_))
    for trim in (False, True):
        try:
            return whole_numbers(_as_string(column, trim).cast(pa.int64()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    encoded = column.dictionary_encode()
    parsed = [_parse_number(cell) for cell in encoded.dictionary.to_pylist()]
    uniques = Numbers(
        np.array([number or 0 for number in parsed], np.int64),
        np.array([number is not None for number in parsed], np.bool_),
    )
    return Numbers(*_of_uniques(encoded, lambda _: uniques))


def transports(column: Any) -> NDArray[np.int8]:
    """TCP, UDP or OTHER of each row by number or name; UNKNOWN for none."""
    pa = load("pyarrow", "flow tables")
    types = pa.types
    if types.is_integer(column.type) or types.is_floating(column.type):
        numbers = whole_numbers(column)
        values = numbers.values
        known = numbers.valid & (values >= 0) & (values <= 255)
        kinds = np.where(values == 6, TCP, np.where(values == 17, UDP, OTHER))
        return np.where(known, kinds, UNKNOWN).astype(np.int8)
    if types.is_null(column.type):
        return np.full(len(column), UNKNOWN, np.int8)
    encoded = column if types.is_dictionary(column.type) else column.dictionary_encode()
    if types.is_temporal(encoded.type.value_type):  # Python has not all times that there are
        return np.full(len(column), UNKNOWN, np.int8)
    uniques = [_transport(cell) for cell in encoded.dictionary.to_pylist()]
    return _take(encoded, np.array([*uniques, UNKNOWN], np.int8))


def times(column: Any, unit: int | None) -> NDArray[np.int64]:
    """Nanoseconds since the Unix epoch; UNTIMED where there is no time, or none that can be.

    Text without a zone is UTC. Numbers count ``unit`` nanoseconds, or, if that is
    None, the largest of seconds, milliseconds... that is before the year 2200.
    """
    pa = load("pyarrow", "flow tables")
    types = pa.types
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_timestamp(column.type):
        unit = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[column.type.unit]
        column = column.cast(pa.int64())
    if types.is_integer(column.type):
        numbers = whole_numbers(column)
        units = _units(numbers.values, unit)
        fits = numbers.valid & (np.abs(numbers.values) <= np.iinfo(np.int64).max // units)
        fits &= numbers.values != UNTIMED  # has no absolute value
        return np.where(fits, numbers.values * np.where(fits, units, 0), UNTIMED)
    if types.is_floating(column.type) or types.is_decimal(column.type):
        floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return _float_times(np.where(np.isnan(floats), np.inf, floats), unit)
    if not _is_text(column.type):
        return np.full(len(column), UNTIMED, np.int64)
    text = _as_string(column, trim=False)
    for kind in (pa.int64(), pa.float64(), pa.timestamp("ns"), pa.timestamp("ns", "UTC")):
        try:
            return times(text.cast(kind), unit)
        except pa.ArrowInvalid:
            continue
    encoded = column.dictionary_encode()
    uniques = [_parse_time(cell, unit) for cell in encoded.dictionary.to_pylist()]
    return _take(encoded, np.array([*uniques, UNTIMED], np.int64))


def words(column: Any) -> NDArray[np.object_]:
    """Text in lower case; empty for none."""
    types = load("pyarrow", "flow tables").types
    encoded = column if types.is_dictionary(column.type) else column.dictionary_encode()
    if types.is_temporal(encoded.type.value_type):
        return np.full(len(column), "", np.object_)
    uniques = [_text(cell).strip().lower() for cell in encoded.dictionary.to_pylist()]
    return _take(encoded, np.array([*uniques, ""], np.object_))


def shown(column: Any, row: int) -> str:
    """A cell as an error tells it."""
    try:
        value = column[row].as_py()
    except (ValueError, OverflowError):  # a time that Python has none for
        return "what cannot be shown"
    return "nothing" if value is None else repr(_text(value)[:40])


def _valid(column: Any) -> NDArray[np.bool_]:
    if not column.null_count:
        return np.ones(len(column), np.bool_)
    valid: NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _is_string(kind: Any) -> bool:
    types = load("pyarrow", "flow tables").types
    checks = ("is_string", "is_large_string", "is_string_view")
    return any(getattr(types, check)(kind) for check in checks if hasattr(types, check))


def _is_text(kind: Any) -> bool:
    types = load("pyarrow", "flow tables").types
    return _is_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)


def _is_packed(cells: list[bytes]) -> bool:
    """Whether bytes are addresses as they lie in a packet, and not text without a type."""
    return all(len(cell) in (4, 16) for cell in cells) and None in map(parse_address, cells)


def _as_string(column: Any, trim: bool) -> Any:
    pa = load("pyarrow", "flow tables")
    if pa.types.is_binary(column.type):
        column = column.view(pa.string())  # what is no UTF-8 is no number either
    elif not pa.types.is_string(column.type):
        column = column.cast(pa.string())
    return load("pyarrow.compute", "flow tables").ascii_trim_whitespace(column) if trim else column


def _of_uniques(
    encoded: Any, parse: Callable[[Any], tuple[NDArray[Any], ...]]
) -> list[NDArray[Any]]:
    """The arrays that ``parse`` makes of the dictionary, by row; zeros for null."""
    return [
        _take(encoded, np.concatenate([part, np.zeros_like(part, shape=(1, *part.shape[1:]))]))
        for part in parse(encoded.dictionary)
    ]


def _take(encoded: Any, uniques: NDArray[Any]) -> NDArray[Any]:
    """Rows of what was found for the dictionary, the last of which is for null."""
    indices = encoded.indices
    if indices.null_count:
        indices = indices.cast("int64").fill_null(len(uniques) - 1)
    chosen: NDArray[Any] = uniques[indices.to_numpy(zero_copy_only=False)]
    return chosen


def _parsed(column: Any, parse: Callable[[bytes], bytes | None]) -> Addresses:
    family = np.zeros(len(column), np.uint8)
    packed = bytearray(16 * len(column))
    for row, cell in enumerate(column.to_pylist()):
        address = None if cell is None else parse(cell)
        if address is not None:
            family[row] = 4 if len(address) == 4 else 6
            packed[16 * row : 16 * row + len(address)] = address
    return Addresses(np.frombuffer(packed, np.uint8).reshape(-1, 16), family)


def _of_text(column: Any) -> Addresses:
    """As `parse_address`; IPv4 in its usual form by arithmetic on all of them at once."""
    pa = load("pyarrow", "flow tables")
    column = column.cast(pa.large_binary())
    _, offsets, data = column.buffers()
    if not len(column) or data is None:
        return _parsed(column, parse_address)
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    starts, lengths = ends[:-1], np.diff(ends)
    # Behind the last of them, letters that belong to none.
    letters = np.append(np.frombuffer(data, np.uint8), np.zeros(_IPV4_LONGEST + 1, np.uint8))
    good = lengths <= _IPV4_LONGEST
    packed = np.zeros((len(column), 16), np.uint8)
    place, digits = np.zeros((2, len(column)), np.uint8)
    octet = np.zeros(len(column), np.uint16)
    for step in range(min(int(lengths.max()), _IPV4_LONGEST) + 1):
        letter = letters[starts + step]
        digit = letter - np.uint8(ord("0"))  # what is below wraps to above
        is_digit = (step < lengths) & (digit < 10)
        stops = (step == lengths) | ((step < lengths) & (letter == ord(".")))
        good &= is_digit | stops | (step > lengths)
        # Not more than three, and no zero in front of another.
        good &= ~is_digit | ((digits < 3) & ((digits != 1) | (octet > 0)))
        good &= ~stops | ((digits > 0) & (octet < 256) & (place < 4))
        rows = np.flatnonzero(stops & good)
        packed[rows, place[rows]] = octet[rows]
        place += stops
        octet = np.where(is_digit, octet * 10 + digit, 0).astype(np.uint16)
        digits = np.where(is_digit, digits + 1, 0).astype(np.uint8)
    good &= place == 4
    packed[~good] = 0
    family = np.where(good, 4, 0).astype(np.uint8)
    others = np.flatnonzero(~good)
    rest = _parsed(column.take(pa.array(others)), parse_address)
    packed[others], family[others] = rest.packed, rest.family
    return Addresses(packed, family)


def _unpack(cell: bytes) -> bytes | None:
    if cell.startswith(_MAPPED) and len(cell) == 16:
        return cell[12:]
    return cell if len(cell) in (4, 16) else None


def _text(cell: Any) -> str:
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "backslashreplace")
    return "" if cell is None else str(cell)


def _parse_number(cell: Any) -> int | None:
    try:
        number = float(_text(cell))
    except ValueError:
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else None


def _transport(cell: Any) -> int:
    text = _text(cell).strip().lower()
    number = _parse_number(text)
    if number is not None:
        text = str(number)
        return _TRANSPORTS.get(text, OTHER) if 0 <= number <= 255 else UNKNOWN
    return _TRANSPORTS.get(text, OTHER) if text else UNKNOWN


def _units(values: NDArray[Any], unit: int | None) -> NDArray[np.int64]:
    if unit is not None:
        return np.full(len(values), unit, np.int64)
    large = np.abs(values)
    steps = [large < _YEAR_2200 * scale for scale in (1, 10**3, 10**6)]
    return np.select(steps, [10**9, 10**6, 10**3], 1)


def _float_times(floats: NDArray[np.float64], unit: int | None) -> NDArray[np.int64]:
    units = _units(floats, unit)
    # A double holds seconds since the epoch to the microsecond, and no better.
    with np.errstate(over="ignore"):
        microseconds = np.rint(floats * (units / 1000))
    fits = np.isfinite(microseconds) & (np.abs(microseconds) < 2**53)
    return np.where(fits, np.where(fits, microseconds, 0).astype(np.int64) * 1000, UNTIMED)


def _parse_time(cell: Any, unit: int | None) -> int:
    text = _text(cell).strip()
    try:
        return int(_float_times(np.array([float(text)]), unit)[0])
    except ValueError:
        pass
    try:
        # SiLK writes 2024/01/31T12:00:00.123
        moment = datetime.fromisoformat(text.replace("/", "-"))
    except ValueError:
        return int(UNTIMED)
    since = moment.replace(tzinfo=moment.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
