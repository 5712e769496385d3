# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Engine ``tun-rss``: a kernel of the lab whose tun driver hashes and steers itself."""

from contextlib import ExitStack, suppress

from vnethash.engines.base import Setup
from vnethash.engines.readers import HASH_HEADER, History, QueueReader
from vnethash.engines.tun_steering import widen_header
from vnethash.errors import ConfigError, DeviceError
from vnethash.kernel import probe
from vnethash.kernel.tun import TunDevice
from vnethash.kernel.tun_ioctl import read_hash_types
from vnethash.native import core
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig
from vnethash.stats import QueueStats, Stats
from vnethash.virtio.hash_types import HashType, TunnelType, format_hash_types


class DriverAttachment:
    """The driver's RSS at work on a tap.

    The kernel counts nothing by queue and report type: statistics are of what
    was read, by the report type it came with.
    """

    point = "driver"
    header = HASH_HEADER

    def __init__(self, setup: Setup, history: History, resources: ExitStack) -> None:
        ffi = core().ffi
        self._setup = setup
        self._history = history
        self._counters = [ffi.new("struct vnet_counters *") for _ in range(setup.rss.queues)]
        self._resources = resources

    def configure(self, rss: RssConfig, reporting: Reporting) -> None:
        check_known(rss.hash_types, rss.tunnels)
        self._history.push(rss, reporting)
        _set(self._setup.device, rss, reporting)

    def stats(self) -> Stats:
        return Stats(tuple(QueueStats.from_counters([counter]) for counter in self._counters))

    def reader(self, queue: int) -> QueueReader:
        return QueueReader(
            self._setup.device.fds[queue],
            queue,
            self._history,
            l3=self._setup.l3,
            header=self.header,
            counters=self._counters[queue],
        )

    def close(self) -> None:
        self._resources.close()


class TunRssEngine:
    """Needs a kernel of the lab, and no BPF."""

    name = "tun-rss"

    def attach(self, setup: Setup) -> DriverAttachment:
        """Raises Unsupported on other kernels, ConfigError, DeviceError; the
        device is then as it was.
        """
        probe.require(self.name)
        check_known(setup.rss.hash_types, setup.rss.tunnels)
        with ExitStack() as resources:
            history = History()
            resources.callback(history.close)
            history.push(setup.rss, setup.reporting)
            widen_header(setup.device, resources)
            _set(setup.device, setup.rss, setup.reporting)
            resources.callback(_clear, setup.device)
            return DriverAttachment(setup, history, resources.pop_all())


def check_known(hash_types: HashType, tunnels: TunnelType) -> None:
    """Raise ConfigError for hash types that the driver does not know, and for tunnels."""
    if unknown := hash_types & ~read_hash_types():
        offered = ",".join(format_hash_types(read_hash_types()))
        raise ConfigError(
            "hash_types",
            f"the kernel's fixed algorithm does not know {', '.join(format_hash_types(unknown))}",
            hint=f"ask for {offered}, or take another engine",
        )
    if tunnels:
        raise ConfigError(
            "tunnels",
            "the kernel's fixed algorithm does not look into tunnels",
            hint="ask for none, or take another engine",
        )


def _set(device: TunDevice, rss: RssConfig, reporting: Reporting) -> None:
    device.set_rss(
        rss.hash_types,
        rss.indirection_table,
        rss.unclassified_queue,
        rss.key,
        report=reporting is Reporting.RECORD,
    )


def _clear(device: TunDevice) -> None:
    with suppress(DeviceError):  # no queue is left to tell it through
        device.clear_rss()
