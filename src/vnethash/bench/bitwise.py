# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Bit-by-bit RSS steering (bench/bitwise.bpf.c): what the stages are measured against."""

import struct
from types import TracebackType
from typing import Self

from vnethash.bench.library import BITWISE_OBJECT
from vnethash.errors import ConfigError, DependencyMissing
from vnethash.kernel.bpf import BpfObject, Program
from vnethash.rss.config import RssConfig

ENTRIES_MAX = 128
"""Entries that its indirection table has room for."""


class BitwiseSteering:
    """Both programs in the kernel, configured."""

    def __init__(self, loaded: BpfObject, config: RssConfig) -> None:
        self._object = loaded
        table = config.indirection_table
        if len(table) > ENTRIES_MAX:
            raise ConfigError("indirection_table", f"has more than {ENTRIES_MAX} entries")
        values = (int(config.hash_types), len(table) - 1, config.unclassified_queue)
        loaded.map("bitwise_configs").update(0, struct.pack("<III", *values))
        loaded.map("bitwise_keys").update(0, config.key)
        queues = loaded.map("bitwise_table")
        for index, queue in enumerate(table):
            queues.update(index, struct.pack("<H", queue))
        self.program: Program = loaded.program("bitwise")
        self.padded: Program = loaded.program("bitwise_padded")

    @classmethod
    def load(cls, config: RssConfig) -> Self:
        """Raises DependencyMissing, NotPermitted, VerifierError, BpfError, ConfigError."""
        if not BITWISE_OBJECT.exists():
            raise DependencyMissing(
                "the program to measure against was not built",
                hint="install vnethash from its wheel, or build it here: pip install -e .",
            )
        loaded = BpfObject.open(BITWISE_OBJECT, name="bitwise")
        try:
            loaded.load()
            return cls(loaded, config)
        except BaseException:
            loaded.close()
            raise

    def close(self) -> None:
        self._object.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
