# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A pair of queues, served by a thread of the native core."""

import os
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from vnethash.closing import Closing
from vnethash.engines.readers import History
from vnethash.errors import RingError
from vnethash.native import core
from vnethash.vhost_user.memory import GuestMemory
from vnethash.vhost_user.rings import RingFault, RingSetup
from vnethash.virtio.receive_filter import ReceiveFilter


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSetup:
    """What lies between the rings and the tap.

    ``receive_fd`` and ``transmit_fd`` are non-blocking tap queues, -1: that
    ring is left alone. Headers have 12 or 20 bytes, the guest's 20 with
    HASH_REPORT. ``mergeable``: a packet may span buffers (MRG_RXBUF).
    ``records``: a hash stage may have put records in front of frames.
    ``rehash``: a frame that came without a hash is hashed here.
    """

    receive_fd: int
    transmit_fd: int
    guest_header: int
    tap_header: int = 12
    mergeable: bool = False
    records: bool = False
    rehash: bool = False
    filter: ReceiveFilter | None = None


class Bases(NamedTuple):
    """Available indices to go on with; 0 for a ring that was not started."""

    receive: int
    transmit: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """One direction, as the guest sees it.

    Dropped packets: ``filtered``, the guest does not want them; ``no_room``,
    larger than the guest's buffers can hold; ``malformed``, too short for
    their headers; ``refused`` by the tap for what they are; ``device``, the
    tap could not (it is down). ``kicks`` woke the thread; ``calls`` were sent.
    """

    packets: int
    bytes: int
    filtered: int
    no_room: int
    malformed: int
    refused: int
    device: int
    kicks: int
    calls: int
    system_calls: int

    @property
    def dropped(self) -> int:
        """All of the dropped ones."""
        return self.filtered + self.no_room + self.malformed + self.refused + self.device

    @classmethod
    def of(cls, traffic: Any) -> Self:
        """From a struct vh_pair_traffic."""
        filtered, no_room, malformed, refused, device = traffic.dropped
        return cls(
            packets=traffic.packets,
            bytes=traffic.bytes,
            filtered=filtered,
            no_room=no_room,
            malformed=malformed,
            refused=refused,
            device=device,
            kicks=traffic.kicks,
            calls=traffic.calls,
            system_calls=traffic.system_calls,
        )


@dataclass(frozen=True, slots=True)
class PairCounters:
    """Since the pair was made.

    ``recorded`` frames brought a record, ``rehashed`` ones were hashed here;
    ``copied`` ones were large and yet did not go straight to the guest whole.
    """

    receive: Traffic
    transmit: Traffic
    wakeups: int
    recorded: int
    rehashed: int
    copied: int


class QueuePair(Closing):
    """Receive and transmit ring ``index`` of a device, and their thread.

    Everything that changes while it runs is stop, change, start. A packet
    that waits for buffers is kept meanwhile.
    """

    def __init__(self, index: int, history: History) -> None:
        self.index = index
        self.running = False
        self._handle = None
        self._ffi, self._lib = core()
        self._lent = history  # to the core
        handle = self._lib.vh_pair_new(index, history.handle)
        if handle == self._ffi.NULL:
            raise OSError(self._ffi.errno, f"queue pair: {os.strerror(self._ffi.errno)}")
        self._handle = handle

    def start(
        self,
        memory: GuestMemory,
        receive: RingSetup | None,
        transmit: RingSetup | None,
        path: PathSetup,
    ) -> None:
        """Serve the rings that are given. Raises RingError if one cannot be."""
        fault = self._ffi.new("struct vh_fault *")
        setups = [
            self._ffi.NULL if setup is None else setup.compiled() for setup in (receive, transmit)
        ]
        lent = self._ffi.NULL if path.filter is None else _compiled_filter(path.filter)
        compiled = self._ffi.new(
            "struct vh_path *",
            {
                "receive_fd": path.receive_fd,
                "transmit_fd": path.transmit_fd,
                "guest_header": path.guest_header,
                "tap_header": path.tap_header,
                "mergeable": path.mergeable,
                "records": path.records,
                "rehashes": path.rehash,
                "filter": lent,
            },
        )
        result = self._lib.vh_pair_start(self._handle, memory.handle, *setups, compiled, fault)
        if refusal := RingFault.of(fault):
            raise refusal.error()
        if result < 0:
            raise RingError("receive", f"start its thread: {os.strerror(-result).lower()}")
        self.running = True

    def stop(self) -> Bases:
        """Stop the thread and wait for its end."""
        bases = self._ffi.new("struct vh_bases *")
        if self.running:
            self._lib.vh_pair_stop(self._handle, bases)
            self.running = False
        return Bases(bases.receive, bases.transmit)

    def forget(self) -> None:
        """Drop the packet that may wait for buffers: it was for another driver. While stopped."""
        self._lib.vh_pair_forget(self._handle)

    def fileno(self) -> int:
        """Readable while the thread has ended by itself: see fault()."""
        fd: int = self._lib.vh_pair_event_fd(self._handle)
        return fd

    def fault(self) -> RingFault | None:
        """Why the thread ended by itself, until the next start."""
        fault = self._ffi.new("struct vh_fault *")
        self._lib.vh_pair_fault(self._handle, fault)
        return RingFault.of(fault)

    def counters(self) -> PairCounters:
        """May be asked at any time."""
        counters = self._ffi.new("struct vh_pair_counters *")
        self._lib.vh_pair_counters(self._handle, counters)
        return PairCounters(
            Traffic.of(counters.receive),
            Traffic.of(counters.transmit),
            counters.wakeups,
            counters.recorded,
            counters.rehashed,
            counters.copied,
        )

    def close(self) -> None:
        handle, self._handle = self._handle, None
        self.running = False
        if handle is not None:
            self._lib.vh_pair_free(handle)

    def __del__(self) -> None:
        self.close()


def _compiled_filter(receive_filter: ReceiveFilter) -> Any:
    """As a struct vh_filter pointer; what does not fit its tables passes."""
    ffi, lib = core()
    limited = receive_filter.limited(lib.VH_FILTER_MACS)
    unicast, multicast = (
        [int.from_bytes(address, "little") for address in sorted(table)]
        for table in (limited.unicast, limited.multicast)
    )
    vlans = [0] * 64
    for vlan in limited.vlans or ():
        vlans[vlan // 64] |= 1 << vlan % 64
    return ffi.new(
        "struct vh_filter *",
        {
            "promiscuous": limited.promiscuous,
            "all_multicast": limited.allmulti,
            "all_unicast": limited.alluni or limited.mac is None,
            "no_multicast": limited.nomulti,
            "no_unicast": limited.nouni,
            "no_broadcast": limited.nobcast,
            "checks_vlans": limited.vlans is not None,
            "unicasts": len(unicast),
            "multicasts": len(multicast),
            "mac": int.from_bytes(limited.mac or b"", "little"),
            "unicast": unicast,
            "multicast": multicast,
            "vlans": vlans,
        },
    )
