# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash detach``: leave a tap to the kernel again."""

from vnethash.cli.options import JsonOption
from vnethash.cli.output import console, emit_json
from vnethash.cli.rss_change import TapArgument


def detach_command(tap: TapArgument, json: JsonOption = False) -> None:
    """Undo attach: the kernel chooses the queues again, nothing is left.

    Also removes what is left of a tap that is gone.
    """
    from vnethash.engines.pinned import detach

    detach(tap)
    if json:
        emit_json({"name": tap, "detached": True})
    else:
        console().print(f"{tap}: detached")
