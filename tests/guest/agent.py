# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Does in a guest what the host asks for: a line of JSON on a serial line each way.

A request is {"id": number, "do": name, "with": {argument: value}}, the answer
{"id": number, "result": value} or {"id": number, "error": traceback}. Requests
run side by side. Only the standard library: imports take long in a guest. The
functions of traffic are used on the host as well.
"""

import contextlib
import ctypes
import hashlib
import json
import mmap
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

CHUNK = 1 << 16
"""Bytes handed to TCP at once."""

MARK = 0x025A
"""The first two bytes of the source address of a frame to capture; its number follows."""

_SOL_PACKET = 263  # include/linux/socket.h
_SO_ATTACH_BPF = 50  # include/uapi/asm-generic/socket.h
_SO_ATTACH_FILTER = 26
_ETH_P_ALL = 3
_UDP_SEGMENT = 103  # include/uapi/linux/udp.h


# ------------------------------------------------------------------ traffic


def payload(seed: int, size: int) -> Iterator[bytes]:
    """`size` bytes that depend on `seed`, in chunks."""
    source = random.Random(seed)
    for start in range(0, size, CHUNK):
        yield source.randbytes(min(CHUNK, size - start))


def digest(seed: int, size: int) -> str:
    """The SHA-256 of ``payload``."""
    total = hashlib.sha256()
    for chunk in payload(seed, size):
        total.update(chunk)
    return total.hexdigest()


def tcp_send(address: str, port: int, seeds: list[int], size: int) -> list[str]:
    """Send the payload of each seed over a connection of its own; what the peer says it got."""
    results = [""] * len(seeds)

    def send(index: int) -> None:
        with connect(address, port) as connection:
            connection.settimeout(30)
            for chunk in payload(seeds[index], size):
                connection.sendall(chunk)
            connection.shutdown(socket.SHUT_WR)
            results[index] = connection.recv(64, socket.MSG_WAITALL).decode()

    _together([partial(send, index) for index in range(len(seeds))])
    return results


def tcp_receive(address: str, port: int, connections: int) -> list[str]:
    """Take so many connections to the end; the SHA-256 of each, which the peer is told too."""
    results: list[str] = []
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def receive(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(30)
            total = hashlib.sha256()
            while chunk := connection.recv(CHUNK):
                total.update(chunk)
            connection.sendall(total.hexdigest().encode())
            results.append(total.hexdigest())

    with socket.create_server((address, port), family=family, backlog=connections) as server:
        server.settimeout(30)
        accepted = [server.accept()[0] for _ in range(connections)]
        _together([partial(receive, connection) for connection in accepted])
    return results


def udp_echo(address: str, port: int, count: int) -> int:
    """Send so many datagrams back to where they came from; how many there were in the end."""
    done = 0
    with _udp(address) as echo, contextlib.suppress(TimeoutError):
        echo.bind((address, port))
        while done < count:
            data, peer = echo.recvfrom(1 << 16)
            echo.sendto(data, peer)
            done += data != _KNOCK
    return done


def udp_exchange(
    address: str, port: int, count: int, size: int, window: int = 16, segment: bool = False
) -> int:
    """Send datagrams to an echo, at most `window` on the way; how many came back as they were.

    `segment`: the kernel gets a window as one, to cut it up on the way (UDP GSO).
    """
    source = random.Random(port)
    good = 0
    with _udp(address) as client:
        client.connect((address, port))
        _knock(client)
        for first in range(0, count, window):
            sent = {source.randbytes(size) for _ in range(min(window, count - first))}
            if segment:
                client.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, size)
                client.send(b"".join(sent))
            else:
                for datagram in sent:
                    client.send(datagram)
            while sent:
                try:
                    data = client.recv(1 << 16)
                except TimeoutError:
                    return good
                good += data in sent
                sent.discard(data)
    return good


_KNOCK = b"knock"


def _knock(client: socket.socket) -> None:
    """Wait until the echo is there."""
    client.settimeout(0.05)
    for _ in range(100):
        with contextlib.suppress(ConnectionRefusedError, TimeoutError):
            client.send(_KNOCK)
            client.recv(64)
            break
    client.settimeout(5)


def ping(address: str, count: int, size: int) -> int:
    """Send so many echo requests with `size` bytes of data; how many came back as they were."""
    is_v6 = ":" in address
    family, protocol = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6) if is_v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    )
    kind, answer = (128, 129) if is_v6 else (8, 0)
    good = 0
    with socket.socket(family, socket.SOCK_RAW, protocol) as icmp:
        icmp.settimeout(5)
        icmp.connect((address, 0))
        for sequence in range(count):
            body = struct.pack("!HH", os.getpid() & 0xFFFF, sequence) + random.randbytes(size)
            # The kernel fills in the sum of ICMPv6, which covers the addresses.
            total = 0 if is_v6 else _checksum(struct.pack("!BBH", kind, 0, 0) + body)
            icmp.send(struct.pack("!BBH", kind, 0, total) + body)
            wanted = (answer, body)
            try:
                while wanted != (got := _icmp(icmp.recv(1 << 16), is_v6)):
                    pass
            except TimeoutError:
                return good
            good += wanted == got
    return good


def _icmp(packet: bytes, is_v6: bool) -> tuple[int, bytes]:
    """Type and body of a message; before ICMP a raw socket hands out the IPv4 header."""
    message = packet if is_v6 else packet[4 * (packet[0] & 15) :]
    return message[0], message[4:]


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _udp(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    result = socket.socket(family, socket.SOCK_DGRAM)
    result.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    result.settimeout(5)
    return result


def connect(address: str, port: int) -> socket.socket:
    """A connection to a server that may still be starting."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection((address, port), timeout=10)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _together(tasks: list[Callable[[], None]]) -> None:
    """Run all side by side; raise what the first to fail raised."""
    failures: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# ------------------------------------------------------------------ capture


