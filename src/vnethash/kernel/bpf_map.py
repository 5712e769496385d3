# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""BPF maps."""

import errno
import mmap
import struct
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import Any, Self

from vnethash.errors import BpfError
from vnethash.kernel import libbpf
from vnethash.kernel.bpf_fd import BpfFd


class MapType(IntEnum):
    """enum bpf_map_type, include/uapi/linux/bpf.h: those used here."""

    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_PERCPU_HASH = 10


class MapFlag(IntFlag):
    """BPF_F_* of BPF_MAP_CREATE, include/uapi/linux/bpf.h."""

    NONE = 0
    RDONLY_PROG = 1 << 7
    MMAPABLE = 1 << 10


_ARRAYS = {MapType.ARRAY, MapType.PERCPU_ARRAY}
_PERCPU = {MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH}
# The kernel has no batch lookup for this map: -ENOTSUPP (524) or an older -EINVAL.
_NO_BATCH = {errno.EINVAL, errno.EOPNOTSUPP, 524}


class Map(BpfFd):
    """A BPF map. Keys and values are bytes as the BPF program sees them.

    An array's key may also be given as its index.
    """

    kind = "bpf-map"

    def __init__(self, fd: int, *, borrowed: bool = False) -> None:
        super().__init__(fd, borrowed=borrowed)
        try:
            info = self._info("vnb_map_info")
        except BaseException:
            self.close()
            raise
        self.type: int = info.type
        self.id: int = info.id
        self.key_size: int = info.key_size
        self.value_size: int = info.value_size
        self.max_entries: int = info.max_entries
        self.flags: int = info.map_flags
        self.name: str = libbpf.load().ffi.string(info.name).decode()
        self._ffi: Any = libbpf.load().ffi
        self._lib: Any = libbpf.load().lib

    @classmethod
    def create(
        cls,
        kind: MapType,
        name: str,
        *,
        key_size: int,
        value_size: int,
        max_entries: int,
        flags: MapFlag = MapFlag.NONE,
    ) -> Self:
        """Make a map of no program's. Raises BpfError, NotPermitted."""
        ffi = libbpf.load().ffi
        opts = ffi.new("struct bpf_map_create_opts *")
        opts.sz = ffi.sizeof(opts[0])
        opts.map_flags = int(flags)
        sizes = (key_size, value_size, max_entries)
        fd = libbpf.call(
            f"create map {name}", "bpf_map_create", int(kind), name.encode(), *sizes, opts
        )
        return cls(fd)

    def __repr__(self) -> str:
        return f"<Map {self.name} id {self.id}>"

    def _key(self, key: bytes | int) -> bytes:
        data = struct.pack("=I", key) if isinstance(key, int) else bytes(key)
        if len(data) != self.key_size:
            raise BpfError(f"map {self.name}: a key has {self.key_size} bytes, not {len(data)}")
        return data

    def _value_room(self) -> int:
        """Bytes of one value as the kernel hands it out: padded, for each CPU."""
        if self.type not in _PERCPU:
            return self.value_size
        return self._stride() * libbpf.call("count CPUs", "libbpf_num_possible_cpus")

    def _stride(self) -> int:
        return (self.value_size + 7) & ~7

    def _lookup(self, key: bytes | int) -> bytes:
        value = self._ffi.new("char[]", self._value_room())
        code = self._lib.bpf_map_lookup_elem(self.fileno(), self._key(key), value)
        if code == -errno.ENOENT:
            raise KeyError(key)
        if code < 0:
            raise libbpf.failure(f"look up in map {self.name}", code)
        return bytes(self._ffi.buffer(value))

    def lookup(self, key: bytes | int) -> bytes:
        """The value of ``key``; KeyError if there is none."""
        self._require_percpu(False)
        return self._lookup(key)

    def lookup_percpu(self, key: bytes | int) -> list[bytes]:
        """The values of ``key``, one for each possible CPU."""
        self._require_percpu(True)
        return self._split(self._lookup(key))

    def update(self, key: bytes | int, value: bytes) -> None:
        """Set the value of ``key``, whole and at once as other CPUs see it.

        For a map with a value per CPU, ``value`` is set on every one.
        """
        if len(value) != self.value_size:
            raise BpfError(
                f"map {self.name}: a value has {self.value_size} bytes, not {len(value)}"
            )
        if self.type in _PERCPU:
            stride = self._stride()
            value = bytes(value).ljust(stride, b"\0") * (self._value_room() // stride)
        code = self._lib.bpf_map_update_elem(self.fileno(), self._key(key), bytes(value), 0)
        if code < 0:
            raise libbpf.failure(f"update map {self.name}", code)

    def freeze(self) -> None:
        """No more changes from user space: what programs cannot write either is constant."""
        libbpf.call(f"freeze map {self.name}", "bpf_map_freeze", self.fileno())

    def delete(self, key: bytes | int) -> None:
        """Remove ``key``; KeyError if it is not there. Arrays refuse."""
        code = self._lib.bpf_map_delete_elem(self.fileno(), self._key(key))
        if code == -errno.ENOENT:
            raise KeyError(key)
        if code < 0:
            raise libbpf.failure(f"delete from map {self.name}", code)

    def values(self) -> list[bytes]:
        """All values of an array, by index."""
        self._require_percpu(False)
        return list(self._all())

    def values_percpu(self) -> list[list[bytes]]:
        """All values of a per-CPU array: by index, then by CPU."""
        self._require_percpu(True)
        return [self._split(value) for value in self._all()]

    def _all(self) -> Iterator[bytes]:
        if self.type not in _ARRAYS:
            raise BpfError(f"map {self.name} is no array")
        room = self._value_room()
        ffi = self._ffi
        keys = ffi.new("uint32_t[]", self.max_entries)
        values = ffi.new("char[]", room * self.max_entries)
        count = ffi.new("uint32_t *", self.max_entries)
        after = ffi.new("uint32_t *")
        code = self._lib.bpf_map_lookup_batch(
            self.fileno(), ffi.NULL, after, keys, values, count, ffi.NULL
        )
        # ENOENT says that the end was reached, which is what was asked for.
        if code in (0, -errno.ENOENT) and count[0] == self.max_entries:
            data = bytes(ffi.buffer(values))
            return (data[i : i + room] for i in range(0, len(data), room))
        if code < 0 and -code not in _NO_BATCH:
            raise libbpf.failure(f"read map {self.name}", code)
        return (self._lookup(index) for index in range(self.max_entries))

    def _split(self, value: bytes) -> list[bytes]:
        stride = self._stride()
        return [value[i : i + self.value_size] for i in range(0, len(value), stride)]

    def _require_percpu(self, wanted: bool) -> None:
        if (self.type in _PERCPU) != wanted:
            kind = "no value per CPU" if wanted else "a value per CPU"
            raise BpfError(f"map {self.name} has {kind}")

    def mmap(self, *, writable: bool = True) -> mmap.mmap:
        """The memory of a BPF_F_MMAPABLE array, shared with the BPF program.

        Element i begins at i times the value size rounded up to 8. The caller
        closes the mapping; it stays valid when the map is closed. Raises
        BpfError for any other map.
        """
        if not self.flags & MapFlag.MMAPABLE:
            raise BpfError(f"map {self.name} cannot be mapped into memory")
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        try:
            return mmap.mmap(
                self.fileno(), self._stride() * self.max_entries, mmap.MAP_SHARED, access
            )
        except OSError as error:
            raise BpfError(f"map {self.name} into memory: {error.strerror}") from error
