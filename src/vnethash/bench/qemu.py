# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The steering program of an installed QEMU, taken out of its binary to be measured.

QEMU carries it as a BPF object (its ebpf/rss.bpf.c). In 7.2 that has its maps in a
form libbpf 1.0 no longer reads; so it is put together here, from its code, three
maps and where the code refers to them. Only that form is known.
"""

import mmap
import shutil
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

from vnethash.closing import Closing
from vnethash.errors import ConfigError, DependencyMissing
from vnethash.kernel.bpf import Program, ProgramType
from vnethash.kernel.bpf_map import Map, MapType
from vnethash.programs.elf import sections
from vnethash.rss.config import RssConfig
from vnethash.virtio.hash_types import HashType

BINARY = "qemu-system-x86_64"
_PROGRAM = "tun_rss_steering"
_ELF_BPF = b"\x7fELF\x02\x01"
_HEADER_SIZE, _SECTIONS_AT, _SECTIONS_SIZE, _MACHINE_AT, _EM_BPF = 64, 0x28, 64, 18, 247
_MAP_FD = 1 << 4  # BPF_PSEUDO_MAP_FD as source register

# What its maps hold, by their place in the object.
_CONFIG = struct.Struct("<??IHH")  # redirect, hash, hash types, entries, default queue
_KEY = struct.Struct("<I36s")  # first 32 bits as a number, the rest byte by byte
_QUEUE = struct.Struct("<H")
_SIZES = [_CONFIG.size, _KEY.size, _QUEUE.size]


class Parts(NamedTuple):
    """What to put together."""

    code: bytes
    maps: list[tuple[int, int, int, int]]
    """Type, key size, value size and number of entries of each."""
    references: dict[int, int]
    """Instructions that load a map: the number of the map."""


class QemuSteering(Closing):
    """QEMU's program in the kernel, of one configuration."""

    def __init__(self, parts: Parts, config: RssConfig) -> None:
        with ExitStack() as resources:
            self._maps = [
                resources.enter_context(
                    Map.create(
                        MapType(kind),
                        f"qemu_{index}",
                        key_size=key,
                        value_size=value,
                        max_entries=entries,
                    )
                )
                for index, (kind, key, value, entries) in enumerate(parts.maps)
            ]
            self._configure(config)
            code = list(struct.iter_unpack("<BBhi", parts.code))
            for index, number in parts.references.items():
                operation, registers, offset, _ = code[index]
                fd = self._maps[number].fileno()
                code[index] = (operation, registers | _MAP_FD, offset, fd)
            self.program = resources.enter_context(
                Program.from_instructions(ProgramType.SOCKET_FILTER, "qemu", code)
            )
            self._resources = resources.pop_all()

    def _configure(self, config: RssConfig) -> None:
        table = config.indirection_table
        settings, key, queues = self._maps
        if len(table) > queues.max_entries:
            raise ConfigError("indirection_table", f"has more than {queues.max_entries} entries")
        types = int(config.hash_types & HashType.ALL)
        settings.update(0, _CONFIG.pack(True, False, types, len(table), config.unclassified_queue))
        key.update(0, _KEY.pack(int.from_bytes(config.key[:4], "big"), config.key[4:]))
        for index, queue in enumerate(table):
            queues.update(index, _QUEUE.pack(queue))

    @classmethod
    def load(cls, config: RssConfig) -> Self:
        """Load the program of the QEMU in the PATH.

        Raises DependencyMissing where there is none, or none of the form known here,
        NotPermitted, VerifierError, BpfError, ConfigError.
        """
        binary = shutil.which(BINARY)
        if binary is None:
            raise DependencyMissing(f"{BINARY} is not installed")
        parts = find_parts(Path(binary))
        if parts is None:
            raise DependencyMissing(f"{binary} has no steering program of the form known here")
        return cls(parts, config)

    def close(self) -> None:
        self._resources.close()


def find_parts(binary: Path) -> Parts | None:
    """The steering program in a binary, None if there is none of the form known here."""
    with (
        binary.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents,
    ):
        for image in _objects(contents):
            try:
                parts = _read(image)
            except (ValueError, IndexError, struct.error):
                continue  # looked like one
            if parts is not None:
                return parts
    return None


def _objects(contents: mmap.mmap) -> Iterator[bytes]:
    """What begins as BPF objects do; their section headers come last."""
    at = contents.find(_ELF_BPF)
    while at >= 0:
        header = contents[at : at + _HEADER_SIZE]
        if len(header) == _HEADER_SIZE and header[_MACHINE_AT] == _EM_BPF:
            (start,) = struct.unpack_from("<Q", header, _SECTIONS_AT)
            (count,) = struct.unpack_from("<H", header, 0x3C)
            yield contents[at : at + start + count * _SECTIONS_SIZE]
        at = contents.find(_ELF_BPF, at + 1)


def _read(image: bytes) -> Parts | None:
    found = {section.name: section for section in sections(image)}
    if not {_PROGRAM, f".rel{_PROGRAM}", "maps", ".symtab"} <= found.keys():
        return None
    definitions = list(struct.iter_unpack("<4I4x", found["maps"].data))
    if [value for _, _, value, _ in definitions] != _SIZES:
        return None
    offsets = [value for (value,) in struct.iter_unpack("<8xQ8x", found[".symtab"].data)]
    references = {
        place // 8: offsets[symbol] // 20
        for place, symbol in struct.iter_unpack("<Q4xI", found[f".rel{_PROGRAM}"].data)
    }
    return Parts(found[_PROGRAM].data, definitions, references)
