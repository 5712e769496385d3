# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""RSS steering and hash reporting for Linux tap devices, in eBPF on a stock kernel."""

__version__ = "0.1.0"
