# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash configure``: change an attached tap while packets pass."""

from vnethash.cli.options import JsonOption
from vnethash.cli.output import console, emit_json
from vnethash.cli.rss_change import (
    ConfigFile,
    EthtoolFile,
    IndirectionChange,
    KeyChange,
    ReportingChange,
    TapArgument,
    TypesChange,
    UnclassifiedChange,
    change_from_options,
)
from vnethash.cli.show import describe
from vnethash.errors import ConfigError


def configure_command(
    tap: TapArgument,
    key: KeyChange = None,
    types: TypesChange = None,
    indirection: IndirectionChange = None,
    unclassified: UnclassifiedChange = None,
    config: ConfigFile = None,
    from_ethtool: EthtoolFile = None,
    reporting: ReportingChange = None,
    json: JsonOption = False,
) -> None:
    """Change an attached tap while packets pass; what is not given stays.

    Each packet is steered and hashed by the old or by the new configuration,
    never by both.
    """
    from vnethash.engines.pinned import PinnedTap

    change = change_from_options(key, types, indirection, unclassified, config, from_ethtool)
    if change is None and reporting is None:
        raise ConfigError(
            "configuration",
            "nothing is given to change",
            hint=f"for example vnethash configure {tap} --indirection 0,1",
        )
    with PinnedTap.open(tap) as attached:
        attached.update(change, reporting=reporting)
        if json:
            emit_json(describe(attached))
        else:
            console().print(f"{tap}: configured")
