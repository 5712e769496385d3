# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Hashing and classifying in the native core, the code that the BPF stages share."""

from collections.abc import Sequence
from enum import IntEnum
from itertools import accumulate
from mmap import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from vnethash.errors import ConfigError
from vnethash.native import core
from vnethash.rss.classified import Classified
from vnethash.rss.compiled import compile_config
from vnethash.rss.config import RssConfig
from vnethash.virtio.hash_types import ReportType
from vnethash.virtio.header import Buffer

INPUT_LENGTH = 36
"""Bytes of the longest input: two IPv6 addresses and two ports."""


VERDICT_DTYPE = np.dtype(
    [("hash_value", "<u4"), ("index", "<u4"), ("hash_report", "<u2"), ("queue", "<u2")]
)
"""What a frame comes to; ``index`` of the indirection table is 0xffffffff without a hash."""


class BulkMethod(IntEnum):
    """How many are hashed at once (native/bulk.h), the faster the higher."""

    TABLES = 0
    """Byte by byte with tables, on any CPU."""
    PCLMUL = 1
    """x86: PCLMULQDQ."""
    VPCLMUL_256 = 2
    """x86: VPCLMULQDQ and AVX2."""
    VPCLMUL_512 = 3
    """x86: VPCLMULQDQ and AVX-512."""
    GFNI_512 = 4
    """x86: GFNI and AVX-512."""
    PMULL = 5
    """arm64: PMULL."""

    @property
    def title(self) -> str:
        """As it is written: ``gfni-512``."""
        return self.name.lower().replace("_", "-")


def bulk_methods() -> tuple[BulkMethod, ...]:
    """What this CPU can do, the fastest last."""
    hasher = Hasher(RssConfig.default(1))
    return tuple(method for method in BulkMethod if hasher.try_method(method))


class Hasher:
    """One RSS configuration, compiled to tables.

    ``l3`` says that frames have no Ethernet header, as on an IFF_TUN device.
    """

    def __init__(self, config: RssConfig, *, l3: bool = False) -> None:
        self.config = config
        self._l3 = l3
        self._compiled = compile_config(config)
        self._ffi, self._lib = core()
        self._rss = self._ffi.addressof(self._compiled, "rss")
        self._bulk = self._ffi.new("struct vnet_bulk *")
        self._lib.vh_bulk_init(self._bulk, self._rss)

    @property
    def method(self) -> BulkMethod:
        """How many are hashed at once here: the fastest that this CPU has."""
        return BulkMethod(self._bulk.method)

    def try_method(self, method: BulkMethod) -> bool:
        """Hash in bulk by ``method`` from now on; False if this CPU cannot."""
        return bool(self._lib.vh_bulk_use(self._bulk, method) == 0)

    @property
    def native(self) -> tuple[Any, Any]:
        """For calls of the core: struct vh_config and vnet_bulk, good as long as this is."""
        return self._compiled, self._bulk

    def report_of(self, kind: ReportType) -> ReportType:
        """What is reported of packets of a kind: their report type if all types were enabled."""
        return ReportType(self._rss.rules[kind] & self._lib.VNET_RULE_REPORT)

    def classify(self, frame: bytes) -> Classified:
        """Hash, report type and queue of one frame."""
        verdict = self._ffi.new("struct vh_verdict *")
        view = self._ffi.from_buffer(frame)
        self._lib.vh_classify(self._compiled, view, len(frame), self._l3, verdict)
        return _classified(verdict)

    def classify_many(self, frames: Sequence[bytes]) -> list[Classified]:
        """``classify`` for many frames, in one call of the core."""
        lengths = np.array([len(frame) for frame in frames], np.uint32)
        offsets = np.array(list(accumulate(map(len, frames), initial=0))[:-1], np.uint64)
        verdicts = self.classify_frames(b"".join(frames), offsets, lengths)
        return [_verdict(*verdict) for verdict in verdicts.tolist()]

    def classify_frames(
        self,
        memory: Buffer | mmap | npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.uint64],
        lengths: npt.NDArray[np.uint32],
    ) -> npt.NDArray[np.void]:
        """Hash, report type, table index and queue of each frame in ``memory``.

        Frame n has ``lengths[n]`` bytes from byte ``offsets[n]`` on, as in a
        mapped capture or a batch that was received; nothing is copied. Returns
        VERDICT_DTYPE of shape (n,). Raises ConfigError for other shapes, and
        for a frame that does not lie in ``memory``.
        """
        starts, sizes = np.ascontiguousarray(offsets), np.ascontiguousarray(lengths)
        if starts.dtype != np.uint64 or sizes.dtype != np.uint32 or starts.shape != sizes.shape:
            raise ConfigError(
                "frames",
                "need offsets in uint64 and lengths in uint32 of one shape, "
                f"not {starts.dtype} of {starts.shape} and {sizes.dtype} of {sizes.shape}",
            )
        view = self._ffi.from_buffer("uint8_t[]", memory)
        verdicts = np.empty(starts.shape, VERDICT_DTYPE)
        done = self._lib.vh_classify_batch(
            self._compiled,
            self._bulk,
            view,
            len(view),
            self._ffi.from_buffer("uint64_t[]", starts),
            self._ffi.from_buffer("uint32_t[]", sizes),
            starts.size,
            self._l3,
            self._ffi.from_buffer("struct vh_verdict[]", verdicts),
        )
        if done < starts.size:
            raise ConfigError(
                "frames",
                f"frame {done} has {sizes.flat[done]} bytes from {starts.flat[done]} on, "
                f"but there are {len(view)} in all",
            )
        return verdicts

    def hash(self, data: bytes) -> int:
        """Toeplitz over at most 36 bytes: addresses, then ports, in network order.

        Raises ConfigError for more.
        """
        if len(data) > INPUT_LENGTH:
            raise ConfigError("data", f"has {len(data)} bytes, at most {INPUT_LENGTH} are hashed")
        value: int = self._lib.vh_toeplitz(self._rss, self._ffi.from_buffer(data), len(data))
        return value

    def hash_batch(self, inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
        """Toeplitz over each row of ``inputs``, shape (n, width); returns shape (n,).

        Widths of RSS are 8 and 12 (IPv4, with ports), 32 and 36 (IPv6). A
        row is source address, destination address, source port, destination
        port, in network order. Raises ConfigError for other shapes or types,
        and for rows of more than 36 bytes.
        """
        if inputs.ndim != 2 or inputs.dtype != np.uint8 or inputs.shape[1] > INPUT_LENGTH:
            raise ConfigError(
                "inputs",
                f"must be uint8 of shape (n, up to {INPUT_LENGTH}), "
                f"not {inputs.dtype} of shape {inputs.shape}",
            )
        rows = np.ascontiguousarray(inputs)
        hashes = np.empty(len(rows), np.uint32)
        self._lib.vh_bulk_hash(
            self._bulk,
            self._ffi.from_buffer("uint8_t[]", rows),
            rows.shape[1],
            len(rows),
            self._ffi.from_buffer("uint32_t[]", hashes),
        )
        return hashes


def _classified(verdict: Any) -> Classified:
    return _verdict(verdict.hash_value, verdict.index, verdict.report, verdict.queue)


def _verdict(hash_value: int, index: int, report: int, queue: int) -> Classified:
    kind = ReportType(report)
    return Classified(hash_value, kind, index if kind is not ReportType.NONE else None, queue)
