# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Bit-by-bit RSS steering (bench/bitwise.bpf.c): what the stages are measured against."""

import struct
from typing import Self

from vnethash.bench.library import BITWISE_OBJECT
from vnethash.closing import Closing
from vnethash.errors import ConfigError, DependencyMissing
from vnethash.kernel.bpf import BpfObject, Program
from vnethash.rss.config import RssConfig

ENTRIES_MAX = 128
"""Entries that its indirection table has room for."""


class BitwiseSteering(Closing):
    """Both programs in the kernel, of one configuration."""

    def __init__(self, loaded: BpfObject) -> None:
        self._object = loaded
        self._config = loaded.map("bitwise_configs")
        self._key = loaded.map("bitwise_keys")
        self._table = loaded.map("bitwise_table")
        self.program: Program = loaded.program("bitwise")
        self.padded: Program = loaded.program("bitwise_padded")

    def configure(self, config: RssConfig) -> None:
        """Steer by ``config``. Not for while packets pass. Raises ConfigError."""
        table = config.indirection_table
        if len(table) > ENTRIES_MAX:
            raise ConfigError("indirection_table", f"has more than {ENTRIES_MAX} entries")
        values = (int(config.hash_types), len(table) - 1, config.unclassified_queue)
        self._config.update(0, struct.pack("<III", *values))
        self._key.update(0, config.key)
        for index, queue in enumerate(table):
            self._table.update(index, struct.pack("<H", queue))

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
            steering = cls(loaded)
            steering.configure(config)
            return steering
        except BaseException:
            loaded.close()
            raise

    def close(self) -> None:
        self._object.close()
