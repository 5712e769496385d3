# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The files in vectors/: made from the cases, as the schema says, and right."""

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tools.vectors import catalogue
from vnethash.capture import open_capture
from vnethash.rss import reference, vectors
from vnethash.rss.native import Hasher
from vnethash.vectors import Demand, Vector, VectorFile, load
from vnethash.vectors.export import CAPTURE, Format, expectation, render
from vnethash.vectors.files import SCHEMA, choose, folder
from vnethash.vectors.restrict import restrict
from vnethash.vectors.statements import STATEMENTS
from vnethash.virtio.hash_types import HashType, ReportType, TunnelType

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "vectors"
FILES = load()
VECTORS = [vector for file in FILES for vector in file.vectors]
by_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.topic)


def test_files_are_what_the_cases_say() -> None:
    """Byte for byte; `python -m tools.vectors` brings them up to date."""
    made = catalogue.contents()
    found = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert found.keys() - made.keys() == {SCHEMA, "README.md"}
    assert [name for name, data in made.items() if found.get(name) != data] == []


def test_the_folder_at_the_top_is_read() -> None:
    assert folder() == FOLDER


def test_files_are_as_the_schema_says() -> None:
    schema = json.loads((FOLDER / SCHEMA).read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    paths = [path for path in FOLDER.glob("*.json") if path.name != SCHEMA]
    assert len(paths) == len(FILES) > 15
    for path in paths:
        validator.validate(json.loads(path.read_text()))


def broken(change: dict[str, Any]) -> dict[str, Any]:
    values = json.loads((FOLDER / "vlan.json").read_text())
    values["vectors"][0] |= change
    return dict(values)


@pytest.mark.parametrize(
    "change",
    [
        {"frame": "0"},
        {"demand": "perhaps"},
        {"statement": "IPv4"},
        {"more": 1},
        {"expected": {"hash_value": 1, "hash_report": "NONE", "index": None, "queue": 0}},
        {"expected": {"hash_value": 1, "hash_report": "TCPv4", "index": None, "queue": 0}},
        {"expected": {"hash_value": 1 << 32, "hash_report": "TCPv4", "index": 0, "queue": 0}},
    ],
)
def test_schema_refuses(change: dict[str, Any]) -> None:
    schema = json.loads((FOLDER / SCHEMA).read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(broken(change))


@by_file
def test_reference_agrees_with_what_the_cases_say(file: VectorFile) -> None:
    """Report type and hashed bytes of a case are stated by hand, not taken from the reference."""
    for vector in file.vectors:
        explanation = reference.explain(vector.frame, vector.config, l3=vector.is_raw)
        assert explanation.data == vector.hashed, vector.id
        assert explanation.classified == vector.expected, vector.id


@by_file
def test_native_core_agrees(file: VectorFile) -> None:
    for vector in file.vectors:
        verdict = Hasher(vector.config, l3=vector.is_raw).classify(vector.frame)
        assert verdict == vector.expected, vector.id


def test_published_hashes_are_there() -> None:
    """Each hash of Microsoft's page, as a vector whose hash was not calculated here."""
    published = {v.address_hash for v in vectors.VECTORS} | {v.tcp_hash for v in vectors.VECTORS}
    microsoft = [vector for vector in VECTORS if vector.topic == "microsoft"]
    assert {vector.expected.hash_value for vector in microsoft} == published
    assert {vector.config.key for vector in microsoft} == {vectors.KEY}


def test_ids() -> None:
    counted = Counter(vector.id for vector in VECTORS)
    assert counted.most_common(1)[0][1] == 1
    for file in FILES:
        assert all(vector.topic == file.topic for vector in file.vectors)


def test_no_frame_is_there_twice_for_the_same() -> None:
    """Except in the topics about configurations, whose names tell what is varied."""
    same = Counter((v.frame, v.config, v.link_type) for v in VECTORS)
    assert sum(same.values()) - len(same) < len(VECTORS) // 10


def test_every_statement_is_tested_and_every_report_type_expected() -> None:
    assert {vector.statement for vector in VECTORS} == set(STATEMENTS)
    assert {vector.expected.hash_report for vector in VECTORS} == set(ReportType)
    tunnels = TunnelType.NONE
    for vector in VECTORS:
        if vector.config.tunnels.bit_count() == 1 and vector.statement == "TUN-6":
            tunnels |= vector.config.tunnels
    assert tunnels == TunnelType.ALL


def test_open_statements_are_not_demanded() -> None:
    for vector in VECTORS:
        assert (vector.demand is Demand.OPEN) == vector.statement.startswith("OPEN-")


def test_expectation_tells_hashed_from_not() -> None:
    by_id = {vector.id: vector for vector in VECTORS}
    hashed = expectation(by_id["microsoft/ipv4-1-tcp"])
    assert hashed == "TCPv4 0x51ccc178, index 120, queue 7 (configuration standard)"
    assert expectation(by_id["not-hashed/arp"]) == "no hash, queue 7 (configuration standard)"


def test_capture_has_every_frame_with_its_link_type() -> None:
    with open_capture(FOLDER / CAPTURE) as capture:
        frames = list(capture)
    assert [frame.data for frame in frames] == [vector.frame for vector in VECTORS]
    assert [frame.link_type == 101 for frame in frames] == [vector.is_raw for vector in VECTORS]
    # Wireshark shows the comments; the reader here passes over them.
    data = (FOLDER / CAPTURE).read_bytes()
    assert all(f"{v.id}: {expectation(v)}\n{v.reason}".encode() in data for v in VECTORS)


def test_json_lines_have_all_that_a_file_has() -> None:
    lines = render(FILES, Format.JSONL).decode().splitlines()
    assert len(lines) == len(VECTORS)
    for line, vector in zip(lines, VECTORS, strict=True):
        values = json.loads(line)
        assert values["config"].items() >= vector.config.to_json().items()
        assert values["config"]["hash_types_bits"] == int(vector.config.hash_types)
        assert values["config"]["tunnels_bits"] == int(vector.config.tunnels)
        stored = vector.to_json()
        del stored["configuration"]
        assert values.items() >= stored.items()


_MAIN = """
#include <stdio.h>
#include "vectors.h"

int main(void)
{
	for (size_t i = 0; i < sizeof(vnethash_vectors) / sizeof(*vnethash_vectors); i++) {
		const struct vnethash_vector *v = &vnethash_vectors[i];
		const struct vnethash_vector_config *c = v->config;
		unsigned long sum = 0;

		for (uint32_t n = 0; n < v->length; n++)
			sum = sum * 31 % 1000003 + v->frame[n];
		printf("%s %s %s %d %d %u %lu %u %u %d %u ", v->id, v->statement, v->section,
			v->is_demanded, v->is_raw, v->length, sum, v->hash_value, v->hash_report,
			v->index, v->queue);
		printf("%u %u %u %u %u %u %u\\n", c->hash_types, c->tunnels, c->key[39], c->entries,
			c->table[c->entries - 1], c->unclassified_queue, c->queues);
	}
	return 0;
}
"""


def as_c_prints(vector: Vector) -> str:
    total = 0
    for byte in vector.frame:
        total = total * 31 % 1000003 + byte
    config, expected = vector.config, vector.expected
    index = -1 if expected.index is None else expected.index
    values = (
        *(vector.id, vector.statement, vector.section, int(vector.demand is Demand.SPECIFICATION)),
        *(int(vector.is_raw), len(vector.frame), total),
        *(expected.hash_value, int(expected.hash_report), index, expected.queue),
        *(int(config.hash_types), int(config.tunnels), config.key[39]),
        *(len(config.indirection_table), config.indirection_table[-1]),
        *(config.unclassified_queue, config.queues),
    )
    return " ".join(map(str, values))


def test_c_header_compiles_and_has_every_vector(tmp_path: Path) -> None:
    (tmp_path / "vectors.h").write_bytes(render(FILES, Format.C))
    (tmp_path / "main.c").write_text(_MAIN)
    command = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-o", "main", "main.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    assert printed.stdout.splitlines() == [as_c_prints(vector) for vector in VECTORS]


def test_choose() -> None:
    chosen = choose(FILES, ["microsoft", "ipv4/*tcp*"])
    assert [file.topic for file in chosen] == ["ipv4", "microsoft"]
    assert all("tcp" in vector.id for vector in chosen[0].vectors)
    assert len(chosen[1].vectors) == 3 * len(vectors.VECTORS)


def test_restricted_to_fewer_types() -> None:
    few = HashType.IPv4 | HashType.TCPv4
    for file in restrict(FILES, few, TunnelType.NONE):
        for vector in file.vectors:
            assert vector.config.hash_types in few
            assert not vector.config.tunnels
            assert vector.expected.hash_report in (
                ReportType.NONE,
                ReportType.IPv4,
                ReportType.TCPv4,
            )
            assert reference.classify(vector.frame, vector.config, l3=vector.is_raw) == (
                vector.expected
            )


def test_restricted_vectors_name_what_they_test_then() -> None:
    types = HashType.IPv4 | HashType.TCPv4 | HashType.UDPv4 | HashType.IPv6 | HashType.TCPv6
    restricted = {v.id: v for f in restrict(FILES, types, TunnelType.NONE) for v in f.vectors}
    statements = {
        "ipv4/tcp": "IP4-1",
        "ipv6/udp": "IP6-3",
        "mobile/home-tcp": "EXT-5",
        "tunnel-udp/vxlan/tcpv4": "TUN-7",
        "vlan/8021q-udpv6": "OPEN-4",
        "keys/random-1/tcpv4": "HASH-7",
    }
    assert {name: restricted[name].statement for name in statements} == statements
    none = {v.id: v for f in restrict(FILES, HashType.NONE, TunnelType.NONE) for v in f.vectors}
    statements = {"ipv4/tcp": "IP4-4", "ipv6/udp": "IP6-4", "mobile/home-tcp": "EXT-5"}
    assert {name: none[name].statement for name in statements} == statements
    assert none["ipv4/tcp"].reason.endswith("supported: no enabled type applies.")


def test_not_restricted_they_stay_as_they_are() -> None:
    assert restrict(FILES, HashType.ALL, TunnelType.ALL) == FILES


def test_statements_are_rows_of_the_page() -> None:
    page = (ROOT / "docs" / "conformance.md").read_text()
    for name, (section, _) in STATEMENTS.items():
        # Of a demand the second column is the section; rules of ours have none.
        cell = "[^|]*" if name.startswith("OPEN-") else rf"{re.escape(section)}(?:,[^|]*)?"
        assert re.search(rf"^\| {name} \| {cell} \|", page, re.MULTILINE), name
