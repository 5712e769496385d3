# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The fewest capabilities with which an engine is attached to a tap that is there, and works."""

import fcntl
import json
import os
from itertools import combinations
from typing import Any

from vnethash.errors import VnethashError
from vnethash.kernel import caps, link, netns
from vnethash.kernel.caps import Cap
from vnethash.kernel.packet_socket import PacketSocket
from vnethash.kernel.tun import TunDevice
from vnethash.lab.inside import frames
from vnethash.lab.inside.task import Task
from vnethash.lab.inside.wire import collect, offered, right
from vnethash.rss.config import RssConfig
from vnethash.tap import Tap

_TRIED = (Cap.NET_ADMIN, Cap.BPF, Cap.PERFMON)
_SET_OWNER = 0x400454CC  # TUNSETOWNER, include/uapi/linux/if_tun.h


def measure(task: Task) -> dict[str, Any]:
    answers = {}
    for engine in task.engines:
        try:
            offered(engine)
        except VnethashError:
            continue
        answers[engine] = _least(engine)
    return answers


def _least(engine: str) -> dict[str, Any]:
    """The first set that will do, from none upwards, and what was said to those before."""
    refused: list[dict[str, Any]] = []
    for count in range(len(_TRIED) + 1):
        for chosen in combinations(_TRIED, count):
            names = [cap.title for cap in chosen]
            why = _try(engine, chosen)
            if why is None:
                return {"needs": names, "refused": refused}
            refused.append({"with": names, "why": why})
    return {"needs": None, "refused": refused}


def _try(engine: str, chosen: tuple[Cap, ...]) -> str | None:
    """Have a child with these capabilities take the tap over and read; None if it worked."""
    rss = RssConfig.default(2).replace(hash_types=offered(engine))
    with netns.fresh():
        with TunDevice.create("tap0", 2, persist=True) as device:
            fcntl.ioctl(device.fds[0], _SET_OWNER, os.getuid())
        link.quiet("tap0")
        link.set_up("tap0")
        here, there = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            said: str | None = "the child ended early"
            try:
                caps.restrict_to(chosen)
                said = _child(engine, rss, there[0], here[1])
            except VnethashError as error:
                said = error.message
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            finally:
                os.write(here[1], json.dumps(said).encode() + b"\n")
                os._exit(0)  # not back into what comes next
        os.close(here[1])
        with open(here[0], "rb") as answers:
            line = answers.readline()
            if line == b"ready\n":
                wire = PacketSocket("tap0")
                wire.send(_frame())
                wire.close()
                os.write(there[1], b"s")
                line = answers.readline()
        os.waitpid(pid, 0)
        for fd in there:
            os.close(fd)
        answer: str | None = json.loads(line or b'"the child said nothing"')
        return answer


def _child(engine: str, rss: RssConfig, wait: int, tell: int) -> str | None:
    with Tap.open("tap0", rss=rss, engine=engine, up=False) as tap:
        os.write(tell, b"ready\n")
        os.read(wait, 1)
        packets = collect(tap, 1)
        if len(packets) == 1 and right(packets[0], rss):
            return None
        return f"{len(packets)} packets, or a wrong hash"


def _frame() -> bytes:
    return frames.groups(1)["UDPv4"][0]
