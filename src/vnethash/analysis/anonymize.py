# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Addresses replaced so that results can be shared: prefix-preserving, by Crypto-PAn.

J. Xu, J. Fan, M. H. Ammar, S. B. Moon: "Prefix-preserving IP address anonymization:
measurement-based security evaluation and a new cryptography-based scheme", ICNP 2002.
Two addresses that share their first n bits, and no more, do so afterwards as well.
What a result still tells: docs/report.md.
"""

import dataclasses
import os
import re
import secrets
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vnethash.analysis.extras import load
from vnethash.analysis.flows import heaviest_first, is_ipv6
from vnethash.analysis.result import Analysis, Source
from vnethash.errors import ConfigError

KEY_LENGTH = 32
"""16 bytes for AES, and 16 of which the padding is made."""

_BLOCK = 16
_WORD = 64
_ONES = (1 << _WORD) - 1

# From the first quote to the last: between two there may be one that is quoted itself.
_QUOTED = re.compile(r"""['"].*['"]""", re.DOTALL)
_ADDRESS = re.compile(r"[0-9A-Fa-f]*(?::[0-9A-Fa-f.]*){2,}|\d+(?:\.\d+){3}")


class Anonymizer:
    """Crypto-PAn under one key: the same address always becomes the same other one.

    Raises ConfigError unless the key has 32 bytes, DependencyMissing without cryptography.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_LENGTH:
            raise ConfigError("anonymize key", f"must be {KEY_LENGTH} bytes, not {len(key)}")
        ciphers = load("cryptography.hazmat.primitives.ciphers", "anonymised addresses")
        cipher = ciphers.Cipher(ciphers.algorithms.AES(key[:_BLOCK]), ciphers.modes.ECB())
        self._cipher = cipher
        # The padding is itself enciphered, so that the key is not in what AES is given.
        self._padding = np.frombuffer(self._encrypt(key[_BLOCK:]), ">u8").astype(np.uint64)

    @classmethod
    def random(cls) -> "Anonymizer":
        """Under a key that nobody knows, and that is gone with the process."""
        return cls(secrets.token_bytes(KEY_LENGTH))

    @classmethod
    def from_file(cls, path: Path) -> "Anonymizer":
        """Under the key in a file, 64 hexadecimal digits. A file that is not there is
        made, with a random key and for its owner alone. Raises ConfigError, OSError."""
        try:
            with open(path, "x", opener=_private) as file:
                file.write(secrets.token_hex(KEY_LENGTH) + "\n")
        except FileExistsError:
            pass
        try:
            key = bytes.fromhex(path.read_text(encoding="ascii"))
        except ValueError:
            key = b""
        if len(key) != KEY_LENGTH:
            raise ConfigError(
                "anonymize key",
                f"{path} does not hold {2 * KEY_LENGTH} hexadecimal digits",
                hint="name a file that is not there yet, and it is made",
            )
        return cls(key)

    def addresses(self, raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Addresses in network byte order, shape (n, 4) or (n, 16), as others."""
        count, size = raw.shape
        if count == 0:
            return raw.copy()
        padded = np.zeros((count, _BLOCK), np.uint8)
        padded[:, :size] = raw
        words = padded.view(">u8").astype(np.uint64)
        distinct, index = _distinct(words)
        changed = distinct ^ self._changes(distinct, 8 * size)
        octets = changed.astype(">u8").view(np.uint8).reshape(-1, _BLOCK)
        return octets[index, :size]

    def _changes(self, words: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
        """Which bits of each address turn, shape (n, 2): bit i if AES says so of the
        i bits before it, filled up with the padding."""
        changes = np.zeros_like(words)
        for bit in range(bits):
            prefix = np.array(
                [_ONES ^ (_ONES >> min(bit, _WORD)), _ONES ^ (_ONES >> max(bit - _WORD, 0))],
                np.uint64,
            )
            blocks = (words & prefix) | (self._padding & ~prefix)
            cipher = self._encrypt(blocks.astype(">u8").tobytes())
            turned = np.frombuffer(cipher, np.uint8)[::_BLOCK] >> 7
            word, place = divmod(bit, _WORD)
            changes[:, word] |= turned.astype(np.uint64) << np.uint64(_WORD - 1 - place)
        return changes

    def _encrypt(self, blocks: bytes) -> bytes:
        done: bytes = self._cipher.encryptor().update(blocks)
        return done


def _distinct(words: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """The distinct rows of an array (n, 2), n > 0, and which of them each row is.
    As np.unique(axis=0), at a fraction of its time."""
    order = np.lexsort((words[:, 1], words[:, 0]))
    ordered = words[order]
    first = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])
    index = np.empty(len(words), np.intp)
    index[order] = np.cumsum(first) - 1
    return ordered[first], index


def anonymize(analysis: Analysis, anonymizer: Anonymizer) -> Analysis:
    """The analysis with other addresses, to be shared.

    Loads, buckets and queues stay as they are. Of hash values only the index
    into the table is left: with the key, 32 bits of hash are as many equations
    for the address. Files have numbers in the place of their names, and what errors
    quote of them is left out. Flows of the same weight are ordered anew, as their order
    is that of the addresses.
    """
    flows = analysis.flows.copy()
    for six, size in ((False, 4), (True, 16)):
        rows = np.flatnonzero(is_ipv6(flows) == six)
        pairs = flows["addresses"][rows, : 2 * size].reshape(-1, size)
        flows["addresses"][rows, : 2 * size] = anonymizer.addresses(pairs).reshape(-1, 2 * size)
    flows["hash_value"] &= np.uint32(len(analysis.rss.indirection_table) - 1)
    return dataclasses.replace(
        analysis,
        flows=heaviest_first(flows),
        sources=tuple(_nameless(n, source) for n, source in enumerate(analysis.sources, 1)),
        anonymous=True,
    )


def _nameless(number: int, source: Source) -> Source:
    name, error = f"file {number}", source.error
    if error and "/" in source.path:  # another, as "-" or "a", only looks like one in a sentence
        error = error.replace(source.path, name)
        error = error.replace(source.path.rpartition("://")[2], name)  # as stores say it
    if error:
        for private in (_QUOTED, _ADDRESS):
            error = private.sub("…", error)
    return dataclasses.replace(source, path=name, error=error, hint=None)


def _private(path: Any, flags: int) -> int:
    return os.open(path, flags, 0o600)
