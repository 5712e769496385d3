# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The other side of the vhost-user backend: a fake driver, to test and to measure with."""