class Ring:
    """A receive ring of packet(7), TPACKET_V3, for the marked frames of one receive queue."""

    # Many small ones: with traffic slow enough each is handed over almost empty.
    _BLOCK = 1 << 13
    _BLOCKS = 128
    _SNAP = 64

    def __init__(self, interface: str, queue: int) -> None:
        with contextlib.ExitStack() as stack:
            self._socket = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            # struct sock_filter: code, jt, jf, k (linux/filter.h, linux/bpf_common.h)
            program = [
                (0x28, 0, 0, 6),  # A = half word at 6
                (0x15, 0, 3, MARK),
                (0x20, 0, 0, 0xFFFFF000 + 24),  # A = SKF_AD_QUEUE, from 1
                (0x15, 0, 1, queue + 1),
                (0x06, 0, 0, self._SNAP),
                (0x06, 0, 0, 0),
            ]
            code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *i) for i in program))
            filter_ = struct.pack("HP", len(program), ctypes.addressof(code))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
            self._socket.setsockopt(_SOL_PACKET, 10, struct.pack("i", 2))  # TPACKET_V3
            # struct tpacket_req3: a block is handed over after 20 ms; fill in the hash
            size, count = self._BLOCK, self._BLOCKS
            request = struct.pack("7I", size, count, 2048, size * count // 2048, 20, 0, 1)
            self._socket.setsockopt(_SOL_PACKET, 5, request)  # PACKET_RX_RING
            self._memory = stack.enter_context(mmap.mmap(self._socket.fileno(), size * count))
            self._socket.bind((interface, _ETH_P_ALL))
            self._block = 0
            self._held = stack.pop_all()

    def read(self) -> Iterator[tuple[int, int]]:
        """Number and hash of each frame since the last call, as far as blocks are complete."""
        while True:
            base = self._block * self._BLOCK
            status, count, offset = struct.unpack_from("3I", self._memory, base + 8)
            if not status & 1:  # TP_STATUS_USER
                return
            at = base + offset
            for _ in range(count):
                following = struct.unpack_from("I", self._memory, at)[0]
                mac, _, rxhash = struct.unpack_from("HHI", self._memory, at + 24)
                yield struct.unpack_from("!I", self._memory, at + mac + 8)[0], rxhash
                at += following
            struct.pack_into("I", self._memory, base + 8, 0)
            self._block = (self._block + 1) % self._BLOCKS

    def drops(self) -> int:
        """Frames that the ring had no room for."""
        # struct tpacket_stats_v3: packets, drops, freeze_q_cnt
        return int(struct.unpack("3I", self._socket.getsockopt(_SOL_PACKET, 6, 12))[1])

    def close(self) -> None:
        self._held.close()


class Program:
    """A BPF program on a packet socket that notes hash and queue of each marked frame."""

    _ENTRY = struct.Struct("4I")

    def __init__(self, interface: str, entries: int) -> None:
        with contextlib.ExitStack() as stack:
            # union bpf_attr: BPF_MAP_TYPE_ARRAY, key 4, value 16, BPF_F_MMAPABLE
            table = _bpf(0, struct.pack("5I", 2, 4, self._ENTRY.size, entries + 1, 1 << 10))
            stack.callback(os.close, table)
            size = self._ENTRY.size * (entries + 1)
            self._memory = stack.enter_context(mmap.mmap(table, size))
            program = _load(_noting(table, entries))
            try:
                self._socket = stack.enter_context(
                    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                )
                attach = struct.pack("i", program)
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, attach)
            finally:
                os.close(program)
            self._socket.bind((interface, _ETH_P_ALL))
            self._entries = entries
            self._held = stack.pop_all()

    def count(self) -> int:
        """Marked frames seen so far."""
        return int(self._ENTRY.unpack_from(self._memory, self._ENTRY.size * self._entries)[2])

    def read(self) -> list[tuple[int, int, int, int]]:
        """By number of the frame: hash, queue (-1: none was recorded), times seen, length."""
        data = self._memory[: self._ENTRY.size * self._entries]
        return [
            (value, mapping - 1, count, length)
            for value, mapping, count, length in self._ENTRY.iter_unpack(data)
        ]

    def close(self) -> None:
        self._held.close()


