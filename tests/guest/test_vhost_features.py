# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""One booted guest, many devices: whatever is offered of hashing and control, packets go well."""

import pytest

from tests.guest.vhost import Guest
from tests.guest.vhost_device import Case, try_device

pytestmark = [pytest.mark.guest, pytest.mark.kernel]

CONTROL = (
    "-ctrl-vq,-ctrl-rx,-ctrl-rx-extra,-ctrl-vlan,-ctrl-mac-addr,-ctrl-guest-offloads,"
    "-guest-announce,-mq,-rss,-hash-report,-hash-tunnel"
)

CASES = [
    Case("report without rss", "-rss", rss=False),
    Case("rss without report", "-hash-report", report=False),
    Case("neither", "-rss,-hash-report,-hash-tunnel", rss=False, report=False),
    # Without MQ the driver has no command to use more than one pair.
    Case("rss alone", "-hash-report,-mq", report=False, queues=1),
    Case("no control queue", CONTROL, rss=False, report=False, queues=1),
    Case("one queue pair", "-mq,-rss", rss=False, queues=1),
    Case("hashed again by the reader", options=("--reporting", "rehash")),
    Case("no bpf", rss=False, options=("--engine", "software")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_device(guest: Guest, case: Case) -> None:
    try_device(guest, case)
