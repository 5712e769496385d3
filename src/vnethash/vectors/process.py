# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""An implementation under test that is a process: requests in, answers out, as JSON lines.

All requests are written as fast as the process reads them, and its input ends
behind the last; so it may answer one by one, in any order, or all at its end.
"""

import json
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from vnethash.errors import ConfigError, ImplementationError
from vnethash.vectors.answer import Answer, parse_answer
from vnethash.vectors.model import Vector

_CHUNK = 65536
_LINE_MAX = 1 << 20


@dataclass(slots=True)
class Conversation:
    """What a process answered, and how it ended."""

    answers: dict[str, Answer] = field(default_factory=dict)
    failure: ImplementationError | None = None
    """Why not every vector has an answer."""
    note: str = ""
    """What is odd though all have one; empty if nothing is."""


def parse_command(text: str) -> list[str]:
    """The words of a command line. Raises ConfigError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError("command", f"{text!r} cannot be split: {error}".lower()) from None
    if not words:
        raise ConfigError("command", "is empty")
    return words


def converse(
    command: Sequence[str],
    vectors: Sequence[Vector],
    *,
    timeout: float,
    advance: Callable[[int], None] = lambda answered: None,
) -> Conversation:
    """Ask a process about every vector.

    It is ended, with all its children, when for ``timeout`` seconds it neither
    read nor answered anything. What it writes to standard error goes to ours. Raises ConfigError
    if it cannot be started.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError("command", f"cannot start {command[0]}: {reason}") from None
    talk = _Talk(process, shlex.join(command), vectors, timeout, advance)
    try:
        talk.run()
    except ImplementationError as error:
        talk.result.failure = error
    finally:
        talk.end()
    return talk.result


class _Talk:
    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        name: str,
        vectors: Sequence[Vector],
        timeout: float,
        advance: Callable[[int], None],
    ) -> None:
        self.result = Conversation()
        self._process = process
        self._name = name
        self._vectors = vectors
        self._timeout = timeout
        self._advance = advance
        self._asked = {vector.id for vector in vectors}
        self._requests = self._encode()
        self._unsent = b""
        self._unread = b""
        self._progress = time.monotonic()
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    def _encode(self) -> Iterator[bytes]:
        for vector in self._vectors:
            yield json.dumps(vector.request()).encode() + b"\n"

    def run(self) -> None:
        """Write and read until the process has closed its output."""
        with selectors.DefaultSelector() as selector:
            for pipe, event in (
                (self._stdin, selectors.EVENT_WRITE),
                (self._stdout, selectors.EVENT_READ),
            ):
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, event)
            while not self._stdout.closed:
                # Counted from the last thing that brought us further: not all that is said does.
                left = self._progress + self._timeout - time.monotonic()
                if left <= 0:
                    self._is_silent()
                    return
                for key, _ in selector.select(left):
                    going_on = self._read() if key.fileobj is self._stdout else self._write()
                    if not going_on:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()  # type: ignore[union-attr]  # pipes, no numbers
        self._has_ended()

    def _write(self) -> bool:
        """Send what fits; whether there is more."""
        while len(self._unsent) < _CHUNK and (request := next(self._requests, b"")):
            self._unsent += request
        if not self._unsent:
            return False
        try:
            sent = os.write(self._stdin.fileno(), self._unsent)
        except BlockingIOError:
            return True
        except BrokenPipeError:  # it reads no more; what it still says shows why
            return False
        self._unsent = self._unsent[sent:]
        self._progress = time.monotonic()
        return True

    def _read(self) -> bool:
        """Take what has come; whether there may be more."""
        data = os.read(self._stdout.fileno(), _CHUNK)
        *lines, self._unread = (self._unread + data).split(b"\n")
        if not data and self._unread:
            lines, self._unread = [*lines, self._unread], b""  # a last line without its end
        for line in lines:
            self._take(line)
        if len(self._unread) > _LINE_MAX:
            raise ImplementationError(f"{self._name} answers a line of over {_LINE_MAX} bytes")
        return bool(data)

    def _take(self, line: bytes) -> None:
        text = line.decode(errors="backslashreplace").strip()
        if not text:
            return
        answers = self.result.answers
        try:
            name, answer = parse_answer(text)
        except ImplementationError as error:
            raise ImplementationError(
                f"{self._name} {error} (line {len(answers) + 1} of its answers)", hint=error.hint
            ) from None
        if name not in self._asked:
            raise ImplementationError(f"{self._name} answers {name!r}, which it was not asked")
        if name in answers:
            raise ImplementationError(f"{self._name} answers {name} twice")
        answers[name] = answer
        self._progress = time.monotonic()
        self._advance(len(answers))

    def _is_silent(self) -> None:
        if self._first_missing() is None:
            self.result.note = (
                f"{self._name} answered all, but did not end within {self._timeout:g} s "
                "of the end of its input"
            )
            return
        raise ImplementationError(
            f"{self._name} answered nothing for {self._timeout:g} s {self._how_far()}",
            hint="write the answers out (flush) when the input ends, or give it more time "
            "with --timeout",
        )

    def _has_ended(self) -> None:
        try:
            status = self._process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            how = "closed its output"
        else:
            how = f"ended with status {status}"
            if status < 0:
                how = f"was ended by {signal.Signals(-status).name}"
            if self._first_missing() is None and status:
                self.result.note = f"{self._name} {how} after all its answers"
        if self._first_missing() is not None:
            raise ImplementationError(
                f"{self._name} {how} {self._how_far()}",
                hint="answer every request; with unsupported where there is nothing to say",
            )

    def _first_missing(self) -> Vector | None:
        return next((v for v in self._vectors if v.id not in self.result.answers), None)

    def _how_far(self) -> str:
        missing = self._first_missing()
        first = f"; the first without is {missing.id}" if missing else ""
        return f"after {len(self.result.answers)} of {len(self._vectors)} answers{first}"

    def end(self) -> None:
        """End what still runs of the process and its children."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._stdin.close()
        self._stdout.close()
        self._process.wait()
