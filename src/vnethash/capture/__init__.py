# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Capture files: pcap and pcapng.

`reader` takes them record by record and says what is wrong with them, `walk`
finds their frames by the million, `writer` makes them.
"""

from vnethash.capture.format import (
    LINKTYPE_ETHERNET,
    MAX_FRAME,
    CaptureState,
    Frame,
    Interface,
    link_type_name,
)
from vnethash.capture.reader import Capture, Readable, open_capture, require_ethernet
from vnethash.capture.writer import pcapng_blocks, write_pcap

__all__ = [
    "LINKTYPE_ETHERNET",
    "MAX_FRAME",
    "Capture",
    "CaptureState",
    "Frame",
    "Interface",
    "Readable",
    "link_type_name",
    "open_capture",
    "pcapng_blocks",
    "require_ethernet",
    "write_pcap",
]
