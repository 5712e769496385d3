# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Packet sockets: sending frames as they are (packet(7))."""

import errno
import os
import socket
import struct

from vnethash.errors import DeviceError, NotPermitted, VnethashError
from vnethash.kernel.link import link_info

ETH_HLEN = 14
VLAN_HLEN = 4
_ETH_P_8021Q = b"\x81\x00"
_SEND_TIMEOUT = struct.pack("@ll", 1, 0)  # struct timeval


def frame_limit(frame: bytes, mtu: int) -> int:
    """Longest frame like ``frame`` that a link of that MTU sends, in bytes.

    One 802.1Q tag goes on top (net/packet/af_packet.c, packet_extra_vlan_len_allowed()).
    """
    return mtu + ETH_HLEN + (VLAN_HLEN if frame[12:14] == _ETH_P_8021Q else 0)


class PacketSocket:
    """Sends frames out of one link, through its queueing discipline and its hooks."""

    def __init__(self, link: str) -> None:
        """Raises DeviceError if there is no such link, NotPermitted without CAP_NET_RAW."""
        self.mtu = link_info(link).mtu
        try:
            # Protocol 0: it receives nothing.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError as error:
            raise NotPermitted("open a packet socket", "CAP_NET_RAW") from error
        try:
            self._socket.bind((link, 0))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)
        except BaseException:
            self._socket.close()
            raise

    def send(self, frame: bytes) -> None:
        """Send a frame, waiting for a second at most. DeviceError says why it did not go."""
        if len(frame) < ETH_HLEN:
            raise DeviceError(f"{len(frame)} bytes are less than an Ethernet header ({ETH_HLEN})")
        limit = frame_limit(frame, self.mtu)
        if len(frame) > limit:
            raise DeviceError(f"{len(frame)} bytes are more than the link takes ({limit})")
        try:
            self._socket.send(frame)
        except OSError as error:
            raise _refused(error) from error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _refused(error: OSError) -> VnethashError:
    if error.errno == errno.ENOBUFS:  # what a queueing discipline or a hook that drops comes to
        return DeviceError("the link dropped it")
    if error.errno == errno.EAGAIN:
        return DeviceError("the link has no room for it")
    return DeviceError(os.strerror(error.errno or 0).lower())
