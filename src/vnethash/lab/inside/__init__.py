# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What `vnethash lab compare` measures, run as root by the kernel it is measured on."""
