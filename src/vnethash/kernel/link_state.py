# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Up and down of a link, by the ioctls of netdevice(7): attaching has no time for more."""

import errno
import fcntl
import os
import socket
import struct

from vnethash.errors import DeviceError, NotPermitted, VnethashError

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_IFREQ = struct.Struct("16sh22x")


def set_up(name: str, up: bool = True) -> None:
    """Bring a link up or down. Raises DeviceError, NotPermitted."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            answer = fcntl.ioctl(asked, _SIOCGIFFLAGS, _IFREQ.pack(name.encode(), 0))
            _, flags = _IFREQ.unpack(answer)
            wanted = flags | _IFF_UP if up else flags & ~_IFF_UP
            if wanted != flags:
                fcntl.ioctl(asked, _SIOCSIFFLAGS, _IFREQ.pack(name.encode(), wanted))
        except OSError as error:
            raise _refused(name, up, error) from error


def _refused(name: str, up: bool, error: OSError) -> VnethashError:
    action = f"set {name} {'up' if up else 'down'}"
    if error.errno == errno.EPERM:
        return NotPermitted(action, "CAP_NET_ADMIN")
    return DeviceError(f"{action}: {os.strerror(error.errno or 0).lower()}")
