# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The pictures of a report as files of their own."""

from pathlib import Path

from vnethash.analysis.report.drawing import all_in_one, png, svg
from vnethash.analysis.report.figures import Figure, Frame, figures
from vnethash.analysis.report.theme import LIGHT
from vnethash.analysis.result import Analysis
from vnethash.errors import ConfigError
from vnethash.stats import Measure
from vnethash.writing import write

_WIDTH = 760
_OPAQUE = {**LIGHT, "background": LIGHT["page"]}
"""Legible on a dark page as well."""


def draw(
    analysis: Analysis,
    target: Path,
    after: Analysis | None = None,
    *,
    by: Measure = Measure.PACKETS,
) -> list[Path]:
    """Draw to a file, .png or .svg, with all pictures in it; or to a folder, an SVG for each.

    Returns the files written. Raises ConfigError for a file of another kind,
    DependencyMissing, OSError.
    """
    is_folder = check_target(target)
    made = figures(analysis, after, Frame(by, LIGHT, _WIDTH))
    if is_folder:
        target.mkdir(parents=True, exist_ok=True)
        return [_write(figure, target / f"{figure.name}.svg") for figure in made]
    return [_write(all_in_one(made), target)]


def check_target(target: Path) -> bool:
    """Whether `draw` takes it for a folder. Raises ConfigError for a file of another kind."""
    if target.is_dir() or not (target.suffix or target.exists()):
        return True
    if target.suffix.lower() not in (".png", ".svg"):
        raise ConfigError(
            "plot",
            f"{target.name}: pictures are written as .png or .svg",
            hint="name such a file, or a folder",
        )
    return False


def _write(figure: Figure, file: Path) -> Path:
    if file.suffix.lower() == ".png":
        write(file, png(figure, _OPAQUE))
    else:
        write(file, svg(figure, _OPAQUE))
    return file
