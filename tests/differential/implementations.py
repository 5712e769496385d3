# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The implementations, asked about many frames at once or about one in depth."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.differential.case import Case
from tests.differential.configs import QUEUES_MAX
from vnethash.closing import Closing
from vnethash.engines.stages import Stages
from vnethash.errors import VnethashError
from vnethash.kernel import libbpf
from vnethash.rss.classified import Classified
from vnethash.rss.compiled import compile_config
from vnethash.rss.config import RssConfig
from vnethash.rss.native import Hasher
from vnethash.rss.reference import Explanation, explain
from vnethash.rss.table import TABLE_MAX
from vnethash.virtio.hash_types import ReportType

Judge = Callable[[bytes, RssConfig, bool], Explanation]
MakeHasher = Callable[[RssConfig, bool], Hasher]

GO_ON = 0xFFFFFFFF
"""TC_ACT_UNSPEC, what the hash stage returns for every packet."""

_MARK = b"\xb5\x1d"
_RECORD = 8
_ROOM = 1 << 16
_SHORTEST = {b"\x08\x00": 34, b"\x86\xdd": 54}
_LONGEST = 3072


def is_runnable(frame: bytes) -> bool:
    """Whether BPF_PROG_TEST_RUN takes it (net/bpf/test_run.c).

    It refuses what has no byte behind an Ethernet header, and what by its
    EtherType is IP and is cut before the end of the IP header. Behind a VLAN
    tag, and on a device without Ethernet headers, it does not look. And what
    does not fit a page with all that goes around a packet, some 3500 bytes.
    """
    return _SHORTEST.get(frame[12:14], 15) <= len(frame) <= _LONGEST


class HashStage(Closing):
    """The hash stage that ships, in the kernel, by BPF_PROG_TEST_RUN."""

    def __init__(self, *, l3: bool) -> None:
        self._stages = Stages.load(QUEUES_MAX, l3=l3, max_indirection=TABLE_MAX)
        native = libbpf.load()
        self._ffi = native.ffi
        self._run = native.lib.bpf_prog_test_run_opts
        self._fd = self._stages.hash_stage.fd
        self._out = self._ffi.new("char[]", _ROOM)
        self._view = memoryview(self._ffi.buffer(self._out))
        self._opts: Any = self._ffi.new("struct bpf_test_run_opts *")
        self._opts.sz = self._ffi.sizeof(self._opts[0])
        self._opts.data_out = self._out
        self._counters = self._stages.shared.counters.value_size // 8

    def close(self) -> None:
        self._stages.close()

    def configure(self, config: RssConfig) -> None:
        self._config = config
        self._stages.maps.publish(compile_config(config))

    def record(self, frame: bytes) -> tuple[int, int]:
        """Hash value and report type from the record in front of what comes out.

        VnethashError if the kernel does not run it, or anything else than
        record and frame comes out.
        """
        opts = self._opts
        opts.data_in = self._ffi.from_buffer(frame)
        opts.data_size_in = size = len(frame)
        opts.data_size_out = _ROOM
        code = self._run(self._fd, opts)
        if code < 0:
            raise libbpf.failure(f"test run on {size} bytes", code)
        if opts.retval != GO_ON:
            raise VnethashError(f"the hash stage returned {opts.retval:#x}")
        view = self._view[: opts.data_size_out]
        if view[6:_RECORD] != _MARK or view[_RECORD:] != frame:
            raise VnethashError(f"the hash stage made {bytes(view).hex()} of {frame.hex()}")
        return int.from_bytes(view[0:4], "little"), int.from_bytes(view[4:6], "little")

    def steered(self) -> npt.NDArray[np.int64]:
        """Packets and bytes by queue and report type, shape (queues, report types, 2)."""
        values = b"".join(map(b"".join, self._stages.shared.counters.values_percpu()))
        counters = np.frombuffer(values, np.int64).reshape(QUEUES_MAX, -1, self._counters)
        traffic: npt.NDArray[np.int64] = counters.sum(axis=1)[:, : 2 * len(ReportType)]
        return traffic.reshape(QUEUES_MAX, len(ReportType), 2)

    def classify(self, frame: bytes) -> Classified:
        """One frame: record and counters read as a verdict."""
        before = self.steered()
        value, report = self.record(frame)
        (queues, _) = np.nonzero((self.steered() - before)[:, :, 0])
        if len(queues) != 1:
            raise VnethashError(f"a packet was counted on queues {queues.tolist()}")
        kind = ReportType(report)
        mask = len(self._config.indirection_table) - 1
        return Classified(value, kind, value & mask if kind else None, int(queues[0]))


