# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What counting by bucket adds to the hash stage, by the machine that counts instructions."""

import pytest

from tests.bpf_machine import Array, Machine, Run
from vnethash.bench import frames
from vnethash.native import STAGES_OBJECT, core
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.compiled import compile_config
from vnethash.rss.config import RssConfig

CONFIG = RssConfig.default(4)
WORDS = 512
MORE_INSTRUCTIONS = 24
"""At most, for a lookup (one call more) and two additions."""


def run(entry: str, frame: bytes, reporting: Reporting) -> tuple[Run, Array]:
    """One packet through a hash stage; and the map of buckets after it."""
    ffi, lib = core()
    maps = {
        "vnet_table": Array(8, 2 * WORDS),
        "vnet_counters": Array(ffi.sizeof("struct vnet_counters"), 4),
        "vnet_counts": Array(8, lib.VNET_COUNTS),
        "vnet_buckets": Array(ffi.sizeof("struct vnet_traffic"), 1 + 4 * WORDS),
    }
    stage = Machine(STAGES_OBJECT, entry, maps)
    device = [lib.VNET_ABI, 0, WORDS, 0]
    stage.variables[".rodata.vnet"][:] = ffi.buffer(ffi.new("struct vnet_device *", device))
    state = ffi.from_buffer("struct vnet_state *", stage.variables[".data.vnet"])
    table = ffi.from_buffer("uint64_t[]", maps["vnet_table"].data)
    lib.vh_publish(state, table, WORDS, compile_config(CONFIG, reporting))
    return stage.run(frame), maps["vnet_buckets"]


@pytest.mark.parametrize("reporting", [Reporting.OFF, Reporting.RECORD])
@pytest.mark.parametrize("kind", list(frames.kinds()))
def test_what_counting_adds(kind: str, reporting: Reporting) -> None:
    frame = frames.kinds()[kind]
    plain, untouched = run("hash_stage", frame, reporting)
    assert not any(untouched.data)
    counting, buckets = run("hash_stage_adaptive", frame, reporting)
    index = reference.classify(frame, CONFIG).index
    start = 16 * (0 if index is None else index + 1)
    expected = bytearray(len(buckets.data))
    expected[start : start + 16] = (1).to_bytes(8, "little") + len(frame).to_bytes(8, "little")
    assert buckets.data == expected
    assert (counting.value, counting.frame) == (plain.value, plain.frame)
    assert counting.queue_mapping == plain.queue_mapping
    assert counting.helpers.total() == plain.helpers.total() + 1
    assert 0 < counting.instructions - plain.instructions <= MORE_INSTRUCTIONS
