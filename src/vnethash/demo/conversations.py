# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What the two ends say to each other, through the sockets of their kernels."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

from vnethash.demo import frames
from vnethash.demo.lab import Lab
from vnethash.demo.plan import FAR4, FAR6, NEAR4, NEAR6, Exchange, Plan, tagged_frames
from vnethash.errors import VnethashError
from vnethash.kernel.packet_socket import PacketSocket

_TRIES = 3
_PATIENCE = 1.0
"""Seconds to wait for the answer to a datagram."""
_LARGEST = 1 << 16
_IPV6_DSTOPTS = 59  # include/uapi/linux/in6.h


async def hold(plan: Plan, lab: Lab) -> None:
    """All conversations of `plan`, at the same time.

    Raises NotPermitted without CAP_NET_RAW, and VnethashError (in an
    ExceptionGroup) if what comes back is not what was sent, or nothing does.
    """
    # First what needs CAP_NET_RAW, and says so.
    with closing(PacketSocket(lab.near.name)) as raw:
        async with asyncio.TaskGroup() as group:
            for exchange in plan.tcp:
                group.create_task(_tcp(exchange, lab))
            for exchange in plan.udp + plan.fragmented:
                group.create_task(_udp(exchange, lab))
            group.create_task(_udp(plan.options, lab, options=True))
            for near, far in ((NEAR4, FAR4), (NEAR6, FAR6)):
                group.create_task(_ping(near, far, plan.ping_identifier, lab))
        for frame in tagged_frames(plan, lab.near_mac, lab.far_mac):
            raw.send(frame)


async def _tcp(exchange: Exchange, lab: Lab) -> None:
    near_port, far_port = exchange.ports
    loop = asyncio.get_running_loop()
    with (
        closing(lab.far_socket(exchange.far, socket.SOCK_STREAM)) as listening,
        closing(lab.near_socket(exchange.near, socket.SOCK_STREAM)) as calling,
    ):
        listening.bind((str(exchange.far), far_port))
        listening.listen()
        calling.bind((str(exchange.near), near_port))
        async with _meanwhile(_answer_tcp(listening)):
            await loop.sock_connect(calling, (str(exchange.far), far_port))
            await loop.sock_sendall(calling, exchange.payload)
            calling.shutdown(socket.SHUT_WR)
            back = await _read_all(calling)
    _compare(f"TCP port {far_port}", exchange.payload, back)


async def _answer_tcp(listening: socket.socket) -> None:
    """One connection. No server of asyncio: that leaves connections behind when it is cancelled."""
    connection, _ = await asyncio.get_running_loop().sock_accept(listening)
    with closing(connection), suppress(ConnectionError):  # who asked may have given up
        await _echo(connection)


async def _echo(connection: socket.socket) -> None:
    data = await _read_all(connection)
    await asyncio.get_running_loop().sock_sendall(connection, data)


async def _read_all(connection: socket.socket) -> bytes:
    """Until the other end has no more to say."""
    data = bytearray()
    while part := await asyncio.get_running_loop().sock_recv(connection, _LARGEST):
        data += part
    return bytes(data)


@asynccontextmanager
async def _meanwhile(answer: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have the other end answer until the block ends."""
    task = asyncio.create_task(answer)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _udp(exchange: Exchange, lab: Lab, *, options: bool = False) -> None:
    near_port, far_port = exchange.ports
    loop = asyncio.get_running_loop()
    with (
        closing(lab.far_socket(exchange.far, socket.SOCK_DGRAM)) as answering,
        closing(lab.near_socket(exchange.near, socket.SOCK_DGRAM)) as asking,
    ):
        answering.bind((str(exchange.far), far_port))
        asking.bind((str(exchange.near), near_port))
        if options:
            header = frames.destination_options(0)  # the kernel fills in what follows
            asking.setsockopt(socket.IPPROTO_IPV6, _IPV6_DSTOPTS, header)
        asking.connect((str(exchange.far), far_port))
        async with _meanwhile(_answer_udp(answering)):
            back = await _ask(
                lambda: loop.sock_sendall(asking, exchange.payload),
                lambda: loop.sock_recv(asking, _LARGEST),
                f"UDP port {far_port}",
            )
    _compare(f"UDP port {far_port}", exchange.payload, back)


async def _answer_udp(answering: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        data, sender = await loop.sock_recvfrom(answering, _LARGEST)
        await loop.sock_sendto(answering, data, sender)


async def _ping(near: frames.Address, far: frames.Address, identifier: int, lab: Lab) -> None:
    """An echo request; the kernel at the far end answers."""
    is_ipv6 = far.version == 6
    protocol = frames.ICMPV6 if is_ipv6 else frames.ICMP
    loop = asyncio.get_running_loop()
    request = frames.icmp_echo(near, far, identifier, b"vnethash")
    reply_type = 129 if is_ipv6 else 0
    with closing(lab.near_socket(near, socket.SOCK_RAW, protocol)) as raw:
        raw.connect((str(far), 0))

        async def reply() -> bytes:
            while True:
                data = await loop.sock_recv(raw, _LARGEST)
                message = data if is_ipv6 else data[(data[0] & 15) * 4 :]
                if message[0] == reply_type and message[4:6] == request[4:6]:
                    return message

        name = "ICMPv6 echo" if is_ipv6 else "ICMP echo"
        back = await _ask(lambda: loop.sock_sendall(raw, request), reply, name)
    _compare(name, request[8:], back[8:])


async def _ask(
    send: Callable[[], Awaitable[None]], receive: Callable[[], Awaitable[bytes]], what: str
) -> bytes:
    """Send until an answer comes."""
    for _ in range(_TRIES):
        await send()
        try:
            async with asyncio.timeout(_PATIENCE):
                return await receive()
        except TimeoutError:
            continue
    raise VnethashError(f"{what}: no answer within {_TRIES * _PATIENCE:g} s")


def _compare(what: str, sent: bytes, back: bytes) -> None:
    if sent != back:
        raise VnethashError(
            f"{what}: {len(sent)} bytes were sent, and {len(back)} others came back"
        )
