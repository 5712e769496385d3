# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A guest's own driver programs RSS and hash reporting, and finds both on its packets.

What to expect is computed by the Python reference from the table and key that
`ethtool -x` shows in the guest.
"""

import json
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence

import pytest

from tests import frames
from tests.guest.vhost import MAC, TAP, Guest, Seen, Wire, served
from tests.guest.vhost_flows import flows
from vnethash.analysis.planning import Aim, plan_for
from vnethash.bench.plan import zipf_flows
from vnethash.kernel import link
from vnethash.kernel.links import Links
from vnethash.rss import reference
from vnethash.rss.classified import Classified
from vnethash.rss.config import RssConfig
from vnethash.rss.keys import MICROSOFT_KEY, SYMMETRIC_KEY, format_key
from vnethash.virtio.features import Feature, feature_set, parse_features
from vnethash.virtio.hash_types import HashType, ReportType

pytestmark = [pytest.mark.guest, pytest.mark.kernel]

# All that Linux 6.1 asks for.
TYPES = HashType(0x3F)

EVEN = ("hkey", format_key(MICROSOFT_KEY), "equal", "4")

# Of these Linux takes the hash for one of layer 4, and packet rings show it. With
# another the kernel makes one of its own when a ring asks.
LAYER_4 = {ReportType.TCPv4, ReportType.UDPv4, ReportType.TCPv6, ReportType.UDPv6}


@pytest.fixture(name="wire", scope="module")
def _wire(guest: Guest) -> Iterator[Wire]:
    """A device with all there is, four queue pairs in use, hashes switched on."""
    with served(guest) as wire:
        wire.ethtool("-L", "combined", "4")
        wire.ethtool("-K", "rxhash", "on")
        yield wire


def expected(payloads: Sequence[bytes], rss: RssConfig) -> list[Classified]:
    return [reference.classify(bytes(12) + payload, rss) for payload in payloads]


def check(
    wire: Wire,
    types: HashType = TYPES,
    count: int = 300,
    link_name: str = TAP,
    tag: bytes = b"",
) -> list[Classified]:
    """Send flows; each arrives with the hash and on the queue that the guest's settings say."""
    payloads = [tag + payload for payload in flows(count)]
    with wire.capture(count, link_name=link_name) as capture:
        capture.send(payloads)
    wanted = expected(payloads, wire.rss(types))
    got = [seen and (seen.hash_value, seen.queue) for seen in capture.by_program()]
    assert got == [(entry.hash_value, entry.queue) for entry in wanted]
    rings = capture.by_rings()
    assert {number: queue for number, (queue, _) in rings.items()} == {
        number: entry.queue for number, entry in enumerate(wanted)
    }
    for number, entry in enumerate(wanted):
        if entry.hash_report in LAYER_4:
            assert rings[number][1] == entry.hash_value
    return wanted


def test_negotiated(wire: Wire) -> None:
    """Guest and backend agree on the features, and the guest sees what the device is."""
    bits = wire.guest.call("read", path="/sys/bus/virtio/devices/virtio0/features").strip()
    number = sum(1 << position for position, bit in enumerate(bits) if bit == "1")
    told = wire.backend.wait_for("features")["features"]
    assert parse_features(",".join(told), Feature) == feature_set(number)
    assert {Feature.RSS, Feature.HASH_REPORT, Feature.MQ} <= feature_set(number)
    assert wire.guest.call("read", path="/sys/class/net/eth0/address").strip() == MAC
    assert wire.guest.call("read", path="/sys/class/net/eth0/carrier").strip() == "1"
    assert wire.ethtool("-l").split().count("4") == 2
    assert len(wire.rss(TYPES).indirection_table) == 128
    assert {entry["answer"] for entry in wire.backend.controls()} == {"ok"}


def test_thousands_of_flows(wire: Wire) -> None:
    wire.ethtool("-X", *EVEN)
    wanted = check(wire, count=4000)
    assert {entry.hash_report for entry in wanted} == set(ReportType) - {
        *(ReportType.IPv6_EX, ReportType.TCPv6_EX, ReportType.UDPv6_EX)
    }
    assert {entry.queue for entry in wanted} == {0, 1, 2, 3}
    last = wire.backend.controls()[-1]
    assert last["hash_key"] == MICROSOFT_KEY.hex()


