# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Writes vectors/ from the cases: ``python -m tools.vectors``."""

from pathlib import Path

from tools.vectors.catalogue import write

FOLDER = Path(__file__).resolve().parents[2] / "vectors"

if __name__ == "__main__":
    for path in write(FOLDER):
        print(f"wrote {path.relative_to(FOLDER.parent)}")
