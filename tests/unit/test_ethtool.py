# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The text of ``ethtool -x``, both ways."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vnethash.errors import ConfigError
from vnethash.rss import MICROSOFT_KEY, SYMMETRIC_KEY, RssConfig
from vnethash.rss.ethtool import format_table
from vnethash.rss.keys import format_key
from vnethash.virtio.hash_types import HashType

KEY = format_key(SYMMETRIC_KEY)

# The layout ethtool 6.1 prints for an 8-entry table and a device with two rings.
SHOWN = f"""\
RX flow hash indirection table for eth0 with 2 RX ring(s):
    0:      0     1     0     1     1     1     0     0
    8:      1     0     0     0     0     0     0     1
RSS hash key:
{KEY}
RSS hash function:
    toeplitz: on
    xor: off
    crc32: off
"""
TABLE = (0, 1, 0, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1)


def test_read() -> None:
    config = RssConfig.from_ethtool(SHOWN)
    assert config == RssConfig(2, key=SYMMETRIC_KEY, indirection_table=TABLE)


def test_printed_as_ethtool_prints() -> None:
    assert RssConfig.from_ethtool(SHOWN).ethtool("eth0") == SHOWN


def test_a_short_table() -> None:
    text = RssConfig(2, indirection_table=(0, 1)).ethtool()
    assert text.splitlines()[:3] == [
        "RX flow hash indirection table for tap0 with 2 RX ring(s):",
        "    0:      0     1",
        "RSS hash key:",
    ]


def test_what_the_text_does_not_tell() -> None:
    config = RssConfig.from_ethtool(SHOWN, hash_types=HashType.TCPv4, unclassified_queue=1)
    assert config.hash_types == HashType.TCPv4
    assert config.unclassified_queue == 1


