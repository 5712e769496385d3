# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The demonstration through a real tap."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

from vnethash.demo.conversations import hold
from vnethash.demo.lab import Lab, open_lab
from vnethash.demo.ledger import Ledger
from vnethash.demo.plan import Plan
from vnethash.errors import VnethashError
from vnethash.rss.config import RssConfig
from vnethash.tap import Queue, Tap

_TIME_LIMIT = 60.0
"""Seconds that all conversations may take: an emulated CPU may need 20."""
_SETTLE = 1.0
"""Seconds that packets counted by the engine may take to be read."""


@dataclass(frozen=True, slots=True)
class TapRun:
    """What came of it."""

    ledger: Ledger
    engine: str
    point: str
    missing: int
    """Packets that the engine counted and nobody read."""


def run_tap(plan: Plan, rss: RssConfig, engine: str) -> TapRun:
    """Let the kernel send the traffic of `plan` through a steered tap, and check each packet.

    Raises what `Tap.open` does, NotPermitted without CAP_SYS_ADMIN or
    CAP_NET_RAW, and VnethashError if the traffic breaks.
    """
    with open_lab(rss, engine) as lab:
        ledger = Ledger(rss)
        missing = asyncio.run(_run(plan, lab, ledger))
        return TapRun(ledger, lab.near.engine, lab.near.attach_point, missing)


async def _run(plan: Plan, lab: Lab, ledger: Ledger) -> int:
    forwarders = [
        asyncio.create_task(_check_and_forward(queue, lab.far.queues[0], ledger))
        for queue in lab.near
    ]
    forwarders.append(asyncio.create_task(_forward(lab.far.queues[0], lab.near.queues[0])))
    try:
        await _unless_one_fails(_converse(plan, lab), forwarders)
        return await _settle(lab.near, ledger)
    finally:
        for task in forwarders:
            task.cancel()
        await asyncio.gather(*forwarders, return_exceptions=True)


async def _check_and_forward(queue: Queue, to: Queue, ledger: Ledger) -> None:
    async for packet in queue:
        ledger.check(packet)
        to.send(packet.frame, packet.header)


async def _forward(queue: Queue, to: Queue) -> None:
    async for packet in queue:
        to.send(packet.frame, packet.header)


async def _converse(plan: Plan, lab: Lab) -> None:
    try:
        async with asyncio.timeout(_TIME_LIMIT):
            await hold(plan, lab)
    except TimeoutError:
        raise VnethashError(f"the traffic did not end within {_TIME_LIMIT:g} s") from None
    except ExceptionGroup as group:
        # Several conversations may break for one reason: the first will do.
        raise _first(group) from None


async def _unless_one_fails(work: Awaitable[None], others: list[asyncio.Task[None]]) -> None:
    """Wait for `work`; if one of `others` ends before it, which they never do, raise its error."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task, *others], return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            if other.done():
                other.result()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _settle(tap: Tap, ledger: Ledger) -> int:
    """Wait for the last packets; how many never came."""
    counted = tap.stats().total.packets
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _SETTLE
    while ledger.packets < counted and loop.time() < deadline:
        await asyncio.sleep(0.01)
    return max(0, counted - ledger.packets)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
