# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What can go wrong, one family.

Every error says what failed and, as ``hint``, what to do about it.
"""


class VnethashError(Exception):
    """Base of all errors vnethash raises on purpose."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


def os_reason(error: OSError) -> str:
    """What the system said, to be put behind a colon."""
    return (error.strerror or str(error)).lower()


class ConfigError(VnethashError, ValueError):
    """A value breaks a rule; ``field`` names the value, ``rule`` the rule."""

    def __init__(self, field: str, rule: str, *, hint: str | None = None) -> None:
        super().__init__(f"{field}: {rule}", hint=hint)
        self.field = field
        self.rule = rule


class NoPort(VnethashError):
    """No port makes a flow land on a queue; ``reason`` says why."""

    def __init__(self, queue: int, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"no port takes the flow to queue {queue}: {reason}", hint=hint)
        self.queue = queue
        self.reason = reason


class HeaderError(VnethashError, ValueError):
    """Bytes that are no virtio-net header."""


class CommandError(VnethashError, ValueError):
    """A command of the control virtqueue that the device refuses (VIRTIO_NET_ERR)."""


class FeatureError(VnethashError, ValueError):
    """Features the driver may not accept: not offered, or without those they need."""


class Unsupported(VnethashError):
    """This kernel or device lacks ``feature``; ``needs`` says what has it."""

    def __init__(
        self, feature: str, reason: str, *, needs: str | None = None, hint: str | None = None
    ) -> None:
        requires = f" (requires {needs})" if needs else ""
        super().__init__(f"{feature} not supported{requires}: {reason}", hint=hint)
        self.feature = feature
        self.reason = reason
        self.needs = needs


class NotPermitted(VnethashError):
    """The process lacks a right; ``capability`` names it."""

    def __init__(self, action: str, capability: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"{action}: operation not permitted without {capability}",
            hint=hint or f"run as root, or grant {capability} (see docs/operations.md)",
        )
        self.action = action
        self.capability = capability


class DependencyMissing(VnethashError):
    """A library or program vnethash stands on is not installed."""


class DeviceError(VnethashError):
    """A tap device is missing, busy, of another kind, or refuses."""


class TableOwned(DeviceError):
    """The indirection table of a tap is not to be adapted: its owner, or a guest, has set it."""


class BpfError(VnethashError):
    """The kernel or libbpf refused a BPF object, map, program or link."""


class VerifierError(BpfError):
    """The verifier rejected a program; ``log`` is all it said."""

    def __init__(self, message: str, log: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.log = log


class CompileError(VnethashError):
    """A hash program does not compile; ``output`` is all the compiler said."""

    def __init__(self, message: str, output: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.output = output


class ProgramRefused(VnethashError):
    """An object is no hash program, or one that asks for more; ``reason`` says which."""

    def __init__(self, name: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"hash program {name} {reason}", hint=hint)
        self.name = name
        self.reason = reason


class CaptureError(VnethashError):
    """A capture file cannot be read; ``offset`` is where it broke, in bytes."""

    def __init__(
        self, path: str, reason: str, *, offset: int | None = None, hint: str | None = None
    ) -> None:
        where = f" at byte {offset}" if offset is not None else ""
        super().__init__(f"{path}: {reason}{where}", hint=hint)
        self.path = path
        self.reason = reason
        self.offset = offset


class FlowTableError(VnethashError):
    """A flow table cannot be read, or is none."""

    def __init__(self, path: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"{path}: {reason}", hint=hint)
        self.path = path
        self.reason = reason


class ClusterError(VnethashError):
    """A Dask cluster cannot be reached, has no workers, or does not do its work."""


class VhostUserError(VnethashError):
    """A vhost-user message that breaks the protocol or cannot be done.

    ``request`` names it without VHOST_USER_, ``reason`` says what is wrong.
    """

    def __init__(self, request: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"vhost-user {request}: {reason}", hint=hint)
        self.request = request
        self.reason = reason


class VhostUserClosed(VhostUserError):
    """The other side has closed the connection; ``request`` is what was under way."""

    def __init__(self, request: str) -> None:
        super().__init__(request, "the other side closed the connection")


class GuestMemoryError(VnethashError):
    """Guest memory that cannot be; ``region`` is which of the regions, if it is one."""

    def __init__(self, reason: str, region: int | None = None) -> None:
        which = "guest memory" if region is None else f"guest memory region {region}"
        super().__init__(f"{which} {reason}")
        self.reason = reason
        self.region = region


class RingError(VnethashError):
    """A virtqueue that cannot be served, or that its driver broke.

    ``queue`` is "receive", "transmit" or "control", ``reason`` a sentence.
    """

    def __init__(self, queue: str, reason: str) -> None:
        super().__init__(f"{queue} ring: {reason}")
        self.queue = queue
        self.reason = reason


class ImplementationError(VnethashError):
    """An implementation under test that died, hangs, or answers what is no answer."""
