# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Numbers and times as people read them."""

from datetime import UTC, datetime, timedelta

_SI = ("", "k", "M", "G", "T", "P", "E")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def amount(number: float, unit: str = "") -> str:
    """With three digits and an SI prefix: ``12.3 MB``, ``950``."""
    size = float(number)
    power = 0
    while abs(size) >= 999.5 and power < len(_SI) - 1:
        size /= 1000
        power += 1
    if power == 0 and size == int(size):
        digits = str(int(size))
    else:
        digits = f"{size:.{max(0, 2 - len(str(int(abs(size)))) + 1)}f}"
    return f"{digits} {_SI[power]}{unit}".rstrip()


def count(number: int, what: str) -> str:
    """``1 queue``, ``12,345 queues``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def percent(part: float, whole: float = 1.0) -> str:
    """``34%``, ``0.2%``; ``0%`` of nothing."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.05:
        return "<0.1%"
    return f"{share:.0f}%" if share >= 10 or share == 0 else f"{share:.1f}%"


def times(ratio: float) -> str:
    """``2.1 times``."""
    return f"{ratio:.2f} times"


def moment(nanoseconds: int, *, fine: bool = False) -> str:
    """A time since the epoch in UTC, to the second, or to the millisecond."""
    when = _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    return when.strftime("%Y-%m-%d %H:%M:%S") + (f".{when.microsecond // 1000:03}" if fine else "")


def duration(nanoseconds: int) -> str:
    """``1.5 s``, ``20 ms``, ``2 h 5 min``."""
    seconds = nanoseconds / 1e9
    if seconds >= 86400:
        return f"{seconds / 86400:.1f} d"
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    for size, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{nanoseconds} ns"
