# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Kernels of our own, in which other ways of reporting hashes are real.

Each is a distribution's source with the patches of lab/ in a checkout, built
for user-mode-linux: a process, which needs neither rights nor virtualisation.
"""
