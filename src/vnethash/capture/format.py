# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Numbers of pcap and pcapng files, and a frame of them.

draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng, and the registry of link types.
"""

from dataclasses import dataclass
from typing import Final

LINKTYPE_ETHERNET: Final = 1
MAX_FRAME: Final = 262144
"""Longest frame accepted, in bytes: what libpcap and Wireshark take too."""

LINKTYPE_NAMES: Final = {
    0: "NULL",
    1: "ETHERNET",
    9: "PPP",
    12: "RAW",
    101: "RAW",
    105: "IEEE802_11",
    108: "LOOP",
    113: "LINUX_SLL",
    127: "IEEE802_11_RADIOTAP",
    189: "USB_LINUX",
    201: "BLUETOOTH_HCI_H4_WITH_PHDR",
    220: "USB_LINUX_MMAPPED",
    228: "IPV4",
    229: "IPV6",
    276: "LINUX_SLL2",
}

# First four bytes of a pcap file: byte order, ticks of 10^-n seconds.
PCAP_MAGIC: Final = {
    b"\xd4\xc3\xb2\xa1": ("<", 6),
    b"\xa1\xb2\xc3\xd4": (">", 6),
    b"\x4d\x3c\xb2\xa1": ("<", 9),
    b"\xa1\xb2\x3c\x4d": (">", 9),
}
PCAPNG_MAGIC: Final = b"\x0a\x0d\x0d\x0a"
COMPRESSED: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd", b"\xfd\x37": "xz", b"BZ": "bzip2"}

IDB: Final = 0x00000001
PB: Final = 0x00000002
SPB: Final = 0x00000003
EPB: Final = 0x00000006
SHB: Final = 0x0A0D0D0A

OPT_END: Final = 0
OPT_COMMENT: Final = 1
OPT_IF_TSRESOL: Final = 9
OPT_IF_TSOFFSET: Final = 14


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured frame.

    ``index`` counts from 0. ``data`` is what was captured of the
    ``original_length`` bytes on the wire. ``timestamp_ns`` counts from the
    Unix epoch; it is None where the file has none (simple packet block).
    ``link_type`` is a LINKTYPE_ number, 1 for Ethernet.
    """

    index: int
    data: bytes
    original_length: int
    timestamp_ns: int | None
    link_type: int


@dataclass(frozen=True, slots=True)
class Interface:
    """What a capture says of frames of one interface; a pcap file has one.

    ``tsresol`` is as in pcapng: ticks of 10^-n seconds, or of 2^-n with the
    highest bit set. ``tsoffset`` is in seconds.
    """

    link_type: int
    snaplen: int
    tsresol: int
    tsoffset: int = 0

    def nanoseconds(self, ticks: int) -> int:
        """A time in ticks as nanoseconds since the Unix epoch."""
        exponent = self.tsresol & 0x7F
        if self.tsresol & 0x80:
            nanoseconds = ticks * 1_000_000_000 >> exponent
        else:
            nanoseconds = ticks * 1_000_000_000 // 10**exponent
        return nanoseconds + self.tsoffset * 1_000_000_000


@dataclass(frozen=True, slots=True)
class CaptureState:
    """What has to be known to read on in the middle of a capture.

    ``order`` is that of struct, "<" or ">".
    """

    is_pcapng: bool
    order: str
    interfaces: tuple[Interface, ...]


def link_type_name(link_type: int) -> str:
    """Name of a LINKTYPE_ number, or ``unknown``."""
    return LINKTYPE_NAMES.get(link_type, "unknown")
