# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The state of a device as JSON, for a machine that moves to another host.

What was offered goes with what the driver made of it, because the driver has
read the one and relies on it. A state is taken only if commands lead to it:
they are sent again, to the same rules.
"""

import functools
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from enum import IntFlag
from typing import Any, TypeVar

from vnethash.errors import ConfigError, FeatureError
from vnethash.virtio.control import (
    Command,
    GuestOffloadsSet,
    HashConfigSet,
    HashTunnelSet,
    MacAddrSet,
    MacTableSet,
    RssConfigSet,
    RxMode,
    RxModeSet,
    VlanAdd,
    VqPairsSet,
    format_mac,
)
from vnethash.virtio.device import DeviceState, NetDevice, Offer, Steering
from vnethash.virtio.features import Feature, feature_bits, format_features
from vnethash.virtio.hash_types import HashType, TunnelType

VERSION = 1
"""Of the JSON form."""

_Value = TypeVar("_Value")
_Flag = TypeVar("_Flag", bound=IntFlag)
_Reader = Callable[[str, object], _Value]
"""Takes the path of a value, for errors, and what JSON has there."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)


def export_state(device: NetDevice) -> dict[str, Any]:
    """``version``, ``offer`` and ``state``, JSON types only."""
    offer, state = device.offer, device.state
    return {
        "version": VERSION,
        "offer": {
            "features": format_features(offer.features),
            "queue_pairs": offer.queue_pairs,
            "mac": format_mac(offer.mac),
            "mtu": offer.mtu,
            "hash_types": _names(offer.hash_types),
            "max_indirection": offer.max_indirection,
            "tunnel_types": _names(offer.tunnel_types),
            "speed": offer.speed,
            "duplex": offer.duplex,
        },
        "state": {
            "features": format_features(state.features),
            "steering": state.steering
            and {
                "indirection_table": list(state.steering.indirection_table),
                "unclassified_queue": state.steering.unclassified_queue,
                "max_tx_vq": state.steering.max_tx_vq,
            },
            "queue_pairs": state.queue_pairs,
            "hash_types": _names(state.hash_types),
            "hash_key": state.hash_key.hex(),
            "tunnel_types": _names(state.tunnel_types),
            "offloads": format_features(state.offloads),
            "mac": state.mac and format_mac(state.mac),
            "rx_modes": [mode.name for mode in sorted(state.rx_modes)],
            "unicast": [format_mac(mac) for mac in sorted(state.unicast)],
            "multicast": [format_mac(mac) for mac in sorted(state.multicast)],
            "vlans": sorted(state.vlans),
            "link_up": state.link_up,
            "announce": state.announce,
        },
    }


def import_state(data: "str | Mapping[str, Any]") -> NetDevice:
    """The device that was exported, from what ``export_state`` gives, or its text.

    ConfigError names what is missing, unknown, of a wrong type, or cannot
    have come about.
    """
    values = _Object("", _parse(data) if isinstance(data, str) else data)
    version = values.take("version", _integer)
    if version != VERSION:
        raise ConfigError("version", f"is {version}, but only {VERSION} is known here")
    offer = values.take("offer", _read_offer)
    state = values.take("state", _read_state)
    _check_reachable(offer, state)
    return values.made(NetDevice(offer, state))


def check_target(source: NetDevice, offer: Offer) -> list[str]:
    """Why a device with this ``offer`` cannot take over for the driver of ``source``.

    Empty if it can, as ``NetDevice(offer, source.state)``.
    """
    there, features = source.offer, source.state.features
    reasons = [f"does not offer {name}" for name in format_features(features - offer.features)]

    def must(holds: bool, what: str, here: object, needed: object) -> None:
        if not holds:
            reasons.append(f"{what} is {here}, but {needed} is needed")

    # The driver counts on what it read in the configuration space; the index of the
    # control queue comes from the number of pairs.
    if features & {Feature.MQ, Feature.RSS}:
        same = offer.queue_pairs == there.queue_pairs
        must(same, "queue_pairs", offer.queue_pairs, there.queue_pairs)
    if Feature.MTU in features:
        must(offer.mtu == there.mtu, "mtu", offer.mtu, there.mtu)
    if Feature.MAC in features:
        must(offer.mac == there.mac, "mac", format_mac(offer.mac), format_mac(there.mac))
    if Feature.RSS in features:
        enough = offer.max_indirection >= there.max_indirection
        must(enough, "max_indirection", offer.max_indirection, there.max_indirection)
    if features & {Feature.RSS, Feature.HASH_REPORT}:
        lacking = _names(there.hash_types & ~offer.hash_types)
        reasons.extend(f"does not support the hash type {name}" for name in lacking)
    if Feature.HASH_TUNNEL in features:
        lacking = _names(there.tunnel_types & ~offer.tunnel_types)
        reasons.extend(f"does not support the tunnel type {name}" for name in lacking)
    return reasons


