# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A BPF machine in Python: runs a program of an object file and counts what it executes.

No kernel, no rights, the same numbers on every machine. It knows the instructions,
relocations and helpers that the hash stage meets on its way with a packet, no more;
whatever else it meets, and every access outside what a program was given, is a Fault.
Instruction set: RFC 9669. Helpers: enum bpf_func_id, include/uapi/linux/bpf.h.
"""

import io
import operator
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile

_U64, _STACK = (1 << 64) - 1, 512
_MAPS = ".maps"
_BPF_64_64 = 1  # R_BPF_*: an address
_EINVAL = -22 & _U64

# struct __sk_buff, include/uapi/linux/bpf.h
_LEN, _QUEUE_MAPPING, _DATA, _DATA_END, _CONTEXT_SIZE = 0, 12, 76, 80, 192

LOOKUP, STORE_BYTES, LOAD_BYTES, CHANGE_HEAD = 1, 9, 26, 43


class Fault(Exception):
    """What the machine cannot do, or a program must not."""


class Instruction(NamedTuple):
    code: int
    registers: int
    offset: int
    immediate: int


@dataclass
class Array:
    """A map: an array with keys from 0 on, of one CPU."""

    value_size: int
    max_entries: int
    data: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self.data = bytearray(self.value_size * self.max_entries)


@dataclass(frozen=True)
class Run:
    """What a run came to."""

    value: int
    """What the program returned, signed."""
    instructions: int
    """As the object has them; a lookup the kernel inlines is one call here."""
    helpers: Counter[int]
    """Calls of helpers, by number."""
    frame: bytes
    """The packet as the program left it."""
    queue_mapping: int


class Machine:
    """The program ``entry`` of an object, with its variables and the given maps."""

    def __init__(self, path: Path, entry: str, maps: Mapping[str, Array]) -> None:
        elf = ELFFile(io.BytesIO(path.read_bytes()))
        symbols = elf.get_section_by_name(".symtab")
        symbol = symbols.get_symbol_by_name(entry)[0]
        section = elf.get_section(symbol["st_shndx"])
        self._code = [
            Instruction(*fields) for fields in struct.iter_unpack("<BBhi", section.data())
        ]
        self._entry: int = symbol["st_value"] // 8
        self._maps = list(maps.values())
        self._homes: dict[str, int] = {}
        self.variables: dict[str, bytearray] = {}
        """Sections of variables, by name: to be set before a run, to be looked at after."""
        self._addresses = self._relocate(elf, section.name, list(maps))
        self._memory: list[bytearray] = []

    def _relocate(self, elf: ELFFile, section: str, maps: Sequence[str]) -> dict[int, int]:
        """What instructions load that load an address."""
        relocations = elf.get_section_by_name(f".rel{section}")
        symbols = elf.get_section_by_name(".symtab")
        addresses = {}
        for relocation in relocations.iter_relocations() if relocations else ():
            index = relocation["r_offset"] // 8
            symbol = symbols.get_symbol(relocation["r_info_sym"])
            home = elf.get_section(symbol["st_shndx"])
            if relocation["r_info_type"] != _BPF_64_64:
                continue  # a call of a function: a Fault if a packet comes to it
            if home.name == _MAPS:
                if symbol.name not in maps:
                    raise Fault(f"no map {symbol.name} was given")
                addresses[index] = _map_handle(maps.index(symbol.name))
            else:
                if home.name not in self.variables:
                    self.variables[home.name] = bytearray(home.data())
                start = symbol["st_value"] + self._code[index].immediate
                addresses[index] = _address(
                    _VARIABLES + list(self.variables).index(home.name), start
                )
        return addresses

    def run(self, frame: bytes, *, headroom: int = 64) -> Run:
        """Run it on a packet that is linear, with so much room in front."""
        return _Execution(
            self._code, self._addresses, list(self.variables.values()), self._maps, frame, headroom
        ).run(self._entry)


# Memory is regions of their own, told apart by the upper half of an address.
_CONTEXT, _PACKET, _FRAMES, _VALUES, _VARIABLES = 1, 2, 3, 16, 64


def _address(region: int, offset: int) -> int:
    return region << 32 | offset


def _map_handle(index: int) -> int:
    return _address(0xFFFF, index)


_WIDTHS = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}

_BINARY: dict[int, Callable[[int, int], int]] = {
    0x00: operator.add,
    0x10: operator.sub,
    0x20: operator.mul,
    0x40: operator.or_,
    0x50: operator.and_,
    0xA0: operator.xor,
    0xB0: lambda _, value: value,
}

_COMPARISONS: dict[int, Callable[[int, int], bool]] = {
    0x10: operator.eq,
    0x20: operator.gt,
    0x30: operator.ge,
    0x40: lambda left, right: bool(left & right),
    0x50: operator.ne,
    0xA0: operator.lt,
    0xB0: operator.le,
}
_SIGNED: dict[int, Callable[[int, int], bool]] = {
    0x60: operator.gt,
    0x70: operator.ge,
    0xC0: operator.lt,
    0xD0: operator.le,
}


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


class _Execution:
    """One run."""

    def __init__(
        self,
        code: Sequence[Instruction],
        addresses: Mapping[int, int],
        variables: Sequence[bytearray],
        maps: Sequence[Array],
        frame: bytes,
        headroom: int,
    ) -> None:
        self._code, self._addresses, self._maps = code, addresses, maps
        self._start = headroom
        self._regions = {
            _CONTEXT: bytearray(_CONTEXT_SIZE),
            _PACKET: bytearray(headroom) + frame,
            _FRAMES: bytearray(_STACK),
            **{_VALUES + i: array.data for i, array in enumerate(maps)},
            **{_VARIABLES + i: data for i, data in enumerate(variables)},
        }
        self._registers = [0] * 11
        self._helpers: Counter[int] = Counter()
        self._call: dict[int, Callable[..., int]] = {
            LOOKUP: self._lookup,
            LOAD_BYTES: self._load_bytes,
            STORE_BYTES: self._store_bytes,
            CHANGE_HEAD: self._change_head,
        }

    def run(self, entry: int) -> Run:
        registers = self._registers
        registers[1], registers[10] = _address(_CONTEXT, 0), _address(_FRAMES, _STACK)
        at, count = entry, 0
        following: int | None = entry
        while following is not None:
            at, count = following, count + 1
            following = self._step(at, self._code[at])
        return Run(
            _signed(registers[0] & 0xFFFFFFFF, 32),
            count,
            self._helpers,
            bytes(self._regions[_PACKET][self._start :]),
            self._load(_address(_CONTEXT, _QUEUE_MAPPING), 4),
        )

    def _step(self, at: int, instruction: Instruction) -> int | None:
        """Execute one; the index of the next, None at the end."""
        code, both, offset, immediate = instruction
        registers, kind = self._registers, code & 7
        to, source = both & 15, both >> 4
        if code == 0x18:  # of two slots: a number of 64 bits
            number = immediate & 0xFFFFFFFF | self._code[at + 1].immediate << 32
            registers[to] = self._addresses.get(at, number & _U64)
            return at + 2
        if kind in (4, 7):
            registers[to] = self._compute(code, to, source, immediate)
        elif code & 0xE7 == 0x61:
            registers[to] = self._load(registers[source] + offset, _WIDTHS[code & 0x18])
        elif code & 0xE7 in (0x62, 0x63):
            value = registers[source] if kind == 3 else immediate
            self._store(registers[to] + offset, _WIDTHS[code & 0x18], value)
        elif code == 0x85 and source == 0:
            self._helpers[immediate] += 1
            if immediate not in self._call:
                raise Fault(f"call of helper {immediate}")
            registers[0] = self._call[immediate](*registers[1:6])
        elif code == 0x95:
            return None
        elif code in (0x05, 0x06):
            return at + 1 + (offset if code == 0x05 else immediate)
        elif kind in (5, 6):
            return at + 1 + (offset if self._holds(code, to, source, immediate) else 0)
        else:
            raise Fault(f"instruction {code:#x} at {at}")
        return at + 1

    def _compute(self, code: int, to: int, source: int, immediate: int) -> int:
        bits = 64 if code & 7 == 7 else 32
        mask = (1 << bits) - 1
        operation = code & 0xF0
        left = self._registers[to] & mask
        right = (self._registers[source] if code & 8 else immediate) & mask
        if operation == 0xD0:  # byte swaps, their width in the immediate
            data = (self._registers[to] & ((1 << immediate) - 1)).to_bytes(immediate // 8, "little")
            return int.from_bytes(data, "big" if code & 8 or bits == 64 else "little")
        if operation == 0x60:
            return left << (right & (bits - 1)) & mask
        if operation == 0x70:
            return left >> (right & (bits - 1))
        if operation == 0xC0:
            return _signed(left, bits) >> (right & (bits - 1)) & mask
        if operation == 0x80:
            return -left & mask
        if operation not in _BINARY:
            raise Fault(f"arithmetic instruction {code:#x}")
        return _BINARY[operation](left, right) & mask

    def _holds(self, code: int, to: int, source: int, immediate: int) -> bool:
        bits = 64 if code & 7 == 5 else 32
        mask = (1 << bits) - 1
        left = self._registers[to] & mask
        right = (self._registers[source] if code & 8 else immediate) & mask
        if code & 0xF0 in _SIGNED:
            return _SIGNED[code & 0xF0](_signed(left, bits), _signed(right, bits))
        if code & 0xF0 not in _COMPARISONS:
            raise Fault(f"jump {code:#x}")
        return _COMPARISONS[code & 0xF0](left, right)

    def _place(self, address: int, size: int) -> tuple[bytearray, int]:
        region, offset = self._regions.get(address >> 32), address & 0xFFFFFFFF
        first = self._start if address >> 32 == _PACKET else 0
        if region is None or not first <= offset <= len(region) - size:
            raise Fault(f"access of {size} bytes at {address:#x}")
        return region, offset

    def _load(self, address: int, size: int) -> int:
        if address >> 32 == _CONTEXT:  # the kernel rewrites these
            length = len(self._regions[_PACKET])
            special = {
                _LEN: length - self._start,
                _DATA: _address(_PACKET, self._start),
                _DATA_END: _address(_PACKET, length),
            }
            if (address & 0xFFFFFFFF) in special:
                return special[address & 0xFFFFFFFF]
        region, offset = self._place(address & _U64, size)
        return int.from_bytes(region[offset : offset + size], "little")

    def _store(self, address: int, size: int, value: int) -> None:
        region, offset = self._place(address & _U64, size)
        region[offset : offset + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")

    def _lookup(self, handle: int, key: int, *_: int) -> int:
        if handle >> 32 != _map_handle(0) >> 32:
            raise Fault(f"lookup in {handle:#x}, which is no map")
        number, index = handle & 0xFFFFFFFF, self._load(key, 4)
        array = self._maps[number]
        if index >= array.max_entries:
            return 0
        return _address(_VALUES + number, index * array.value_size)

    def _load_bytes(self, _skb: int, offset: int, to: int, length: int, *_: int) -> int:
        packet, start = self._regions[_PACKET], self._start + (offset & 0xFFFFFFFF)
        region, place = self._place(to, length)
        if start + length > len(packet):
            region[place : place + length] = bytes(length)
            return _EINVAL
        region[place : place + length] = packet[start : start + length]
        return 0

    def _store_bytes(self, _skb: int, offset: int, source: int, length: int, *_: int) -> int:
        packet, start = self._regions[_PACKET], self._start + (offset & 0xFFFFFFFF)
        if start + length > len(packet):
            return _EINVAL
        region, place = self._place(source, length)
        packet[start : start + length] = region[place : place + length]
        return 0

    def _change_head(self, _skb: int, length: int, *_: int) -> int:
        if length > self._start:
            return _EINVAL
        self._start -= length
        self._regions[_PACKET][self._start : self._start + length] = bytes(length)
        return 0
