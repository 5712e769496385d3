# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A configuration as tables: what the native core and the BPF stages work with."""

from typing import Any

from vnethash.native import core
from vnethash.reporting import Reporting
from vnethash.rss.config import RssConfig


def compile_config(config: RssConfig, reporting: Reporting = Reporting.RECORD) -> Any:
    """``config`` as the core and the BPF stages want it: a cffi struct vh_config pointer."""
    ffi, lib = core()
    entries = len(config.indirection_table)
    compiled = ffi.new("struct vh_config *", {"table": list(config.indirection_table)})
    compiled.rss.hash_types = int(config.hash_types)
    compiled.rss.table_mask = entries - 1
    compiled.rss.unclassified = config.unclassified_queue
    compiled.rss.queues = config.queues
    compiled.rss.reporting = reporting.code
    compiled.rss.tunnels = int(config.tunnels)
    compiled.rss.key = config.key
    lib.vh_fill_tables(ffi.addressof(compiled, "rss"))
    return compiled
