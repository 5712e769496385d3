# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""RSS: configuration, keys, tables, and the reference implementation of the hash."""

from vnethash.rss.classified import Classified
from vnethash.rss.config import RssConfig
from vnethash.rss.keys import MICROSOFT_KEY, SYMMETRIC_KEY, format_key, parse_key, random_key

__all__ = [
    "MICROSOFT_KEY",
    "SYMMETRIC_KEY",
    "Classified",
    "RssConfig",
    "format_key",
    "parse_key",
    "random_key",
]
