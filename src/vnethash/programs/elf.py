# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What libbpf does not tell of a BPF object before load, from its ELF file.

Layouts: elf(5); struct bpf_insn, include/uapi/linux/bpf.h; struct
btf_ext_header, tools/lib/bpf/libbpf_internal.h.
"""

import struct
from typing import NamedTuple

_IDENT = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_ET_REL, _EM_BPF = 1, 247
_SHT_SYMTAB, _SHT_NOBITS, _SHF_EXECINSTR = 2, 8, 4
_LINES = ".BTF.ext"
_CALL = 0x85  # BPF_JMP | BPF_CALL: of a helper if there is no source register

_HEADER = struct.Struct("<16xHH20xQ10xHHH")
_SECTION = struct.Struct("<IIQ8xQQI20x")
_SYMBOL = struct.Struct("<IBBH16x")
_INSTRUCTION = struct.Struct("<BBhi")
_BTF_EXT = struct.Struct("<4xI20xI")


class NotBpf(ValueError):
    """Bytes that were not compiled for BPF; the text says what they are."""


class Contents(NamedTuple):
    """What a BPF object asks of the kernel."""

    helpers: frozenset[int]
    """Numbers of the helpers it calls, enum bpf_func_id."""
    undefined: tuple[str, ...]
    """Names that it leaves to whoever loads it to find."""
    adapts: bool
    """Whether code is to be adapted to structures of the running kernel (CO-RE)."""


class Section(NamedTuple):
    """A section of an object file, with its bytes."""

    name: str
    type: int
    flags: int
    data: bytes
    link: int


def read_contents(image: bytes) -> Contents:
    """Look through an object file. Raises NotBpf."""
    if not image.startswith(_IDENT):
        raise NotBpf("is no 64-bit little-endian ELF file")
    try:
        kind, machine, *_ = _HEADER.unpack_from(image)
        if (kind, machine) != (_ET_REL, _EM_BPF):
            raise NotBpf(f"was not compiled for BPF, but for machine {machine} (ELF type {kind})")
        found = sections(image)
        return Contents(frozenset(_helpers(found)), tuple(_undefined(found)), _adapts(found))
    except NotBpf:
        raise
    except (struct.error, IndexError, ValueError) as error:
        raise NotBpf("is a damaged ELF file") from error


def without_line_info(image: bytes) -> bytes:
    """The object without the places in its source that the verifier's log names."""
    *_, offset, size, _, _ = _HEADER.unpack_from(image)
    changed = bytearray(image)
    for index, section in enumerate(sections(image)):
        if section.name == _LINES:
            struct.pack_into("<I", changed, offset + size * index, 0)  # its name: none
    return bytes(changed)


def sections(image: bytes) -> list[Section]:
    """All sections, by number. Raises ValueError, IndexError or struct.error for a damaged file."""
    *_, offset, size, count, names = _HEADER.unpack_from(image)
    headers = list(_SECTION.iter_unpack(image[offset : offset + size * count]))
    if len(headers) != count:
        raise ValueError("cut short")
    contents = []
    for _, kind, _, start, length, _ in headers:
        length *= kind != _SHT_NOBITS
        if start + length > len(image):
            raise ValueError("cut short")
        contents.append(image[start : start + length])
    return [
        Section(_text(contents[names], name), kind, flags, data, link)
        for (name, kind, flags, _, _, link), data in zip(headers, contents, strict=True)
    ]


def _text(strings: bytes, start: int) -> str:
    return strings[start : strings.index(b"\0", start)].decode()


def _helpers(sections: list[Section]) -> list[int]:
    return [
        immediate
        for section in sections
        if section.flags & _SHF_EXECINSTR
        for code, registers, _, immediate in _INSTRUCTION.iter_unpack(section.data)
        if code == _CALL and not registers >> 4
    ]


def _undefined(sections: list[Section]) -> list[str]:
    return [
        _text(sections[section.link].data, name)
        for section in sections
        if section.type == _SHT_SYMTAB
        for name, _, _, home in _SYMBOL.iter_unpack(section.data)
        if name and not home
    ]


def _adapts(sections: list[Section]) -> bool:
    for section in sections:
        if section.name == _LINES:
            header_length, relocations = _BTF_EXT.unpack_from(section.data)
            return bool(header_length >= _BTF_EXT.size and relocations)
    return False
