# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The vhost-user backend: a virtio-net device that a VMM connects to."""
