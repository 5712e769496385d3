# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Whatever features a device has: what is negotiated, hash and queue of each frame, traffic."""

from dataclasses import dataclass

from tests.guest import agent
from tests.guest.vhost import GUEST6, HOST, Guest, Wire, served
from tests.guest.vhost_flows import flows
from vnethash.kernel.probe import probe
from vnethash.rss import reference
from vnethash.rss.config import RssConfig
from vnethash.rss.keys import MICROSOFT_KEY, format_key
from vnethash.virtio.features import Feature, format_features, parse_features

_BULK = 1_000_000


@dataclass(frozen=True)
class Case:
    """A device that lacks some features, with other options; what its driver can make of it."""

    name: str
    without: str = ""
    rss: bool = True
    report: bool = True
    queues: int = 4
    pairs: int = 4
    options: tuple[str, ...] = ()


def try_device(guest: Guest, case: Case) -> None:
    """Serve the guest such a device, and see that packets go as its driver asked."""
    words = [word for word in case.without.split(",") if "uso" not in word or probe("USO offloads")]
    features = ("--features", ",".join(words)) if case.without else ()
    with served(guest, *features, *case.options, pairs=case.pairs) as wire:
        names = ",".join(wire.backend.wait_for("features")["features"])
        negotiated = parse_features(names, list(Feature))
        absent = set(case.without.replace("-", "", 1).split(",-"))
        assert not absent & set(format_features(negotiated))
        assert (Feature.RSS in negotiated) == case.rss
        assert (Feature.HASH_REPORT in negotiated) == case.report
        _frames(wire, case)
        wire.to_guest([1, 2], _BULK)
        wire.to_host([3, 4], _BULK)
        assert agent.ping(GUEST6, 3, 1000) == 3
        assert wire.guest.call("ping", address=HOST, count=3, size=1000) == 3


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
