# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""How the hash of a packet reaches the reader."""

from enum import StrEnum


class Reporting(StrEnum):
    """``record``: with the packet; ``rehash``: the reader hashes; ``off``: not at all."""

    OFF = "off"
    REHASH = "rehash"
    RECORD = "record"

    @property
    def code(self) -> int:
        """enum vnet_reporting, native/vnethash.h."""
        return list(Reporting).index(self)
