# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Replaying captured frames: through a real tap, or through the library."""
