# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash attach``: steer a tap that another process owns."""

from enum import StrEnum
from typing import Annotated

import typer

from vnethash.cli.options import JsonOption, ProgramOption
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
from vnethash.reporting import Reporting


class Point(StrEnum):
    """What ``--attach-point`` takes."""

    AUTO = "auto"
    TCX = "tcx"
    CLSACT = "clsact"


def attach_command(
    tap: TapArgument,
    key: KeyChange = None,
    types: TypesChange = None,
    indirection: IndirectionChange = None,
    unclassified: UnclassifiedChange = None,
    tunnels: TunnelsChange = None,
    config: ConfigFile = None,
    from_ethtool: EthtoolFile = None,
    reporting: ReportingChange = None,
    program: ProgramOption = None,
    max_indirection: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=32768,
            help="Longest indirection table that configure will take (default 2048).",
        ),
    ] = None,
    attach_point: Annotated[
        Point, typer.Option(help="Where the hash stage goes.", case_sensitive=False)
    ] = Point.AUTO,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive",
            help="Leave the indirection table to `vnethash balance`, and count packets for it.",
        ),
    ] = False,
    log: VerifierLogOption = None,
    json: JsonOption = False,
) -> None:
    """Steer a multi-queue tap that another process owns.

    What is not given is the default: all hash types, the key of Microsoft's
    verification suite, 128 entries with the queues in turn, queue 0 for
    packets without a hash, reporting off. It lasts until detach, or until
    the device goes.
    """
    from vnethash.engines.foreign import steerable
    from vnethash.engines.pinned import attach
    from vnethash.engines.stages import DEFAULT_MAX_INDIRECTION
    from vnethash.rss.config import RssConfig

    if adaptive:
        check_no_table(indirection, config, from_ethtool)
    change = change_from_options(
        key, types, indirection, unclassified, tunnels, config, from_ethtool
    )
    _, driver = steerable(tap)
    rss = RssConfig.default(driver.queues) if driver.queues else None
    if change is not None and rss is not None:
        rss = change(rss)
    with verifier_log(log):
        pinned = attach(
            tap,
            rss,
            reporting or Reporting.OFF,
            max_indirection=max_indirection or DEFAULT_MAX_INDIRECTION,
            point=attach_point.value,
            program=program,
            adaptive=adaptive,
        )
    with pinned as attached:
        description = describe(attached)
        if json:
            emit_json(description)
            return
        queues, how = attached.queues, description["reporting"]
        what = f"program {attached.program} " if attached.program else ""
        console().print(
            f"{tap}: {what}attached by {attached.attach_point}, {queues} queues, reporting {how}"
        )
