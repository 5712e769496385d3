# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The vectors in other forms: JSON lines, a capture with comments, a C header."""

import json
from collections.abc import Iterator, Sequence
from enum import StrEnum

from vnethash.capture import LINKTYPE_ETHERNET, Frame, pcapng_blocks
from vnethash.rss.config import RssConfig
from vnethash.vectors.files import dump
from vnethash.vectors.model import Demand, Vector, VectorFile

CAPTURE = "vectors.pcapng"
_LINKTYPE_RAW = 101


class Format(StrEnum):
    """What ``export`` writes."""

    JSON = "json"
    """The files as they are, in a folder."""
    JSONL = "jsonl"
    """A request a line, with what is expected of it."""
    PCAPNG = "pcapng"
    C = "c"
    """A header for unit tests in C."""


def _all(files: Sequence[VectorFile]) -> list[Vector]:
    return [vector for file in files for vector in file.vectors]


def render(files: Sequence[VectorFile], form: Format) -> bytes:
    """The vectors as one file; JSON takes one topic only."""
    if form is Format.JSONL:
        return json_lines(files).encode()
    if form is Format.PCAPNG:
        return capture(files)
    if form is Format.C:
        return c_header(files).encode()
    (file,) = files
    return dump(file).encode()


def json_lines(files: Sequence[VectorFile]) -> str:
    """Requests as an implementation under test gets them, with ``expected`` and the reason."""
    lines = []
    for vector in _all(files):
        told = {
            "statement": vector.statement,
            "section": vector.section,
            "demand": vector.demand,
            "hashed": vector.hashed.hex(),
            "expected": vector.expected.to_json(),
            "reason": vector.reason,
        }
        lines.append(json.dumps(vector.request() | told) + "\n")
    return "".join(lines)


def capture(files: Sequence[VectorFile]) -> bytes:
    """All frames, each with its id, what is expected and why as a comment."""
    return b"".join(pcapng_blocks(_commented(files)))


def _commented(files: Sequence[VectorFile]) -> Iterator[tuple[Frame, str]]:
    for number, vector in enumerate(_all(files)):
        link_type = _LINKTYPE_RAW if vector.is_raw else LINKTYPE_ETHERNET
        # One microsecond apart, so that the order shows.
        frame = Frame(number, vector.frame, len(vector.frame), number * 1000, link_type)
        yield frame, f"{vector.id}: {expectation(vector)}\n{vector.reason}"


def expectation(vector: Vector) -> str:
    """What is expected, in a line."""
    expected = vector.expected
    if expected.index is None:
        return f"no hash, queue {expected.queue} (configuration {vector.configuration})"
    return (
        f"{expected.hash_report.name} {expected.hash_value:#010x}, index {expected.index}, "
        f"queue {expected.queue} (configuration {vector.configuration})"
    )


_C_HEAD = """\
/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) OR Apache-2.0 */
/*
 * Test vectors of RSS hashing as virtio-net has it (virtio 1.3, 5.1.6.4.3).
 * Written by `vnethash vectors export --format c`.
 */
#ifndef VNETHASH_VECTORS_H
#define VNETHASH_VECTORS_H

#include <stdint.h>

struct vnethash_vector_config {
	uint32_t hash_types;        /* VIRTIO_NET_RSS_HASH_TYPE_.. */
	uint8_t key[40];
	const uint16_t *table;      /* queues */
	uint32_t entries;           /* of the table, a power of two */
	uint16_t unclassified_queue;
	uint16_t queues;
	uint32_t tunnels;           /* VIRTIO_NET_HASH_TUNNEL_TYPE_.., 0: outer headers only */
};

struct vnethash_vector {
	const char *id;
	const char *statement;      /* row of vnethash's docs/conformance.md */
	const char *section;        /* of virtio 1.3 */
	int is_demanded;            /* by the specification, which is silent if 0 */
	const struct vnethash_vector_config *config;
	int is_raw;                 /* starts with its IP header, not with Ethernet's */
	const uint8_t *frame;
	uint32_t length;
	uint32_t hash_value;
	uint16_t hash_report;       /* VIRTIO_NET_HASH_REPORT_.., 0: no hash */
	int32_t index;              /* of the table, -1 without a hash */
	uint16_t queue;
	const char *reason;
};
"""


def c_header(files: Sequence[VectorFile]) -> str:
    """A header of constant arrays, for C99 and later."""
    parts = [_C_HEAD]
    configs: dict[RssConfig, str] = {}
    vectors = _all(files)
    for vector in vectors:
        if vector.config not in configs:
            number = len(configs)
            configs[vector.config] = f"vnethash_config_{number}"
            parts.append(_c_config(number, vector.config))
    for number, vector in enumerate(vectors):
        data = _c_numbers(vector.frame or b"\0")
        parts.append(f"static const uint8_t vnethash_frame_{number}[] = {{\n{data}\n}};")
    rows = [_c_vector(n, vector, configs[vector.config]) for n, vector in enumerate(vectors)]
    parts.append("static const struct vnethash_vector vnethash_vectors[] = {")
    parts += rows
    parts.append("};\n")
    parts.append("#endif\n")
    return "\n".join(parts)


def _c_config(number: int, config: RssConfig) -> str:
    table = config.indirection_table
    return (
        f"static const uint16_t vnethash_table_{number}[] = {{\n{_c_numbers(table)}\n}};\n"
        f"static const struct vnethash_vector_config vnethash_config_{number} = {{\n"
        f"\t{int(config.hash_types):#x}, {{\n{_c_numbers(config.key)}\n\t}},\n"
        f"\tvnethash_table_{number}, {len(table)}, {config.unclassified_queue}, {config.queues},\n"
        f"\t{int(config.tunnels):#x},\n"
        "};"
    )


def _c_vector(number: int, vector: Vector, config: str) -> str:
    expected = vector.expected
    index = -1 if expected.index is None else expected.index
    return (
        f"\t{{ {_c_string(vector.id)}, {_c_string(vector.statement)}, "
        f"{_c_string(vector.section)}, "
        f"{int(vector.demand is Demand.SPECIFICATION)},\n"
        f"\t  &{config}, {int(vector.is_raw)}, vnethash_frame_{number}, {len(vector.frame)},\n"
        f"\t  {expected.hash_value:#x}u, {int(expected.hash_report)}, {index}, "
        f"{expected.queue},\n"
        f"\t  {_c_string(vector.reason)} }},"
    )


def _c_numbers(numbers: Sequence[int]) -> str:
    lines = (numbers[start : start + 16] for start in range(0, len(numbers), 16))
    return "\n".join("\t" + " ".join(f"{number}," for number in line) for line in lines)


def _c_string(text: str) -> str:
    return json.dumps(text)  # reasons are ASCII, whose escapes are those of C
