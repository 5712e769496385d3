# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What ``ethtool -x DEV`` prints, as text and as JSON, and what ``ethtool -X DEV`` takes."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from vnethash.errors import ConfigError
from vnethash.rss.keys import format_key, parse_hex

_HEADING = re.compile(r"RX flow hash indirection table for .+ with (\d+) RX ring\(s\).*:")
_ROW = re.compile(r"(\d+):((?:\s+\d+)+)")
_SWITCH = re.compile(r"([\w-]+):\s*(on|off)")
_UNSUPPORTED = "Operation not supported"
_PER_ROW = 8
_HINT = "give the whole output of `ethtool -x DEV`"

_NO_TABLE = "the device has none to show"
_NO_TABLE_HINT = "its driver does not support RSS; write the table yourself"
_NO_KEY = "the device does not tell its RSS key"
_NO_KEY_HINT = "take the key from its driver's documentation and give it yourself"


class Rxfh(NamedTuple):
    """What the text tells. ``key`` has the length the device has."""

    queues: int
    table: tuple[int, ...]
    key: bytes


def format_rxfh(device: str, queues: int, table: Sequence[int], key: bytes) -> str:
    """The text for these settings, ending in a newline."""
    lines = [f"RX flow hash indirection table for {device} with {queues} RX ring(s):"]
    for start in range(0, len(table), _PER_ROW):
        row = "".join(f" {queue:5}" for queue in table[start : start + _PER_ROW])
        lines.append(f"{start:5}: {row}")
    lines += [
        "RSS hash key:",
        format_key(key),
        "RSS hash function:",
        "    toeplitz: on",
        "    xor: off",
        "    crc32: off",
    ]
    return "\n".join(lines) + "\n"


def parse_rxfh(text: str) -> Rxfh:
    """The settings in ``text``.

    ConfigError if the table, its heading or the key is missing, unsupported
    or cut, if the hash function is not Toeplitz, or if the device changes
    the input before it hashes (symmetric-xor).
    """
    lines = [stripped for line in text.splitlines() if (stripped := line.strip())]
    headings = [(at, match) for at, line in enumerate(lines) if (match := _HEADING.match(line))]
    if not headings:
        raise ConfigError("ethtool", "no heading of an indirection table", hint=_HINT)
    if len(headings) > 1:
        raise ConfigError("ethtool", "more than one device or context", hint="give one of them")
    start, heading = headings[0]
    _check_function(_switches(lines, "RSS hash function:"))
    _check_transformation(_switches(lines, "RSS input transformation:"))
    return Rxfh(int(heading[1]), _table(lines[start + 1 :]), _key(lines))


def parse_rxfh_json(text: str) -> Rxfh:
    """The settings in what ``ethtool --json -x DEV`` prints (ethtool 6.3 and later).

    It does not tell how many queues there are: ``queues`` is as many as the table names.
    ConfigError as of ``parse_rxfh``.
    """
    try:
        devices = json.loads(text)
    except ValueError as error:
        raise ConfigError("ethtool", f"is not valid JSON: {error}") from None
    if not (isinstance(devices, list) and devices and isinstance(devices[0], dict)):
        raise ConfigError("ethtool", "no list of devices", hint=_HINT)
    if len(devices) > 1:
        raise ConfigError("ethtool", "more than one device or context", hint="give one of them")
    shown = devices[0]
    table = _numbers(shown, "rss-indirection-table", 0xFFFF)
    if not table:
        raise ConfigError("indirection_table", _NO_TABLE, hint=_NO_TABLE_HINT)
    key = _numbers(shown, "rss-hash-key", 0xFF)
    if not key:
        raise ConfigError("key", _NO_KEY, hint=_NO_KEY_HINT)
    function = shown.get("rss-hash-function")
    unknown = shown.get("rss-hash-function-raw")
    names = [name for name in (function, unknown) if name is not None]
    _check_function({str(name): True for name in names})
    transformations = shown.get("rss-input-transformation", {})
    if isinstance(transformations, dict):
        _check_transformation({name: bool(on) for name, on in transformations.items()})
    return Rxfh(max(table) + 1, table, bytes(key))


def _numbers(shown: Mapping[str, Any], name: str, most: int) -> tuple[int, ...]:
    """A list of integers, empty if it is not there."""
    values = shown.get(name, [])
    if not isinstance(values, list) or not all(
        type(value) is int and 0 <= value <= most for value in values
    ):
        raise ConfigError("ethtool", f"{name} is no list of numbers up to {most}", hint=_HINT)
    return tuple(values)


def format_table(table: Sequence[int]) -> str | None:
    """What ``ethtool -X DEV`` is to be told for this table, such as ``weight 3 5``.

    It knows the queues in turn (``equal N``), and each queue once in a row, in order
    (``weight``), which are as many entries for each as the weights are in
    proportion. None for any other table.
    """
    queues = max(table) + 1
    if all(queue == entry % queues for entry, queue in enumerate(table)):
        return f"equal {queues}"
    if any(queue < before for before, queue in pairwise(table)):
        return None
    counts = [0] * queues
    for queue in table:
        counts[queue] += 1
    unit = math.gcd(*counts)
    return "weight " + " ".join(str(count // unit) for count in counts)


def _table(lines: Sequence[str]) -> tuple[int, ...]:
    table: list[int] = []
    for line in lines:
        row = _ROW.fullmatch(line)
        if not row:
            break
        if int(row[1]) != len(table):
            place = f"follows entry {len(table) - 1}" if table else "comes first"
            raise ConfigError("ethtool", f"the row of entry {row[1]} {place}", hint=_HINT)
        table += [int(queue) for queue in row[2].split()]
    if not table:
        raise ConfigError(
            "indirection_table",
            _NO_TABLE,
            hint=_NO_TABLE_HINT,
        )
    return tuple(table)


def _key(lines: Sequence[str]) -> bytes:
    heading = "RSS hash key:"
    # Some copies of the output carry the key on the line of its heading.
    at = next((at for at, line in enumerate(lines) if line.startswith(heading)), None)
    if at is None:
        raise ConfigError("key", "not in the text", hint=_HINT)
    key = lines[at].removeprefix(heading).strip() or "".join(lines[at + 1 : at + 2])
    if not key:
        raise ConfigError("key", "not in the text", hint=_HINT)
    if key == _UNSUPPORTED:
        raise ConfigError(
            "key",
            _NO_KEY,
            hint=_NO_KEY_HINT,
        )
    return parse_hex(key)


def _switches(lines: Sequence[str], heading: str) -> dict[str, bool]:
    """The ``name: on`` lines below ``heading``, none if it is not there."""
    switches: dict[str, bool] = {}
    if heading in lines:
        for line in lines[lines.index(heading) + 1 :]:
            match = _SWITCH.fullmatch(line)
            if not match:
                break
            switches[match[1]] = match[2] == "on"
    return switches


def _check_function(functions: dict[str, bool]) -> None:
    # Old kernels and ethtools name no function at all; those devices use Toeplitz.
    if functions and not functions.get("toeplitz"):
        used = ", ".join(name for name, on in functions.items() if on) or "none of those listed"
        raise ConfigError(
            "hash_function",
            f"is {used}, but virtio RSS hashes with toeplitz (virtio 1.3, 5.1.6.5.7)",
            hint="run `ethtool -X DEV hfunc toeplitz` first",
        )


def _check_transformation(transformations: dict[str, bool]) -> None:
    for name, on in transformations.items():
        if on:
            raise ConfigError(
                "input_transformation",
                f"{name} is on, but virtio RSS hashes the fields as they are",
                hint="run `ethtool -X DEV xfrm none` first",
            )
