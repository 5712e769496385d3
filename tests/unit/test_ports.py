# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Ports for a queue: what linear algebra says against trying every port, by the reference."""

import ipaddress
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from vnethash.errors import ConfigError, NoPort
from vnethash.rss import SYMMETRIC_KEY, RssConfig
from vnethash.rss.ports import AffineSpace, LinearMap, find_ports
from vnethash.rss.reference import Protocol, classify_tuple, explain_tuple, toeplitz
from vnethash.virtio.hash_types import HashType, TunnelType

V4 = ("192.0.2.1", "198.51.100.7")
V6 = ("2001:db8::1", "2001:db8:1::7")
ALL = range(1 << 16)


@settings(max_examples=examples(12), deadline=None)
@given(data=st.data())
def test_every_port_that_does_and_no_other(data: st.DataObject) -> None:
    """Each of the 65536 is hashed by the reference."""
    family, size = data.draw(
        st.sampled_from([(ipaddress.IPv4Address, 4), (ipaddress.IPv6Address, 16)])
    )
    source, destination = (family(data.draw(st.binary(min_size=size, max_size=size))) for _ in "12")
    protocol = data.draw(st.sampled_from(Protocol))
    given = data.draw(st.integers(0, 0xFFFF))
    queues = data.draw(st.integers(1, 9))
    entries = data.draw(st.sampled_from([1, 8, 128, 1024]))
    queue_numbers = st.integers(0, queues - 1)
    key = data.draw(st.binary(min_size=40, max_size=40) | st.just(SYMMETRIC_KEY))
    config = RssConfig(
        queues,
        key=key,
        indirection_table=tuple(
            data.draw(st.lists(queue_numbers, min_size=entries, max_size=entries))
        ),
    )
    queue = data.draw(queue_numbers)
    side = data.draw(st.sampled_from(["source_port", "destination_port"]))
    other = "destination_port" if side == "source_port" else "source_port"

    explained = explain_tuple(config, source, destination, protocol, **{side: given, other: 0})
    place = 16 if other == "source_port" else 0
    ones = [toeplitz(key, (1 << place + n).to_bytes(len(explained.data), "big")) for n in range(16)]
    wanted = []
    value = explained.classified.hash_value
    for port in ALL:  # in Gray code, so that each is one step from the last
        gray = port ^ port >> 1
        if config.indirection_table[value & entries - 1] == queue:
            wanted.append((gray, value))
        value ^= ones[((port + 1) & -(port + 1)).bit_length() - 1] if port < 0xFFFF else 0
    if not wanted:
        with pytest.raises(NoPort):
            find_ports(config, source, destination, protocol, queue, **{side: given}, within=ALL)
        return
    found = find_ports(config, source, destination, protocol, queue, **{side: given}, within=ALL)
    assert found.sought == other.removesuffix("_port")
    landings = list(found)
    assert [(landing.port, landing.hash_value) for landing in landings] == sorted(wanted)
    assert len(found) == len(landings)
    for landing in landings[:: len(landings) // 20 + 1]:
        ports = {side: given, other: landing.port}
        told = classify_tuple(config, source, destination, protocol, **ports)
        assert (told.hash_value, told.index, told.queue) == (*landing[1:], queue)


@pytest.mark.parametrize("addresses", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("side", ["source_port", "destination_port"])
def test_in_a_range(addresses: tuple[str, str], protocol: Protocol, side: str) -> None:
    config = RssConfig.default(8)
    other = "destination_port" if side == "source_port" else "source_port"
    span = range(40000, 40500)
    wanted = [
        port
        for port in span
        if classify_tuple(config, *addresses, protocol, **{side: 443, other: port}).queue == 5
    ]
    found = find_ports(config, *addresses, protocol, 5, **{side: 443}, within=span)
    assert [landing.port for landing in found] == wanted
    assert len(found) == len(wanted) > 0
    # As many as are wanted are found, not all.
    assert [landing.port for landing in islice(found, 3)] == wanted[:3]


def test_as_many_as_in_the_range_of_linux() -> None:
    found = find_ports(RssConfig.default(4), *V4, Protocol.TCP, 0, destination_port=80)
    ports = [landing.port for landing in found]
    assert 32768 <= ports[0] < ports[-1] <= 60999
    assert len(found) == len(ports) == 7060  # a quarter of 28232, and two


def no_port(config: RssConfig, queue: int, within: range = ALL) -> NoPort:
    with pytest.raises(NoPort) as refused:
        find_ports(config, *V4, Protocol.TCP, queue, destination_port=443, within=within)
    assert refused.value.queue == queue
    return refused.value


def test_a_type_without_ports() -> None:
    config = RssConfig.default(4).replace(hash_types=HashType.IPv4 | HashType.UDPv4)
    queue = classify_tuple(config, *V4, Protocol.TCP, 1, 443).queue
    refused = no_port(config, queue ^ 1)
    assert "that type hashes no ports" in refused.message
    assert f"queue {queue}" in refused.message
    assert refused.hint == "enable the hash type of TCP over IPv4"
    # Where it lands anyway, any port will do.
    found = find_ports(config, *V4, Protocol.TCP, queue, destination_port=443, within=range(9, 12))
    assert [landing.port for landing in found] == [9, 10, 11]


def test_without_a_hash() -> None:
    config = RssConfig.default(4).replace(hash_types=HashType.TCPv6, unclassified_queue=2)
    refused = no_port(config, 0)
    assert "without a hash it is on queue 2" in refused.message
    found = find_ports(config, *V4, Protocol.TCP, 2, destination_port=443)
    assert len(found) == 60999 - 32768 + 1
    assert next(iter(found)) == (32768, 0, None)


def test_a_tunnel() -> None:
    """Its packets are steered by what they carry."""
    config = RssConfig.default(4).replace(tunnels=TunnelType.VXLAN)
    with pytest.raises(NoPort, match="UDP port 4789 is a tunnel"):
        find_ports(config, *V4, Protocol.UDP, 1, destination_port=4789)
    for protocol, port in ((Protocol.UDP, 6081), (Protocol.TCP, 4789)):
        assert len(find_ports(config, *V4, protocol, 1, destination_port=port)) > 1000


def test_a_queue_that_is_in_no_entry() -> None:
    config = RssConfig(4, indirection_table=(0, 1, 2, 2))
    assert "no entry of the indirection table" in no_port(config, 3).message


def test_a_key_that_does_not_reach_the_queue() -> None:
    config = RssConfig(2, key=bytes(40), indirection_table=(0, 1))
    refused = no_port(config, 1)
    assert "ports lead to 1 of 2 entries" in refused.message


def test_none_in_the_range() -> None:
    config = RssConfig.default(128)
    assert len(find_ports(config, *V4, Protocol.TCP, 9, destination_port=443, within=ALL)) == 512
    every = [
        landing.port
        for landing in find_ports(config, *V4, Protocol.TCP, 9, destination_port=443, within=ALL)
    ]
    low = next(a for a, b in pairwise(every) if b - a > 20)
    refused = no_port(config, 9, within=range(low + 1, low + 8))
    assert f"of 512 that do none is from {low + 1} to {low + 7}" in refused.message
    assert refused.hint == f"give another range; the nearest is {low}"
    high = every[every.index(low) + 1]
    middle = range((low + high) // 2, (low + high) // 2 + 1 + (low + high) % 2)
    for start in (middle.start - 1, middle.start, middle.start + 1):  # of two as near the lower
        span = range(start, start + len(middle))
        nearest = low if start - low <= high - (span.stop - 1) else high
        hint = no_port(config, 9, within=span).hint
        assert hint == f"give another range; the nearest is {nearest}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": 4}, "queues are 0 to 3"),
        ({"source_port": 1, "destination_port": 2}, "one of the two ends"),
        ({}, "one of the two ends"),
        ({"source_port": 1, "within": range(5, 5)}, "from 0 to 65535"),
        ({"source_port": 1, "within": range(65537)}, "from 0 to 65535"),
        ({"source_port": 1, "within": range(0, 9, 2)}, "from 0 to 65535"),
        ({"source_port": 65536}, "must be from 0 to 65535"),
    ],
)
def test_what_is_no_question(options: dict[str, object], message: str) -> None:
    options = {"queue": 0, **options}
    with pytest.raises(ConfigError, match=message):
        find_ports(RssConfig.default(4), *V4, Protocol.TCP, **options)  # type: ignore[arg-type]


@settings(max_examples=examples(200))
@given(
    columns=st.lists(st.integers(0, 255), min_size=6, max_size=6),
    output=st.integers(0, 255),
)
def test_solutions_of_linear_equations(columns: list[int], output: int) -> None:
    def image(value: int) -> int:
        total = 0
        for bit, column in enumerate(columns):
            total ^= column * (value >> bit & 1)
        return total

    solved = LinearMap(columns).solve(output)
    wanted = [value for value in range(64) if image(value) == output]
    assert ([] if solved is None else [solved[n] for n in range(len(solved))]) == wanted
    assert 1 << LinearMap(columns).rank == len({image(value) for value in range(64)})


def test_where_a_space_is_within_a_range() -> None:
    space = AffineSpace(0b0101, [0b1000, 0b0010])
    assert [space[n] for n in range(len(space))] == [5, 7, 13, 15]
    assert space.within(range(6, 15)) == range(1, 3)
    assert not space.within(range(8, 13))
