# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The two BPF stages (native/stages.bpf.c) in the kernel: their programs and maps."""

import platform
import struct
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from weakref import WeakSet

from vnethash.closing import Closing
from vnethash.errors import BpfError, ConfigError, VerifierError, VnethashError
from vnethash.kernel.bpf import BpfObject, Map, MapFlag, Program
from vnethash.kernel.fd import duplicate
from vnethash.native import STAGES_OBJECT, core
from vnethash.programs.elf import without_line_info
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig
from vnethash.stats import QueueStats, Stats
from vnethash.virtio.hash_types import HashType, TunnelType

if TYPE_CHECKING:
    from vnethash.rss.observed import Counts

DEFAULT_MAX_INDIRECTION = 2048
"""Entries an indirection table may have unless more are asked for: 8 KiB of maps."""

NAME = "vnethash"
DEVICE = ".rodata.vnet"
_TABLE, _COUNTERS, _BUCKETS = "vnet_table", "vnet_counters", "vnet_buckets"
_MAPS = (".data.vnet", _TABLE, _COUNTERS, "vnet_counts", _BUCKETS)
"""As they are called in native/steer.h and vnet_hash.h, in the order of SharedMaps."""

_HASH_STAGES = {False: "hash_stage", True: "hash_stage_adaptive"}
"""By whether packets are counted by bucket."""

# Elsewhere the hash stage pays for a barrier between its loads.
_STRONGLY_ORDERED = {"x86_64", "i686"}


def _device(l3: bool, table_words: int) -> bytes:
    """struct vnet_device."""
    ffi, lib = core()
    weakly_ordered = platform.machine() not in _STRONGLY_ORDERED
    fields = [lib.VNET_ABI, l3, table_words, weakly_ordered]
    return bytes(ffi.buffer(ffi.new("struct vnet_device *", fields)))


class SharedMaps(NamedTuple):
    """The maps of a hash stage that another one can go on with."""

    state: Map
    table: Map
    counters: Map
    counts: Map
    buckets: Map

    @property
    def adaptive(self) -> bool:
        """Whether the hash stage counts packets by bucket."""
        return self.buckets.max_entries > 1


class StageMaps:
    """Configuration, indirection tables and counters of a hash stage.

    The maps are borrowed; the first two are mapped into memory here, the second
    only if it has room for more entries than lie in a slot: else nobody reads it.
    """

    def __init__(self, maps: SharedMaps) -> None:
        self._ffi, self._lib = core()
        self._counters, self._counts, self._buckets = maps.counters, maps.counts, maps.buckets
        self._words = maps.table.max_entries // 2
        self._memory = [maps.state.mmap()]
        self._state = self._ffi.from_buffer("struct vnet_state *", self._memory[0])
        if not maps.table.flags & MapFlag.MMAPABLE:
            self._table = self._ffi.new("uint64_t[]", maps.table.max_entries)
            return
        try:
            self._memory.append(maps.table.mmap())
        except BaseException:
            self._ffi.release(self._state)
            self._memory[0].close()
            raise
        self._table = self._ffi.from_buffer("uint64_t[]", self._memory[1])

    @property
    def max_indirection(self) -> int:
        """Entries that fit an indirection table."""
        return self._words * 4

    @property
    def generation(self) -> int:
        """Number of the configuration in force, which no other has before 4 billion more."""
        return int(self._state.generation)

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
        rss = self._slot()
        entries = rss.table_mask + 1
        if entries <= self._lib.VNET_TABLE_NEAR:
            table = tuple(rss.near[0:entries])
        else:
            first = (self._state.generation & 1) * self._words
            words = self._ffi.buffer(self._table)[8 * first : 8 * self._words + 8 * first]
            table = struct.unpack_from(f"<{entries}H", words)
        config = RssConfig(
            rss.queues,
            hash_types=HashType(rss.hash_types),
            key=bytes(self._ffi.buffer(rss.key)),
            indirection_table=table,
            unclassified_queue=rss.unclassified,
            tunnels=TunnelType(rss.tunnels),
        )
        return config, list(Reporting)[rss.reporting]

    def _slot(self) -> Any:
        """The slot in force, as the struct vnet_config it is the head of."""
        slot = self._ffi.addressof(self._state.slot, self._state.generation & 1)
        return self._ffi.cast("struct vnet_config *", slot)

    def stats(self) -> Stats:
        """Counters of every queue and of the hash program itself, summed over CPUs."""
        queues = (
            QueueStats.from_counters(
                self._ffi.from_buffer("struct vnet_counters *", cpu) for cpu in cpus
            )
            for cpus in self._counters.values_percpu()
        )
        counts = (
            sum(int.from_bytes(cpu, "little") for cpu in cpus)
            for cpus in self._counts.values_percpu()
        )
        return Stats(tuple(queues), tuple(counts))

    def buckets(self) -> "Counts":
        """What came to each entry of the indirection table, in use or not, summed over CPUs.

        No row where the hash stage does not count by bucket.
        """
        import numpy as np

        entries = self._buckets.values_percpu()
        counts = np.frombuffer(b"".join(chain.from_iterable(entries)), np.int64)
        summed: Counts = counts.reshape(len(entries), -1, 2)[1:].sum(axis=1)
        return summed

    def clear_counts(self) -> None:
        """Set the counters of the hash program's own to zero."""
        for index in range(self._counts.max_entries):
            self._counts.update(index, bytes(self._counts.value_size))

    def close(self) -> None:
        """Unmap; the maps themselves belong to whoever made them."""
        for view in (self._state, self._table):
            self._ffi.release(view)
        for memory in self._memory:
            memory.close()


