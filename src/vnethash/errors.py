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


class ConfigError(VnethashError, ValueError):
    """A value breaks a rule; ``field`` names the value, ``rule`` the rule."""

    def __init__(self, field: str, rule: str, *, hint: str | None = None) -> None:
        super().__init__(f"{field}: {rule}", hint=hint)
        self.field = field
        self.rule = rule


class HeaderError(VnethashError, ValueError):
    """Bytes that are no virtio-net header."""


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
