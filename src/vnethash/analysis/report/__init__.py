# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""An analysis as a page to be read and shared, and as pictures."""

from vnethash.analysis.report.page import html
from vnethash.analysis.report.pictures import draw

__all__ = ["draw", "html"]
