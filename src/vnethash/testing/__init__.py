# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The other side of a vhost-user backend, for tests and benchmarks of VMMs and backends.

``FakeDriver`` is a virtio-net driver, ``FrontEnd`` the VMM below it; both also
do what they should not when told to. No guest, and no rights, are needed.
"""

from vnethash.testing.driver import FakeDriver
from vnethash.testing.front_end import FrontEnd, Virtqueue
from vnethash.testing.memory import SharedMemory, SharedRegion
from vnethash.testing.queues import Received

__all__ = ["FakeDriver", "FrontEnd", "Received", "SharedMemory", "SharedRegion", "Virtqueue"]
