# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What the build makes from native/; see hatch_build.py. Nothing in here but this file is source."""
