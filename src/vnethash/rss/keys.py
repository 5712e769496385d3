# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Toeplitz keys: the known ones, random ones, and their hexadecimal form."""

import os
import re

from vnethash.errors import ConfigError

KEY_LENGTH = 40
"""Bytes: the least every device supports (virtio 1.3, 5.1.4), and what 36 bytes of input need."""

MICROSOFT_KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)
"""The key of Microsoft's RSS verification vectors, which many drivers take as their default.

https://learn.microsoft.com/en-us/windows-hardware/drivers/network/verifying-the-rss-hash-calculation
"""

SYMMETRIC_KEY = bytes.fromhex("6d5a") * (KEY_LENGTH // 2)
"""Repeats every 16 bits, so that both directions of a flow hash alike.

Woo and Park, "Scalable TCP Session Monitoring with Symmetric Receive-side
Scaling", 2012.
"""

_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*|[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2})*")


def is_symmetric(key: bytes) -> bool:
    """Whether ``key`` repeats every 16 bits, as ``SYMMETRIC_KEY`` does."""
    return key[2:] == key[:-2]


def random_key() -> bytes:
    """40 bytes from the operating system's random source."""
    return os.urandom(KEY_LENGTH)


def parse_hex(text: str) -> bytes:
    """Bytes from pairs of hexadecimal digits, all or none of them parted by colons.

    ConfigError on anything else.
    """
    digits = text.strip()
    if not _HEX.fullmatch(digits):
        raise ConfigError(
            "key",
            "must be pairs of hexadecimal digits, with or without colons",
            hint="for example 6d:5a:56:da or 6d5a56da, 40 bytes in all",
        )
    return bytes.fromhex(digits.replace(":", ""))


def check_key(key: bytes) -> bytes:
    """``key`` itself; ConfigError unless it has 40 bytes."""
    if len(key) != KEY_LENGTH:
        raise ConfigError(
            "key",
            f"must have {KEY_LENGTH} bytes, not {len(key)}",
            hint=f"give {2 * KEY_LENGTH} hexadecimal digits, with or without colons",
        )
    return key


def parse_key(text: str) -> bytes:
    """A key from 80 hexadecimal digits, with or without colons.

    ConfigError if it is not hexadecimal or has another length.
    """
    return check_key(parse_hex(text))


def format_key(key: bytes) -> str:
    """``6d:5a:...``, as ethtool prints and takes keys."""
    return key.hex(":")
