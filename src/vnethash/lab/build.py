# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Builds the kernels of the lab: source, patches, configuration, make."""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from vnethash.errors import Unsupported
from vnethash.lab import cache as lab_cache
from vnethash.lab import kernels, make, tools
from vnethash.lab import source as lab_source
from vnethash.lab.errors import LabError
from vnethash.lab.kernels import BuiltKernel
from vnethash.lab.make import Stuck
from vnethash.lab.options import Option, in_build_order
from vnethash.lab.source import Source
from vnethash.lab.tree import Tree

# How many files a build from nothing compiles, about: until one was done here.
_FROM_NOTHING = 840


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the build is.

    option  what it is for; None for what all need
    step    what is done, a word or two
    done    files compiled; of about `total`, if that is known
    """

    option: str | None
    step: str
    done: int = 0
    total: int | None = None


Report = Callable[[Progress], object]
Done = Callable[[BuiltKernel, bool], object]


def build(
    chosen: Iterable[Option],
    *,
    cache: Path | None = None,
    jobs: int | None = None,
    keep_tree: bool = False,
    progress: Report | None = None,
    done: Done | None = None,
) -> list[BuiltKernel]:
    """The kernels of these options, in their order; what the cache lacks is built.

    `jobs` is for make (default: the CPUs of this process); the unpacked source
    is removed at the end, but for `keep_tree`. ``progress`` is called now and
    then, ``done`` with each kernel as soon as it is there, and whether it was
    built now. Raises LabError, of it BuildError when make fails; and
    DependencyMissing where tools are. Ended halfway, the next call goes on.
    """
    if platform.machine() != "x86_64":
        raise Unsupported("user-mode-linux", f"this is {platform.machine()}", needs="x86-64")
    cache = cache or lab_cache.location()
    lab_cache.prepare(cache)
    wanted = list(chosen)
    found: dict[str, BuiltKernel] = {}

    def have(kernel: BuiltKernel, fresh: bool) -> None:
        found[kernel.option] = kernel
        if done:
            done(kernel, fresh)

    source = lab_source.find(cache)
    if source:
        for option in wanted:
            if kernel := kernels.of_key(option, _key(option, source), cache):
                have(kernel, False)
    rest = [option for option in in_build_order(wanted) if option.name not in found]
    if rest:
        tools.check()
        report = progress or (lambda _: None)
        waiting = partial(report, Progress(None, "waiting for another build"))
        with lab_cache.locked(cache, waiting) as lock:
            job = _Job(cache, lock, jobs or len(os.sched_getaffinity(0)), report)
            source = lab_source.find(cache)
            if source is None:
                job.say(None, "downloading the source")
                source = lab_source.download(cache)
            for option in rest:
                # Another process may have built it meanwhile.
                kernel = kernels.of_key(option, _key(option, source), cache)
                have(kernel or job.build(option, source), kernel is None)
            if not keep_tree:
                job.say(None, "removing the unpacked source")
                job.tree.remove()
    return [found[option.name] for option in wanted]


def _key(option: Option, source: Source) -> str:
    return kernels.key_of(kernels.inputs(option, source))


class _Job:
    """Builds of one source, one after the other; under the lock of the cache."""

    def __init__(self, cache: Path, lock: int, jobs: int, report: Report) -> None:
        self.cache = cache
        self.lock = lock
        self.jobs = jobs
        self.report = report
        self.tree = Tree(cache / "tree")

    def say(self, option: Option | None, step: str) -> None:
        self.report(Progress(option.name if option else None, step))

    def build(self, option: Option, source: Source) -> BuiltKernel:
        clock = _Clock()
        self.say(option, "unpacking the source")
        self.tree = Tree.unpack(self.cache / "tree", source)
        before = self.tree.option
        clock.lap("unpack")
        self.say(option, "patching")
        made_from = kernels.inputs(option, source)
        self.tree.become(option.patches())
        clock.lap("patch")
        log = self.cache / "logs" / f"{option.name}.log"
        log.write_bytes(b"")
        self.tree.start()
        try:
            self.say(option, "configuring")
            refused = self._configure(option, log)
            if kernels.inputs(option, source) != made_from:  # the key would be another's
                raise LabError(f"the patches of {option.name} changed while they were applied")
            clock.lap("configure")
            compiled = self._compile(option, before, log)
            clock.lap("compile")
        except Stuck as error:
            raise KeyboardInterrupt from error  # the mark stays
        except BaseException:
            self.tree.finish(None)
            raise
        self.tree.finish(option.name)
        self.say(option, "keeping")
        linux = self.tree.linux
        with tempfile.TemporaryDirectory(prefix=lab_cache.MAKING, dir=self.cache) as scratch:
            binary = Path(scratch) / kernels.BINARY
            # BTF is no debug information to strip, and stays.
            strip = ["strip", "--strip-debug", "-o", str(binary), "linux"]
            self._run(strip, log, f"strip {option.name}")
            manifest: dict[str, Any] = {
                "release": (linux / "include/config/kernel.release").read_text().strip(),
                "size": binary.stat().st_size,
                "built_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": clock.laps,
                "compiled": compiled,
                "after": before,
                "config_refused": refused,
                "made_from": made_from,
            }
            key = kernels.key_of(made_from)
            return kernels.keep(option, key, binary, linux / ".config", manifest, self.cache)

    def _configure(self, option: Option, log: Path) -> list[str]:
        """Returns the lines of the fragment that this source does not follow."""
        what = f"configure {option.name}"
        merge = ["scripts/kconfig/merge_config.sh", "-m", ".config", str(option.config.resolve())]
        self._run(self._make(option, "defconfig"), log, what)
        self._run(merge, log, what)
        self._run(self._make(option, "olddefconfig"), log, what)
        return refused(option.config.read_text(), (self.tree.linux / ".config").read_text())

    def _compile(self, option: Option, before: str | None, log: Path) -> int:
        """Returns how many files of C it took."""
        total = self._estimate(option, before)

        def compiled(count: int) -> None:
            known = None if total is None else max(total, count)
            self.report(Progress(option.name, "compiling", count, known))

        compiled(0)
        command = self._make(option, f"-j{self.jobs}", "linux")
        return self._run(command, log, f"build {option.name}", compiled)

    def _run(
        self,
        command: Sequence[str],
        log: Path,
        what: str,
        compiled: Callable[[int], object] | None = None,
    ) -> int:
        return make.run(command, self.tree.linux, log, what, lock=self.lock, compiled=compiled)

    def _estimate(self, option: Option, before: str | None) -> int | None:
        """As many as it were the last time the tree went this way."""
        for kernel in kernels.of_option(option, self.cache):
            with suppress(KeyError):
                if kernel.manifest["after"] == before:
                    return int(kernel.manifest["compiled"])
        return _FROM_NOTHING if before is None else None

    @staticmethod
    def _make(option: Option, *arguments: str) -> list[str]:
        # The name shows in `uname -r`: which kernel runs is never a matter of belief.
        return ["make", "ARCH=um", f"LOCALVERSION=-{option.name}", *arguments]


class _Clock:
    """Seconds of one step after the other."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._begun = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._begun, 1)
        self._begun = now


def refused(fragment: str, config: str) -> list[str]:
    """The lines of the fragment that the configuration made from it does not have."""
    has = set(config.splitlines())
    wanted = [line.strip() for line in fragment.splitlines() if line.startswith("CONFIG_")]
    return [line for line in wanted if not _holds(line, has)]


def _holds(line: str, has: set[str]) -> bool:
    symbol, _, value = line.partition("=")
    if value == "n":  # not set, or unknown to the source, which comes to the same
        return not any(other.startswith(f"{symbol}=") for other in has)
    return line in has
