# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""One booted guest, many devices: whatever subset of the features is offered, packets go well.

With each of them: what is negotiated, hash and queue of each frame, TCP both
ways with whatever segments and checksums the two agreed on.
"""

from dataclasses import dataclass

import pytest

from tests.guest import agent
from tests.guest.vhost import GUEST, GUEST6, HOST, Guest, Wire, served
from tests.guest.vhost_flows import flows
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.rss.keys import MICROSOFT_KEY, format_key
from vnethash.virtio.features import Feature, format_features, parse_features

pytestmark = [pytest.mark.guest, pytest.mark.kernel]

_BULK = 1_000_000

GUEST_OFFLOADS = "-guest-csum,-guest-tso4,-guest-tso6,-guest-ecn,-guest-uso4,-guest-uso6"
HOST_OFFLOADS = "-csum,-host-tso4,-host-tso6,-host-ecn,-host-uso"
CONTROL = (
    "-ctrl-vq,-ctrl-rx,-ctrl-rx-extra,-ctrl-vlan,-ctrl-mac-addr,-ctrl-guest-offloads,"
    "-guest-announce,-mq,-rss,-hash-report"
)


@dataclass(frozen=True)
class Case:
    """A device that lacks some features, with other options; what its driver can make of it."""

    name: str
    without: str = ""
    rss: bool = True
    report: bool = True
    queues: int = 4
    options: tuple[str, ...] = ()


CASES = [
    Case("report without rss", "-rss", rss=False),
    Case("rss without report", "-hash-report", report=False),
    Case("neither", "-rss,-hash-report", rss=False, report=False),
    Case("rss alone", "-hash-report,-mq", report=False),
    Case("big buffers", "-mrg-rxbuf"),
    Case("small buffers", f"-mrg-rxbuf,-ctrl-guest-offloads,{GUEST_OFFLOADS}"),
    Case("small buffers, short header", f"-mrg-rxbuf,-hash-report,{GUEST_OFFLOADS}", report=False),
    Case("neither indirect nor event index", "-indirect-desc,-event-idx"),
    Case("plain rings, big buffers", "-mrg-rxbuf,-indirect-desc,-event-idx"),
    Case("no segmentation", f"{GUEST_OFFLOADS},{HOST_OFFLOADS}"),
    Case("no control queue", CONTROL, rss=False, report=False, queues=1),
    Case("one queue pair", "-mq,-rss", rss=False, queues=1),
    Case("hashed again by the reader", options=("--reporting", "rehash")),
    Case("no bpf", rss=False, options=("--engine", "software")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_device(guest: Guest, case: Case) -> None:
    features = ("--features", case.without) if case.without else ()
    with served(guest, *features, *case.options) as wire:
        negotiated = parse_features(
            ",".join(wire.backend.wait_for("features")["features"]), list(Feature)
        )
        absent = set(case.without.replace("-", "", 1).split(",-"))
        assert not absent & set(format_features(negotiated))
        assert (Feature.RSS in negotiated) == case.rss
        assert (Feature.HASH_REPORT in negotiated) == case.report
        _frames(wire, case)
        _traffic(wire)


def _frames(wire: Wire, case: Case) -> None:
    """Each frame has the hash if it is reported, and is on its queue if the guest chose one."""
    if case.queues > 1:
        wire.ethtool("-L", "combined", str(case.queues))
    if case.rss or case.report:
        wire.ethtool("-K", "rxhash", "on")
        table = ("equal", str(case.queues)) if case.rss else ()
        wire.ethtool("-X", "hkey", format_key(MICROSOFT_KEY), *table)
    payloads = flows(300)
    with wire.capture(len(payloads), case.queues) as capture:
        capture.send(payloads)
    if case.rss:
        rss = wire.rss(0x3F)
        assert rss.key == MICROSOFT_KEY
    else:
        rss = RssConfig.default(1).replace(hash_types=0x3F)
    for payload, seen in zip(payloads, capture.by_program(), strict=True):
        assert seen
        wanted = reference.classify(bytes(12) + payload, rss)
        assert seen.hash_value == (wanted.hash_value if case.report else 0)
        assert seen.length == 12 + len(payload)
        assert seen.queue == wanted.queue if case.rss else 0 <= seen.queue < case.queues


def _traffic(wire: Wire) -> None:
    """Bulk both ways over two connections, and echoes."""
    there = [agent.digest(seed, _BULK) for seed in (1, 2)]
    receiving = wire.guest.begin("tcp_receive", address=GUEST, port=5001, connections=2)
    assert agent.tcp_send(GUEST, 5001, [1, 2], _BULK) == there
    assert sorted(receiving(20)) == sorted(there)
    sending = wire.guest.begin("tcp_send", address=HOST, port=5002, seeds=[3, 4], size=_BULK)
    back = agent.tcp_receive(HOST, 5002, 2)
    assert sorted(back) == sorted(agent.digest(seed, _BULK) for seed in (3, 4))
    assert sorted(sending(20)) == sorted(back)
    assert agent.ping(GUEST6, 3, 1000) == 3
    assert wire.guest.call("ping", address=HOST, count=3, size=1000) == 3
