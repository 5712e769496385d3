# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A vhost-user server that runs in a thread of the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vnethash.vhost_user.server import Server


@contextmanager
def running(server: Server) -> Iterator[None]:
    """``server`` serves; what goes wrong there is raised here."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            server.run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join()
    if failures:
        raise failures[0]
