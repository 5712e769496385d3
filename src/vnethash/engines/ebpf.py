# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Engine ``ebpf``: the hash stage at egress, the steering stage in the tap."""

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from vnethash.engines.base import Setup
from vnethash.engines.readers import HEADER, History, QueueReader
from vnethash.engines.stages import Stages
from vnethash.errors import DeviceError
from vnethash.kernel.egress import ClsactHook, TcxHook, attach_egress
from vnethash.kernel.tun import Offload, TunDevice
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig
from vnethash.stats import Stats

if TYPE_CHECKING:
    from vnethash.rss.observed import Counts


class StagesAttachment:
    """Both stages at work on a tap."""

    header = HEADER

    def __init__(
        self,
        setup: Setup,
        stages: Stages,
        history: History,
        hook: TcxHook | ClsactHook,
        resources: ExitStack,
    ) -> None:
        self._setup = setup
        self._stages = stages
        self._history = history
        self._hook = hook
        self._resources = resources
        self._steers = True

    @property
    def stages(self) -> Stages:
        """Its programs and maps."""
        return self._stages

    @property
    def history(self) -> History:
        """The configurations that whoever reads the tap may have to hash by."""
        return self._history

    @property
    def point(self) -> str:
        return self._hook.point

    def configure(self, rss: RssConfig, reporting: Reporting) -> None:
        self._stages.maps.check(rss)
        self._stages.maps.publish(self._history.push(rss, reporting))
        if not self._steers:
            self._setup.device.set_steering(self._stages.steering_stage.fd)
            self._steers = True

    def configure_automatic(self, rss: RssConfig, reporting: Reporting) -> None:
        """Hash by ``rss``, but leave the choice of queues to the kernel, until configure()."""
        self._stages.maps.check(rss)
        self._setup.device.set_steering(None)
        self._steers = False
        self._stages.maps.publish(self._history.push(rss, reporting, automatic=True))

    def set_offloads(self, offloads: Offload) -> None:
        """Change what the reader takes whole. Raises as TunDevice.set_offloads() does."""
        whole = bool(offloads & Offload.USO4)
        if not whole:  # or a marked packet would be cut in pieces
            self._stages.maps.record_udp_gso(False)
        self._setup.device.set_offloads(offloads)
        self._stages.maps.record_udp_gso(whole)

    def stats(self) -> Stats:
        return self._stages.maps.stats()

    def buckets(self) -> "Counts":
        return self._stages.maps.buckets()

    def reader(self, queue: int) -> QueueReader:
        fd = self._setup.device.fds[queue]
        return QueueReader(fd, queue, self._history, l3=self._setup.l3, records=True)

    def close(self) -> None:
        self._resources.close()
        self._stages.close()


class EbpfEngine:
    """Steers and reports on any kernel with BPF at the tc egress hook."""

    name = "ebpf"

    def attach(self, setup: Setup) -> StagesAttachment:
        """Load both stages, configure them, attach them.

        Raises DependencyMissing, NotPermitted, Unsupported, VerifierError,
        BpfError, DeviceError; the device is then as it was.
        """
        stages = Stages.load(
            setup.rss.queues,
            l3=setup.l3,
            max_indirection=setup.max_indirection,
            adaptive=setup.adaptive,
        )
        return StagesAttachment(setup, stages, *put_to_work(setup, stages))


def put_to_work(setup: Setup, stages: Stages) -> tuple[History, TcxHook | ClsactHook, ExitStack]:
    """Configure loaded stages and attach them; closing the ExitStack takes them off.

    An error closes the stages.
    """
    with ExitStack() as undo, ExitStack() as resources:
        undo.callback(stages.close)
        history = History()
        resources.callback(history.close)
        stages.maps.record_udp_gso(bool(setup.offloads & Offload.USO4))
        stages.maps.publish(history.push(setup.rss, setup.reporting))
        hook = attach_egress(stages.hash_stage.fd, setup.device.ifindex)
        resources.callback(hook.close)
        setup.device.set_steering(stages.steering_stage.fd)
        resources.callback(_stop_steering, setup.device)
        undo.pop_all()
        return history, hook, resources.pop_all()


def _stop_steering(device: TunDevice) -> None:
    with suppress(DeviceError):  # no queue is left to tell it through
        device.set_steering(None)
