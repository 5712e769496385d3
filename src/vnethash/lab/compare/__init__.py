# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The ways of reporting a hash, measured on their kernels; and the page made of that."""
