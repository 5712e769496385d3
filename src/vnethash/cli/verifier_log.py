# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The option --verifier-log of commands that load programs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from vnethash.errors import VerifierError
from vnethash.writing import write

VerifierLogOption = Annotated[
    str | None,
    typer.Option(
        "--verifier-log",
        metavar="FILE",
        help="Where all that the verifier said goes if it rejects a program; - is stderr.",
    ),
]


@contextmanager
def verifier_log(file: str | None) -> Iterator[None]:
    """Write the log of a VerifierError that leaves the block to ``file``; it goes on from here."""
    try:
        yield
    except VerifierError as error:
        if file is None:
            error.hint = "--verifier-log FILE keeps all that the verifier said"
        elif file == "-":
            sys.stderr.write(error.log.rstrip("\n") + "\n")
        else:
            write(file, error.log.rstrip("\n") + "\n")
            error.hint = f"all that the verifier said is in {file}"
        raise
