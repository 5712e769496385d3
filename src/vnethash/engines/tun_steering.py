# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Engines ``tun-progtype``, ``tun-kfunc`` and ``tun-cb``: kernels of the lab, on which the
steering program hashes too, and tun puts what it says into a header of 20 bytes.
"""

from contextlib import ExitStack, suppress

from vnethash.engines.base import ProgramSource, Setup
from vnethash.engines.program import check_reporting
from vnethash.engines.readers import HASH_HEADER, History, QueueReader
from vnethash.engines.stages import SteeringStage
from vnethash.errors import DeviceError
from vnethash.kernel import probe
from vnethash.kernel.bpf import BpfObject, ProgramType
from vnethash.kernel.tun import TunDevice
from vnethash.native import BUILT
from vnethash.programs import open_program
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig
from vnethash.stats import Stats

PROGTYPE, CB = "tun-progtype", "tun-cb"


class SteeringAttachment:
    """A steering program that hashes, at work on a tap."""

    point = "steering"
    header = HASH_HEADER

    def __init__(
        self, setup: Setup, way: str, stage: SteeringStage, history: History, resources: ExitStack
    ) -> None:
        self._setup = setup
        self._way = way
        self._stage = stage
        self._history = history
        self._resources = resources

    def configure(self, rss: RssConfig, reporting: Reporting) -> None:
        self._stage.maps.check(rss)
        self._stage.maps.publish(self._history.push(rss, reporting))

    def stats(self) -> Stats:
        return self._stage.maps.stats()

    def reader(self, queue: int) -> QueueReader:
        return self._reader(queue, rehash=True)

    def _reader(self, queue: int, *, rehash: bool) -> QueueReader:
        fd, l3 = self._setup.device.fds[queue], self._setup.l3
        return QueueReader(fd, queue, self._history, l3=l3, header=self.header, rehash=rehash)

    def close(self) -> None:
        self._resources.close()
        self._stage.close()


class ProgramAttachment(SteeringAttachment):
    """The same with a hash program of the user's own."""

    def configure(self, rss: RssConfig, reporting: Reporting) -> None:
        check_reporting(reporting)
        super().configure(rss, reporting)

    def reader(self, queue: int) -> QueueReader:
        return self._reader(queue, rehash=False)

    def replace_program(self, source: ProgramSource) -> None:
        """Put another hash program in the place of this one while packets pass."""
        opened = _open(self._way, source)
        successor = SteeringStage.load_successor(opened, self._stage.shared, l3=self._setup.l3)
        try:
            _steer(self._setup.device, self._way, successor)
        except BaseException:
            successor.close()
            raise
        previous, self._stage = self._stage, successor
        previous.close()
        successor.maps.clear_counts()


class TunSteeringEngine:
    """Needs a kernel of the lab, and no hook."""

    def __init__(self, name: str) -> None:
        self.name = name

    def attach(self, setup: Setup) -> SteeringAttachment:
        """Load the program, widen the header, attach it.

        Raises Unsupported on other kernels, ConfigError, ProgramRefused,
        DependencyMissing, NotPermitted, VerifierError, BpfError, DeviceError;
        the device is then as it was.
        """
        attachment = SteeringAttachment
        if setup.program is not None:
            check_reporting(setup.reporting)
            attachment = ProgramAttachment
        if error := probe.of_lab(self.name, setup.device).error:
            raise error
        with ExitStack() as undo, ExitStack() as resources:
            stage = SteeringStage.load_opened(
                _open(self.name, setup.program),
                setup.rss.queues,
                l3=setup.l3,
                max_indirection=setup.max_indirection,
            )
            undo.callback(stage.close)
            history = History()
            resources.callback(history.close)
            stage.maps.publish(history.push(setup.rss, setup.reporting))
            widen_header(setup.device, resources)
            _steer(setup.device, self.name, stage)
            resources.callback(_stop_steering, setup.device)
            undo.pop_all()
            return attachment(setup, self.name, stage, history, resources.pop_all())


def widen_header(device: TunDevice, resources: ExitStack) -> None:
    """Make room in the header for the hash, until ``resources`` are closed."""
    present = device.vnet_header_size
    device.set_vnet_header_size(HASH_HEADER)
    resources.callback(_set_header, device, present)


def _set_header(device: TunDevice, size: int) -> None:
    with suppress(DeviceError):  # no queue is left to tell it through
        device.set_vnet_header_size(size)


def _open(way: str, program: ProgramSource | None) -> BpfObject:
    if program is not None:
        return open_program(program, engine=way)
    opened = BpfObject.open(BUILT / f"{way}.bpf.o", name="vnethash")
    if way == PROGTYPE:  # libbpf does not know the section
        opened.set_program_type("steering_stage", ProgramType.VNET_HASH)
    return opened


def _steer(device: TunDevice, way: str, stage: SteeringStage) -> None:
    if way == CB:
        device.set_steering_hash(stage.steering_stage.fd)
    else:
        device.set_steering(stage.steering_stage.fd)


def _stop_steering(device: TunDevice) -> None:
    with suppress(DeviceError):
        device.set_steering(None)
