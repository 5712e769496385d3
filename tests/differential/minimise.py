# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""From a case that shows a fault to the smallest one that still does."""

from collections.abc import Callable, Iterator
from typing import Any

from tests.differential.case import Case
from vnethash.rss.config import RssConfig
from vnethash.rss.keys import MICROSOFT_KEY
from vnethash.virtio.hash_types import HashType, TunnelType

Shows = Callable[[Case], bool]


def minimise(case: Case, shows: Shows) -> Case:
    """A case of which nothing can be taken without the fault going away.

    ``shows`` says whether a case shows the fault; it does for ``case``.
    """
    while True:
        before = case
        for smaller in (_configuration, _pieces, _counted, _zeros):
            case = smaller(case, shows)
        if case == before:
            return case


def _configuration(case: Case, shows: Shows) -> Case:
    """The default of one queue, or of four, or as near to them as it goes."""
    for usual in _USUAL:
        if case.config == usual or shows(case.with_config(usual)):
            return case.with_config(usual)
    for changes in _simpler(case.config):
        simpler = case.with_config(case.config.replace(**changes))
        if simpler != case and shows(simpler):
            case = simpler
    return case


_USUAL = (RssConfig.default(1), RssConfig.default(4).replace(unclassified_queue=3))


def _simpler(config: RssConfig) -> Iterator[dict[str, Any]]:
    """Changes that make it simpler, each for itself."""
    usual = _USUAL[1]
    yield {
        name: getattr(usual, name) for name in ("queues", "indirection_table", "unclassified_queue")
    }
    yield {"key": MICROSOFT_KEY}
    yield {"hash_types": HashType.ALL}
    if config.tunnels:
        yield from ({"tunnels": tunnel} for tunnel in (*TunnelType, TunnelType.NONE))


def _pieces(case: Case, shows: Shows) -> Case:
    """Cut out whatever can be missed: large pieces first, then headers wherever they begin."""
    size = len(case.frame)
    while size:
        case = _without(case, shows, size, step=size)
        size //= 2
    for size in range(_LONGEST, 2, -2):
        case = _without(case, shows, size, step=2)
    return case


def _without(case: Case, shows: Shows, size: int, step: int) -> Case:
    at = 0
    while at < len(case.frame):
        shorter = case.with_frame(case.frame[:at] + case.frame[at + size :])
        if shows(shorter):
            case = shorter
        else:
            at += step
    return case


_LONGEST = 72
"""Bytes of the headers in front of what a tunnel carries; all headers are of even length."""


def _counted(case: Case, shows: Shows) -> Case:
    """Shorten a header together with the byte that counts its length."""
    at = 0
    while at < len(case.frame):
        for unit, behind in _COUNTED:
            frame, piece = case.frame, at + behind
            if not frame[at] or piece + unit > len(frame):
                continue
            less = bytes([frame[at] - 1])
            shorter = frame[:at] + less + frame[at + 1 : piece] + frame[piece + unit :]
            if shows(case.with_frame(shorter)):
                case = case.with_frame(shorter)
                break
        else:
            at += 1
    return case


_COUNTED = (
    (8, 7),  # IPv6 extension headers: units, and from the length byte to the first of them
    (4, 11),  # authentication
    (4, 20),  # IPv4 options
    (4, 8),  # Geneve options
    (1, 1),  # PadN
)


def _zeros(case: Case, shows: Shows) -> Case:
    """Zero bytes that do not matter, else bits."""
    for at in range(len(case.frame)):
        for mask in (0, *(0xFF ^ 1 << bit for bit in range(8))):
            frame = case.frame
            less = frame[:at] + bytes([frame[at] & mask]) + frame[at + 1 :]
            if less != frame and shows(case.with_frame(less)):
                case = case.with_frame(less)
    return case
