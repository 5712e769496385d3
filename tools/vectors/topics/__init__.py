# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The cases, a module for what belongs together."""
