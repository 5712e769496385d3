# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The configuration space, ``struct virtio_net_config`` (virtio 1.3, 5.1.4)."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag
from typing import NamedTuple, Self

from vnethash.errors import ConfigError
from vnethash.virtio.control import MAC_LENGTH
from vnethash.virtio.features import Feature

SPEED_UNKNOWN = 0xFFFFFFFF
"""``speed`` of a link that does not say, otherwise Mbit/s."""

DUPLEX_HALF = 0
DUPLEX_FULL = 1
DUPLEX_UNKNOWN = 0xFF


class LinkStatus(IntFlag):
    """VIRTIO_NET_S_*, bits of ``status``."""

    LINK_UP = 1
    ANNOUNCE = 2


class _Field(NamedTuple):
    name: str
    offset: int
    size: int
    features: frozenset[Feature]
    """It exists if one of these was offered."""


_HASHING = frozenset({Feature.RSS, Feature.HASH_REPORT})

# The address always exists, though it is valid only with MAC.
_FIELDS = (
    _Field("status", 6, 2, frozenset({Feature.STATUS})),
    _Field("max_virtqueue_pairs", 8, 2, frozenset({Feature.MQ, Feature.RSS})),
    _Field("mtu", 10, 2, frozenset({Feature.MTU})),
    _Field("speed", 12, 4, frozenset({Feature.SPEED_DUPLEX})),
    _Field("duplex", 16, 1, frozenset({Feature.SPEED_DUPLEX})),
    _Field("rss_max_key_size", 17, 1, _HASHING),
    _Field("rss_max_indirection_table_length", 18, 2, frozenset({Feature.RSS})),
    _Field("supported_hash_types", 20, 4, _HASHING),
    _Field("supported_tunnel_types", 24, 4, frozenset({Feature.HASH_TUNNEL})),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSpace:
    """The fields; None where a field does not exist for the features offered."""

    mac: bytes
    status: int | None = None
    max_virtqueue_pairs: int | None = None
    mtu: int | None = None
    speed: int | None = None
    duplex: int | None = None
    rss_max_key_size: int | None = None
    rss_max_indirection_table_length: int | None = None
    supported_hash_types: int | None = None
    supported_tunnel_types: int | None = None

    def encode(self) -> bytes:
        """Up to the end of the last field there is, gaps filled with zeros.

        ConfigError if a value does not fit its field.
        """
        data = bytearray(self.mac)
        if len(data) != MAC_LENGTH:
            raise ConfigError("mac", f"must have {MAC_LENGTH} bytes, not {len(data)}")
        for field in _FIELDS:
            value = getattr(self, field.name)
            if value is None:
                continue
            data.extend(bytes(field.offset - len(data)))
            try:
                data.extend(value.to_bytes(field.size, "little"))
            except OverflowError:
                raise ConfigError(
                    field.name, f"{value} does not fit into {field.size} bytes"
                ) from None
        return bytes(data)

    @classmethod
    def decode(cls, data: bytes, features: Iterable[Feature]) -> Self:
        """The fields there are for the ``features`` offered; what is behind them is not looked at.

        ConfigError if ``data`` ends before the last of them.
        """
        present = [field for field in _FIELDS if field.features & frozenset(features)]
        end = max((field.offset + field.size for field in present), default=MAC_LENGTH)
        if len(data) < end:
            raise ConfigError("config", f"must have {end} bytes or more, not {len(data)}")
        values = {
            field.name: int.from_bytes(data[field.offset : field.offset + field.size], "little")
            for field in present
        }
        return cls(mac=bytes(data[:MAC_LENGTH]), **values)
