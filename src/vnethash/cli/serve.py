# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash serve``: a virtio-net device for a VMM, by vhost-user."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vnethash.cli.options import (
    DEFAULT_QUEUES,
    ConfigOption,
    IndirectionOption,
    JsonOption,
    KeyOption,
    ProgramOption,
    TunnelsOption,
    TypesOption,
    UnclassifiedOption,
    config_from_options,
    read_text,
)
from vnethash.cli.verifier_log import VerifierLogOption, verifier_log
from vnethash.errors import ConfigError, DeviceError
from vnethash.writing import write

if TYPE_CHECKING:
    from selectors import BaseSelector

    from vnethash.vhost_user.backend import Backend
    from vnethash.vhost_user.host_tap import HostTap
    from vnethash.vhost_user.journal import Journal
    from vnethash.virtio.device import NetDevice


class ServeEngine(StrEnum):
    """What ``--engine`` takes."""

    AUTO = "auto"
    EBPF = "ebpf"
    PROGRAM = "program"
    SOFTWARE = "software"


class ServeReporting(StrEnum):
    """What ``--reporting`` takes: where the hash is worked out, if the guest wants it."""

    RECORD = "record"
    REHASH = "rehash"


def serve_command(
    socket: Annotated[
        Path,
        typer.Option("--socket", "-s", metavar="PATH", help="Unix socket the VMM connects to."),
    ],
    tap: Annotated[
        str,
        typer.Option("--tap", metavar="NAME", help="Tap to create, or a persistent one to join."),
    ],
    queue_pairs: Annotated[
        int,
        typer.Option(
            "--queue-pairs",
            "-q",
            metavar="N",
            min=1,
            max=127,
            help="Most queue pairs of the guest.",
        ),
    ] = DEFAULT_QUEUES,
    mac: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="The guest's Ethernet address (default: random)."),
    ] = None,
    mtu: Annotated[
        int | None,
        typer.Option(metavar="BYTES", min=68, max=65521, help="MTU of the tap, and of the guest."),
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Features to offer, with commas: names, or all, or -name to leave one out.",
        ),
    ] = "all",
    max_indirection: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=128,
            max=32768,
            help="Longest indirection table of the guest. Linux 6.1 breaks on more than 128.",
        ),
    ] = 128,
    engine: Annotated[
        ServeEngine,
        typer.Option(
            case_sensitive=False, help="software does without BPF, and has no RSS to offer."
        ),
    ] = ServeEngine.AUTO,
    reporting: Annotated[
        ServeReporting,
        typer.Option(
            case_sensitive=False,
            help="Where the hash of a packet comes from: record, from the kernel; "
            "rehash, from the backend, which hashes again.",
        ),
    ] = ServeReporting.RECORD,
    program: ProgramOption = None,
    key: KeyOption = None,
    types: TypesOption = None,
    indirection: IndirectionOption = None,
    unclassified: UnclassifiedOption = None,
    tunnels: TunnelsOption = None,
    config: ConfigOption = None,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive",
            help="Spread flows by a table that adapts to their load, while the guest asks "
            "neither for RSS nor for hash reports.",
        ),
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take up the state in this file if it exists, and keep there what the guest "
            "makes of the device.",
        ),
    ] = None,
    log: VerifierLogOption = None,
    json: JsonOption = False,
) -> None:
    """Serve a guest a virtio-net device with RSS and hash reporting.

    A vhost-user backend in front of a multi-queue tap. What the guest's
    driver asks for (ethtool -L, -X, -K rxhash) steers the tap at once. One VMM
    after the other may connect; ends with SIGTERM or Ctrl-C. On a terminal it
    shows what goes on; with --json one object for each event.

    A VMM that keeps the guest's control queue to itself, as QEMU does, does not
    pass on what the guest asks for: for its guests --key, --types, --indirection,
    --unclassified, --tunnels and --config say how to steer and hash.
    """
    from vnethash.cli.serve_status import REDRAW, reporter
    from vnethash.reporting import Reporting
    from vnethash.vhost_user.adapting import Adapting
    from vnethash.vhost_user.backend import Backend
    from vnethash.vhost_user.host_tap import HostTap
    from vnethash.vhost_user.server import Server

    unasked = None
    if any(
        option is not None for option in (key, types, indirection, unclassified, tunnels, config)
    ):
        if adaptive:
            raise ConfigError(
                "adaptive", "cannot be given together with --key, --types and what else steers"
            )
        unasked = config_from_options(
            queue_pairs, key, types, indirection, unclassified, config, tunnels
        )
    with verifier_log(log):
        opened = HostTap.open(
            tap,
            queue_pairs,
            engine=engine.value,
            reporting=Reporting(reporting.value),
            program=program,
            mtu=mtu,
            max_indirection=max_indirection,
            adaptive=adaptive,
        )
    with opened as host:
        device = _device(host, features, mac, mtu, max_indirection, state)
        with reporter(host, as_json=json) as status:

            def journal(event: str, values: Mapping[str, Any]) -> None:
                status.note(event, values)
                if state and event in ("features", "control", "disconnected"):
                    _save(server.backend, state)

            def backend(selector: "BaseSelector", journal: "Journal") -> Backend:
                return Backend(device, host, selector, journal, unasked=unasked)

            with Server(socket, backend, journal) as server, _until_told(server.stop):
                status.begin(server.backend)
                status.note("listening", _description(host, device, socket))
                interval = REDRAW if status.live else None
                if not adaptive:
                    server.run(status.look, interval)
                else:
                    adapting = Adapting(host, journal)

                    def tick() -> None:
                        adapting.tick()
                        status.look()

                    server.run(tick, interval or adapting.interval)
            status.note("stopped", {})