def _noting(table: int, entries: int) -> bytes:
    """Instructions that write hash, queue mapping, count and length into the entry of a frame.

    They count all frames in the entry behind the last.
    """

    def code(opcode: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
        return struct.pack("<BBhi", opcode, source << 4 | to, offset, value)

    # offsets in struct __sk_buff (linux/bpf.h)
    length, mapping, value = 0, 12, 68
    find = [
        code(0x18, 1, 1, value=table) + code(0x00),  # r1 = map
        code(0xBF, 2, 10),
        code(0x07, 2, value=-4),
        code(0x85, value=1),  # r0 = bpf_map_lookup_elem
    ]
    count = [
        code(0xB7, 1, value=1),
        code(0xC3, 0, 1, 8),  # count += 1, atomically
    ]
    note = [
        code(0x61, 1, 6, value),
        code(0x63, 0, 1, 0),
        code(0x61, 1, 6, mapping),
        code(0x63, 0, 1, 4),
        code(0x61, 1, 6, length),
        code(0x63, 0, 1, 12),
    ]
    last = [code(0x62, 10, offset=-4, value=entries)]  # the key, on the stack

    def unless(opcode: int, value: int, body: list[bytes]) -> list[bytes]:
        """Skip `body` if r0 compares so."""
        return [code(opcode, 0, offset=len(b"".join(body)) // 8, value=value), *body]

    both = [*find, *unless(0x15, 0, note + count), *last, *find, *unless(0x15, 0, count)]
    marked = [code(0x20, value=8), code(0x63, 10, 0, -4), *both]  # the key = word at 8
    return b"".join(
        [
            code(0xBF, 6, 1),  # r6 = context
            code(0x28, value=6),  # r0 = half word at 6
            *unless(0x55, MARK, marked),
            code(0xB7, 0, value=0),
            code(0x95),
        ]
    )


def _load(instructions: bytes) -> int:
    """A program of type socket filter."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(1 << 14)
    attributes = struct.pack(
        "IIQQIIQII",
        *(1, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(licence)),
        *(1, len(log), ctypes.addressof(log), 0, 0),
    )
    try:
        return _bpf(5, attributes)
    except OSError as error:
        raise RuntimeError(f"{error}: {log.value.decode()}") from error


def _bpf(command: int, attributes: bytes) -> int:
    """bpf(2), of x86-64 as all user-mode-linux is; a descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result = int(libc.syscall(321, command, buffer, len(buffer)))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@dataclass
class Capture:
    """What is seen of marked frames on one interface: by rings, and by a BPF program."""

    rings: list[Ring]
    program: Program
    frames: list[list[int]]


_capture: Capture | None = None


def capture(interface: str, queues: int, frames: int) -> None:
    """Begin to note frames with numbers below `frames`, on each of the receive queues."""
    global _capture
    capture_end()
    with contextlib.ExitStack() as stack:
        rings = []
        for queue in range(queues):
            rings.append(Ring(interface, queue))
            stack.callback(rings[-1].close)
        # The program last: the kernel serves the newest first, and a ring computes
        # a hash where the device told none of layer 4.
        _capture = Capture(rings, Program(interface, frames), [])
        stack.pop_all()


def captured(count: int, timeout: float) -> int:
    """Wait until the program has seen so many frames; how many it has."""
    assert _capture
    deadline = time.monotonic() + timeout
    _collect(_capture)
    while (seen := _capture.program.count()) < count and time.monotonic() < deadline:
        time.sleep(0.01)
        _collect(_capture)
    return seen


def capture_end() -> dict[str, Any]:
    """End it. "program": [hash, queue, times, length] by number; "rings": [queue, number, hash]."""
    global _capture
    if _capture is None:
        return {}
    now, _capture = _capture, None
    seen = now.program.count()
    deadline = time.monotonic() + 2
    while (wanting := len(now.frames) < seen) and time.monotonic() < deadline:
        time.sleep(0.02)
        _collect(now)
    result = {"program": now.program.read(), "rings": now.frames, "complete": not wanting}
    for ring in now.rings:
        ring.close()
    now.program.close()
    return result


def _collect(now: Capture) -> None:
    for queue, ring in enumerate(now.rings):
        now.frames += [[queue, number, value] for number, value in ring.read()]


# ------------------------------------------------------------------ requests


def run(argv: list[str], timeout: float = 20) -> list[Any]:
    """Run a command: exit status, and standard output and error together."""
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
    )
    return [done.returncode, done.stdout.decode(errors="replace")]


def read(path: str) -> str:
    """The text of a file."""
    with open(path) as file:
        return file.read()


def write(path: str, text: str) -> None:
    """Write a text into a file that is there."""
    with open(path, "w") as file:
        file.write(text)


REQUESTS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(run, read, write),
        *(capture, captured, capture_end),
        *(tcp_send, tcp_receive, udp_echo, udp_exchange, ping),
    )
}


def main(line: str) -> None:
    """Serve until the line says {"do": "end"}."""
    with open(line, "r+b", buffering=0) as serial:
        tty.setraw(serial.fileno())
        lock = threading.Lock()

        def say(answer: dict[str, Any]) -> None:
            data = json.dumps(answer, separators=(",", ":")).encode() + b"\n"
            with lock:
                while data:
                    data = data[serial.write(data) or 0 :]

        def answer(request: dict[str, Any]) -> None:
            try:
                result = REQUESTS[request["do"]](**request.get("with", {}))
                say({"id": request["id"], "result": result})
            except BaseException:
                say({"id": request["id"], "error": traceback.format_exc()})

        say({"id": 0, "result": "ready"})
        buffer = b""
        while part := serial.read(CHUNK):
            *requests, buffer = (buffer + part).split(b"\n")
            for text in requests:
                request = json.loads(text)
                if request["do"] == "end":
                    return
                threading.Thread(target=answer, args=(request,), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
