# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The device a front end drives: its model, its rings, and the tap behind them."""

import os
import selectors
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial

from vnethash.closing import Closing
from vnethash.errors import DeviceError, RingError, VnethashError
from vnethash.rss.config import RssConfig
from vnethash.vhost_user.control_service import ControlService
from vnethash.vhost_user.host_tap import HostTap, Wanted, offloads
from vnethash.vhost_user.journal import Journal
from vnethash.vhost_user.memory import DirtyLog, GuestMemory, Region
from vnethash.vhost_user.pairs import PairCounters, PathSetup, QueuePair
from vnethash.vhost_user.rings import FaultReason, RingSetup
from vnethash.virtio.device import DeviceState, NetDevice
from vnethash.virtio.features import Feature, feature_bits, format_features
from vnethash.virtio.receive_filter import ReceiveFilter

_RARP = bytes.fromhex("80350001080006040003")
_EVERYTHING = ReceiveFilter()


@dataclass(slots=True)
class _Pair:
    """A queue pair of the guest, and those of its rings that are to be served."""

    path: QueuePair
    receive: RingSetup | None = None
    transmit: RingSetup | None = None
    broken: RingError | None = None
    """A rule was broken: its rings are left alone until one is set up anew."""

    @property
    def drains(self) -> bool:
        """Whether packets that come for it are taken."""
        return self.receive is not None and self.broken is None

    def set(self, index: int, ring: RingSetup | None) -> RingSetup | None:
        """Have ``ring`` as the virtqueue of that index; returns what was there."""
        if index % 2:
            before, self.transmit = self.transmit, ring
        else:
            before, self.receive = self.receive, ring
        return before

    def halt(self) -> None:
        """Stop the thread; the rings remember how far it came."""
        if not self.path.running:
            return
        bases = self.path.stop()
        if self.receive:
            self.receive = replace(self.receive, base=bases.receive)
        if self.transmit:
            self.transmit = replace(self.transmit, base=bases.transmit)


