# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A sample of the frames through real taps, in a network namespace of its own.

It checks the queue of each frame, and takes frames that BPF_PROG_TEST_RUN
refuses. Half of them are sent so that the kernel does not keep them in one
piece: the hash stage then has to copy what it reads.
"""

import socket
import struct
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.differential.batch import Batch, Result, count
from tests.differential.case import Case
from tests.differential.found import Finding
from vnethash.kernel import link, netns
from vnethash.reporting import Reporting
from vnethash.rss.classified import Classified
from vnethash.rss.config import RssConfig
from vnethash.rss.reference import explain
from vnethash.tap import Tap
from vnethash.virtio.hash_types import ReportType

SIZE = 400
"""Frames on their way at once: the kernel keeps 500 in a queue."""
QUEUES = 16

_PATIENCE = 1.0
"""Seconds without a frame after which the missing ones are lost."""
_PAGED = 5000
"""Bytes; net/packet/af_packet.c keeps what fits a page in one piece."""
_MTU = 65000
_FINDINGS_MAX = 5
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15  # include/uapi/linux/if_packet.h
_HEADER = struct.Struct("<BBHHHH")  # struct virtio_net_hdr


def sample(seed: str, frames: int, pool: Sequence[bytes]) -> Result:
    """``frames`` of them, a tap for every few hundred. The tap is asked for records.

    Raises what Tap.open() does.
    """
    total = Result()
    for number in range(-(-frames // SIZE)):
        size = min(SIZE, frames - number * SIZE)
        batch = Batch(f"{seed}/live", number, size, QUEUES)
        total.add(_through_tap(*batch.make(pool)))
    return total


def _through_tap(config: RssConfig, l3: bool, made: Sequence[bytes]) -> Result:
    shortest = 1 if l3 else 14  # the kernel sends no less
    frames = [
        frame.ljust(_PAGED, b"\0") if number % 2 else frame
        for number, frame in enumerate(made)
        if shortest <= len(frame) <= _MTU
    ]
    explained = [explain(frame, config, l3=l3) for frame in frames]
    result = Result(frames=len(frames))
    count(result, explained)
    with netns.fresh(), _quiet_tap(config, l3) as tap:
        _send(tap, frames, 1 if l3 else 14)
        came = _collect(tap, len(frames))
    for frame, explanation in zip(frames, explained, strict=True):
        said = came[frame].popleft() if came[frame] else "lost"
        if said != explanation.classified:
            result.disagreements += 1
            if len(result.findings) == _FINDINGS_MAX:
                continue
            verdicts = {"reference": explanation.classified, "live tap": said}
            result.findings.append(Finding(Case(config, frame, l3), verdicts))
    return result


@contextmanager
def _quiet_tap(config: RssConfig, l3: bool) -> Iterator[Tap]:
    """A tap that carries nothing but what is sent here."""
    with Tap.open(
        "sample0", rss=config, reporting=Reporting.RECORD, engine="ebpf", l3=l3, up=False
    ) as tap:
        link.quiet(tap.name)
        link.set_mtu(tap.name, _MTU)
        link.set_up(tap.name)
        yield tap


def _send(tap: Tap, frames: Sequence[bytes], linear: int) -> None:
    """``linear`` bytes of a frame above the size of a page are kept apart from the rest."""
    header = _HEADER.pack(0, 0, linear, 0, 0, 0)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((tap.name, 0))
        wire.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        for frame in frames:
            wire.send(header + frame)


def _collect(tap: Tap, wanted: int) -> dict[bytes, deque[Classified | str]]:
    """What came with each frame. Frames are told by their bytes; equal ones are all the same."""
    came: dict[bytes, deque[Classified | str]] = defaultdict(deque)
    mask = len(tap.rss.indirection_table) - 1
    left, deadline = wanted, time.monotonic() + _PATIENCE
    while left and time.monotonic() < deadline:
        for queue in tap:
            for packet in queue.receive_batch(most=SIZE, timeout=0).packets():
                report, value = packet.hash_report, packet.hash_value
                index = None if report is ReportType.NONE else value & mask
                verdict = Classified(value, report, index, packet.queue)
                came[packet.frame].append(verdict if packet.has_record else "no record")
                left -= 1
                deadline = time.monotonic() + _PATIENCE
    return came
