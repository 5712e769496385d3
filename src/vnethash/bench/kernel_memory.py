# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Memory that the kernel uses on behalf of this process.

Counted by a memory control group that is made for it, where one can be: what other
processes do then does not show. The kernel accounts maps, programs, devices and
descriptors to the group of whoever makes them, but no machine code, and memory per CPU
on some kernels only, which is tried. Elsewhere the counters of the whole machine have to
do, which are as good if nothing else happens on it.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vnethash.kernel.bpf_map import Map, MapType

GROUP, MACHINE = "of a control group", "of the whole machine"

_PER_CPU, _ENTRIES = 16384, 64
_MEMINFO = ("SUnreclaim", "VmallocUsed", "Percpu")


class KernelMemory(NamedTuple):
    """A way to read it."""

    kind: str
    """GROUP or MACHINE."""
    counts_machine_code: bool
    counts_per_cpu: bool
    read: Callable[[], int]
    """Bytes."""


@contextmanager
def kernel_memory() -> Iterator[KernelMemory]:
    """Measure by a control group that this process is in until the block ends, or without."""
    for folder, name, read in _hierarchies():
        group = folder / f"vnethash-bench-{os.getpid()}"
        before = folder / name.lstrip("/")
        if not before.is_dir():  # of a control group namespace outside
            before = folder
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            read(group)
            _enter(group)
        except (OSError, KeyError):
            group.rmdir()
            continue
        try:
            now = partial(read, group)
            yield KernelMemory(GROUP, False, _counts_per_cpu(now), now)
        finally:
            _enter(before)
            group.rmdir()
        return
    yield KernelMemory(MACHINE, True, True, _of_machine)


def _counts_per_cpu(read: Callable[[], int]) -> bool:
    """Whether a map with values per CPU shows."""
    before = read()
    with Map.create(
        MapType.PERCPU_ARRAY, "per_cpu", key_size=4, value_size=_PER_CPU, max_entries=_ENTRIES
    ):
        return read() - before > _PER_CPU * _ENTRIES / 2


def _enter(group: Path) -> None:
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n")


def _hierarchies() -> Iterator[tuple[Path, str, Callable[[Path], int]]]:
    """Where memory control groups are mounted, which one we are in, how to read one."""
    names: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        names.update(dict.fromkeys(controllers.split(","), name))
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, folder, kind, options, *_ = line.split()
        if kind == "cgroup" and "memory" in options.split(","):
            yield Path(folder), names.get("memory", "/"), _version_1
        elif kind == "cgroup2":
            yield Path(folder), names.get("", "/"), _version_2


def _version_1(group: Path) -> int:
    return int((group / "memory.kmem.usage_in_bytes").read_text())


def _version_2(group: Path) -> int:
    return _fields((group / "memory.stat").read_text())["kernel"]  # Linux 5.18


def _of_machine() -> int:
    fields = _fields(Path("/proc/meminfo").read_text().replace(":", " "))
    return 1024 * sum(fields[name] for name in _MEMINFO)


def _fields(text: str) -> Mapping[str, int]:
    return {line.split()[0]: int(line.split()[1]) for line in text.splitlines()}
