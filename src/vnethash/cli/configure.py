# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash configure``: change an attached tap while packets pass."""

from pathlib import Path
from typing import Annotated

import typer

from vnethash.cli.options import JsonOption
from vnethash.cli.output import console, emit_json
from vnethash.cli.rss_change import (
    ConfigFile,
    EthtoolFile,
    IndirectionChange,
    KeyChange,
    ReportingChange,
    TapArgument,
    TunnelsChange,
    TypesChange,
    UnclassifiedChange,
    change_from_options,
)
from vnethash.cli.show import describe
from vnethash.cli.verifier_log import VerifierLogOption, verifier_log
from vnethash.errors import ConfigError


def configure_command(
    tap: TapArgument,
    key: KeyChange = None,
    types: TypesChange = None,
    indirection: IndirectionChange = None,
    unclassified: UnclassifiedChange = None,
    tunnels: TunnelsChange = None,
    config: ConfigFile = None,
    from_ethtool: EthtoolFile = None,
    reporting: ReportingChange = None,
    program: Annotated[
        Path | None,
        typer.Option(
            "--program",
            "-p",
            metavar="FILE",
            help="Put this hash program in the place of the present one; "
            "none: vnethash's own again.",
        ),
    ] = None,
    log: VerifierLogOption = None,
    json: JsonOption = False,
) -> None:
    """Change an attached tap while packets pass; what is not given stays.

    Each packet is steered and hashed by the old or by the new configuration,
    or program, never by both. A program is replaced before the rest changes.
    """
    from vnethash.engines.pinned import PinnedTap

    change = change_from_options(
        key, types, indirection, unclassified, tunnels, config, from_ethtool
    )
    if change is None and reporting is None and program is None:
        raise ConfigError(
            "configuration",
            "nothing is given to change",
            hint=f"for example vnethash configure {tap} --indirection 0,1",
        )
    with PinnedTap.open(tap) as attached:
        if program is not None:
            with verifier_log(log):
                attached.replace_program(None if str(program) == "none" else program)
        if change is not None or reporting is not None:
            attached.update(change, reporting=reporting)
        if json:
            emit_json(describe(attached))
        else:
            console().print(f"{tap}: configured")