class Backend(Closing):
    """A virtio-net device in front of a tap: what a vhost-user session drives (session.Device).

    The data path has threads of its own. Everything else happens in calls
    from the session and from ``selector``, in one thread.
    """

    def __init__(
        self,
        device: NetDevice,
        tap: HostTap,
        selector: selectors.BaseSelector,
        journal: Journal,
        *,
        unasked: RssConfig | None = None,
    ) -> None:
        """``device`` may come with a state that the driver had elsewhere.

        A driver that negotiates the same features goes on from there, and is
        asked to announce itself. ``unasked`` is how to steer and hash for a
        driver whose front end keeps the control queue to itself: it cannot
        say. Raises OSError without descriptors to be had.
        """
        self.device = device
        self.left = device.state
        """The state that the last driver left behind."""
        self.config_changed: Callable[[], object] = lambda: None
        """Called when the driver should look at the configuration space."""
        self._imported = device.state if device.state.features else None
        device.reset()
        self._unasked = unasked if tap.steers else None
        self._tap = tap
        self._selector = selector
        self._journal = journal
        self._memory: GuestMemory | None = None
        self._control: ControlService | None = None
        self._commanded = False  # this driver has had a control queue
        self._in_use = 0
        with ExitStack() as resources:
            self._pairs = [
                _Pair(resources.enter_context(QueuePair(index, tap.history)))
                for index in range(tap.queue_pairs)
            ]
            for pair in self._pairs:
                on_fault = partial(self._on_fault, pair)
                selector.register(pair.path.fileno(), selectors.EVENT_READ, on_fault)
                resources.callback(selector.unregister, pair.path.fileno())
            self._resources = resources.pop_all()

    # What a session asks: session.Device

    @property
    def queues(self) -> int:
        return 2 * len(self._pairs) + 1

    def features(self) -> int:
        return feature_bits(self.device.offer.features)

    def set_features(self, bits: int) -> None:
        # A front end that keeps the control queue to itself does not pass its feature on.
        elsewhere = not bits >> Feature.CTRL_VQ & 1
        state = self.device.negotiated(bits, control_elsewhere=elsewhere)
        imported, self._imported = self._imported, None
        if imported and imported.features == state.features:
            state = imported
        self._begin(state)
        names = format_features(state.features)
        self._journal("features", {"features": names, "imported": state is imported})
        if state is imported:
            self._announce()

    def config_space(self) -> bytes:
        return self.device.config_space()

    def set_mtu(self, mtu: int) -> None:
        self._tap.set_mtu(mtu)

    def announce(self, mac: bytes) -> None:
        frame = b"\xff" * 6 + mac + _RARP + mac + bytes(4) + mac + bytes(4)
        with suppress(OSError):  # the link is down: there is nobody to tell
            os.write(self._tap.fd(0), bytes(12) + frame.ljust(60, b"\0"))

    def reset(self) -> None:
        self.device.reset()
        self._begin(self.device.state)

    def set_status(self, status: int) -> None:
        """Nothing waits for DRIVER_OK: a ring runs when it is kicked off and enabled."""

    def set_memory(self, regions: tuple[Region, ...], log: DirtyLog | None) -> None:
        memory = GuestMemory(regions, log) if regions else None
        if self._memory:
            self._memory.close()
        self._memory = memory

    def start_ring(self, index: int, setup: RingSetup) -> None:
        if self._memory is None:
            raise VnethashError("guest memory is not known")
        if index == self.device.control_queue:
            self._start_control(self._memory, index, setup)
            return
        if index >= 2 * len(self._pairs):
            raise VnethashError(f"there is no queue {index} with these features")
        pair = self._pairs[index // 2]
        pair.halt()
        pair.broken = None
        pair.set(index, setup)
        try:
            self._rebalance()
            if pair.broken:
                raise pair.broken
        except VnethashError:
            pair.halt()
            pair.broken = None
            pair.set(index, None)
            self._settle()
            raise

    def stop_ring(self, index: int) -> int:
        if self._control and index == self._control.index:
            return self._stop_control()
        pair = self._pairs[index // 2]
        pair.halt()
        ring = pair.set(index, None)
        self._settle()
        return ring.base if ring else 0

    # Of whoever runs it

    @property
    def queues_in_use(self) -> int:
        """Queues of the tap that packets go to."""
        return self._in_use

    def counters(self) -> list[PairCounters]:
        """What each queue pair moved since the backend was made."""
        return [pair.path.counters() for pair in self._pairs]

    def set_link(self, up: bool) -> None:
        """Tell the driver that the link is up or down."""
        self.device.commit(replace(self.device.state, link_up=up))
        self.config_changed()

    def forget(self) -> None:
        """The front end is gone, and all its rings were stopped: begin anew."""
        self.config_changed = lambda: None
        if self.device.state.features:
            self.left = self.device.state
        with suppress(DeviceError):  # the tap is gone: the next one will be told
            self.reset()

    def close(self) -> None:
        """Stop the data path. The tap belongs to whoever made it."""
        for pair in self._pairs:
            pair.halt()
        self._stop_control()
        self.set_memory((), None)
        self._resources.close()

    # How the tap and the threads follow

    def _rebalance(self) -> None:
        """Let packets come on those queues that the driver wants and somebody drains.

        Raises DeviceError if the tap cannot follow.
        """
        while not self._balance():
            pass  # a pair is broken, and fewer queues can be in use

    def _settle(self) -> None:
        """As _rebalance(), on the way back from something: the tap may be gone."""
        with suppress(DeviceError):
            self._rebalance()

    def _balance(self) -> bool:
        state = self.device.state
        served = 0
        while served < len(self._pairs) and self._pairs[served].drains:
            served += 1
        # Under RSS the table says where packets go. A front end that keeps the control
        # queue to itself (QEMU, cloud-hypervisor) enables the rings it means to use.
        chosen = self._commanded and state.steering is None
        in_use = min(served, state.queue_pairs) if chosen else served
        if in_use != self._in_use:
            leaving = self._pairs[in_use : self._in_use]
            # Where a ring is taken away, its thread has stopped already.
            if 0 < in_use < self._in_use and all(pair.path.running for pair in leaving):
                self._tap.keep_to(in_use)
            for pair in self._pairs[min(in_use, self._in_use) :]:
                pair.halt()
            self._tap.use_queues(in_use)
            self._in_use = in_use
            self._journal("queues", {"in_use": in_use})
        return all(self._resume(pair) for pair in self._pairs)

    def _resume(self, pair: _Pair) -> bool:
        """Have the thread of a pair run, if it should; False if its rings are broken."""
        if self._memory is None or pair.path.running or pair.broken:
            return True
        if not (pair.receive or pair.transmit):
            return True
        state = self.device.state
        in_use = pair.path.index < self._in_use
        wanted = state.receive_filter
        path = PathSetup(
            receive_fd=self._tap.fd(pair.path.index) if in_use and pair.drains else -1,
            # A queue that is not in use sends nothing.
            transmit_fd=self._tap.fd(pair.path.index if in_use else 0),
            guest_header=state.header_size,
            mergeable=Feature.MRG_RXBUF in state.features,
            records=state.reports and self._tap.takes_records,
            rehash=state.reports and self._tap.rehashes,
            filter=None if wanted == _EVERYTHING else wanted,
        )
        try:
            pair.path.start(self._memory, pair.receive, pair.transmit, path)
        except RingError as error:
            pair.broken = error
            self._note_fault(f"pair {pair.path.index}", error.message)
        return not pair.broken

    def _wanted(self, state: DeviceState) -> Wanted:
        steering = state.steering
        taken = offloads(state.offloads)
        if self._unasked and not self._commanded and steering is None and state.features:
            return Wanted(self._unasked, False, state.reports, taken)
        rss = RssConfig(
            len(self._pairs),
            hash_types=state.hash_types,
            key=state.hash_key,
            indirection_table=steering.indirection_table if steering else (0,),
            unclassified_queue=steering.unclassified_queue if steering else 0,
            tunnels=state.tunnel_types,
        )
        return Wanted(rss, steering is None, state.reports, taken)

    def _begin(self, state: DeviceState) -> None:
        """As _follow(), for a driver that has no rings yet."""
        self._commanded = False
        self._tap.apply(self._wanted(state))
        self.device.commit(state)
        for pair in self._pairs:
            pair.path.forget()

    def _follow(self, state: DeviceState) -> None:
        """Have tap and data path do as ``state`` says, and commit it.

        Raises as HostTap.apply() does; then nothing has changed.
        """
        before = self.device.state
        wanted = self._wanted(state)
        self.device.commit(state)
        if state.receive_filter != before.receive_filter:
            for pair in self._pairs:
                pair.halt()
        try:
            self._rebalance()
            self._tap.apply(wanted)
        except VnethashError:
            self.device.commit(before)
            with suppress(VnethashError):
                self._tap.apply(self._wanted(before))
            self._settle()
            raise

    def _announce(self) -> None:
        state = self.device.announced()
        if state is not None:
            self.device.commit(state)
            self.config_changed()

    # The control queue

    def _start_control(self, memory: GuestMemory, index: int, setup: RingSetup) -> None:
        on_fault = partial(self._note_fault, "control")
        self._control = ControlService(index, memory, setup, self._selector, self._obey, on_fault)
        before, self._commanded = self._commanded, True
        try:
            self._rebalance()
            self._tap.apply(self._wanted(self.device.state))
        except VnethashError:
            self._commanded = before
            self._stop_control()
            self._settle()
            raise

    def _stop_control(self) -> int:
        control, self._control = self._control, None
        if control is None:
            return 0
        base = control.base
        control.close()
        return base

    def _obey(self, data: bytes) -> bool:
        judged = self.device.judge(data)
        command = judged.command.to_json() if judged.command else {"bytes": data[:64].hex()}
        refusal = judged.refusal
        if judged.state is not None:
            try:
                self._follow(judged.state)
            except VnethashError as error:
                refusal = error.message
        if refusal is None:
            self._journal("control", {**command, "answer": "ok"})
        else:
            self._journal("control", {**command, "answer": "refused", "reason": refusal})
        return refusal is None

    def _on_fault(self, pair: _Pair) -> None:
        """A thread found its rings broken: leave them alone until they are set up anew."""
        fault = pair.path.fault()
        if fault is None:
            return  # a message before this in the loop has stopped and started it
        pair.halt()
        pair.broken = fault.error()
        self._note_fault(f"pair {pair.path.index}", str(fault))
        if fault.reason is FaultReason.DEVICE:
            raise DeviceError(f"{self._tap.name}: {fault}", hint="the tap was deleted")
        self._settle()

    def _note_fault(self, queue: str, reason: str) -> None:
        self._journal("fault", {"queue": queue, "reason": reason})
