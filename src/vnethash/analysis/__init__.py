# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Where the flows of captures and flow tables land, and what would be better. Needs no rights."""

from vnethash.analysis.census import Census, merge
from vnethash.analysis.flows import FLOW_DTYPE
from vnethash.analysis.local import analyze, analyze_table
from vnethash.analysis.planning import Aim, Judgement, TrafficPlan, judge, plan_analysis, plan_for
from vnethash.analysis.result import Analysis, Load, Reason, Source, Windows

__all__ = [
    "FLOW_DTYPE",
    "Aim",
    "Analysis",
    "Census",
    "Judgement",
    "Load",
    "Reason",
    "Source",
    "TrafficPlan",
    "Windows",
    "analyze",
    "analyze_table",
    "judge",
    "merge",
    "plan_analysis",
    "plan_for",
]
