# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The command line: one module per command, `main` has the program."""
