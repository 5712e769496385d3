# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Hash programs of the user's own: compiled against native/vnet_hash.h, checked before use."""

from vnethash.programs.check import ENGINES, defines_for, open_program
from vnethash.programs.compiler import Compiled, compile_program

__all__ = ["ENGINES", "Compiled", "compile_program", "defines_for", "open_program"]
