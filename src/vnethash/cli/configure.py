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
    check_no_table,
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
    adaptive: Annotated[
        bool | None,
        typer.Option(
            "--adaptive/--no-adaptive",
            help="Leave the indirection table to `vnethash balance`, or keep it as it is now.",
            show_default=False,
        ),
    ] = None,
    log: VerifierLogOption = None,
    json: JsonOption = False,
) -> None:
    """Change an attached tap while packets pass; what is not given stays.

    Each packet is steered and hashed by the old or by the new configuration,
    or program, never by both. A program is replaced before the rest changes.
    With --indirection, --config or --from-ethtool the table is yours: if a
    balance was adapting it, that ends.
    """
    from vnethash.engines.pinned import PinnedTap

    change = change_from_options(
        key, types, indirection, unclassified, tunnels, config, from_ethtool
    )
    if adaptive:
        check_no_table(indirection, config, from_ethtool)
    elif not all(given is None for given in (indirection, config, from_ethtool)):
        adaptive = False  # also if the table is the same
    if all(given is None for given in (change, reporting, program, adaptive)):
        raise ConfigError(
            "configuration",
            "nothing is given to change",
            hint=f"for example vnethash configure {tap} --indirection 0,1",
        )
    with PinnedTap.open(tap) as attached:
        if program is not None:
            with verifier_log(log):
                attached.replace_program(None if str(program) == "none" else program)
        if change is not None or reporting is not None or adaptive is not None:
            attached.update(change, reporting=reporting, adaptive=adaptive)
        if json:
            emit_json(describe(attached))
        else:
            console().print(f"{tap}: configured")
