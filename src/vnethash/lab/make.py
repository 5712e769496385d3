# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The kernel's own make: its surroundings, its log, and how it is ended."""

import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from vnethash.lab.errors import BuildError

# Nothing of the caller's that kbuild or the compiler would listen to; and what
# would otherwise make two builds differ.
_KEPT = ("HOME", "PATH", "TMPDIR")
_SET = {
    "KBUILD_BUILD_HOST": "lab",
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "vnethash",
    "KBUILD_BUILD_VERSION": "1",
    "LC_ALL": "C",
}

# Seconds make and the compilers have to remove what they have half of.
_GRACE = 10.0
_TAIL = 20

# Should this process be killed: make ends in order, too.
_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM", "--")


class Stuck(Exception):
    """It had to be killed: files may be half written."""


def run(
    command: Sequence[str],
    folder: Path,
    log: Path,
    what: str,
    *,
    lock: int,
    compiled: Callable[[int], object] | None = None,
) -> int:
    """Run a command of the build; return how many files of C it compiled.

    What it prints is appended to `log`; ``compiled`` is called with the count
    while it runs. It has its own process group, and is ended when this call
    is: in order, or with `Stuck`. It keeps the descriptor `lock` open. Raises
    BuildError when it fails.
    """
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    count = 0
    with log.open("ab") as output, log.open("r", errors="replace") as said:
        said.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            [*_WITH_PARENT, *command],
            cwd=folder,
            env={**environment, **_SET},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            start_new_session=True,
        )
        try:
            running = True
            while running:
                try:
                    process.wait(timeout=0.5)
                    running = False
                except subprocess.TimeoutExpired:
                    pass
                count += said.read().count("  CC   ")
                if compiled:
                    compiled(count)
        except BaseException:
            _end(process)
            raise
    if process.returncode:
        with log.open(errors="replace") as said:
            tail = "".join(deque(said, _TAIL))
        raise BuildError(f"cannot {what}: exit status {process.returncode}", tail=tail, log=log)
    return count


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=_GRACE)
    except BaseException as error:  # also a second Ctrl-C
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise Stuck from error
