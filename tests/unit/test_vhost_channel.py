# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Messages over a socket, with their descriptors."""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.unit.descriptors import none_leaked
from vnethash.errors import VhostUserError
from vnethash.vhost_user.channel import BATCH, MAX_WAITING, Channel, notify
from vnethash.vhost_user.messages import (
    MAX_PAYLOAD,
    Message,
    Request,
    VringFd,
    VringState,
    config_change,
)

Ends = tuple[Channel, socket.socket]

OWNER = Message(Request.SET_OWNER)
NUM = Message(Request.SET_VRING_NUM, VringState(1, 256))


@pytest.fixture
def ends() -> Iterator[Ends]:
    with none_leaked():
        near, far = socket.socketpair()
        with Channel(near) as channel, far:
            yield channel, far


@pytest.fixture
def fd() -> Iterator[int]:
    fd = os.memfd_create("given")
    yield fd
    os.close(fd)


def close_all(messages: list[Message]) -> None:
    for message in messages:
        for fd in message.fds:
            os.close(fd)


def test_nothing_there(ends: Ends) -> None:
    channel, _ = ends
    assert list(channel.receive()) == []
    assert not channel.ended


def test_messages_in_their_order(ends: Ends) -> None:
    channel, far = ends
    far.sendall(OWNER.encode() + NUM.encode() + OWNER.encode())
    assert list(channel.receive()) == [OWNER, NUM, OWNER]


def test_a_message_in_pieces(ends: Ends) -> None:
    channel, far = ends
    wire = NUM.encode()
    for at in range(len(wire) - 1):
        far.sendall(wire[at : at + 1])
        assert list(channel.receive()) == []
    far.sendall(wire[-1:])
    assert list(channel.receive()) == [NUM]


def test_a_flood_is_taken_in_turns(ends: Ends) -> None:
    channel, far = ends
    far.sendall(OWNER.encode() * (BATCH + 1))
    assert len(list(channel.receive())) == BATCH
    assert len(list(channel.receive())) == 1


