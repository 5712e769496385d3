# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The RSS configuration: its rules, its constructors, JSON."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vectors import VECTORS, Vector
from vnethash.errors import ConfigError
from vnethash.rss import MICROSOFT_KEY, SYMMETRIC_KEY, RssConfig
from vnethash.rss.dissect import Protocol
from vnethash.rss.reference import classify_tuple
from vnethash.virtio.hash_types import HashType, TunnelType


@st.composite
def configs(draw: st.DrawFn) -> RssConfig:
    queues = draw(st.integers(1, 300))
    queue = st.integers(0, queues - 1)
    entries = draw(st.sampled_from([1, 2, 8, 128]))
    return RssConfig(
        queues,
        hash_types=HashType(draw(st.integers(0, HashType.ALL))),
        key=draw(st.binary(min_size=40, max_size=40)),
        indirection_table=tuple(draw(st.lists(queue, min_size=entries, max_size=entries))),
        unclassified_queue=draw(queue),
        tunnels=TunnelType(draw(st.integers(0, TunnelType.ALL))),
    )


def test_default() -> None:
    config = RssConfig.default(4)
    assert config.hash_types == HashType.ALL
    assert config.key == MICROSOFT_KEY
    assert config.indirection_table == (0, 1, 2, 3) * 32
    assert config.unclassified_queue == 0


def test_more_queues_than_the_default_table_has_entries() -> None:
    assert len(RssConfig.default(200).indirection_table) == 256


@pytest.mark.parametrize("vector", VECTORS)
def test_symmetric(vector: Vector) -> None:
    config = RssConfig.symmetric(4)
    assert config.key == SYMMETRIC_KEY
    there = classify_tuple(
        config,
        vector.source,
        vector.destination,
        Protocol.TCP,
        vector.source_port,
        vector.destination_port,
    )
    back = classify_tuple(
        config,
        vector.destination,
        vector.source,
        Protocol.TCP,
        vector.destination_port,
        vector.source_port,
    )
    assert there == back


def test_random() -> None:
    keys = {RssConfig.random(2).key for _ in range(4)}
    assert len(keys) == 4
    assert MICROSOFT_KEY not in keys


def test_weighted() -> None:
    config = RssConfig.weighted([3, 1, 0], entries=16)
    assert config.queues == 3
    assert Counter(config.indirection_table) == {0: 12, 1: 4}


def test_any_sequence_becomes_a_tuple() -> None:
    config = RssConfig(
        2,
        indirection_table=[0, 1],  # type: ignore[arg-type]  # on purpose
        key=bytearray(40),  # type: ignore[arg-type]  # on purpose
    )
    assert config.indirection_table == (0, 1)
    assert config.key == bytes(40)
    assert hash(config) == hash(config.replace())