@pytest.mark.parametrize(
    "arguments",
    [
        ("equal", "4"),
        ("equal", "3"),
        ("weight", "1", "2", "3", "10"),
        ("weight", "0", "0", "1"),
        ("hkey", format_key(SYMMETRIC_KEY)),
        ("hkey", format_key(bytes(39) + b"\1"), "equal", "2"),  # most hashes are 0
        ("default",),
    ],
    ids=" ".join,
)
def test_table_and_key(wire: Wire, arguments: tuple[str, ...]) -> None:
    wire.ethtool("-X", *arguments)
    check(wire)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_plan(wire: Wire, seed: int) -> None:
    """What `vnethash plan` says for ethtool becomes the key and the table that were planned."""
    seen = zipf_flows(3000, 1.1, RssConfig.default(4), seed)
    plan = plan_for(seen, RssConfig.default(4), Aim(for_ethtool=True, tolerance=0.05))
    assert plan.ethtool
    wire.ethtool("-X", *plan.ethtool.line("eth0").split()[3:])
    told = wire.rss(TYPES)
    assert told.indirection_table == plan.after.indirection_table
    assert told.key == plan.after.key
    check(wire)


@pytest.mark.parametrize(
    ("changes", "types"),
    [
        (["tcp4 sd"], TYPES & ~HashType.TCPv4),
        (["udp4 sd", "udp6 sd"], TYPES & ~(HashType.UDPv4 | HashType.UDPv6)),
        (["tcp4 sd", "tcp6 sd", "udp4 sd", "udp6 sd"], HashType.IPv4 | HashType.IPv6),
        (["tcp4 r", "udp4 r"], HashType.IPv6 | HashType.TCPv6 | HashType.UDPv6),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, list) else "",
)
def test_hash_types(wire: Wire, changes: list[str], types: HashType) -> None:
    wire.ethtool("-X", *EVEN)
    for change in changes:
        wire.ethtool("-N", "rx-flow-hash", *change.split())
    wanted = check(wire, types)
    assert {entry.hash_report.hash_type for entry in wanted} - {None} == set(types)
    script = "for flow in tcp4 tcp6 udp4 udp6; do ethtool -N eth0 rx-flow-hash $flow sdfn; done"
    wire.guest.run("sh", "-ec", script)
    assert "L4 bytes" in wire.ethtool("-n", "rx-flow-hash", "tcp4")
    check(wire)


def test_hash_switched_off(wire: Wire) -> None:
    """Then the driver asks for no type at all, and everything is unclassified."""
    wire.ethtool("-X", *EVEN)
    wire.ethtool("-K", "rxhash", "off")
    assert {entry.queue for entry in check(wire, HashType.NONE)} == {0}
    wire.ethtool("-K", "rxhash", "on")
    assert {entry.queue for entry in check(wire)} == {0, 1, 2, 3}


def test_fewer_queues(wire: Wire) -> None:
    """Two queue pairs, then one: nothing on the others, nothing lost; and with RSS on two."""
    wire.ethtool("-X", "default")  # or the kernel will not have fewer queues than the table names
    payloads = flows(1000)
    with wire.capture(2000) as capture:
        wire.ethtool("-L", "combined", "2")
        capture.send(payloads)
        wire.ethtool("-L", "combined", "1")
        capture.send(payloads)
    seen = [entry.queue for entry in capture.by_program() if entry]
    assert len(seen) == 2000
    assert set(seen[:1000]) <= {0, 1}
    assert set(seen[1000:]) == {0}
    wire.ethtool("-L", "combined", "2")
    wire.ethtool("-X", "equal", "2")
    assert {entry.queue for entry in check(wire)} == {0, 1}
    wire.ethtool("-X", "default")
    wire.ethtool("-L", "combined", "4")
    wire.ethtool("-X", *EVEN)
    assert {entry.queue for entry in check(wire)} == {0, 1, 2, 3}


def wait_for_bridge(name: str, ports: int) -> None:
    """Ports forward once the kernel has noticed that their links are up."""
    deadline = time.monotonic() + 5
    while True:
        shown = subprocess.check_output(["ip", "-j", "-d", "link", "show", "master", name])
        states = [port["linkinfo"]["info_slave_data"]["state"] for port in json.loads(shown)]
        if states == ["forwarding"] * ports:
            return
        assert time.monotonic() < deadline, states
        time.sleep(0.02)


