# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Toeplitz keys and how they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import vectors
from vnethash.errors import ConfigError
from vnethash.rss.keys import (
    KEY_LENGTH,
    MICROSOFT_KEY,
    SYMMETRIC_KEY,
    format_key,
    is_symmetric,
    parse_key,
    random_key,
)


def test_known_keys() -> None:
    assert vectors.KEY == MICROSOFT_KEY
    assert len(SYMMETRIC_KEY) == KEY_LENGTH
    assert set(zip(SYMMETRIC_KEY[::2], SYMMETRIC_KEY[1::2], strict=True)) == {(0x6D, 0x5A)}


def test_what_repeats_every_16_bits() -> None:
    assert is_symmetric(SYMMETRIC_KEY)
    assert not is_symmetric(MICROSOFT_KEY)
    assert not is_symmetric(SYMMETRIC_KEY[:-1] + b"\x5b")


def test_random_keys_differ() -> None:
    assert len({random_key() for _ in range(8)}) == 8
    assert len(random_key()) == KEY_LENGTH


@given(st.binary(min_size=KEY_LENGTH, max_size=KEY_LENGTH))
def test_both_forms(key: bytes) -> None:
    colons = format_key(key)
    assert colons.count(":") == KEY_LENGTH - 1
    for text in (colons, colons.upper(), key.hex(), f" {key.hex()}\n"):
        assert parse_key(text) == key


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "must have 40 bytes, not 0"),
        ("6d5a", "must have 40 bytes, not 2"),
        ("00" * 39, "must have 40 bytes, not 39"),
        ("00" * 41, "must have 40 bytes, not 41"),
        (":".join(["00"] * 52), "must have 40 bytes, not 52"),
        ("0" * 79, "must be pairs of hexadecimal digits, with or without colons"),
        ("zz" * 40, "must be pairs of hexadecimal digits, with or without colons"),
        ("0x" + "00" * 39, "must be pairs of hexadecimal digits, with or without colons"),
        ("00:" * 40, "must be pairs of hexadecimal digits, with or without colons"),
        ("00 " * 40, "must be pairs of hexadecimal digits, with or without colons"),
        ("0000:" + "00" * 38, "must be pairs of hexadecimal digits, with or without colons"),
    ],
)
def test_refused(text: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_key(text)
    assert (caught.value.field, caught.value.rule) == ("key", rule)
    assert caught.value.hint
