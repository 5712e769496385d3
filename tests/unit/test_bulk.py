# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Hashing in bulk: every method gives what the reference gives, and reads nothing else."""

import ctypes
import mmap

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import frames, vectors
from tests.effort import examples
from vnethash.bench.frames import kinds as kinds_of_frames
from vnethash.errors import ConfigError
from vnethash.native import core
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.rss.native import BulkMethod, Hasher, bulk_methods
from vnethash.virtio.hash_types import HashType, TunnelType

WIDTHS = (8, 12, 32, 36)
BLOCK = 16  # VNET_BULK_ROWS
CONFIG = RssConfig.default(16)
METHODS = [method for method in BulkMethod if method is not BulkMethod.PMULL]
PROT_NONE, PROT_BOTH = 0, mmap.PROT_READ | mmap.PROT_WRITE

Rows = npt.NDArray[np.uint8]


def hashing(method: BulkMethod, config: RssConfig = CONFIG, *, l3: bool = False) -> Hasher:
    hasher = Hasher(config, l3=l3)
    if not hasher.try_method(method):
        pytest.skip(f"this CPU cannot do {method.title}")
    assert hasher.method is method
    return hasher


def expected(rows: Rows, config: RssConfig = CONFIG) -> list[int]:
    return [reference.toeplitz(config.key, row.tobytes()) for row in rows]


def single_bits(width: int) -> Rows:
    """A row for each bit of the input."""
    return np.packbits(np.eye(8 * width, dtype=np.uint8), axis=1)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.title)
def test_every_method_agrees_with_the_reference(method: BulkMethod, width: int) -> None:
    keys = [
        CONFIG.key,
        vectors.KEY,
        bytes(40),
        b"\xff" * 40,
        b"\x80" + bytes(39),
        bytes(39) + b"\1",
    ]
    random = np.random.default_rng(width)
    rows = np.concatenate(
        [
            random.integers(0, 256, (3 * BLOCK, width), np.uint8),
            single_bits(width),
            ~single_bits(width),
            np.full((BLOCK, width), 255, np.uint8),
        ]
    )
    for key in keys:
        config = CONFIG.replace(key=key)
        assert hashing(method, config).hash_batch(rows).tolist() == expected(rows, config)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.title)
def test_any_number_of_rows(method: BulkMethod, width: int) -> None:
    rows = np.random.default_rng(1).integers(0, 256, (3 * BLOCK + 1, width), np.uint8)
    whole = expected(rows)
    hasher = hashing(method)
    for count in range(len(rows) + 1):
        assert hasher.hash_batch(rows[:count]).tolist() == whole[:count]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.title)
@settings(max_examples=examples(100))
@given(data=st.data())
def test_any_key_and_rows(method: BulkMethod, data: st.DataObject) -> None:
    width = data.draw(st.sampled_from(WIDTHS))
    config = CONFIG.replace(key=data.draw(st.binary(min_size=40, max_size=40)))
    count = data.draw(st.integers(1, 2 * BLOCK + 1))
    drawn = data.draw(st.binary(min_size=width * count, max_size=width * count))
    rows = np.frombuffer(drawn, np.uint8).reshape(count, width)
    assert hashing(method, config).hash_batch(rows).tolist() == expected(rows, config)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.title)
def test_nothing_but_the_rows_is_read(method: BulkMethod, width: int) -> None:
    """Rows against pages that cannot be read, behind them and before."""
    hasher = hashing(method)
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 3 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    protect = libc.mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    memory[:] = np.random.default_rng(2).integers(0, 256, 3 * page, np.uint8).tobytes()
    whole = np.frombuffer(memory, np.uint8)
    try:
        for guard in (address, address + 2 * page):
            assert protect(guard, page, PROT_NONE) == 0
        for count in (1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK):
            size = count * width
            for start in (page, 2 * page - size):
                rows = whole[start : start + size].reshape(count, width)
                assert hasher.hash_batch(rows).tolist() == expected(rows)
    finally:
        for guard in (address, address + 2 * page):
            assert protect(guard, page, PROT_BOTH) == 0


def test_the_fastest_is_taken() -> None:
    able = bulk_methods()
    assert able[0] is BulkMethod.TABLES
    assert Hasher(CONFIG).method is able[-1]
    assert not Hasher(CONFIG).try_method(BulkMethod.PMULL) or BulkMethod.PMULL in able


