# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Engine ``program``: as ``ebpf``, with a hash program of the user's own (native/vnet_hash.h)."""

from vnethash.engines.base import ProgramSource, Setup
from vnethash.engines.ebpf import StagesAttachment, put_to_work
from vnethash.engines.readers import QueueReader
from vnethash.engines.stages import Stages
from vnethash.errors import ConfigError
from vnethash.programs import open_program
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig


class ProgramAttachment(StagesAttachment):
    """A hash program at work on a tap."""

    def configure(self, rss: RssConfig, reporting: Reporting) -> None:
        check_reporting(reporting)
        super().configure(rss, reporting)

    def reader(self, queue: int) -> QueueReader:
        # What a program would have said of a frame without a record, only the program knows.
        fd, l3 = self._setup.device.fds[queue], self._setup.l3
        return QueueReader(fd, queue, self._history, l3=l3, records=True, rehash=False)

    def replace_program(self, source: ProgramSource) -> None:
        """Put another hash program in the place of this one while packets pass."""
        shared = self._stages.shared
        successor = Stages.load_successor(open_program(source), shared, l3=self._setup.l3)
        try:
            self._hook.replace(successor.hash_stage.fd)
        except BaseException:
            successor.close()
            raise
        previous, self._stages = self._stages, successor
        previous.close()
        successor.maps.clear_counts()


class ProgramEngine:
    """Runs a hash program wherever ``ebpf`` works."""

    name = "program"

    def attach(self, setup: Setup) -> ProgramAttachment:
        """As EbpfEngine.attach(); raises ProgramRefused, and ConfigError, as well."""
        if setup.program is None:
            raise ConfigError("program", "is missing, and is what engine program runs")
        check_reporting(setup.reporting)
        stages = Stages.load(
            setup.rss.queues,
            l3=setup.l3,
            max_indirection=setup.max_indirection,
            program=open_program(setup.program),
            adaptive=setup.adaptive,
        )
        return ProgramAttachment(setup, stages, *put_to_work(setup, stages))


def check_reporting(reporting: Reporting) -> None:
    """Raise ConfigError for a reporting that only vnethash's own hash can have."""
    if reporting is Reporting.REHASH:
        raise ConfigError(
            "reporting",
            "is rehash, but a reader cannot hash as a hash program does",
            hint="have it report by record, or not at all: off",
        )
