# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Where what is attached to a tap is kept when no process holds it.

A folder in a BPF file system for each tap,
``vnethash/<inode of the network namespace>/<name of the tap>/``, with the maps
of the hash stage, the tcx link where there is one, and a record of the rest.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vnethash.errors import DeviceError, NotPermitted, VnethashError
from vnethash.kernel import tc, tun_ioctl
from vnethash.kernel.bpf import Map, MapType, unpin
from vnethash.kernel.egress import CLSACT, TCX
from vnethash.kernel.netns import current_inode

STATE = "state"
TABLE = "indirection"
COUNTERS = "counters"
COUNTS = "counts"
BUCKETS = "buckets"
PROGRAM_MAPS = "program"
"""A folder with the maps of the hash program's own."""
RECORD = "attachment"
LINK = "link"
_PINS = (STATE, TABLE, COUNTERS, COUNTS, BUCKETS, LINK, RECORD)
_SPARE_MAPS = PROGRAM_MAPS + "_next"

LAYOUT = 3
"""Version of the pins: to be raised when the maps of native/vnethash.h change.

The record itself may only grow at its end, so that any version can detach.
"""

_FORMAT = struct.Struct("=8IQI64sI")
_NAME_MAX = 63
_POINTS = (TCX, CLSACT)


@dataclass(frozen=True, slots=True)
class Record:
    """What the other pins do not tell."""

    layout: int
    complete: bool
    """The attach was seen through to its end."""
    ifindex: int
    point: str
    priority: int
    handle: int
    made_clsact: bool
    program_id: int
    """The hash stage, which no other program ever has the id of."""
    cookie: int
    """The network namespace (netns_cookie)."""
    next_program_id: int = 0
    """Of a hash stage that was about to take the place of the present one."""
    program: str = ""
    """Name of the hash program; empty for vnethash's own."""
    adaptive: bool = False
    """Its owner has left the indirection table to a balancer."""

    def pack(self) -> bytes:
        return _FORMAT.pack(
            self.layout,
            self.complete,
            self.ifindex,
            _POINTS.index(self.point),
            self.priority,
            self.handle,
            self.made_clsact,
            self.program_id,
            self.cookie,
            self.next_program_id,
            self.program.encode()[:_NAME_MAX],
            self.adaptive,
        )

    @classmethod
    def unpack(cls, data: bytes) -> "Record":
        fields = _FORMAT.unpack_from(data.ljust(_FORMAT.size, b"\0"))  # as older ones wrote it
        layout, complete, ifindex, point, priority, handle, made, program_id, cookie = fields[:9]
        return cls(
            layout,
            bool(complete),
            ifindex,
            _POINTS[point],
            priority,
            handle,
            bool(made),
            program_id,
            cookie,
            fields[9],
            fields[10].rstrip(b"\0").decode(errors="replace"),
            bool(fields[11]),
        )

    @property
    def program_ids(self) -> tuple[int, ...]:
        """Ids the hash stage on the device may have."""
        return tuple(filter(None, (self.program_id, self.next_program_id)))

    @property
    def filter(self) -> tc.Attachment:
        """The clsact filter."""
        return tc.Attachment(
            self.ifindex,
            egress=True,
            priority=self.priority,
            handle=self.handle,
            made_clsact=self.made_clsact,
        )


class PinFolder:
    """The pins of one tap in the calling thread's network namespace."""

    def __init__(self, root: Path, name: str) -> None:
        """``root`` is in a BPF file system. ConfigError if ``name`` can name no link."""
        tun_ioctl.check_name(name)
        self.root = root
        self.name = name
        self.path = _namespace_folder(root) / _to_entry(name)

    def __truediv__(self, pin: str) -> Path:
        return self.path / pin

    def exists(self) -> bool:
        return self.path.is_dir()

    def create(self) -> None:
        """Make the folder; DeviceError if the way is blocked."""
        self._make(self.path)

    @staticmethod
    def _make(folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise _refused(f"make {folder}", error) from error

    def write_record(self, record: Record) -> Map:
        """Pin the record, in a map of its own; the caller closes the map."""
        data = record.pack()
        kept = Map.create(
            MapType.ARRAY, "vnethash_record", key_size=4, value_size=len(data), max_entries=1
        )
        try:
            kept.update(0, data)
            kept.pin(self / RECORD)
        except BaseException:
            kept.close()
            raise
        return kept

    def read_record(self) -> Record | None:
        """The record; None if there is none, or nothing that could be one."""
        if not (self / RECORD).exists():
            return None
        try:
            with Map.from_pin(self / RECORD) as kept:
                return Record.unpack(kept.lookup(0))
        except (VnethashError, KeyError, IndexError, struct.error) as error:
            if isinstance(error, NotPermitted):
                raise
            return None

    def pin_program_maps(self, maps: Mapping[str, Map]) -> None:
        """Pin the maps of a hash program's own, in the place of those of the one before."""
        spare = self / _SPARE_MAPS
        _remove_folder(spare)
        if maps:
            self._make(spare)
            for name, own in maps.items():
                own.pin(spare / _to_entry(name))
        _remove_folder(self / PROGRAM_MAPS)
        if maps:
            spare.rename(self / PROGRAM_MAPS)

    def remove(self) -> None:
        """Remove the pins and the folder, and the folder of the namespace when empty.

        DeviceError if something else is in it; that stays.
        """
        ours = (*_PINS, PROGRAM_MAPS, _SPARE_MAPS)
        foreign = sorted(entry.name for entry in self.path.iterdir() if entry.name not in ours)
        if foreign:
            raise DeviceError(
                f"{self.path} holds what is not of vnethash: {', '.join(foreign)}",
                hint="remove it and try again",
            )
        for pin in _PINS:
            unpin(self / pin)
        for maps in (PROGRAM_MAPS, _SPARE_MAPS):
            _remove_folder(self / maps)
        try:
            self.path.rmdir()
        except OSError as error:
            raise _refused(f"remove {self.path}", error) from error
        for folder in self.path.parents[:2]:
            try:
                folder.rmdir()
            except OSError:
                return  # other taps are in it


def _remove_folder(folder: Path) -> None:
    """Remove a folder of pins, if it is there."""
    if folder.is_dir():
        for pin in folder.iterdir():
            unpin(pin)
        folder.rmdir()


def names(root: Path) -> list[str]:
    """Names of the taps with pins in the calling thread's network namespace."""
    folder = _namespace_folder(root)
    if not folder.is_dir():
        return []
    return sorted(_from_entry(entry.name) for entry in folder.iterdir())


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep other commands from attaching, changing or detaching meanwhile.

    Raises NotPermitted where ``root`` is not for this user.
    """
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(f"open {root}", error) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _namespace_folder(root: Path) -> Path:
    return root / "vnethash" / str(current_inode())


def _to_entry(name: str) -> str:
    """A BPF file system takes no dots (kernel/bpf/inode.c, bpf_lookup())."""
    return name.replace("%", "%25").replace(".", "%2e")


def _from_entry(entry: str) -> str:
    return entry.replace("%2e", ".").replace("%25", "%")


def _refused(action: str, error: OSError) -> VnethashError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotPermitted(
            action,
            "CAP_DAC_OVERRIDE",
            hint="run as root, or have VNETHASH_BPFFS name a BPF file system of your own",
        )
    return DeviceError(f"{action}: {os.strerror(error.errno or 0).lower()}")