class SteeringStage(Closing):
    """A steering program with the maps of a hash program, loaded but not attached.

    By itself it is one that hashes too, as kernels of the lab take it
    (native/lab_stage.h).
    """

    def __init__(self, loaded: BpfObject) -> None:
        ours = {*_MAPS, DEVICE}
        self.steering_stage: Program = loaded.program("steering_stage")
        self.shared = SharedMaps(*(loaded.map(name) for name in _MAPS))
        self._own_maps = {name: loaded.map(name) for name in loaded.maps() if name not in ours}
        self._take(loaded)
        self._held = loaded.let_go()
        try:
            self.maps = StageMaps(self.shared)
        except BaseException:
            self._close_held()
            raise

    def _take(self, loaded: BpfObject) -> None:
        """Take what else there is."""

    def _close_held(self) -> None:
        for held in self._held:
            held.close()

    @classmethod
    def load_opened(
        cls,
        opened: BpfObject,
        queues: int,
        *,
        l3: bool,
        max_indirection: int,
        adaptive: bool = False,
    ) -> Self:
        """Load an object for a device with ``queues`` queues; it is closed then.

        ``adaptive``: packets are counted by bucket.
        Raises NotPermitted, VerifierError, BpfError.
        """
        words = max(1, (max_indirection + 3) // 4)
        try:
            opened.initial_value(DEVICE)[:] = _device(l3, words)
            entries = {
                _TABLE: 2 * words,
                _COUNTERS: queues,
                _BUCKETS: 1 + 4 * words if adaptive else 1,
            }
            for name in (DEVICE, *_MAPS):
                mapped = name != _TABLE or max_indirection > core().lib.VNET_TABLE_NEAR
                opened.make_map(name, entries.get(name), mapped=mapped)
            _choose_hash_stage(opened, adaptive)
            opened.load()
            return cls(opened)
        except BaseException:
            opened.close()
            raise

    @classmethod
    def load_successor(cls, program: BpfObject, shared: SharedMaps, *, l3: bool) -> Self:
        """Load another hash program that goes on with the maps of the present one.

        Configuration and counters stay; maps and variables of the program's
        own are new. Raises as load_opened() does.
        """
        try:
            program.initial_value(DEVICE)[:] = _device(l3, shared.table.max_entries // 2)
            program.make_map(DEVICE)
            for name, present in zip(_MAPS, shared, strict=True):
                program.reuse_map(name, present)
            _choose_hash_stage(program, shared.adaptive)
            program.load()
            return cls(program)
        except BaseException:
            program.close()
            raise

    def own_maps(self) -> dict[str, Map]:
        """The maps of the hash program's own, its variables among them."""
        return self._own_maps

    def close(self) -> None:
        """Free the programs and maps that nothing else holds."""
        self.maps.close()
        self._close_held()


class Stages(SteeringStage):
    """Hash stage, steering stage and their maps, loaded but not attached."""

    hash_stage: Program

    def _take(self, loaded: BpfObject) -> None:
        self.hash_stage = loaded.program(_HASH_STAGES[self.shared.adaptive])

    @classmethod
    def load(
        cls,
        queues: int,
        *,
        l3: bool = False,
        max_indirection: int = DEFAULT_MAX_INDIRECTION,
        program: BpfObject | None = None,
        adaptive: bool = False,
    ) -> Self:
        """Load the stages for a device with ``queues`` queues.

        ``adaptive``: packets are counted by bucket.
        ``program`` is a hash program of the user's own (`open_program`), which
        is closed then. Raises DependencyMissing, NotPermitted, VerifierError,
        BpfError.
        """
        load = partial(
            cls.load_opened,
            queues=queues,
            l3=l3,
            max_indirection=max_indirection,
            adaptive=adaptive,
        )
        if program is not None:
            return load(program)
        try:
            stages = load(BpfObject.open(_without_lines(STAGES_OBJECT), name=NAME))
        except VerifierError:  # with them its log names the source
            stages = load(BpfObject.open(STAGES_OBJECT, name=NAME))
        stages._share_steering()
        return stages

    def _share_steering(self) -> None:
        """Steer by the program of another tap of this process: it has no maps, all are alike."""
        for other in list(_steering_stages):
            twin = _twin(other)
            if twin is not None:
                self.steering_stage.close()
                self.steering_stage = twin
                self._held.append(twin)
                break
        _steering_stages.add(self.steering_stage)


@cache
def _without_lines(path: Path) -> bytes:
    """An object whose source lines do not stay in the kernel: as much memory as the program."""
    try:
        return without_line_info(path.read_bytes())
    except OSError as error:
        raise BpfError(f"open BPF object {path}: {error.strerror}") from error


_steering_stages: WeakSet[Program] = WeakSet()


def _twin(program: Program) -> Program | None:
    """A descriptor of its own for a program that another thread may be closing; None if it was."""
    try:
        twin = Program(duplicate(program.fd), program.name)
    except VnethashError:
        return None
    if twin.id == program.id:
        return twin
    twin.close()
    return None


def _choose_hash_stage(opened: BpfObject, adaptive: bool) -> None:
    for counts, name in _HASH_STAGES.items():
        if name in opened.programs():  # a steering program that hashes has none
            opened.set_autoload(name, counts == adaptive)
