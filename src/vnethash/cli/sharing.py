# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Options for results that others may see."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vnethash.analysis import Analysis
    from vnethash.analysis.anonymize import Anonymizer

AnonymizeOption = Annotated[
    bool,
    typer.Option(
        "--anonymize",
        help="Replace addresses by others that share their prefixes (Crypto-PAn), and leave out "
        "hash values, names of files and a secret key.",
    ),
]
AnonymizeKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--anonymize-key",
        metavar="FILE",
        help="Anonymise under the key in this file, so that an address is the same one each "
        "time; a file that is not there is made. (Default: a new key, which is forgotten.)",
    ),
]


def anonymizer_from_options(anonymize: bool, key: Path | None) -> "Anonymizer | None":
    """None unless asked for. Raises ConfigError, DependencyMissing, OSError."""
    if not anonymize and key is None:
        return None
    from vnethash.analysis.anonymize import Anonymizer

    if key is not None:
        return Anonymizer.from_file(key)
    return Anonymizer.random()


def shareable(analysis: "Analysis", anonymizer: "Anonymizer | None") -> "Analysis":
    """The analysis as others may see it: anonymised, if that was asked for."""
    if anonymizer is None:
        return analysis
    from vnethash.analysis.anonymize import anonymize

    return anonymize(analysis, anonymizer)
