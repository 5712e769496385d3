# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Virtqueues as the native core takes them, what may be wrong with one, the control queue."""

import errno
import os
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

from vnethash.closing import Closing
from vnethash.errors import RingError
from vnethash.native import core
from vnethash.vhost_user.memory import GuestMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class RingSetup:
    """A split virtqueue as the front end set it up.

    ``size`` is a power of two up to 32768; the addresses are the front end's
    own (user addresses). ``base`` is the available index to go on with.
    ``kick``, ``call`` and ``error`` are eventfds or sockets, -1 for none; they
    are borrowed until the ring was stopped. ``log_address`` is where the used
    ring is in the guest, if what is written to it goes into the dirty log.
    """

    size: int
    descriptors: int
    available: int
    used: int
    base: int = 0
    kick: int = -1
    call: int = -1
    error: int = -1
    event_idx: bool = False
    indirect: bool = False
    log_address: int | None = None

    def compiled(self) -> Any:
        """The same as a cffi struct vh_ring_setup pointer."""
        return core().ffi.new(
            "struct vh_ring_setup *",
            {
                "size": self.size,
                "base": self.base,
                "event_idx": self.event_idx,
                "indirect": self.indirect,
                "logs": self.log_address is not None,
                "kick": self.kick,
                "call": self.call,
                "error": self.error,
                "descriptors": self.descriptors,
                "available": self.available,
                "used": self.used,
                "log_address": self.log_address or 0,
            },
        )


class FaultReason(IntEnum):
    """Which rule was broken: enum vh_fault_reason."""

    SIZE = 1
    ALIGNMENT = 2
    ADDRESS = 3
    AVAILABLE = 4
    HEAD = 5
    NEXT = 6
    CHAIN = 7
    INDIRECT = 8
    BUFFER = 9
    DIRECTION = 10
    EMPTY = 11
    MEMORY = 12
    DEVICE = 13
    SYSTEM = 14


_SENTENCES = {
    FaultReason.SIZE: "{0} is no size of a ring",
    FaultReason.ALIGNMENT: "address {0:#x} is not aligned",
    FaultReason.ADDRESS: "address {0:#x} is not within one region of guest memory",
    FaultReason.AVAILABLE: "available index {0} is further ahead than the ring is long",
    FaultReason.HEAD: "a chain begins at descriptor {0}, behind the table",
    FaultReason.NEXT: "a descriptor goes on at {0}, behind its table",
    FaultReason.CHAIN: "the chain at descriptor {0} is too long or a loop",
    FaultReason.INDIRECT: "an indirect table cannot be as the driver has it ({0:#x})",
    FaultReason.BUFFER: "address {0:#x} is outside guest memory",
    FaultReason.DIRECTION: "the chain at descriptor {0} has buffers of the wrong direction",
    FaultReason.EMPTY: "the chain at descriptor {0} has no room",
    FaultReason.MEMORY: "guest memory went away",
}

_QUEUES = ("receive", "transmit", "control")


@dataclass(frozen=True, slots=True)
class RingFault:
    """What is wrong with a ring.

    ``queue`` is "receive", "transmit" or "control"; ``detail`` the index,
    address, length or errno that broke the rule. As a string it is a sentence.
    """

    queue: str
    reason: FaultReason
    detail: int

    @classmethod
    def of(cls, fault: Any) -> Self | None:
        """From a struct vh_fault; None if it holds none."""
        if not fault.reason:
            return None
        return cls(_QUEUES[fault.queue], FaultReason(fault.reason), fault.detail)

    def __str__(self) -> str:
        sentence = _SENTENCES.get(self.reason)
        if sentence is not None:
            return sentence.format(self.detail)
        what = "the tap failed" if self.reason is FaultReason.DEVICE else "the system refused"
        return f"{what}: {os.strerror(self.detail).lower()}"

    def error(self) -> RingError:
        """The exception that says so."""
        return RingError(self.queue, str(self))


class ControlQueue(Closing):
    """The control virtqueue, served by whoever calls.

    Call receive() until there is None, then wait for the kick, and again;
    answer each command before the next. Raises RingError for a ring that breaks a rule; it is of
    no use then.
    """

    def __init__(self, memory: GuestMemory, setup: RingSetup) -> None:
        self._ffi, self._lib = core()
        self._handle = None
        fault = self._ffi.new("struct vh_fault *")
        handle = self._lib.vh_control_new(memory.handle, setup.compiled(), fault)
        if refusal := RingFault.of(fault):
            raise refusal.error()
        self._handle = handle
        self._room = self._ffi.new("uint8_t[]", self._lib.VH_COMMAND_MAX)

    def receive(self) -> bytes | None:
        """The next command, None if there is none.

        Of a command of more than 256 KiB the rest is missing: its sizes do not hold.
        """
        length = self._lib.vh_control_receive(self._handle, self._room, len(self._room))
        if length == -errno.EAGAIN:
            return None
        self._check(length)
        return bytes(self._ffi.buffer(self._room, length))

    def answer(self, answer: bytes) -> None:
        """Answer the command received last; what the driver left no room for is cut off."""
        self._check(self._lib.vh_control_answer(self._handle, answer, len(answer)))

    @property
    def base(self) -> int:
        """The available index to go on with."""
        base: int = self._lib.vh_control_base(self._handle)
        return base

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self._lib.vh_control_free(handle)

    def __del__(self) -> None:
        self.close()

    def _check(self, result: int) -> None:
        if result >= 0:
            return
        if result == -errno.EIO:
            fault = self._ffi.new("struct vh_fault *")
            self._lib.vh_control_fault(self._handle, fault)
            if refusal := RingFault.of(fault):
                raise refusal.error()
        busy = result == -errno.EBUSY
        raise RingError("control", "answer the last command first" if busy else "no command")
