# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which way frames are replayed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path

from vnethash.errors import ConfigError, DependencyMissing, NotPermitted, Unsupported, VnethashError
from vnethash.replay.outcome import Way
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig


class ReplayEngine(StrEnum):
    """A tap's engines, the library's two, and the best there is."""

    AUTO = "auto"
    TUN_PROGTYPE = "tun-progtype"
    TUN_KFUNC = "tun-kfunc"
    TUN_CB = "tun-cb"
    TUN_RSS = "tun-rss"
    EBPF = "ebpf"
    PROGRAM = "program"
    SOFTWARE = "software"
    NATIVE = "native"
    PYTHON = "python"


@contextmanager
def open_way(
    engine: ReplayEngine, rss: RssConfig, reporting: Reporting, program: Path | None = None
) -> Iterator[tuple[Way, VnethashError | None]]:
    """The way for the block; and if ``auto`` cannot have a tap, why.

    With ``auto`` the library's native core then stands in. Raises what
    `Tap.open` does for the others.
    """
    from vnethash.replay.library import LibraryWay

    if program is not None and engine in (ReplayEngine.NATIVE, ReplayEngine.PYTHON):
        raise ConfigError("engine", f"is {engine}, but a hash program runs in a kernel only")
    if engine is ReplayEngine.NATIVE:
        yield LibraryWay("native", rss, reporting), None
        return
    if engine is ReplayEngine.PYTHON:
        yield LibraryWay("python", rss, reporting), None
        return

    from vnethash.replay.through_tap import open_tap_way

    with ExitStack() as resources:
        way: Way
        reason = None
        try:
            way = resources.enter_context(open_tap_way(rss, reporting, engine, program))
        except (DependencyMissing, NotPermitted, Unsupported) as error:
            if engine is not ReplayEngine.AUTO or program is not None:
                raise
            way, reason = LibraryWay("native", rss, reporting), error
        yield way, reason