def _description(host: "HostTap", device: "NetDevice", socket: Path) -> dict[str, Any]:
    from vnethash.engines.select import without_stages
    from vnethash.virtio.control import format_mac
    from vnethash.virtio.features import format_features

    offer = device.offer
    return {
        "socket": str(socket),
        "tap": host.name,
        "engine": host.engine,
        "attach_point": host.attach_point,
        "queue_pairs": offer.queue_pairs,
        "mac": format_mac(offer.mac),
        "mtu": offer.mtu,
        "max_indirection": offer.max_indirection,
        "features": format_features(offer.features),
        "no_rss": None if host.steers else without_stages() or "not with this engine",
    }


def _device(
    host: "HostTap",
    features: str,
    mac: str | None,
    mtu: int | None,
    max_indirection: int,
    state: Path | None,
) -> "NetDevice":
    """The device, with the state that was left in a file. ConfigError if it cannot be had here."""
    from vnethash.kernel.link import parse_mac
    from vnethash.vhost_user.offer import available, random_mac
    from vnethash.virtio.device import NetDevice, Offer
    from vnethash.virtio.device_state import check_target, import_state
    from vnethash.virtio.features import parse_features

    source = import_state(read_text("state", state)) if state and state.exists() else None
    usual = source.offer.mac if source else random_mac()
    offer = Offer(
        features=parse_features(features, available(host, mtu=mtu is not None)),
        queue_pairs=host.queue_pairs,
        mac=usual if mac is None else parse_mac(mac),
        mtu=mtu,
        max_indirection=max_indirection,
    )
    if source is None:
        return NetDevice(offer)
    if reasons := check_target(source, offer):
        raise ConfigError("state", f"{state} cannot be taken up here: {'; '.join(reasons)}")
    return NetDevice(offer, source.state)


def _save(backend: "Backend", file: Path) -> None:
    """Leave the state of the present driver, or of the last, in a file, whole or not at all."""
    from vnethash.cli.output import json_line
    from vnethash.virtio.device import NetDevice
    from vnethash.virtio.device_state import export_state

    device = backend.device
    present = device.state if device.state.features else backend.left
    if not present.features:
        return
    try:
        write(file, json_line(export_state(NetDevice(device.offer, present))) + "\n")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DeviceError(f"write the state to {file}: {reason}") from error


@contextmanager
def _until_told(stop: Any) -> Iterator[None]:
    """Call ``stop`` on SIGTERM and Ctrl-C."""
    before = {
        number: signal.signal(number, lambda *_: stop())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
