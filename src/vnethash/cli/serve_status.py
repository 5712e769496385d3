# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What ``vnethash serve`` shows: JSON, lines, or on a terminal the state of things."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from vnethash.cli.output import console, emit_json

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from vnethash.vhost_user.backend import Backend
    from vnethash.vhost_user.host_tap import HostTap
    from vnethash.vhost_user.pairs import PairCounters

REDRAW = 0.5
"""Seconds between two looks at the counters."""

_RECENT = 8
"""Events a terminal shows."""

_ITEMS = 9
"""Of a list that are written out: as many as there are hash types."""


class Status(Protocol):
    """Shows what goes on."""

    live: bool
    """Whether look() wants to be called now and then."""

    def note(self, event: str, values: Mapping[str, Any]) -> None:
        """Something happened (vhost_user/journal.py)."""

    def begin(self, backend: "Backend") -> None:
        """What is looked at from now on."""

    def look(self) -> None:
        """Show the counters as they are now."""


@contextmanager
def reporter(host: "HostTap", *, as_json: bool) -> Iterator[Status]:
    """The fitting one for standard output."""
    if as_json:
        yield _Json()
    elif not console().is_terminal:
        yield _Lines()
    else:
        from rich.live import Live

        with Live(console=console(), auto_refresh=False) as live:
            yield _Terminal(host, live)


class _Json:
    """One object a line for each event."""

    live = False

    def note(self, event: str, values: Mapping[str, Any]) -> None:
        emit_json({"event": event, **values}, flush=True)

    def begin(self, backend: "Backend") -> None:
        """Nothing: it shows no counters."""

    def look(self) -> None:
        """Nothing."""


class _Lines(_Json):
    """One line for each event, for a log."""

    def note(self, event: str, values: Mapping[str, Any]) -> None:
        console().print(sentence(event, values), soft_wrap=True)
        console().file.flush()


class _Terminal:
    """The device, its queues and the last events."""

    live = True

    def __init__(self, host: "HostTap", live: "Live") -> None:
        self._host = host
        self._live = live
        self._backend: Backend | None = None
        self._recent: list[str] = []
        self._counted: list[PairCounters] = []
        self._rates: list[tuple[float, float]] = []
        self._looked = time.monotonic()

    def note(self, event: str, values: Mapping[str, Any]) -> None:
        now = time.strftime("%H:%M:%S")
        self._recent = [*self._recent, f"{now}  {sentence(event, values)}"][-_RECENT:]
        self._live.update(self._render(), refresh=True)

    def begin(self, backend: "Backend") -> None:
        self._backend = backend
        self._counted = backend.counters()
        self._rates = [(0.0, 0.0) for _ in self._counted]

    def look(self) -> None:
        now = time.monotonic()
        seconds = now - self._looked
        if self._backend is None or seconds < REDRAW / 2:
            return  # a rate of so little time says nothing
        before, self._counted = self._counted, self._backend.counters()
        self._rates = [
            (
                (pair.receive.packets - then.receive.packets) / seconds,
                (pair.transmit.packets - then.transmit.packets) / seconds,
            )
            for pair, then in zip(self._counted, before, strict=True)
        ]
        self._looked = now
        self._live.update(self._render(), refresh=True)

    def _render(self) -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        recent = Text("\n".join(self._recent), style="dim", no_wrap=True, overflow="ellipsis")
        if self._backend is None:
            return recent
        return Group(self._heading(self._backend), self._queues(self._backend), Text(), recent)

    def _heading(self, backend: "Backend") -> "Text":
        from rich.text import Text

        state = backend.device.state
        if not state.features:
            what = "no guest"
        elif state.steering is None:
            what = "adaptive table" if self._host.adapts else "automatic steering"
        else:
            what = f"RSS, {len(state.steering.indirection_table)} entries"
        if state.features:
            what += ", hash reported" if state.reports else ", no hash"
        where = f", {self._host.engine} ({self._host.attach_point}): "
        return Text.assemble((self._host.name, "bold"), where, what)

    def _queues(self, backend: "Backend") -> "Table":
        from rich.table import Table

        table = Table("pair", box=None, pad_edge=False)
        for column in ("to guest", "packets/s", "from guest", "packets/s", "dropped", "hashed"):
            table.add_column(column, justify="right")
        rows = zip(self._counted, self._rates, strict=True)
        for index, (pair, (received, sent)) in enumerate(rows):
            table.add_row(
                str(index),
                f"{pair.receive.packets:,}",
                f"{received:,.0f}",
                f"{pair.transmit.packets:,}",
                f"{sent:,.0f}",
                f"{pair.receive.dropped + pair.transmit.dropped:,}",
                f"{pair.recorded + pair.rehashed:,}",
                style=None if index < backend.queues_in_use else "dim",
            )
        return table


def sentence(event: str, values: Mapping[str, Any]) -> str:
    """An event in words."""
    match event, values:
        case "listening", {"socket": path, "tap": tap, "engine": engine, "queue_pairs": pairs}:
            without = f"; no RSS: {why}" if (why := values.get("no_rss")) else ""
            return f"listening on {path} for {tap}, {pairs} queue pairs, engine {engine}{without}"
        case "connected", {"pid": pid}:
            return f"front end connected (process {pid})"
        case "disconnected", {"reason": reason}:
            return f"front end gone: {reason}"
        case "features", {"features": names, "imported": imported}:
            went_on = ", goes on with the state it had" if imported else ""
            return f"driver negotiated {', '.join(names)}{went_on}"
        case "queues", {"in_use": count}:
            if not count:
                return "packets go nowhere"
            return f"packets go to {count} {'queue' if count == 1 else 'queues'}"
        case "control", {"answer": "ok", **command}:
            return _command(command)
        case "control", {"answer": _, "reason": reason, **command}:
            return f"refused: {reason}" if "command" in command else f"no command: {reason}"
        case "balanced", {"imbalance": before, "expected": after, "moves": moves}:
            buckets = "1 bucket" if len(moves) == 1 else f"{len(moves)} buckets"
            return f"imbalance {before:.2f}: {buckets} moved, {after:.2f} expected"
        case "fault", {"queue": queue, "reason": reason}:
            return f"{queue} is broken: {reason}"
        case "refused", {"reason": reason}:
            return str(reason)
        case _:
            return event


def _command(command: Mapping[str, Any]) -> str:
    rest = ", ".join(_short(name, value) for name, value in command.items() if name != "command")
    return f"{command['command']} {rest}".rstrip()


def _short(name: str, value: object) -> str:
    if isinstance(value, bool):
        return name if value else "off"
    if not isinstance(value, list):
        return f"{name} {value}"
    shown = ",".join(map(str, value[:_ITEMS]))
    if len(value) > _ITEMS:
        return f"{name} {shown},… ({len(value)})"
    return f"{name} {shown or 'none'}"
