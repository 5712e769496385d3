# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""RSS steering and hash reporting for Linux tap devices, in eBPF on a stock kernel."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vnethash.errors import VnethashError
    from vnethash.kernel.tun import Offload
    from vnethash.native import get_include
    from vnethash.packet import Batch, Packet
    from vnethash.reporting import Reporting
    from vnethash.rss.classified import Classified
    from vnethash.rss.config import RssConfig
    from vnethash.rss.native import Hasher
    from vnethash.stats import Stats
    from vnethash.tap import Queue, Tap
    from vnethash.virtio.hash_types import HashType, ReportType, TunnelType
    from vnethash.virtio.header import Header

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Classified",
    "HashType",
    "Hasher",
    "Header",
    "Offload",
    "Packet",
    "Queue",
    "ReportType",
    "Reporting",
    "RssConfig",
    "Stats",
    "Tap",
    "TunnelType",
    "VnethashError",
    "get_include",
]

# Where each name lives; imported when first asked for, so that a command that
# only hashes does not load numpy, and one that only reads no libbpf.
_HOMES = {
    "vnethash.errors": ["VnethashError"],
    "vnethash.kernel.tun": ["Offload"],
    "vnethash.native": ["get_include"],
    "vnethash.packet": ["Batch", "Packet"],
    "vnethash.reporting": ["Reporting"],
    "vnethash.rss.classified": ["Classified"],
    "vnethash.rss.config": ["RssConfig"],
    "vnethash.rss.native": ["Hasher"],
    "vnethash.stats": ["Stats"],
    "vnethash.tap": ["Queue", "Tap"],
    "vnethash.virtio.hash_types": ["HashType", "ReportType", "TunnelType"],
    "vnethash.virtio.header": ["Header"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vnethash' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
