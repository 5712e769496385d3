# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Flow tables, which others exported: CSV, TSV, JSON lines, Parquet, Arrow in memory.

Read in batches, so that memory does not grow with the table.
"""

from vnethash.analysis.tables.cells import UNTIMED
from vnethash.analysis.tables.columns import Given, Role, parse_columns
from vnethash.analysis.tables.files import is_flow_table, open_flow_table, read_arrow
from vnethash.analysis.tables.rows import FlowBatch, Rejected, merge_rejected, rejected_text

__all__ = [
    "UNTIMED",
    "FlowBatch",
    "Given",
    "Rejected",
    "Role",
    "is_flow_table",
    "merge_rejected",
    "open_flow_table",
    "parse_columns",
    "read_arrow",
    "rejected_text",
]