@given(st.data())
@settings(max_examples=50)
def test_there_and_back(data: st.DataObject) -> None:
    queues = data.draw(st.integers(1, 100_000 // 4))
    entries = data.draw(st.sampled_from([1, 2, 4, 8, 16, 256]))
    queue = st.integers(0, queues - 1)
    config = RssConfig(
        queues,
        key=data.draw(st.binary(min_size=40, max_size=40)),
        indirection_table=tuple(data.draw(st.lists(queue, min_size=entries, max_size=entries))),
    )
    assert RssConfig.from_ethtool(config.ethtool("enp5s0f1")) == config


@pytest.mark.parametrize(
    "text",
    [
        SHOWN.replace("\n", "\r\n"),
        f"\n\n{SHOWN}\n",
        "\n".join(line.strip() for line in SHOWN.splitlines()),
        SHOWN.replace("ring(s):", "ring(s), context 1:"),
        SHOWN[: SHOWN.index("RSS hash function")],
        SHOWN.replace(SHOWN[SHOWN.index("    toeplitz") :], "    Operation not supported\n"),
        SHOWN.replace("key:\n", "key: "),
        SHOWN + "RSS input transformation:\n    symmetric-xor: off\n",
    ],
)
def test_variants(text: str) -> None:
    assert RssConfig.from_ethtool(text).ethtool("eth0") == SHOWN


def test_a_longer_key_keeps_the_bytes_that_reach_a_hash() -> None:
    text = SHOWN.replace(KEY, format_key(MICROSOFT_KEY + b"\xaa" * 12))
    assert RssConfig.from_ethtool(text).key == MICROSOFT_KEY


@pytest.mark.parametrize(
    ("text", "field", "rule"),
    [
        ("", "ethtool", "no heading of an indirection table"),
        (
            "Cannot get RX ring count: Operation not supported\n",
            "ethtool",
            "no heading of an indirection table",
        ),
        (SHOWN + SHOWN, "ethtool", "more than one device or context"),
        (
            SHOWN.replace("    8:", "   16:"),
            "ethtool",
            "the row of entry 16 follows entry 7",
        ),
        (
            SHOWN.replace("    0:      0     1     0     1     1     1     0     0\n", ""),
            "ethtool",
            "the row of entry 8 comes first",
        ),
        (
            SHOWN.replace("     0     1\nRSS", "     0\nRSS"),
            "indirection_table",
            "the number of entries must be a power of two from 1 to 32768, not 15",
        ),
        (
            SHOWN.replace("with 2 RX", "with 1 RX"),
            "indirection_table",
            "entry 1 is queue 1, but the only queue is 0",
        ),
        (
            SHOWN[: SHOWN.index("    0:")]
            + "Operation not supported\n"
            + SHOWN[SHOWN.index("RSS hash key") :],
            "indirection_table",
            "the device has none to show",
        ),
        (
            SHOWN.replace(KEY, "Operation not supported"),
            "key",
            "the device does not tell its RSS key",
        ),
        (SHOWN[: SHOWN.index("RSS hash key")], "key", "not in the text"),
        (SHOWN[: SHOWN.index(KEY)], "key", "not in the text"),
        (SHOWN.replace(KEY, KEY[:-3]), "key", "must have 40 bytes, not 39"),
        (
            SHOWN.replace(KEY, "6d:5"),
            "key",
            "must be pairs of hexadecimal digits, with or without colons",
        ),
        (
            SHOWN.replace("toeplitz: on", "toeplitz: off").replace("xor: off", "xor: on"),
            "hash_function",
            "is xor, but virtio RSS hashes with toeplitz (virtio 1.3, 5.1.6.5.7)",
        ),
        (
            SHOWN + "RSS input transformation:\n    symmetric-xor: on\n",
            "input_transformation",
            "symmetric-xor is on, but virtio RSS hashes the fields as they are",
        ),
    ],
)
def test_refused(text: str, field: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RssConfig.from_ethtool(text)
    assert (caught.value.field, caught.value.rule) == (field, rule)


# As ethtool prints it (netlink/rss.c), from 6.3 on; the transformation came later.
SHOWN_JSON = f"""\
[ {{
    "ifname": "eth0",
    "rss-indirection-table": [ {",".join(map(str, TABLE))} ],
    "rss-hash-key": [ {",".join(map(str, SYMMETRIC_KEY))} ],
    "rss-hash-function": "toeplitz",
    "rss-input-transformation": {{ "symmetric-xor": false }}
}} ]
"""


def shown_json(**changes: object) -> str:
    shown = json.loads(SHOWN_JSON)[0]
    for name, value in changes.items():
        name = "rss-" + name.replace("_", "-")
        if value is None:
            del shown[name]
        else:
            shown[name] = value
    return json.dumps([shown])


def test_read_json() -> None:
    assert RssConfig.from_ethtool(SHOWN_JSON) == RssConfig.from_ethtool(SHOWN)
    assert RssConfig.from_ethtool(shown_json(input_transformation=None)).queues == 2
    long = [*SYMMETRIC_KEY, *range(12)]
    assert RssConfig.from_ethtool(shown_json(hash_key=long)).key == SYMMETRIC_KEY
    assert RssConfig.from_ethtool(shown_json(hash_function=None)).key == SYMMETRIC_KEY
    assert RssConfig.from_ethtool(shown_json(input_transformation=[])).queues == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not valid JSON"),
        ("[]", "no list of devices"),
        ("[1]", "no list of devices"),
        (f"[{SHOWN_JSON.strip()[1:-1]}, {{}}]", "more than one device"),
        (shown_json(indirection_table=None), "none to show"),
        (shown_json(indirection_table=[0, -1]), "rss-indirection-table is no list"),
        (shown_json(indirection_table="0"), "rss-indirection-table is no list"),
        (shown_json(indirection_table=[True]), "rss-indirection-table is no list"),
        (shown_json(hash_key=None), "does not tell its RSS key"),
        (shown_json(hash_key=[256]), "rss-hash-key is no list"),
        (shown_json(hash_function="xor"), "is xor, but virtio RSS hashes with toeplitz"),
        (shown_json(hash_function=None, hash_function_raw=8), "is 8, but virtio RSS"),
        (shown_json(input_transformation={"symmetric-xor": True}), "symmetric-xor is on"),
        (shown_json(input_transformation={"raw": 4}), "raw is on"),
    ],
)
def test_json_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RssConfig.from_ethtool(text)


def filled(said: str, entries: int) -> list[int]:
    """The table that ethtool(8) makes of what ``-X`` is told."""
    how, *numbers = said.split()
    values = [int(number) for number in numbers]
    if how == "equal":
        return [entry % values[0] for entry in range(entries)]
    assert how == "weight"
    assert 0 < sum(values) <= entries
    ends = [entries * sum(values[: n + 1]) // sum(values) for n in range(len(values))]
    return [
        next(queue for queue, end in enumerate(ends) if entry < end) for entry in range(entries)
    ]


@given(st.data())
def test_what_ethtool_can_be_told(data: st.DataObject) -> None:
    entries = data.draw(st.sampled_from([1, 2, 8, 128]))
    table = data.draw(
        st.lists(st.integers(0, 5), min_size=entries, max_size=entries).map(sorted)
        | st.integers(1, 9).map(lambda queues: [n % queues for n in range(entries)])
    )
    said = format_table(table)
    assert said is not None
    assert filled(said, entries) == table


def test_what_ethtool_cannot_be_told() -> None:
    assert format_table([0, 1, 1, 0]) is None
    assert format_table([0, 0, 1, 1, 1, 1, 2, 2]) == "weight 1 2 1"
    assert format_table([0, 1, 2, 0]) == "equal 3"
    assert format_table([2, 2, 3, 3]) == "weight 0 0 1 1"
