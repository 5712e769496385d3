# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A tap of another process: what it is, and what of ours is on it."""

import os
from contextlib import suppress

from vnethash.engines.pin_folder import LINK, PinFolder, Record
from vnethash.errors import BpfError, DeviceError
from vnethash.kernel import link, tc, tun_ioctl
from vnethash.kernel.borrow import borrow_queue
from vnethash.kernel.bpf import Link
from vnethash.kernel.egress import CLSACT
from vnethash.kernel.link_info import LinkInfo, TunInfo, link_info
from vnethash.kernel.netns_cookie import netns_cookie
from vnethash.kernel.tun_ioctl import TunFlag

_RECORD_HEADER = 12
"""VNET_HDR_LEN: the header that the hash record completes (native/vnethash.h)."""
_UDP_GSO = "tx-udp-segmentation"


def steerable(name: str) -> tuple[LinkInfo, TunInfo]:
    """A multi-queue tap of that name and what its driver says of it.

    Raises ConfigError, and DeviceError for anything else.
    """
    tun_ioctl.check_name(name)
    device = link_info(name)
    if device.tun is None:
        kind = f", it is of kind {device.kind}" if device.kind else ""
        raise DeviceError(f"{name} is no tap{kind}", hint="ip -d link show type tun lists the taps")
    if not device.tun.multi_queue:
        raise DeviceError(
            f"{name} has a single queue: there is nothing to steer",
            hint=f"make it anew with several (ip tuntap add dev {name} mode tap multi_queue "
            "vnet_hdr), and have its owner open each with IFF_MULTI_QUEUE",
        )
    if device.tun.queues == 1:
        raise DeviceError(
            f"{name} has a single queue open: there is nothing to steer",
            hint="have its owner open more queues, each with IFF_MULTI_QUEUE, then attach",
        )
    return device, device.tun


def device_of(record: Record) -> LinkInfo | None:
    """The link that was attached; None if it is gone from this network namespace."""
    if record.cookie != netns_cookie():
        return None
    try:
        device = link_info(record.ifindex)
    except DeviceError:
        return None
    return device if device.tun is not None else None


def is_hooked(folder: PinFolder, record: Record) -> bool:
    """Whether the hash stage is still on the device's egress hook."""
    if record.point == CLSACT:
        return tc.program_id(record.filter) in record.program_ids
    try:
        hook = Link.from_pin(folder / LINK)
    except BpfError:
        if (folder / LINK).exists():
            raise
        return False  # detached, perhaps this moment
    with hook:
        return hook.info().ifindex == record.ifindex


def take_off(folder: PinFolder, record: Record) -> None:
    """Take the hash stage off, wherever its device is; not what others put in its place."""
    if (folder / LINK).exists():
        with Link.from_pin(folder / LINK) as hook:
            hook.detach()
    elif record.point == CLSACT and device_of(record) is not None:
        with suppress(DeviceError):  # gone this moment, and the filter with it
            if tc.program_id(record.filter) in (None, *record.program_ids):
                tc.detach(record.filter)


def check_header(queue: int, device: LinkInfo) -> None:
    """Raise DeviceError unless the hash record completes the owner's header."""
    has_header = device.tun is not None and device.tun.vnet_header
    size = tun_ioctl.read_vnet_header_size(queue) if has_header else 0
    if size != _RECORD_HEADER:
        raise DeviceError(
            f"reporting record needs a virtio-net header of {_RECORD_HEADER} bytes in front of "
            f"each frame, but the owner of {device.name} reads "
            + (f"one of {size} bytes" if size else "none"),
            hint="have the owner set it (IFF_VNET_HDR, TUNSETVNETHDRSZ), "
            "or report otherwise: --reporting rehash or off",
        )


def takes_udp_gso(name: str) -> bool:
    """Whether the device takes UDP GSO packets whole (TUN_F_USO4)."""
    return link.features(name).get(_UDP_GSO, False)


def any_queue(device: LinkInfo) -> int:
    """A descriptor of a queue: the owner's, or a new one where the tap waits for an owner."""
    tun = device.tun
    if tun is None or tun.queues or tun.disabled_queues:
        return borrow_queue(device.name)
    flags = (TunFlag.TUN if tun.l3 else TunFlag.TAP) | TunFlag.NO_PI
    if tun.multi_queue:
        flags |= TunFlag.MULTI_QUEUE
    if tun.vnet_header:
        flags |= TunFlag.VNET_HDR
    fd = tun_ioctl.open_queue(nonblocking=True)
    try:
        tun_ioctl.set_interface(fd, device.name, flags)
    except OSError as error:
        os.close(fd)
        raise DeviceError(
            f"open a queue of {device.name}: {os.strerror(error.errno or 0).lower()}"
        ) from error
    return fd