def test_over_a_bridge(wire: Wire) -> None:
    """As most guests are connected."""
    wire.ethtool("-X", *EVEN)
    with Links() as links:
        links.add_bridge("br0")
        links.add_veth("outside", "port")
        for name in ("outside", "port", "br0"):
            link.quiet(name)
            link.set_up(name)
        links.enslave("port", "br0")
        links.enslave(TAP, "br0")
        try:
            wait_for_bridge("br0", ports=2)
            check(wire, link_name="outside")
        finally:
            links.delete("br0")
            links.delete("outside")


@pytest.mark.parametrize("tag", ["81000005", "88a8000781006005"])
def test_tagged(wire: Wire, tag: str) -> None:
    """The tags are passed over, the kernel's own included, which it keeps beside the frame."""
    wire.ethtool("-X", *EVEN)
    wire.guest.run("ip", "link", "set", "eth0", "promisc", "on")
    check(wire, tag=bytes.fromhex(tag))
    wire.guest.run("ip", "link", "set", "eth0", "promisc", "off")


def test_segments(wire: Wire) -> None:
    """Super-packets arrive whole, over many buffers, with the hash of their flow."""
    wire.ethtool("-X", *EVEN)
    payloads = [
        b"\x08\x00" + frames.ipv4(frames.tcp(port, payload=bytes(size)), frames.TCP)
        for port, size in enumerate(range(3000, 64000, 2500), 1000)
    ]
    # struct virtio_net_hdr: NEEDS_CSUM, TCPV4, header and segment size, the sum's place
    header = struct.pack("<BBHHHH", 1, 1, 54, 1400, 34, 16)
    with wire.capture(len(payloads)) as capture:
        capture.wire.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
        capture.send(payloads, before=header)
    for payload, seen, wanted in zip(
        payloads, capture.by_program(), expected(payloads, wire.rss(TYPES)), strict=True
    ):
        assert seen
        assert seen.length == 12 + len(payload)
        assert (seen.hash_value, seen.queue) == (wanted.hash_value, wanted.queue)


def test_guest_that_stands_still(wire: Wire) -> None:
    """What comes meanwhile waits, in its ring and in the tap's queue."""
    wire.ethtool("-X", "equal", "1")
    payloads = flows(700)
    with wire.capture(len(payloads)) as capture:
        with wire.guest.standing_still():
            for some in (payloads[:350], payloads[350:]):
                capture.send(some, wait=False)
                time.sleep(0.1)
        capture.arrived()
    assert all(capture.by_program())


def send_while(wire: Wire, script: str) -> tuple[list[bytes], list[Seen | None]]:
    """Send while the guest runs a script: what was sent, and what became of it."""
    running = wire.guest.begin("run", argv=["sh", "-ec", script])
    payloads: list[bytes] = []
    with wire.capture(20_000) as capture:
        while not running.done:
            some = flows(100, seed=len(payloads))
            payloads += some
            capture.send(some, wait=False)
            time.sleep(0.01)  # the guest has one CPU for both
        capture.arrived()
    assert running.result() == [0, ""]
    return payloads, capture.by_program()


def test_fewer_queues_under_traffic(wire: Wire) -> None:
    """What is in a queue that goes out of use still arrives."""
    wire.ethtool("-X", "default")
    script = "for i in 1 2 3 4 5; do for n in 1 4 2 4; do ethtool -L eth0 combined $n; done; done"
    payloads, arrived = send_while(wire, script)
    assert len(payloads) > 1000
    assert all(arrived)
    assert {seen.queue for seen in arrived if seen} == {0, 1, 2, 3}


def test_change_under_traffic(wire: Wire) -> None:
    """Each packet has the hash and the queue of one configuration, and both come up."""
    settings = [EVEN, ("hkey", format_key(SYMMETRIC_KEY), "weight", "1", "0", "3")]
    configs = []
    for arguments in settings:
        wire.ethtool("-X", *arguments)
        configs.append(wire.rss(TYPES))
    script = "; ".join(f"ethtool -X eth0 {' '.join(arguments)}" for arguments in settings)
    payloads, arrived = send_while(wire, f"for i in $(seq 5); do {script}; done")
    wanted = [expected(payloads, config) for config in configs]
    used = [0, 0]
    for number, seen in enumerate(arrived):
        assert seen
        told = (seen.hash_value, seen.queue)
        candidates = [(entry[number].hash_value, entry[number].queue) for entry in wanted]
        assert told in candidates
        if candidates[0] != candidates[1]:
            used[candidates.index(told)] += 1
    assert min(used) > 100