def commands(state: DeviceState, start: DeviceState) -> Iterator[Command]:
    """What a driver sends to get from ``start``, the state after negotiation, to ``state``."""
    if state.mac is not None and state.mac != start.mac:
        yield MacAddrSet(state.mac)
    if state.unicast or state.multicast:
        yield MacTableSet(tuple(state.unicast), tuple(state.multicast))
    for mode in state.rx_modes:
        yield RxModeSet(mode, True)
    for vlan in state.vlans:
        yield VlanAdd(vlan)
    if state.offloads != start.offloads:
        yield GuestOffloadsSet(feature_bits(state.offloads))
    if state.tunnel_types:
        yield HashTunnelSet(state.tunnel_types)

    # Of RSS and automatic steering the one in force comes last. With RSS negotiated, types
    # and key are those of an RSS_CONFIG, also if automatic steering followed.
    rss = Feature.RSS in state.features
    hashes = (state.hash_types, state.hash_key) != (start.hash_types, start.hash_key)
    if state.steering:
        if state.queue_pairs != start.queue_pairs:
            yield VqPairsSet(state.queue_pairs)
        yield _rss_config(state, state.steering)
    elif hashes and rss:
        yield _rss_config(state, _ONE_QUEUE)
        yield VqPairsSet(state.queue_pairs)
    else:
        if hashes:
            yield HashConfigSet(hash_types=state.hash_types, hash_key=state.hash_key)
        if state.queue_pairs != start.queue_pairs:
            yield VqPairsSet(state.queue_pairs)


_ONE_QUEUE = Steering(indirection_table=(0,), unclassified_queue=0, max_tx_vq=1)


def _rss_config(state: DeviceState, steering: Steering) -> RssConfigSet:
    return RssConfigSet(
        hash_types=state.hash_types,
        indirection_table=steering.indirection_table,
        unclassified_queue=steering.unclassified_queue,
        max_tx_vq=steering.max_tx_vq,
        hash_key=state.hash_key,
    )


def _check_reachable(offer: Offer, state: DeviceState) -> None:
    """ConfigError unless a driver of this offer can have got to ``state``."""
    device = NetDevice(offer)
    try:
        if state.features:
            # Whether the front end kept the control queue to itself is not known any more.
            device.commit(device.negotiated(feature_bits(state.features), control_elsewhere=True))
    except FeatureError as error:
        raise ConfigError("state.features", error.message) from None
    for command in commands(state, device.state):
        judged = device.judge(command.encode())
        if judged.state is None:
            raise ConfigError("state", str(judged.refusal))
        device.commit(judged.state)
    if state.announce:
        device.commit(device.announced() or device.state)
    device.commit(replace(device.state, link_up=state.link_up))
    for field in fields(DeviceState):
        if getattr(device.state, field.name) != getattr(state, field.name):
            raise ConfigError(f"state.{field.name}", "cannot have come about")


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError("json", f"is not valid: {error}") from None


def _read_offer(path: str, data: object) -> Offer:
    values = _Object(path, data)
    return values.made(
        Offer(
            features=values.take("features", _set_of(_feature)),
            queue_pairs=values.take("queue_pairs", _integer),
            mac=values.take("mac", _mac),
            mtu=values.take("mtu", _optional(_integer)),
            hash_types=values.take("hash_types", _flags(HashType)),
            max_indirection=values.take("max_indirection", _integer),
            tunnel_types=values.take("tunnel_types", _flags(TunnelType)),
            speed=values.take("speed", _integer),
            duplex=values.take("duplex", _integer),
        )
    )


