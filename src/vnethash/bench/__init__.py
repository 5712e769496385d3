# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Benchmarks: what hashing and steering cost, against what there is without vnethash.

They are part of the package, so that they run wherever it is installed. What
they measure against is in bench/ of the source tree, compiled with the rest.
"""
