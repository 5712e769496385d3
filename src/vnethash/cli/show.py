# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash show``: the configuration of an attached tap."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vnethash.cli.options import JsonOption
from vnethash.cli.output import console, emit_json
from vnethash.errors import DeviceError

if TYPE_CHECKING:
    from vnethash.engines.pinned import PinnedTap


def show_command(
    tap: Annotated[
        str | None, typer.Argument(metavar="[TAP]", help="Name of the tap; without it, list all.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show the configuration of an attached tap, as ethtool -x would."""
    from vnethash.engines.pinned import PinnedTap

    if tap is None:
        _list(as_json=json)
        return
    with PinnedTap.open(tap) as attached:
        if json:
            emit_json(describe(attached))
        else:
            _print(attached)


def describe(tap: "PinnedTap") -> dict[str, Any]:
    """All there is to say of an attached tap, in JSON types. DeviceError if it is gone."""
    device = tap.device()
    rss, reporting = tap.current()
    return {
        "name": tap.name,
        "device": device.name,
        "ifindex": device.ifindex,
        "up": device.up,
        "queues": device.tun.queues if device.tun else 0,
        "engine": tap.engine,
        "program": tap.program or None,
        "attach_point": tap.attach_point,
        "reporting": reporting.value,
        "max_indirection": tap.max_indirection,
        "adaptive": tap.adaptive,
        "pins": str(tap.pins),
        "rss": rss.to_json(),
    }


def _print(tap: "PinnedTap") -> None:
    from vnethash.virtio.hash_types import format_hash_types, format_tunnel_types

    device = tap.device()
    rss, reporting = tap.current()
    program = f" ({tap.program})" if tap.program else ""
    lines = [
        f"Hash types: {','.join(format_hash_types(rss.hash_types)) or 'none'}",
        f"Inner headers of: {','.join(format_tunnel_types(rss.tunnels)) or 'no tunnel'}",
        f"Unclassified queue: {rss.unclassified_queue}",
        f"Reporting: {reporting}",
        f"Engine: {tap.engine}{program}, attached by {tap.attach_point}",
    ]
    if tap.counts_buckets:
        adapted = "left to vnethash balance" if tap.adaptive else "set by its owner"
        lines.append(f"Indirection table: {adapted}")
    if device.tun and device.tun.queues != tap.queues:
        lines.append(f"Queues open now: {device.tun.queues} (attach again to steer to those)")
    if device.name != tap.name:
        lines.append(f"Name of the device now: {device.name}")
    # Lines that programs read: not folded to the terminal.
    sys.stdout.write(rss.ethtool(device.name) + "\n".join(lines) + "\n")


def _list(*, as_json: bool) -> None:
    from vnethash.engines.pinned import PinnedTap, list_attached

    names = list_attached()
    if not names and not as_json:
        console().print("no tap of this network namespace is attached")
    for name in names:
        try:
            with PinnedTap.open(name) as tap:
                device = tap.device()
                rss, reporting = tap.current()
        except DeviceError as error:
            state: dict[str, Any] = {"name": name, "error": error.message, "hint": error.hint}
            text = f"{name}: {error.message}"
        else:
            state = {
                "name": name,
                "device": device.name,
                "queues": rss.queues,
                "attach_point": tap.attach_point,
                "reporting": reporting.value,
            }
            text = f"{name}: {tap.attach_point}, {rss.queues} queues, reporting {reporting}"
        if as_json:
            emit_json(state)
        else:
            console().print(text, soft_wrap=True)
