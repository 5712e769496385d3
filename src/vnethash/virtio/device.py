# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A network device as its driver sees it: what is offered, negotiated and commanded.

virtio 1.3, 5.1. No I/O: whoever serves the device asks what a command would
make of it, applies that, and commits it. Until then nothing has changed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vnethash.errors import CommandError, ConfigError, FeatureError
from vnethash.virtio import control
from vnethash.virtio.config_space import (
    DUPLEX_FULL,
    DUPLEX_HALF,
    DUPLEX_UNKNOWN,
    SPEED_UNKNOWN,
    ConfigSpace,
    LinkStatus,
)
from vnethash.virtio.control import (
    AnnounceAck,
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
    VlanDel,
    VqPairsSet,
    format_mac,
)
from vnethash.virtio.features import (
    OFFER_REQUIRES,
    Feature,
    feature_bits,
    feature_set,
    format_features,
    format_unmet,
    unmet,
)
from vnethash.virtio.hash_types import HashType, TunnelType
from vnethash.virtio.header import HASH_SIZE, V1_SIZE
from vnethash.virtio.receive_filter import ReceiveFilter, is_group

KEY_SIZE = 40
"""``rss_max_key_size``, in bytes: what the longest input, 36 bytes, needs (5.1.4.1)."""

QUEUE_PAIRS_MAX = 0x8000
"""VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX (5.1.6.5.6)."""

INDIRECTION_MIN = 128
"""Entries of an indirection table that every device takes (5.1.4.1)."""

INDIRECTION_MAX = 0x8000
"""The longest table whose length is a power of two and a le16 (5.1.4)."""

MTU_MIN, MTU_MAX = 68, 65535
"""Bytes behind the Ethernet header (5.1.4.1)."""

VLAN_MAX = 4094
"""4095 is no VLAN (IEEE 802.1Q)."""

OFFLOADS = frozenset(
    {
        Feature.GUEST_CSUM,
        Feature.GUEST_TSO4,
        Feature.GUEST_TSO6,
        Feature.GUEST_ECN,
        Feature.GUEST_UFO,
        Feature.GUEST_USO4,
        Feature.GUEST_USO6,
    }
)
"""Features the driver may switch off and on again with GUEST_OFFLOADS_SET (5.1.6.5.8)."""

MODELLED = OFFLOADS | {
    Feature.CSUM,
    Feature.CTRL_GUEST_OFFLOADS,
    Feature.MTU,
    Feature.MAC,
    Feature.HOST_TSO4,
    Feature.HOST_TSO6,
    Feature.HOST_ECN,
    Feature.HOST_UFO,
    Feature.MRG_RXBUF,
    Feature.STATUS,
    Feature.CTRL_VQ,
    Feature.CTRL_RX,
    Feature.CTRL_VLAN,
    Feature.CTRL_RX_EXTRA,
    Feature.GUEST_ANNOUNCE,
    Feature.MQ,
    Feature.CTRL_MAC_ADDR,
    Feature.HASH_TUNNEL,
    Feature.HOST_USO,
    Feature.HASH_REPORT,
    Feature.GUEST_HDRLEN,
    Feature.RSS,
    Feature.SPEED_DUPLEX,
    Feature.INDIRECT_DESC,
    Feature.EVENT_IDX,
    Feature.VERSION_1,
}
"""Features that this model knows the rules of; no other may be offered."""

_MULTIQUEUE = frozenset({Feature.MQ, Feature.RSS})

