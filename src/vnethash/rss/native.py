# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Hashing and classifying in the native core, the code that the BPF stages share."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from vnethash.errors import ConfigError
from vnethash.native import core
from vnethash.rss.classified import Classified
from vnethash.rss.compiled import compile_config
from vnethash.rss.config import RssConfig
from vnethash.virtio.hash_types import ReportType

INPUT_LENGTH = 36
"""Bytes of the longest input: two IPv6 addresses and two ports."""


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

    def classify(self, frame: bytes) -> Classified:
        """Hash, report type and queue of one frame."""
        verdict = self._ffi.new("struct vh_verdict *")
        view = self._ffi.from_buffer(frame)
        self._lib.vh_classify(self._compiled, view, len(frame), self._l3, verdict)
        return _classified(verdict)

    def classify_many(self, frames: Sequence[bytes]) -> list[Classified]:
        """``classify`` for many frames, in one call of the core."""
        lengths = [len(frame) for frame in frames]
        offsets = list(accumulate(lengths, initial=0))[:-1]
        verdicts = self._ffi.new("struct vh_verdict[]", len(frames))
        self._lib.vh_classify_batch(
            self._compiled,
            self._ffi.from_buffer(b"".join(frames)),
            self._ffi.new("uint64_t[]", offsets),
            self._ffi.new("uint32_t[]", lengths),
            len(frames),
            self._l3,
            verdicts,
        )
        return [_classified(verdict) for verdict in verdicts]

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
        self._lib.vh_toeplitz_batch(
            self._rss,
            self._ffi.from_buffer("uint8_t[]", rows),
            rows.shape[1],
            len(rows),
            self._ffi.from_buffer("uint32_t[]", hashes),
        )
        return hashes


def _classified(verdict: Any) -> Classified:
    report = ReportType(verdict.report)
    hashed = report is not ReportType.NONE
    return Classified(verdict.hash_value, report, verdict.index if hashed else None, verdict.queue)