@pytest.mark.parametrize(
    ("changes", "field", "rule"),
    [
        ({"queues": 0}, "queues", "must be from 1 to 32768, not 0"),
        ({"queues": 32769}, "queues", "must be from 1 to 32768, not 32769"),
        ({"queues": True}, "queues", "must be an integer, not True"),
        ({"queues": 4.0}, "queues", "must be an integer, not 4.0"),
        ({"queues": "4"}, "queues", "must be an integer, not '4'"),
        ({"hash_types": 512}, "hash_types", "0x200 has bits that are no hash type"),
        ({"hash_types": -1}, "hash_types", "-0x1 has bits that are no hash type"),
        ({"key": b""}, "key", "must have 40 bytes, not 0"),
        ({"key": bytes(39)}, "key", "must have 40 bytes, not 39"),
        ({"key": bytes(52)}, "key", "must have 40 bytes, not 52"),
        ({"key": "00" * 40}, "key", "must be bytes, not str"),
        (
            {"indirection_table": ()},
            "indirection_table",
            "the number of entries must be a power of two from 1 to 32768, not 0",
        ),
        (
            {"indirection_table": (0, 1, 2)},
            "indirection_table",
            "the number of entries must be a power of two from 1 to 32768, not 3",
        ),
        (
            {"indirection_table": (0,) * 65536},
            "indirection_table",
            "the number of entries must be a power of two from 1 to 32768, not 65536",
        ),
        (
            {"indirection_table": (0, 1, 2, 4)},
            "indirection_table",
            "entry 3 is queue 4, but queues are 0 to 3",
        ),
        (
            {"indirection_table": (-1,)},
            "indirection_table",
            "entry 0 is queue -1, but queues are 0 to 3",
        ),
        (
            {"queues": 1, "indirection_table": (0, 1)},
            "indirection_table",
            "entry 1 is queue 1, but the only queue is 0",
        ),
        (
            {"indirection_table": "0123"},
            "indirection_table",
            "must be a sequence of queues, not '0123'",
        ),
        ({"indirection_table": 5}, "indirection_table", "must be a sequence of queues, not 5"),
        (
            {"unclassified_queue": 4},
            "unclassified_queue",
            "is queue 4, but queues are 0 to 3",
        ),
        ({"unclassified_queue": None}, "unclassified_queue", "must be an integer, not None"),
    ],
)
def test_rules(changes: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RssConfig.default(4).replace(**changes)
    assert (caught.value.field, caught.value.rule) == (field, rule)
    assert str(caught.value) == f"{field}: {rule}"


@pytest.mark.parametrize("make", [RssConfig.default, RssConfig.symmetric, RssConfig.random])
def test_constructors_check_the_queues(make: Any) -> None:
    with pytest.raises(ConfigError, match="queues: must be from 1 to 32768, not -3"):
        make(-3)


@given(configs())
@settings(max_examples=50)
def test_json_there_and_back(config: RssConfig) -> None:
    text = json.dumps(config.to_json())
    assert RssConfig.from_json(text) == config
    assert RssConfig.from_json(config.to_json()) == config


def test_json_form() -> None:
    config = RssConfig(
        2,
        indirection_table=(1, 0),
        hash_types=HashType.IPv4 | HashType.UDP_EX,
        tunnels=TunnelType.VXLAN | TunnelType.GRE_UDP,
    )
    assert config.to_json() == {
        "queues": 2,
        "hash_types": ["IPv4", "UDP_EX"],
        "key": MICROSOFT_KEY.hex(),
        "indirection_table": [1, 0],
        "unclassified_queue": 0,
        "tunnels": ["GRE_UDP", "VXLAN"],
    }


def test_json_with_defaults_and_colons() -> None:
    data = {"queues": 3, "key": SYMMETRIC_KEY.hex(":")}
    assert RssConfig.from_json(data) == RssConfig.symmetric(3)
    assert data["key"] == SYMMETRIC_KEY.hex(":")


@pytest.mark.parametrize(
    ("data", "field", "rule"),
    [
        ("{", "json", "is not valid"),
        ("[1]", "json", "must be an object"),
        ({}, "queues", "is missing"),
        ({"queues": None}, "queues", "must be an integer, not None"),
        ({"queues": 2, "table": [0]}, "table", "is no field of an RSS configuration"),
        ({"queues": 2, "key": 5}, "key", "must be a string, not 5"),
        ({"queues": 2, "key": "6d5a"}, "key", "must have 40 bytes, not 2"),
        ({"queues": 2, "hash_types": "IPv4"}, "hash_types", "must be a list of names, not 'IPv4'"),
        ({"queues": 2, "hash_types": [4]}, "hash_types", "must be a string, not 4"),
        ({"queues": 2, "hash_types": ["SCTP"]}, "hash_types", "'SCTP' is not a hash type"),
        (
            {"queues": 2, "indirection_table": [0, "1"]},
            "indirection_table",
            "must be an integer, not '1'",
        ),
        ({"queues": 2, "unclassified_queue": 2}, "unclassified_queue", "is queue 2"),
        ({"queues": 2, "tunnels": 16}, "tunnels", "must be a list of names, not 16"),
        ({"queues": 2, "tunnels": ["L2TP"]}, "tunnels", "'L2TP' is not a tunnel type"),
    ],
)
def test_json_refused(data: Any, field: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RssConfig.from_json(data)
    assert caught.value.field == field
    assert caught.value.rule.startswith(rule)
