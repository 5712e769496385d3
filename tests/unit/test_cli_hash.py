# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash hash``."""

import json
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests.vectors import VECTORS, Vector
from vnethash.cli.hash import Endpoint, hash_command, parse_endpoint
from vnethash.errors import ConfigError

ARGUMENTS = ["66.9.149.187:2794", "161.142.100.80:1766"]


@pytest.fixture(autouse=True)
def _fresh_console() -> None:
    # It remembers the stdout of the test before.
    from vnethash.cli import output

    output.console.cache_clear()


def run(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(hash_command)
    result = CliRunner().invoke(app, arguments)
    if result.exception:
        raise result.exception
    return str(result.stdout)


def run_json(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("1.2.3.4", Endpoint("1.2.3.4", None)),
        ("1.2.3.4:80", Endpoint("1.2.3.4", 80)),
        ("1.2.3.4:0", Endpoint("1.2.3.4", 0)),
        ("::1", Endpoint("::1", None)),
        ("2001:db8::1:80", Endpoint("2001:db8::1:80", None)),
        ("[2001:db8::1]", Endpoint("2001:db8::1", None)),
        ("[2001:db8::1]:65535", Endpoint("2001:db8::1", 65535)),
    ],
)
def test_endpoints(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint("source", text) == endpoint


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("1.2.3.4:", "source port"),
        ("1.2.3.4:65536", "source port"),
        ("1.2.3.4:-1", "source port"),
        ("1.2.3.4:+1", "source port"),
        ("1.2.3.4:1_0", "source port"),
        ("1.2.3.4:http", "source port"),
        ("[::1]:", "source port"),
        ("[::1]80", "source"),
        ("[::1", "source"),
    ],
)
def test_bad_endpoints(text: str, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_endpoint("source", text)
    assert caught.value.field == field


@pytest.mark.parametrize("vector", VECTORS)
def test_vectors(vector: Vector) -> None:
    form = "[{}]:{}" if ":" in vector.source else "{}:{}"
    source = form.format(vector.source, vector.source_port)
    destination = form.format(vector.destination, vector.destination_port)
    version = 6 if ":" in vector.source else 4
    index = vector.tcp_hash % 128
    assert run_json(source, destination, "--proto", "tcp", "--queues", "8") == {
        "hash_value": vector.tcp_hash,
        "hash_report": f"TCPv{version}",
        "index": index,
        "queue": index % 8,
    }
    with_udp = run_json(source, destination, "--proto", "udp")
    assert (with_udp["hash_value"], with_udp["hash_report"]) == (vector.tcp_hash, f"UDPv{version}")
    for plain in (
        run_json(source, destination, "--proto", "none"),
        run_json(vector.source, vector.destination),
        run_json(source, destination, "--proto", "tcp", "--types", f"IPv{version}"),
    ):
        assert plain["hash_value"] == vector.address_hash
        assert plain["hash_report"] == f"IPv{version}"


def test_ports_mean_tcp_unless_told() -> None:
    assert run_json(*ARGUMENTS)["hash_report"] == "TCPv4"


def test_options_of_the_configuration() -> None:
    options = ["--key", "00" * 36 + "00000001", "--indirection", "1,0", "--queues", "2"]
    got = run_json("0.0.0.0:0", "0.0.0.0:0", *options)
    assert got == {"hash_value": 0, "hash_report": "TCPv4", "index": 0, "queue": 1}
    none = run_json(*ARGUMENTS, "--types", "UDPv4", "--unclassified", "2")
    assert none == {"hash_value": 0, "hash_report": "NONE", "index": None, "queue": 2}


def test_explanation() -> None:
    got = run_json(*ARGUMENTS, "--explain")
    assert got["hash_value"] == VECTORS[0].tcp_hash
    assert got["explanation"]["input"] == "420995bba18e64500aea06e6"
    assert got["explanation"]["section"] == "5.1.6.4.3.2"

    text = run(*ARGUMENTS, "--explain", "--types", "IPv4")
    assert "0x323e8fc2" in text
    assert "TCPv4: not enabled" in text
    assert "IPv4 is enabled" in text
    for offset, name, data in (
        ("0", "source address", "42 09 95 bb"),
        ("4", "destination address", "a1 8e 64 50"),
    ):
        assert f"{offset} {name} {data}" in " ".join(text.split())
    assert "port" not in text.split("bytes hashed")[1]


def test_text_without_a_hash() -> None:
    text = " ".join(run(*ARGUMENTS, "--types", "none", "--explain").split())
    assert "type NONE" in text
    assert "queue 0 (unclassified)" in text
    assert "no enabled type applies" in text


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["1.2.3.4:1", "1.2.3.4"], "destination port"),
        (["1.2.3.4", "1.2.3.4", "--proto", "udp"], "source port"),
        (["1.2.3.4", "::1"], "destination"),
        (["example.org", "::1"], "source"),
        ([*ARGUMENTS, "--key", "6d5a"], "key"),
        ([*ARGUMENTS, "--types", "TCPv5"], "hash_types"),
        ([*ARGUMENTS, "--indirection", "0,1,2"], "indirection_table"),
        ([*ARGUMENTS, "--indirection", "0,9", "--queues", "4"], "indirection_table"),
        ([*ARGUMENTS, "--queues", "0"], "queues"),
        ([*ARGUMENTS, "--unclassified", "4"], "unclassified_queue"),
    ],
)
def test_bad_input(arguments: list[str], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(*arguments)
    assert caught.value.field == field
