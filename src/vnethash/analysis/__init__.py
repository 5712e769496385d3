# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Where the flows of captures and flow tables land, and what would be better. Needs no rights."""

from vnethash.analysis.census import Census, merge
from vnethash.analysis.flows import FLOW_DTYPE
from vnethash.analysis.local import analyze
from vnethash.analysis.result import Analysis, Load, Reason, Source, Windows

__all__ = [
    "FLOW_DTYPE",
    "Analysis",
    "Census",
    "Load",
    "Reason",
    "Source",
    "Windows",
    "analyze",
    "merge",
]