def test_descriptors_come_with_their_message(ends: Ends) -> None:
    """Also if bytes of other messages lie before and behind in the socket."""
    channel, far = ends
    files = [os.memfd_create(f"file {index}") for index in range(3)]
    far.sendall(OWNER.encode())
    for index, file in enumerate(files):
        kick = Message(Request.SET_VRING_KICK, VringFd(index, True))
        socket.send_fds(far, [kick.encode()], [file])
        far.sendall(OWNER.encode())
    messages = list(channel.receive())
    assert [len(message.fds) for message in messages] == [0, 1, 0, 1, 0, 1, 0]
    for index, file in enumerate(files):
        message = messages[2 * index + 1]
        assert message.payload == VringFd(index, True)
        assert os.path.sameopenfile(message.fds[0], file)
        assert fcntl.fcntl(message.fds[0], fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        os.close(file)
    close_all(messages)


@settings(max_examples=examples(100))
@given(st.lists(st.integers(1, 30), min_size=1), st.integers(0, 2))
def test_any_pieces(pieces: list[int], with_fds: int) -> None:
    """A sender may split messages as it likes; descriptors go with a message's first bytes."""
    with none_leaked():
        near, far = socket.socketpair()
        file = os.memfd_create("file")
        wires = [
            Message(Request.SET_VRING_CALL, VringFd(index, index < with_fds)).encode()
            for index in range(3)
        ]
        received: list[Message] = []
        with Channel(near) as channel, far:
            for index, wire in enumerate(wires):
                cuts = [0, *(sum(pieces[: i + 1]) for i in range(len(pieces))), len(wire)]
                for start, end in pairwise(cuts):
                    fds = [file] if start == 0 and index < with_fds else []
                    if part := wire[start:end]:
                        socket.send_fds(far, [part], fds)
                        received += channel.receive()
                if rest := wire[max(cut for cut in cuts if cut <= len(wire)) :]:
                    far.sendall(rest)
                received += channel.receive()
        assert [message.payload for message in received] == [
            VringFd(index, index < with_fds) for index in range(3)
        ]
        assert [len(message.fds) for message in received] == [
            int(index < with_fds) for index in range(3)
        ]
        close_all(received)
        os.close(file)


def test_surplus_descriptors_are_closed(ends: Ends, fd: int) -> None:
    channel, far = ends
    socket.send_fds(far, [OWNER.encode()], [fd, fd])
    with pytest.raises(VhostUserError, match="SET_OWNER: 2 file descriptors where 0 belong"):
        list(channel.receive())


@pytest.mark.parametrize("count", [9, 64, 253])
def test_more_descriptors_than_any_message_has(ends: Ends, fd: int, count: int) -> None:
    channel, far = ends
    socket.send_fds(far, [OWNER.encode()], [fd] * count)
    with pytest.raises(VhostUserError, match="more than 8 file descriptors"):
        list(channel.receive())


def test_descriptors_with_every_byte(ends: Ends, fd: int) -> None:
    channel, far = ends
    for byte in Message(99, bytes(12)).encode():
        socket.send_fds(far, [bytes([byte])], [fd])
    with pytest.raises(VhostUserError, match="more than 8 file descriptors"):
        list(channel.receive())


def test_descriptors_of_an_unfinished_message_are_closed(ends: Ends, fd: int) -> None:
    channel, far = ends
    socket.send_fds(far, [Message(Request.SET_VRING_KICK, VringFd(0, True)).encode()[:10]], [fd])
    assert list(channel.receive()) == []


def test_a_payload_above_all_bounds(ends: Ends) -> None:
    channel, far = ends
    far.sendall(struct.pack("=III", Request.SET_OWNER, 1, MAX_PAYLOAD + 1))
    with pytest.raises(VhostUserError, match="above 4096"):
        list(channel.receive())


def test_the_largest_payload(ends: Ends) -> None:
    channel, far = ends
    far.sendall(Message(99, bytes(MAX_PAYLOAD)).encode())
    assert [message.payload for message in channel.receive()] == [bytes(MAX_PAYLOAD)]


def test_the_end(ends: Ends) -> None:
    channel, far = ends
    far.sendall(OWNER.encode())
    far.close()
    assert list(channel.receive()) == [OWNER]
    assert channel.ended
    assert list(channel.receive()) == []


@pytest.mark.parametrize("length", [1, 11, 12, 19])
def test_an_end_in_the_middle(ends: Ends, length: int) -> None:
    channel, far = ends
    far.sendall(NUM.encode()[:length])
    far.close()
    with pytest.raises(VhostUserError, match="ends in the middle"):
        list(channel.receive())


def test_a_reset_is_an_end(ends: Ends) -> None:
    channel, far = ends
    channel.send(b"never read")
    far.close()
    assert list(channel.receive()) == []
    assert channel.ended


def test_a_reply_that_does_not_fit_waits(ends: Ends) -> None:
    channel, far = ends
    sent = 0
    while not channel.wants_write:
        channel.send(bytes(4096))
        sent += 4096
    far.setblocking(False)
    received = 0
    while received < sent:
        received += len(far.recv(sent))
        channel.flush()
    assert not channel.wants_write


def test_who_never_reads_is_given_up(ends: Ends) -> None:
    channel, _ = ends
    while not channel.wants_write:
        channel.send(bytes(4096))
    channel.send(bytes(MAX_WAITING - 4096))
    with pytest.raises(VhostUserError, match="replies are not read"):
        channel.send(bytes(4096))


def test_replies_to_nobody(ends: Ends) -> None:
    channel, far = ends
    far.close()
    channel.send(b"reply")
    assert not channel.wants_write


def test_closing_twice(ends: Ends) -> None:
    channel, _ = ends
    channel.close()
    channel.close()


def test_notify_a_socket() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert notify(near.fileno(), config_change())
        assert far.recv(64) == config_change()
        full = 0
        while notify(near.fileno(), bytes(4096)):
            full += 1
        assert full
        far.close()
        assert not notify(near.fileno(), config_change())


def test_notify_a_pipe() -> None:
    # Linux's virtio_uml before 5.10 gives one.
    reader, writer = os.pipe()
    try:
        assert notify(writer, config_change())
        assert os.read(reader, 64) == config_change()
        while notify(writer, bytes(4096)):
            pass
    finally:
        os.close(reader)
    assert not notify(writer, config_change())
    os.close(writer)


def test_notify_what_takes_nothing() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        assert not notify(fd, config_change())
    finally:
        os.close(fd)