def _read_state(path: str, data: object) -> DeviceState:
    values = _Object(path, data)
    return values.made(
        DeviceState(
            features=values.take("features", _set_of(_feature)),
            steering=values.take("steering", _optional(_read_steering)),
            queue_pairs=values.take("queue_pairs", _integer),
            hash_types=values.take("hash_types", _flags(HashType)),
            hash_key=values.take("hash_key", _hexadecimal),
            tunnel_types=values.take("tunnel_types", _flags(TunnelType)),
            offloads=values.take("offloads", _set_of(_feature)),
            mac=values.take("mac", _optional(_mac)),
            rx_modes=values.take("rx_modes", _set_of(_rx_mode)),
            unicast=values.take("unicast", _set_of(_mac)),
            multicast=values.take("multicast", _set_of(_mac)),
            vlans=values.take("vlans", _set_of(_integer)),
            link_up=values.take("link_up", _boolean),
            announce=values.take("announce", _boolean),
        )
    )


def _read_steering(path: str, data: object) -> Steering:
    values = _Object(path, data)
    return values.made(
        Steering(
            indirection_table=tuple(values.take("indirection_table", _list_of(_integer))),
            unclassified_queue=values.take("unclassified_queue", _integer),
            max_tx_vq=values.take("max_tx_vq", _integer),
        )
    )


class _Object:
    """The fields of an object of JSON, each to be taken once."""

    def __init__(self, path: str, data: object) -> None:
        self._path = path
        if not isinstance(data, Mapping):
            raise ConfigError(path or "json", "must be an object")
        self._left = dict(data)

    def take(self, name: str, read: Callable[[str, object], _Value]) -> _Value:
        """A field, as ``read`` understands it; ConfigError with its path if it is not there."""
        path = self._of(name)
        if name not in self._left:
            raise ConfigError(path, "is missing")
        return read(path, self._left.pop(name))

    def made(self, value: _Value) -> _Value:
        """``value``, made of all fields; ConfigError if one is left."""
        for name in self._left:
            raise ConfigError(self._of(str(name)), "is not known")
        return value

    def _of(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name


def _integer(path: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(path, "must be an integer")
    return value


def _boolean(path: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(path, "must be true or false")
    return value


def _text(path: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(path, "must be a string")
    return value


def _hexadecimal(path: str, value: object) -> bytes:
    try:
        return bytes.fromhex(_text(path, value))
    except ValueError:
        raise ConfigError(path, "must be hexadecimal digits") from None


def _mac(path: str, value: object) -> bytes:
    text = _text(path, value)
    if not _MAC.fullmatch(text):
        raise ConfigError(path, "must be an address like 02:00:00:00:00:01")
    return bytes.fromhex(text.replace(":", ""))


def _one_of(names: Mapping[str, _Value]) -> _Reader[_Value]:
    def read(path: str, value: object) -> _Value:
        name = _text(path, value)
        if name not in names:
            raise ConfigError(path, f"{name!r} is not known")
        return names[name]

    return read


def _list_of(item: _Reader[_Value]) -> _Reader[list[_Value]]:
    def read(path: str, value: object) -> list[_Value]:
        if not isinstance(value, list):
            raise ConfigError(path, "must be a list")
        return [item(f"{path}[{index}]", entry) for index, entry in enumerate(value)]

    return read


def _set_of(item: _Reader[_Value]) -> _Reader[frozenset[_Value]]:
    return lambda path, value: frozenset(_list_of(item)(path, value))


def _optional(item: _Reader[_Value]) -> _Reader[_Value | None]:
    return lambda path, value: None if value is None else item(path, value)


def _flags(kind: type[_Flag]) -> _Reader[_Flag]:
    read = _list_of(_one_of(kind.__members__))
    return lambda path, value: functools.reduce(operator.or_, read(path, value), kind(0))


def _names(flags: IntFlag) -> list[str]:
    return [str(flag.name) for flag in flags]


_feature = _one_of({format_features([feature])[0]: feature for feature in Feature})
_rx_mode = _one_of(RxMode.__members__)