_LINK_LOCAL = b"\x01\x80\xc2\x00\x00"
"""Group addresses of IEEE 802.1Q bridges, the last byte below 16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a device offers. Checked when it is made: ConfigError names the field and the rule."""

    features: frozenset[Feature]
    queue_pairs: int
    """``max_virtqueue_pairs``, 1 to 32768."""
    mac: bytes
    mtu: int | None = None
    """Bytes behind the Ethernet header; to be there with MTU and only then."""
    hash_types: HashType = HashType.ALL
    max_indirection: int = INDIRECTION_MIN
    """``rss_max_indirection_table_length``. Linux 6.1 breaks if it is more than 128."""
    tunnel_types: TunnelType = TunnelType.ALL
    speed: int = SPEED_UNKNOWN
    """Mbit/s"""
    duplex: int = DUPLEX_UNKNOWN

    def __post_init__(self) -> None:
        strange = frozenset(self.features) - MODELLED
        if strange:
            raise ConfigError(
                "features", f"{', '.join(format_features(strange))}: not known to this device"
            )
        if Feature.VERSION_1 not in self.features:
            raise ConfigError("features", "version-1 must be offered (virtio 1.3, 6.2)")
        missing = unmet(self.features, OFFER_REQUIRES)
        if missing:
            raise ConfigError("features", format_unmet(missing))
        _within("queue_pairs", self.queue_pairs, 1, QUEUE_PAIRS_MAX)
        if not _is_individual(self.mac):
            raise ConfigError("mac", f"{format_mac(self.mac) or 'nothing'} is not a station's")
        if (Feature.MTU in self.features) != (self.mtu is not None):
            raise ConfigError("mtu", "is needed with the feature mtu, and only then")
        if self.mtu is not None:
            _within("mtu", self.mtu, MTU_MIN, MTU_MAX)
        _within("hash_types", self.hash_types, 0, HashType.ALL)
        _within("max_indirection", self.max_indirection, INDIRECTION_MIN, INDIRECTION_MAX)
        _within("tunnel_types", self.tunnel_types, 0, TunnelType.ALL)
        if self.speed != SPEED_UNKNOWN:
            _within("speed", self.speed, 0, 0x7FFFFFFF)
        if self.duplex not in (DUPLEX_HALF, DUPLEX_FULL, DUPLEX_UNKNOWN):
            raise ConfigError("duplex", f"must be 0, 1 or 255, not {self.duplex}")

    @property
    def virtqueues(self) -> int:
        """All there can be: a receive and a transmit queue a pair, the control queue."""
        return 2 * self.queue_pairs + (Feature.CTRL_VQ in self.features)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """Receive-side scaling as the driver set it (5.1.6.5.7); queues count from 0."""

    indirection_table: tuple[int, ...]
    """2^n entries."""
    unclassified_queue: int
    max_tx_vq: int
    """Transmit queues the driver may use. Linux 6.1 says 1 and uses more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """What the driver made of the device. Immutable: each command makes another."""

    features: frozenset[Feature] = frozenset()
    """Negotiated."""
    steering: Steering | None = None
    """None: automatic receive steering (5.1.6.5.6)."""
    queue_pairs: int = 1
    """In use under automatic steering."""
    hash_types: HashType = HashType.NONE
    """Enabled, by RSS_CONFIG if RSS was negotiated, otherwise by HASH_CONFIG (5.1.6.4.3)."""
    hash_key: bytes = bytes(KEY_SIZE)
    """40 bytes: a shorter key of the driver's has zeros behind it."""
    tunnel_types: TunnelType = TunnelType.NONE
    """Enabled for the inner header hash (5.1.6.4.4)."""
    offloads: frozenset[Feature] = frozenset()
    """Guest offloads in force, a part of OFFLOADS."""
    mac: bytes | None = None
    """Address of the driver; None if it took none from the device and told none."""
    rx_modes: frozenset[RxMode] = frozenset()
    """Those that are on."""
    unicast: frozenset[bytes] = frozenset()
    multicast: frozenset[bytes] = frozenset()
    vlans: frozenset[int] = frozenset()
    link_up: bool = True
    announce: bool = False
    """The driver shall announce itself, and has not acknowledged yet (5.1.6.5.4)."""

    @classmethod
    def initial(cls, offer: Offer, features: Iterable[Feature] = ()) -> "DeviceState":
        """After reset and the negotiation of ``features``: receiveq1 only, no hash, no filter."""
        negotiated = frozenset(features)
        return cls(
            features=negotiated,
            offloads=negotiated & OFFLOADS,
            mac=offer.mac if Feature.MAC in negotiated else None,
        )

    @property
    def reports(self) -> bool:
        """Whether the header has a hash (5.1.6.4.5)."""
        return Feature.HASH_REPORT in self.features

    @property
    def header_size(self) -> int:
        """Bytes in front of each frame (5.1.6)."""
        return HASH_SIZE if self.reports else V1_SIZE

    @property
    def receive_queues(self) -> frozenset[int]:
        """Queues that frames may go to."""
        if self.steering is None:
            return frozenset(range(self.queue_pairs))
        return frozenset(self.steering.indirection_table) | {self.steering.unclassified_queue}

    @property
    def receive_filter(self) -> ReceiveFilter:
        """Everything where the driver did not negotiate the means to say otherwise."""
        filters = {Feature.CTRL_VQ, Feature.CTRL_RX} <= self.features
        return ReceiveFilter(
            promiscuous=RxMode.PROMISC in self.rx_modes,
            allmulti=RxMode.ALLMULTI in self.rx_modes or not filters,
            alluni=RxMode.ALLUNI in self.rx_modes or not filters,
            nomulti=RxMode.NOMULTI in self.rx_modes,
            nouni=RxMode.NOUNI in self.rx_modes,
            nobcast=RxMode.NOBCAST in self.rx_modes,
            mac=self.mac,
            unicast=self.unicast,
            multicast=self.multicast,
            vlans=self.vlans if {Feature.CTRL_VQ, Feature.CTRL_VLAN} <= self.features else None,
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """What a command would do: either ``state`` is what it leads to, or ``refusal`` says why not.

    ``command`` is None if the bytes are no command.
    """

    command: Command | None
    state: DeviceState | None
    refusal: str | None


class NetDevice:
    """A device and its state. One driver at a time; not for several threads at once."""

    def __init__(self, offer: Offer, state: DeviceState | None = None) -> None:
        self.offer = offer
        self.state = DeviceState.initial(offer) if state is None else state

    def negotiated(self, bits: int, *, control_elsewhere: bool = False) -> DeviceState:
        """The state that accepting these feature bits leads to; all else is as after ``reset``.

        ``control_elsewhere``: a missing CTRL_VQ is no fault, because the front end
        keeps the control queue and that feature to itself. QEMU does
        (hw/net/vhost_net.c, ``user_feature_bits``). FeatureError for bits that
        were not offered, for features without those they need (5.1.3.1), and
        without VERSION_1.
        """
        strange = bits & ~feature_bits(self.offer.features)
        if strange:
            raise FeatureError(
                f"accepted, but not offered: {', '.join(control.bits_json(strange))}"
            )
        features = feature_set(bits)
        if Feature.VERSION_1 not in features:
            raise FeatureError(
                "version-1 was not accepted", hint="this is no device for legacy drivers"
            )
        missing = unmet(features | {Feature.CTRL_VQ} if control_elsewhere else features)
        if missing:
            raise FeatureError(f"accepted without what they need: {format_unmet(missing)}")
        return replace(DeviceState.initial(self.offer, features), link_up=self.state.link_up)

    @property
    def control_queue(self) -> int | None:
        """Index of the control virtqueue, None if it was not negotiated (5.1.2)."""
        if Feature.CTRL_VQ not in self.state.features:
            return None
        return 2 * (self.offer.queue_pairs if _MULTIQUEUE & self.state.features else 1)

    def config_space(self) -> bytes:
        """All fields that exist for the features offered (5.1.4)."""
        offer = self.offer
        has = offer.features.__contains__
        hashes = has(Feature.RSS) or has(Feature.HASH_REPORT)
        status = LinkStatus.LINK_UP if self.state.link_up else LinkStatus(0)
        if self.state.announce:
            status |= LinkStatus.ANNOUNCE
        # 5.1.6.5.2: an address set by the driver is shown if MAC was negotiated.
        own = self.state.mac if Feature.MAC in self.state.features else None
        return ConfigSpace(
            mac=own or offer.mac,
            status=status if has(Feature.STATUS) else None,
            max_virtqueue_pairs=offer.queue_pairs if _MULTIQUEUE & offer.features else None,
            mtu=offer.mtu,
            speed=offer.speed if has(Feature.SPEED_DUPLEX) else None,
            duplex=offer.duplex if has(Feature.SPEED_DUPLEX) else None,
            rss_max_key_size=KEY_SIZE if hashes else None,
            rss_max_indirection_table_length=offer.max_indirection if has(Feature.RSS) else None,
            supported_hash_types=offer.hash_types if hashes else None,
            supported_tunnel_types=offer.tunnel_types if has(Feature.HASH_TUNNEL) else None,
        ).encode()

    def judge(self, command: bytes) -> Judged:
        """What a command would do. Never raises for bytes, whatever they are; changes nothing."""
        parsed: Command | None = None
        try:
            parsed = control.parse(command)
            return Judged(parsed, self._after(parsed), None)
        except CommandError as error:
            return Judged(parsed, None, error.message)

    def commit(self, state: DeviceState) -> None:
        """``state``, made by ``negotiated``, ``judge`` or ``announced``, is in force."""
        self.state = state

    def reset(self) -> None:
        """Nothing is negotiated. The link stays as it is."""
        self.state = replace(DeviceState.initial(self.offer), link_up=self.state.link_up)

    def announced(self) -> DeviceState | None:
        """The state that asks the driver to announce itself; None if it could not be told.

        Whoever commits it also notifies the driver of the change of configuration.
        """
        if {Feature.GUEST_ANNOUNCE, Feature.STATUS} <= self.state.features:
            return replace(self.state, announce=True)
        return None

    def _after(self, command: Command) -> DeviceState:
        """The state behind ``command``; CommandError if it may not be sent or cannot be done."""
        try:
            self._need(Feature.CTRL_VQ)
            return self._change(command)
        except CommandError as error:
            raise CommandError(f"{command.name} {error}") from None

    def _change(self, command: Command) -> DeviceState:
        state = self.state
        match command:
            case RxModeSet(mode=mode, on=on):
                self._need(_RX_FEATURE[mode])
                modes = state.rx_modes | {mode} if on else state.rx_modes - {mode}
                return replace(state, rx_modes=modes)
            case MacTableSet():
                self._need(Feature.CTRL_RX)
                unicast, multicast = _mac_tables(command)
                return replace(state, unicast=unicast, multicast=multicast)
            case MacAddrSet(mac=mac):
                # Its own feature (5.1.3) and the section's (5.1.6.5.2) both allow it.
                self._need(Feature.CTRL_MAC_ADDR, Feature.CTRL_RX)
                if not _is_individual(mac):
                    raise CommandError(f"{format_mac(mac)} is not a station's address")
                return replace(state, mac=mac)
            case VlanAdd(vlan=vlan):
                self._need(Feature.CTRL_VLAN)
                return replace(state, vlans=state.vlans | {_vlan(vlan)})
            case VlanDel(vlan=vlan):
                self._need(Feature.CTRL_VLAN)
                return replace(state, vlans=state.vlans - {_vlan(vlan)})
            case AnnounceAck():
                self._need(Feature.GUEST_ANNOUNCE)
                return replace(state, announce=False)
            case VqPairsSet(pairs=pairs):
                self._need(Feature.MQ)
                if not 1 <= pairs <= self.offer.queue_pairs:
                    raise CommandError(f"asks for {pairs} pairs, of {self.offer.queue_pairs}")
                return replace(state, steering=None, queue_pairs=pairs)
            case RssConfigSet():
                self._need(Feature.RSS)
                types, key = self._hashing(command.hash_types, command.hash_key)
                steering = self._steering(command)
                return replace(state, steering=steering, hash_types=types, hash_key=key)
            case HashConfigSet():
                self._need(Feature.HASH_REPORT)
                # 5.1.6.4.3: with RSS negotiated, what it says would be for nothing.
                if Feature.RSS in state.features:
                    raise CommandError("sets nothing: rss was negotiated, so MQ_RSS_CONFIG does")
                types, key = self._hashing(command.hash_types, command.hash_key)
                return replace(state, hash_types=types, hash_key=key)
            case GuestOffloadsSet(offloads=bits):
                self._need(Feature.CTRL_GUEST_OFFLOADS)
                return replace(state, offloads=_offloads(bits, state.features))
            case HashTunnelSet(tunnel_types=types):  # pragma: no branch: there is no other command
                self._need(Feature.HASH_TUNNEL)
                strange = types & ~int(self.offer.tunnel_types)
                if strange:
                    names = ", ".join(control.tunnels_json(strange))
                    raise CommandError(f"has tunnel types that are not supported: {names}")
                return replace(state, tunnel_types=TunnelType(types))

    def _need(self, *features: Feature) -> None:
        """One of these was negotiated, or CommandError."""
        if not self.state.features & frozenset(features):
            names = " or ".join(format_features(features))
            raise CommandError(f"needs {names}, which was not negotiated")

    def _hashing(self, types: int, key: bytes) -> tuple[HashType, bytes]:
        strange = types & ~int(self.offer.hash_types)  # ~ of a flag has its members only
        if strange:
            names = ", ".join(control.types_json(strange))
            raise CommandError(f"has hash types that are not supported: {names}")
        if len(key) > KEY_SIZE:
            raise CommandError(f"has a key of {len(key)} bytes, more than {KEY_SIZE}")
        if types and not key:
            raise CommandError("has hash types, but no key")
        # The specification has no least length. Bits that a Toeplitz key does not have add
        # nothing to the hash, as zeros do.
        return HashType(types), key.ljust(KEY_SIZE, b"\0")

    def _steering(self, command: RssConfigSet) -> Steering:
        pairs, table = self.offer.queue_pairs, command.indirection_table
        if len(table) > self.offer.max_indirection:
            raise CommandError(f"has {len(table)} entries, more than {self.offer.max_indirection}")
        if max(table) >= pairs:
            raise CommandError(f"sends to queue {max(table)}, but the last is {pairs - 1}")
        if command.unclassified_queue >= pairs:
            raise CommandError(
                f"has unclassified_queue {command.unclassified_queue}, but the last is {pairs - 1}"
            )
        if not 1 <= command.max_tx_vq <= pairs:
            raise CommandError(f"has max_tx_vq {command.max_tx_vq}, not 1 to {pairs}")
        return Steering(
            indirection_table=table,
            unclassified_queue=command.unclassified_queue,
            max_tx_vq=command.max_tx_vq,
        )


_RX_FEATURE = {
    RxMode.PROMISC: Feature.CTRL_RX,
    RxMode.ALLMULTI: Feature.CTRL_RX,
    RxMode.ALLUNI: Feature.CTRL_RX_EXTRA,
    RxMode.NOMULTI: Feature.CTRL_RX_EXTRA,
    RxMode.NOUNI: Feature.CTRL_RX_EXTRA,
    RxMode.NOBCAST: Feature.CTRL_RX_EXTRA,
}
"""5.1.6.5.1"""


def _mac_tables(command: MacTableSet) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """Unicast and multicast addresses, or CommandError for one in the wrong table."""
    # Linux keeps link-local groups among its unicast addresses (net/core/rtnetlink.c,
    # ndo_dflt_fdb_add), and sends them there.
    groups = [mac for mac in command.unicast if is_group(mac)]
    misplaced = [mac for mac in groups if not _is_link_local(mac)]
    misplaced += [mac for mac in command.multicast if not is_group(mac)]
    if misplaced:
        raise CommandError(f"has {format_mac(misplaced[0])} in the wrong table")
    return frozenset(command.unicast).difference(groups), frozenset(command.multicast).union(groups)


def _is_link_local(mac: bytes) -> bool:
    return mac.startswith(_LINK_LOCAL) and mac[5] < 16


def _is_individual(mac: bytes) -> bool:
    return len(mac) == control.MAC_LENGTH and any(mac) and not is_group(mac)


def _vlan(vlan: int) -> int:
    if vlan > VLAN_MAX:
        raise CommandError(f"has the VLAN id {vlan}, not 0 to {VLAN_MAX}")
    return vlan


def _offloads(bits: int, negotiated: frozenset[Feature]) -> frozenset[Feature]:
    """Offloads that could have been negotiated together, or CommandError (5.1.6.5.8)."""
    strange = bits & ~feature_bits(OFFLOADS & negotiated)
    if strange:
        names = ", ".join(control.bits_json(strange))
        raise CommandError(f"has offloads that were not negotiated: {names}")
    offloads = feature_set(bits)
    missing = unmet(offloads)
    if missing:
        raise CommandError(f"has offloads without what they need: {format_unmet(missing)}")
    return offloads


def _within(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ConfigError(field, f"must be from {least} to {most}, not {value}")
