# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What is fetched once and kept outside the checkout."""

import os
from pathlib import Path

MAKING = ".making-"
"""How names of folders begin that are not finished."""


def folder(name: str) -> Path:
    """~/.cache/vnethash/NAME, or where XDG_CACHE_HOME says; made if it is not there."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = Path(base).expanduser().absolute() / "vnethash" / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def keep(made: Path, place: Path) -> Path:
    """Move a finished folder to its place, unless another was faster; returns the place."""
    if not place.exists():
        made.rename(place)
    return place
