# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash replay``: the frames of a capture through a tap, and what became of each."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vnethash.cli.options import (
    ConfigOption,
    IndirectionOption,
    JsonOption,
    KeyOption,
    ProgramOption,
    QueuesOption,
    TunnelsOption,
    TypesOption,
    UnclassifiedOption,
    config_from_options,
)
from vnethash.cli.output import error_console, json_line, progress
from vnethash.cli.verifier_log import VerifierLogOption, verifier_log
from vnethash.errors import CaptureError, VnethashError
from vnethash.replay.select import ReplayEngine
from vnethash.reporting import Reporting

if TYPE_CHECKING:
    from vnethash.capture import Capture
    from vnethash.replay.outcome import Outcome, Way

_WINDOW = 64
"""Frames under way at once."""

_HEADING = f"{'frame':>9} {'length':>7}  {'hash':<10}  {'type':<8}  {'queue':>5}  record"


def replay_command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A pcap or pcapng file; - is standard input.")
    ],
    engine: Annotated[
        ReplayEngine,
        typer.Option(
            "--engine",
            "-e",
            case_sensitive=False,
            help="ebpf and software send the frames through a tap, as do tun-... on a kernel of "
            "the lab; native and python put them through the library. "
            "auto: the best that works here.",
        ),
    ] = ReplayEngine.AUTO,
    reporting: Annotated[
        Reporting,
        typer.Option(
            "--reporting",
            "-r",
            case_sensitive=False,
            help="How hashes come: in a record, by the reader hashing again, or not at all.",
        ),
    ] = Reporting.RECORD,
    queues: QueuesOption = None,
    key: KeyOption = None,
    types: TypesOption = None,
    indirection: IndirectionOption = None,
    unclassified: UnclassifiedOption = None,
    tunnels: TunnelsOption = None,
    config: ConfigOption = None,
    program: ProgramOption = None,
    log: VerifierLogOption = None,
    json: JsonOption = False,
) -> None:
    """Send the frames of a capture through a tap; tell queue and hash of each.

    The tap is in a network namespace of its own. Prints one line a frame, in
    the order of the file, and a summary on stderr. Fails (exit code 1) if a
    frame could not be sent or was lost, or the capture is damaged.
    """
    from vnethash.replay.select import open_way

    rss = config_from_options(queues, key, types, indirection, unclassified, config, tunnels)
    tally = _Tally()
    damage: CaptureError | None = None
    with (
        verifier_log(log),
        _open(file) as capture,
        open_way(engine, rss, reporting, program) as (way, reason),
    ):
        if reason is not None:
            _tell_fallback(reason, as_json=json)
        try:
            _replay(capture, way, tally, as_json=json)
        except CaptureError as error:
            damage = error
        sys.stdout.flush()
        _summarize(tally, way, as_json=json)
    if damage is not None:
        raise damage
    if tally.foreign and tally.foreign == tally.frames:
        raise CaptureError(
            str(file),
            "no frame of it has an Ethernet header",
            hint="capture on an Ethernet interface, or convert the file to link type 1",
        )
    if tally.failed:
        raise typer.Exit(1)


class _Tally:
    """Counts for the summary."""

    def __init__(self) -> None:
        self.frames = self.cut = self.foreign = self.failed = self.lost = self.records = 0
        self.queues: Counter[int] = Counter()

    def count(self, outcome: "Outcome") -> None:
        from vnethash.replay.outcome import Failed

        if isinstance(outcome, Failed):
            self.failed += 1
            self.lost += outcome.is_lost
        else:
            self.queues[outcome.queue] += 1
            self.records += outcome.has_record


@contextmanager
def _open(file: Path) -> "Iterator[Capture]":
    from vnethash.capture import open_capture

    with open_capture(sys.stdin.buffer if str(file) == "-" else file) as capture:
        yield capture


def _replay(capture: "Capture", way: "Way", tally: _Tally, *, as_json: bool) -> None:
    from vnethash.replay.outcome import not_ethernet, windows

    with progress(f"replaying {capture.path} (bytes)", capture.size) as advance:
        if not as_json:
            sys.stdout.write(_HEADING + "\n")
        for window in windows(capture, _WINDOW):
            outcomes = way.replay(window)
            tally.frames += len(window)
            tally.cut += sum(len(frame.data) < frame.original_length for frame in window)
            tally.foreign += sum(not_ethernet(frame) is not None for frame in window)
            for outcome in outcomes:
                tally.count(outcome)
            lines = (json_line(o.to_json()) if as_json else _row(o) for o in outcomes)
            sys.stdout.write("\n".join(lines) + "\n")
            advance(capture.offset)


def _row(outcome: "Outcome") -> str:
    """One line of the table. Not of rich: a capture may have a million frames."""
    from vnethash.replay.outcome import Failed

    if isinstance(outcome, Failed):
        return f"{outcome.number:>9} {outcome.length:>7}  error: {outcome.error}"
    value = f"{outcome.hash_value:#010x}" if outcome.hash_report else "-"
    record = "yes" if outcome.has_record else "no"
    return (
        f"{outcome.number:>9} {outcome.length:>7}  {value:<10}  {outcome.hash_report.name:<8}  "
        f"{outcome.queue:>5}  {record}"
    )


def _tell_fallback(reason: VnethashError, *, as_json: bool) -> None:
    message = f"no tap here, so the frames go through the library (engine native): {reason}"
    if as_json:
        print(json_line({"note": message, "hint": reason.hint}), file=sys.stderr, flush=True)
        return
    error_console().print(f"vnethash: {message}", soft_wrap=True)
    if reason.hint:
        error_console().print(f"vnethash: for a tap, {reason.hint}", soft_wrap=True)


def _summarize(tally: _Tally, way: "Way", *, as_json: bool) -> None:
    queues = {str(queue): packets for queue, packets in sorted(tally.queues.items())}
    passed = tally.frames - tally.failed
    if as_json:
        summary = {
            "engine": way.engine,
            "attach_point": way.point,
            "reporting": way.reporting,
            "frames": tally.frames,
            "replayed": passed,
            "not_sent": tally.failed - tally.lost,
            "lost": tally.lost,
            "captured_short": tally.cut,
            "records": tally.records,
            "queues": queues,
        }
        print(json_line({"summary": summary}), file=sys.stderr, flush=True)
        return
    parts = [f"{passed} of {tally.frames} frames by engine {way.engine} ({way.point})"]
    if tally.failed - tally.lost:
        parts.append(f"{tally.failed - tally.lost} could not be sent")
    if tally.lost:
        parts.append(f"{tally.lost} lost")
    if tally.cut:
        parts.append(f"{tally.cut} captured short")
    if queues:
        parts.append("by queue " + ", ".join(f"{q}: {n}" for q, n in queues.items()))
    error_console().print("vnethash: " + "; ".join(parts), soft_wrap=True)
