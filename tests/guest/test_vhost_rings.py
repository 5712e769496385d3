# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""One booted guest, many devices: whatever rings, buffers and offloads are agreed on."""

import pytest

from tests.guest.vhost import Guest
from tests.guest.vhost_device import Case, try_device

pytestmark = [pytest.mark.guest, pytest.mark.kernel]

GUEST_OFFLOADS = "-guest-csum,-guest-tso4,-guest-tso6,-guest-ecn,-guest-uso4,-guest-uso6"
HOST_OFFLOADS = "-csum,-host-tso4,-host-tso6,-host-ecn,-host-uso"

CASES = [
    Case("big buffers", "-mrg-rxbuf"),
    Case("small buffers", f"-mrg-rxbuf,-ctrl-guest-offloads,{GUEST_OFFLOADS}"),
    Case("small buffers, short header", f"-mrg-rxbuf,-hash-report,{GUEST_OFFLOADS}", report=False),
    Case("neither indirect nor event index", "-indirect-desc,-event-idx"),
    Case("plain rings, big buffers", "-mrg-rxbuf,-indirect-desc,-event-idx"),
    Case("no segmentation", f"{GUEST_OFFLOADS},{HOST_OFFLOADS}"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_device(guest: Guest, case: Case) -> None:
    try_device(guest, case)