def _judge(frame: bytes, config: RssConfig, l3: bool) -> Explanation:
    return explain(frame, config, l3=l3)


def _hasher(config: RssConfig, l3: bool) -> Hasher:
    return Hasher(config, l3=l3)


class Implementations(Closing):
    """Python reference, native core and, with ``bpf``, the hash stage.

    Others than those that ship may be given, to see that a fault in one of
    them is found.
    """

    def __init__(
        self, *, bpf: bool, judge: Judge = _judge, make_hasher: MakeHasher = _hasher
    ) -> None:
        self._judge = judge
        self._make_hasher = make_hasher
        self._stages: dict[bool, HashStage] = {}
        self._asked: tuple[RssConfig, bool, Hasher] | None = None
        if bpf:
            try:
                for l3 in (False, True):
                    self._stages[l3] = HashStage(l3=l3)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        for stage in self._stages.values():
            stage.close()
        self._stages.clear()

    def explain(self, config: RssConfig, l3: bool, frames: Sequence[bytes]) -> list[Explanation]:
        """What the reference says."""
        judge = self._judge
        return [judge(frame, config, l3) for frame in frames]

    def suspects(
        self, config: RssConfig, l3: bool, frames: Sequence[bytes], expected: Sequence[Classified]
    ) -> tuple[list[int], int]:
        """Indices of frames that another implementation may see otherwise than the reference.

        And how many frames the hash stage was run on. Its queues are compared by
        its counters of all frames, so where these differ every frame is a suspect.
        """
        self._asked = None  # the stage gets another configuration
        native = self._make_hasher(config, l3).classify_many(frames)
        found = {i for i, (a, b) in enumerate(zip(native, expected, strict=True)) if a != b}
        if l3 not in self._stages:
            return sorted(found), 0
        stage = self._stages[l3]
        stage.configure(config)
        wanted = stage.steered()
        ran = 0
        for i, (frame, verdict) in enumerate(zip(frames, expected, strict=True)):
            if not is_runnable(frame):
                continue
            ran += 1
            try:
                said = stage.record(frame)
            except VnethashError:
                found.add(i)
                continue
            if said != (verdict.hash_value, verdict.hash_report):
                found.add(i)
                continue
            wanted[verdict.queue, verdict.hash_report] += (1, len(frame))
        if not found and not np.array_equal(stage.steered(), wanted):
            found.update(range(len(frames)))
        return sorted(found), ran

    def ask(self, case: Case) -> dict[str, Classified | str]:
        """What each implementation says of one case; text is what went wrong.

        The hash stage is left out where it cannot be run on the frame.
        """
        config, l3 = case.config, case.l3
        stage = self._stages.get(l3)
        if self._asked is None or self._asked[0] is not config or self._asked[1] != l3:
            # Minimising asks about one configuration many times.
            self._asked = (config, l3, self._make_hasher(config, l3))
            if stage:
                stage.configure(config)
        said: dict[str, Classified | str] = {
            "reference": self._judge(case.frame, config, l3).classified,
            "native": self._asked[2].classify(case.frame),
        }
        if stage and is_runnable(case.frame):
            try:
                said["bpf"] = stage.classify(case.frame)
            except VnethashError as error:
                said["bpf"] = str(error)
        return said

    def disagree(self, case: Case) -> bool:
        return len(set(self.ask(case).values())) > 1
