# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Through a real tap, in a network namespace of its own."""

import select
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from vnethash.capture import Frame
from vnethash.errors import DeviceError
from vnethash.kernel import link, netns
from vnethash.kernel.packet_socket import PacketSocket
from vnethash.replay.outcome import Failed, Outcome, Replayed, not_ethernet
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig
from vnethash.tap import Queue, Tap
from vnethash.virtio.hash_types import ReportType

MTU_MAX = 65521
"""Largest MTU of a tap, in bytes (drivers/net/tun.c: 65535 less an Ethernet header)."""

LOST_AFTER = 1.0
"""Seconds without any of the frames sent, after which those missing are lost."""

_REPORTS = tuple(ReportType)


class TapWay:
    """Sends frames to a tap and reads them from its queues."""

    def __init__(self, tap: Tap, socket: PacketSocket) -> None:
        self._tap = tap
        self._socket = socket
        self._poll = select.poll()
        self._queues = {queue.fileno(): queue for queue in tap.queues}
        for fd in self._queues:
            self._poll.register(fd, select.POLLIN)

    @property
    def engine(self) -> str:
        return self._tap.engine

    @property
    def point(self) -> str:
        return self._tap.attach_point

    @property
    def reporting(self) -> Reporting:
        return self._tap.reporting

    def replay(self, frames: Sequence[Frame]) -> list[Outcome]:
        """Send all frames, then wait for them; what became of each, in their order.

        There must be room for them in one queue (the kernel keeps 500 a
        queue). Raises DeviceError if the tap breaks.
        """
        outcomes: dict[int, Outcome] = {}
        # Frames are told by their bytes. Equal ones are interchangeable: all
        # that is said of them is the same.
        missing: dict[bytes, deque[Frame]] = {}
        for frame in frames:
            error = not_ethernet(frame) or self._send(frame.data)
            if error:
                outcomes[frame.index] = Failed(frame.index, len(frame.data), error)
            else:
                missing.setdefault(frame.data, deque()).append(frame)
        self._collect(missing, outcomes)
        for lost in missing.values():
            for frame in lost:
                outcomes[frame.index] = Failed(
                    frame.index,
                    len(frame.data),
                    f"lost: sent, but not on any queue within {LOST_AFTER:g} s",
                    is_lost=True,
                )
        return [outcomes[frame.index] for frame in frames]

    def _send(self, data: bytes) -> str | None:
        try:
            self._socket.send(data)
        except DeviceError as error:
            return error.message
        return None

    def _collect(self, missing: dict[bytes, deque[Frame]], outcomes: dict[int, Outcome]) -> None:
        """Move frames from `missing` to `outcomes` as they come."""
        deadline = time.monotonic() + LOST_AFTER
        while missing and (left := deadline - time.monotonic()) > 0:
            for fd, _ in self._poll.poll(left * 1000):
                for data, outcome in _drain(self._queues[fd]):
                    same = missing.get(data)
                    if same is None:
                        continue  # a frame of the kernel's own
                    frame = same.popleft()
                    if not same:
                        del missing[data]
                    outcomes[frame.index] = outcome._replace(number=frame.index)
                    deadline = time.monotonic() + LOST_AFTER


def _drain(queue: Queue) -> Iterator[tuple[bytes, Replayed]]:
    """What a queue holds now: frames and what came with them, their number not known yet."""
    batch = queue.receive_batch(timeout=0)
    columns = (
        batch.columns[name].tolist()
        for name in ("length", "queue", "hash_value", "hash_report", "has_record")
    )
    for i, (length, number, value, report, record) in enumerate(zip(*columns, strict=True)):
        outcome = Replayed(-1, length, number, value, _REPORTS[report], bool(record))
        yield batch.frame(i).tobytes(), outcome


@contextmanager
def open_tap_way(
    rss: RssConfig, reporting: Reporting, engine: str, program: Path | None = None
) -> Iterator[TapWay]:
    """A tap for the block, where nobody else sends. The block must stay in its thread.

    Raises what `Tap.open` does, and NotPermitted without CAP_SYS_ADMIN or CAP_NET_RAW.
    """
    with (
        netns.fresh(),
        Tap.open(
            "replay0", rss=rss, reporting=reporting, engine=engine, program=program, up=False
        ) as tap,
    ):
        # Where /proc/sys is read-only the kernel's own frames come too, and are passed over.
        with suppress(DeviceError):
            link.quiet(tap.name)
        link.set_mtu(tap.name, MTU_MAX)
        link.set_up(tap.name)
        with closing(PacketSocket(tap.name)) as socket:
            yield TapWay(tap, socket)
