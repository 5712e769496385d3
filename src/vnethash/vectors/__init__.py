# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Frames with the hash, report type and queue they must get, for any implementation."""

from vnethash.vectors.files import load
from vnethash.vectors.model import Demand, LinkType, Vector, VectorFile

__all__ = ["Demand", "LinkType", "Vector", "VectorFile", "load"]
