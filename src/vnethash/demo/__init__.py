# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The demonstration: real traffic through a steered tap, every packet checked."""
