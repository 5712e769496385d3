# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Libraries that only some of the analysis needs, imported when it does."""

from importlib import import_module
from typing import Any

from vnethash.errors import DependencyMissing


def load(module: str, purpose: str) -> Any:
    """The module; DependencyMissing says that ``purpose`` ("charts") needs it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise DependencyMissing(
            f"{purpose} need {module.partition('.')[0]}: {error}",
            hint="pip install 'vnethash[analysis]'",
        ) from error
