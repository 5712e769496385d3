# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""An RSS configuration: types, key, indirection table, unclassified queue, tunnels.

The parameters of VIRTIO_NET_CTRL_MQ_RSS_CONFIG (virtio 1.3, 5.1.6.5.7), and of
VIRTIO_NET_CTRL_HASH_TUNNEL_SET (5.1.6.4.4).
"""

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntFlag
from typing import Any, TypeVar

from vnethash.errors import ConfigError
from vnethash.rss import ethtool
from vnethash.rss.keys import (
    KEY_LENGTH,
    MICROSOFT_KEY,
    SYMMETRIC_KEY,
    check_key,
    parse_key,
    random_key,
)
from vnethash.rss.table import DEFAULT_ENTRIES, check_entries, even_table, weighted_table
from vnethash.virtio.hash_types import (
    HashType,
    TunnelType,
    format_hash_types,
    format_tunnel_types,
    parse_hash_types,
    parse_tunnel_types,
)

_Flags = TypeVar("_Flags", bound=IntFlag)

QUEUES_MAX = 32768
"""VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX (virtio 1.3, 5.1.6.5.6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RssConfig:
    """How packets are hashed and which queue each hash goes to.

    Checked when it is made: ConfigError names the field and the rule. Any
    sequence of integers will do as table, any bytes-like object as key;
    they are kept as tuple and bytes.
    """

    queues: int = field(kw_only=False)
    """Receive queues there are, 1 to 32768; a tap takes at most 256."""
    hash_types: HashType = HashType.ALL
    """Enabled hash types (5.1.6.4.3.1)."""
    key: bytes = MICROSOFT_KEY
    """40 bytes."""
    indirection_table: tuple[int, ...]
    """Queues, 2^n entries from 1 to 32768; the masked hash is the index."""
    unclassified_queue: int = 0
    """Where packets without a hash go."""
    tunnels: TunnelType = TunnelType.NONE
    """Encapsulations whose packets are hashed by their inner headers (5.1.6.4.4)."""

    def __post_init__(self) -> None:
        queues = _queues(self.queues)
        types = _integer("hash_types", self.hash_types)
        if not 0 <= types <= HashType.ALL:
            raise ConfigError("hash_types", f"{types:#x} has bits that are no hash type")
        tunnels = _integer("tunnels", self.tunnels)
        if not 0 <= tunnels <= TunnelType.ALL:
            raise ConfigError("tunnels", f"{tunnels:#x} has bits that are no tunnel type")

        if not isinstance(self.key, bytes | bytearray | memoryview):
            raise ConfigError("key", f"must be bytes, not {type(self.key).__name__}")

        # A frozen dataclass sets its fields this way.
        put = object.__setattr__
        put(self, "queues", queues)
        put(self, "hash_types", HashType(types))
        put(self, "key", check_key(bytes(self.key)))
        put(self, "indirection_table", _table(self.indirection_table, queues))
        put(self, "unclassified_queue", _unclassified(self.unclassified_queue, queues))
        put(self, "tunnels", TunnelType(tunnels))

    @classmethod
    def default(cls, queues: int) -> "RssConfig":
        """All hash types, Microsoft's key, the queues in turn over 128 entries or more."""
        return cls(queues, indirection_table=even_table(_queues(queues)))

    @classmethod
    def symmetric(cls, queues: int) -> "RssConfig":
        """As ``default``, with the key that sends both directions of a flow to one queue."""
        return cls.default(queues).replace(key=SYMMETRIC_KEY)

    @classmethod
    def random(cls, queues: int) -> "RssConfig":
        """As ``default``, with a key from the operating system that no sender can guess."""
        return cls.default(queues).replace(key=random_key())

    @classmethod
    def weighted(cls, weights: Sequence[float], entries: int = DEFAULT_ENTRIES) -> "RssConfig":
        """As ``default``, with entries in proportion to ``weights``, one weight a queue.

        The weights need not sum to anything. See ``table.weighted_table``
        for rounding and order. ConfigError if they are empty, negative, not
        finite or all zero.
        """
        return cls(len(weights), indirection_table=weighted_table(weights, entries))

    @classmethod
    def from_ethtool(
        cls, text: str, *, hash_types: HashType = HashType.ALL, unclassified_queue: int = 0
    ) -> "RssConfig":
        """From what ``ethtool -x DEV`` prints, also with ``--json``, which does not tell the
        last two (nor, as JSON, queues that the table has not).

        Of a longer key than 40 bytes, which some devices have, the first 40
        are kept: no input of RSS reaches the others, so every hash is the
        same. ConfigError if the text is no such output, the device tells no
        key, or it does not hash with Toeplitz.
        """
        is_json = text.lstrip().startswith("[")
        shown = ethtool.parse_rxfh_json(text) if is_json else ethtool.parse_rxfh(text)
        return cls(
            shown.queues,
            hash_types=hash_types,
            key=shown.key[:KEY_LENGTH],
            indirection_table=shown.table,
            unclassified_queue=unclassified_queue,
        )

    def ethtool(self, device: str = "tap0") -> str:
        """Queues, table and key as ``ethtool -x`` prints them for ``device``."""
        return ethtool.format_rxfh(device, self.queues, self.indirection_table, self.key)

    def replace(self, **changes: Any) -> "RssConfig":
        """A copy with other values in the named fields, checked anew."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """JSON types only: names of the hash types, the key in hexadecimal."""
        return {
            "queues": self.queues,
            "hash_types": format_hash_types(self.hash_types),
            "key": self.key.hex(),
            "indirection_table": list(self.indirection_table),
            "unclassified_queue": self.unclassified_queue,
            "tunnels": format_tunnel_types(self.tunnels),
        }

    @classmethod
    def from_json(cls, data: "str | Mapping[str, Any]") -> "RssConfig":
        """From what ``to_json`` gives, or its text. ``queues`` must be there.

        Fields left out are as in ``default``. ConfigError names a field that
        is missing, unknown or of a wrong type.
        """
        values = _json_object(data) if isinstance(data, str) else dict(data)
        known = [entry.name for entry in fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(
                    str(name), "is no field of an RSS configuration", hint=f"use {', '.join(known)}"
                )
        if "queues" not in values:
            raise ConfigError("queues", "is missing")
        config = cls.default(values["queues"])
        if "hash_types" in values:
            values["hash_types"] = _json_flags("hash_types", values["hash_types"], parse_hash_types)
        if "tunnels" in values:
            values["tunnels"] = _json_flags("tunnels", values["tunnels"], parse_tunnel_types)
        if "key" in values:
            values["key"] = parse_key(_json_text("key", values["key"]))
        return config.replace(**values)


def _integer(name: str, value: object) -> int:
    if isinstance(value, bool):
        raise ConfigError(name, f"must be an integer, not {value}")
    try:
        return operator.index(value)  # type: ignore[arg-type]  # that is the question
    except TypeError:
        raise ConfigError(name, f"must be an integer, not {value!r}") from None


def _queues(queues: int) -> int:
    number = _integer("queues", queues)
    if not 1 <= number <= QUEUES_MAX:
        raise ConfigError("queues", f"must be from 1 to {QUEUES_MAX}, not {number}")
    return number


def _table(table: Sequence[int], queues: int) -> tuple[int, ...]:
    name = "indirection_table"
    if isinstance(table, str | bytes) or not hasattr(table, "__iter__"):
        raise ConfigError(name, f"must be a sequence of queues, not {table!r}")
    entries = tuple(_integer(name, queue) for queue in table)
    check_entries(len(entries))
    for index, queue in enumerate(entries):
        if not 0 <= queue < queues:
            raise ConfigError(name, f"entry {index} is queue {queue}, {_existing(queues)}")
    return entries


def _unclassified(queue: int, queues: int) -> int:
    number = _integer("unclassified_queue", queue)
    if not 0 <= number < queues:
        raise ConfigError("unclassified_queue", f"is queue {number}, {_existing(queues)}")
    return number


def _existing(queues: int) -> str:
    return "but the only queue is 0" if queues == 1 else f"but queues are 0 to {queues - 1}"


def _json_object(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError("json", f"is not valid: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError("json", "must be an object")
    return values


def _json_text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(name, f"must be a string, not {value!r}")
    return value


def _json_flags(field: str, names: object, parse: Callable[[str], _Flags]) -> _Flags:
    if not isinstance(names, list):
        raise ConfigError(field, f"must be a list of names, not {names!r}")
    return parse(",".join(_json_text(field, name) for name in names) or "none")
