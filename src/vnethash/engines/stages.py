# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The two BPF stages (native/stages.bpf.c) in the kernel: their programs and maps."""

import platform
import struct
from typing import Any, Self

from vnethash.closing import Closing
from vnethash.errors import ConfigError
from vnethash.kernel.bpf import BpfObject, Map, Program
from vnethash.native import STAGES_OBJECT, core
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig
from vnethash.stats import QueueStats, Stats
from vnethash.virtio.hash_types import HashType

DEFAULT_MAX_INDIRECTION = 2048
"""Entries an indirection table may have unless more are asked for: 8 KiB of maps."""

# Elsewhere the hash stage pays for a barrier between its loads.
_STRONGLY_ORDERED = {"x86_64", "i686"}


def _device(l3: bool, table_words: int) -> bytes:
    """struct vnet_device, all there is in .rodata."""
    ffi, _ = core()
    weakly_ordered = platform.machine() not in _STRONGLY_ORDERED
    return bytes(ffi.buffer(ffi.new("struct vnet_device *", [l3, table_words, weakly_ordered])))


class StageMaps:
    """The maps of a hash stage: configuration, indirection tables, counters.

    ``counters`` is borrowed; the other two are mapped into memory here.
    """

    def __init__(self, state: Map, table: Map, counters: Map) -> None:
        self._ffi, self._lib = core()
        self._counters = counters
        self._words = table.max_entries // 2
        self._memory = [state.mmap()]
        try:
            self._memory.append(table.mmap())
        except BaseException:
            self._memory[0].close()
            raise
        self._state = self._ffi.from_buffer("struct vnet_state *", self._memory[0])
        self._table = self._ffi.from_buffer("uint64_t[]", self._memory[1])

    @property
    def max_indirection(self) -> int:
        """Entries that fit an indirection table."""
        return self._words * 4

    def check(self, config: RssConfig) -> None:
        """Raise ConfigError if ``config`` does not fit the maps."""
        entries = len(config.indirection_table)
        if entries > self.max_indirection:
            raise ConfigError(
                "indirection_table",
                f"has {entries} entries, this tap was set up for at most {self.max_indirection}",
                hint=f"set the tap up with max_indirection={entries}",
            )

    def publish(self, compiled: Any) -> None:
        """Put a compiled configuration (struct vh_config) that fits in force."""
        self._lib.vh_publish(self._state, self._table, self._words, compiled)

    def record_udp_gso(self, marked: bool) -> None:
        """Whether UDP GSO packets get a record: only a device that takes them whole may."""
        self._state.record_udp_gso = marked

    def current(self) -> tuple[RssConfig, Reporting]:
        """The configuration in force."""
        generation = self._state.generation
        rss = self._state.config[generation & 1]
        first = (generation & 1) * self._words
        entries = rss.table_mask + 1
        words = self._ffi.buffer(self._table)[8 * first : 8 * self._words + 8 * first]
        config = RssConfig(
            rss.queues,
            hash_types=HashType(rss.hash_types),
            key=bytes(self._ffi.buffer(rss.key)),
            indirection_table=struct.unpack_from(f"<{entries}H", words),
            unclassified_queue=rss.unclassified,
        )
        return config, list(Reporting)[rss.reporting]

    def stats(self) -> Stats:
        """Counters of every queue, summed over CPUs."""
        return Stats(
            tuple(
                QueueStats.from_counters(
                    self._ffi.from_buffer("struct vnet_counters *", cpu) for cpu in cpus
                )
                for cpus in self._counters.values_percpu()
            )
        )

    def close(self) -> None:
        """Unmap; the maps themselves belong to whoever made them."""
        for view in (self._state, self._table):
            self._ffi.release(view)
        for memory in self._memory:
            memory.close()


class Stages(Closing):
    """Both programs and their maps, loaded but not attached."""

    def __init__(self, loaded: BpfObject) -> None:
        self._object = loaded
        self.hash_stage: Program = loaded.program("hash_stage")
        self.steering_stage: Program = loaded.program("steering_stage")
        self.state: Map = loaded.map(".bss")
        self.table: Map = loaded.map("indirection")
        self.counters: Map = loaded.map("counters")
        self.maps = StageMaps(self.state, self.table, self.counters)

    @classmethod
    def load(
        cls, queues: int, *, l3: bool = False, max_indirection: int = DEFAULT_MAX_INDIRECTION
    ) -> Self:
        """Load the stages for a device with ``queues`` queues.

        Raises DependencyMissing, NotPermitted, VerifierError, BpfError.
        """
        words = max(1, (max_indirection + 3) // 4)
        loaded = BpfObject.open(STAGES_OBJECT, name="vnethash")
        try:
            loaded.rodata()[:] = _device(l3, words)
            loaded.resize_map("indirection", 2 * words)
            loaded.resize_map("counters", queues)
            loaded.load()
            return cls(loaded)
        except BaseException:
            loaded.close()
            raise

    def close(self) -> None:
        """Free the programs and maps that nothing else holds."""
        self.maps.close()
        self._object.close()