def test_methods_are_the_headers() -> None:
    _, lib = core()
    assert len(BulkMethod) == lib.VNET_BULK_METHODS
    assert lib.VNET_BULK_ROWS == BLOCK
    for method in BulkMethod:
        assert getattr(lib, f"VNET_BULK_{method.name}") == method


class Laid:
    """Frames one behind the other, with gaps between them."""

    def __init__(self, some: list[bytes], gap: int = 3) -> None:
        self.memory = b"".join(bytes(gap) + frame for frame in some)
        self.lengths = np.array([len(frame) for frame in some], np.uint32)
        ends = np.cumsum(self.lengths + np.uint32(gap), dtype=np.uint64)
        self.offsets = ends - self.lengths

    def classify(self, hasher: Hasher) -> npt.NDArray[np.void]:
        return hasher.classify_frames(self.memory, self.offsets, self.lengths)


def judged(some: list[bytes], config: RssConfig, *, l3: bool = False) -> list[tuple[int, ...]]:
    found = (reference.classify(frame, config, l3=l3) for frame in some)
    return [
        (one.hash_value, 0xFFFFFFFF if one.index is None else one.index, one.hash_report, one.queue)
        for one in found
    ]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.title)
@settings(max_examples=examples(100))
@given(
    some=st.lists(frames.frames(), max_size=40),
    types=st.integers(0, HashType.ALL).map(HashType),
    tunnels=st.sampled_from([TunnelType.NONE, TunnelType.ALL]),
)
def test_frames_agree_with_the_reference(
    method: BulkMethod, some: list[bytes], types: HashType, tunnels: TunnelType
) -> None:
    config = CONFIG.replace(hash_types=types, tunnels=tunnels, unclassified_queue=3)
    assert Laid(some).classify(hashing(method, config)).tolist() == judged(some, config)
    bare = [frame[14:] for frame in some]
    got = Laid(bare).classify(hashing(method, config, l3=True))
    assert got.tolist() == judged(bare, config, l3=True)


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 1023, 1024, 1025, 3000])
def test_any_number_of_frames(count: int) -> None:
    """Across the edges of the blocks in which they are dissected and written."""
    kinds = list(kinds_of_frames().values())
    some = [kinds[i * i % len(kinds)] for i in range(count)]
    known = dict(zip(kinds, judged(kinds, CONFIG), strict=True))
    assert Laid(some).classify(Hasher(CONFIG)).tolist() == [known[frame] for frame in some]


@settings(max_examples=examples(100))
@given(frames.frames(), st.data())
def test_order_and_overlap_of_frames_are_free(frame: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.permutations(range(len(frame) + 1)))
    lengths = np.array(cuts, np.uint32)
    got = Hasher(CONFIG).classify_frames(frame, np.zeros(len(cuts), np.uint64), lengths)
    assert got.tolist() == judged([frame[:cut] for cut in cuts], CONFIG)


@pytest.mark.parametrize(
    ("offset", "length"),
    [(101, 0), (100, 1), (0, 101), (1 << 63, 1), (2**64 - 1, 2), (50, 0xFFFFFFFF)],
)
def test_a_frame_outside_is_refused(offset: int, length: int) -> None:
    offsets, lengths = np.array([0, offset], np.uint64), np.array([60, length], np.uint32)
    with pytest.raises(
        ConfigError,
        match=f"frame 1 has {length} bytes from {offset} on, but there are 100 in all",
    ):
        Hasher(CONFIG).classify_frames(bytes(100), offsets, lengths)


def test_a_frame_may_end_with_the_memory() -> None:
    offsets, lengths = np.array([0, 100], np.uint64), np.array([100, 0], np.uint32)
    got = Hasher(CONFIG).classify_frames(bytearray(100), offsets, lengths)
    assert got["hash_report"].tolist() == [0, 0]


def test_other_arrays_are_refused() -> None:
    hasher = Hasher(CONFIG)
    with pytest.raises(ConfigError, match="need offsets in uint64 and lengths in uint32"):
        hasher.classify_frames(b"", np.zeros(1, np.int64), np.zeros(1, np.uint32))
    with pytest.raises(ConfigError, match="of one shape"):
        hasher.classify_frames(b"", np.zeros(2, np.uint64), np.zeros(1, np.uint32))
