# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Readers over the native core, and the configurations they may have to hash by."""

from typing import Any

from vnethash.native import core
from vnethash.reporting import Reporting
from vnethash.rss.compiled import compile_config
from vnethash.rss.config import RssConfig

HEADER = 12
"""Bytes of virtio-net header that a stock kernel writes: VNET_HDR_LEN."""

HASH_HEADER = 20
"""Bytes that a kernel of the lab writes, the hash among them: VNET_HDR_HASH_LEN."""


class History:
    """The last configurations of a tap (struct vh_history)."""

    def __init__(self) -> None:
        ffi, self._lib = core()
        self.handle = self._lib.vh_history_new()
        if self.handle == ffi.NULL:
            raise MemoryError

    def push(self, rss: RssConfig, reporting: Reporting, *, automatic: bool = False) -> Any:
        """Make a configuration the newest; returns it compiled (struct vh_config).

        To be called before the kernel steers by it: waits for readers that
        are draining a queue, so that none meets a packet it cannot explain.
        ``automatic``: the kernel chooses queues its own way, so that this
        configuration explains any.
        """
        compiled = compile_config(rss, reporting)
        pushed = compiled
        if automatic:
            pushed = compile_config(rss.replace(indirection_table=(0,)), reporting)
            pushed.rss.unclassified = pushed.table[0] = self._lib.VH_ANY_QUEUE
        if self._lib.vh_history_push(self.handle, pushed) < 0:
            raise MemoryError
        return compiled

    def close(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None:
            self._lib.vh_history_free(handle)


class QueueReader:
    """Reads a queue that the kernel steers to (vh_receive).

    ``header`` bytes come first: HEADER, or HASH_HEADER from a kernel that
    writes the hash itself; ``records``: a hash record may follow; ``rehash``:
    what comes without a hash is hashed by the configuration that explains its
    queue. ``counters`` (struct vnet_counters) are of what is read.
    """

    def __init__(
        self,
        fd: int,
        queue: int,
        history: History,
        *,
        l3: bool,
        header: int = HEADER,
        records: bool = False,
        rehash: bool = True,
        counters: Any = None,
    ) -> None:
        ffi, self._lib = core()
        self._fd = fd
        self._lent = history, counters  # to the core
        counted = ffi.NULL if counters is None else counters
        fields = [fd, queue, l3, header, records, rehash, history.handle, counted]
        self._reader = ffi.new("struct vh_reader *", fields)

    def fileno(self) -> int:
        return self._fd

    @property
    def handle(self) -> Any:
        """For C code that calls vh_receive itself: struct vh_reader."""
        return self._reader

    def receive(self, arena: Any, size: int, packets: Any, most: int) -> int:
        count: int = self._lib.vh_receive(self._reader, arena, size, packets, most)
        return count

    def close(self) -> None:
        """Nothing of its own to close: the device has the descriptor."""
