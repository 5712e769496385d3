# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Thin typed wrappers over kernel interfaces: tun, BPF, tc, namespaces, links."""
