# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Runs code under named capabilities only, to prove that it needs no others."""

import json
import os
from collections.abc import Callable, Iterable

from vnethash.errors import VnethashError
from vnethash.kernel import caps
from vnethash.kernel.caps import Cap


class RefusedError(Exception):
    """The code raised ``kind`` (a class name of vnethash.errors)."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


def with_only(capabilities: Iterable[Cap], code: Callable[[], object]) -> object:
    """What ``code`` returns, run in a child that has only ``capabilities``.

    The result must be JSON. Raises RefusedError for a VnethashError in the
    child, ChildProcessError for anything else that goes wrong there.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            caps.restrict_to(capabilities)
            try:
                answer: dict[str, object] = {"result": code()}
            except VnethashError as error:
                answer = {"kind": type(error).__name__, "message": error.message}
            os.write(writing, json.dumps(answer).encode())
            status = 0
        finally:
            # Not back into the test runner, whatever happened.
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as answers:
        data = answers.read()
    _, status = os.waitpid(pid, 0)
    if status or not data:
        raise ChildProcessError(f"the child ended with status {status}")
    answer = json.loads(data)
    if "kind" in answer:
        raise RefusedError(str(answer["kind"]), str(answer["message"]))
    return answer["result"]
