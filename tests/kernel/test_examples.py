# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The examples that open a tap; each makes a network namespace of its own."""

from collections import Counter

from tests.examples import flow_to, run_example
from vnethash import RssConfig

DEFAULT = RssConfig.default(4)


def by_queue(rss: RssConfig) -> Counter[int]:
    return Counter(flow_to(1000 + port, rss).queue for port in range(64))


def test_open_tap() -> None:
    first, *packets = run_example("open_tap.py")
    assert first.startswith("tap0: engine ebpf at ")
    wanted = sorted(
        f"queue {got.queue}  UDPv4    {got.hash_value:#010x}  47 bytes"
        for got in (flow_to(port, DEFAULT) for port in range(7, 15))
    )
    assert sorted(line for line in packets if "UDPv4" in line) == wanted


def test_async_reader() -> None:
    wanted = Counter(flow_to(1000 + port, DEFAULT).queue for port in range(32))
    lines = [f"queue {queue}: {packets} packets" for queue, packets in sorted(wanted.items())]
    assert run_example("async_reader.py") == lines


def test_reconfigure() -> None:
    default, weighted, random, udp = run_example("reconfigure.py")
    for line, rss in ((default, DEFAULT), (weighted, RssConfig.weighted([0, 0, 1, 3]))):
        counts = by_queue(rss)
        assert line.endswith(f" {[counts[queue] for queue in range(4)]}")
    assert sum(int(count) for count in random.partition("[")[2].rstrip("]").split(",")) == 64
    assert udp == "UDPv4: 192 packets, 9024 bytes"


def test_fake_guest() -> None:
    first, *packets = run_example("fake_guest.py")
    assert first == "listening for tap0, engine ebpf"
    wanted = sorted(
        f"queue {got.queue}  UDPv4    {got.hash_value:#010x}  47 bytes"
        for got in (flow_to(port, DEFAULT) for port in range(7, 15))
    )
    assert sorted(packets) == wanted


def test_serve_tap() -> None:
    lines = run_example("serve_tap.py")
    assert lines[:2] == ["connected", "features"]
    assert "control MQ_RSS_CONFIG" in lines
    assert lines[-1] == "disconnected"
