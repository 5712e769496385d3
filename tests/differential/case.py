# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A frame and the configuration it meets."""

from dataclasses import dataclass, replace
from typing import Self

from vnethash.rss.config import RssConfig


@dataclass(frozen=True, slots=True)
class Case:
    """What all implementations are asked about."""

    config: RssConfig
    frame: bytes
    l3: bool = False
    """The frame has no Ethernet header (IFF_TUN)."""

    def with_frame(self, frame: bytes) -> Self:
        return replace(self, frame=frame)

    def with_config(self, config: RssConfig) -> Self:
        return replace(self, config=config)
