# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Addresses that cannot be told, and what else would tell them."""

import ipaddress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yacryptopan import CryptoPAn

from tests.analyses import analysis_of, random_flows
from vnethash.analysis import analyze, merge, plan_analysis
from vnethash.analysis.anonymize import Anonymizer, anonymize
from vnethash.analysis.flows import endpoints, flow_text, heaviest_first
from vnethash.analysis.result import Source
from vnethash.errors import ConfigError
from vnethash.rss.config import RssConfig

# The key and addresses of sample.cpp and its traces, in the Crypto-PAn distribution 1.0
# (Georgia Institute of Technology, 2002).
SAMPLE_KEY = bytes.fromhex("1522178d33a4cf80130a5b1649907d10d8988f837979652762574c2d2a842202")
SAMPLE = {
    "128.11.68.132": "135.242.180.132",
    "129.118.74.4": "134.136.186.123",
    "130.132.252.244": "133.68.164.234",
    "141.223.7.43": "141.167.8.160",
    "141.233.145.108": "141.129.237.235",
    "152.163.225.39": "151.140.114.167",
    "156.29.3.236": "147.225.12.42",
    "165.247.96.84": "162.9.99.234",
    "166.107.77.190": "160.132.178.185",
    "192.102.249.13": "252.138.62.131",
}
RSS = RssConfig.default(4)


def replaced(anonymizer: Anonymizer, text: str) -> str:
    packed = ipaddress.ip_address(text).packed
    raw = anonymizer.addresses(np.frombuffer(packed, np.uint8).reshape(1, -1))
    return str(ipaddress.ip_address(raw.tobytes()))


def common_bits(one: bytes, other: bytes) -> int:
    differing = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
    return 8 * len(one) - differing.bit_length()


@pytest.mark.parametrize(("address", "expected"), SAMPLE.items())
def test_published_vectors(address: str, expected: str) -> None:
    assert replaced(Anonymizer(SAMPLE_KEY), address) == expected


@given(st.binary(min_size=32, max_size=32), st.lists(st.ip_addresses(), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_as_another_implementation(
    key: bytes, addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address]
) -> None:
    ours, judge = Anonymizer(key), CryptoPAn(key)
    for address in addresses:
        assert replaced(ours, str(address)) == judge.anonymize(str(address))


@given(
    st.sampled_from([4, 16]).flatmap(
        lambda size: st.lists(st.binary(min_size=size, max_size=size), min_size=1, max_size=12)
    )
)
@settings(max_examples=60, deadline=None)
def test_prefixes_are_kept_and_no_more(addresses: list[bytes]) -> None:
    raw = np.frombuffer(b"".join(addresses), np.uint8).reshape(len(addresses), -1)
    changed = [row.tobytes() for row in Anonymizer(SAMPLE_KEY).addresses(raw)]
    for one, one_changed in zip(addresses, changed, strict=True):
        for other, other_changed in zip(addresses, changed, strict=True):
            assert common_bits(one, other) == common_bits(one_changed, other_changed)


def test_of_no_addresses() -> None:
    assert Anonymizer(SAMPLE_KEY).addresses(np.empty((0, 4), np.uint8)).shape == (0, 4)


def test_random_keys_differ() -> None:
    assert replaced(Anonymizer.random(), "2001:db8::1") != replaced(
        Anonymizer.random(), "2001:db8::1"
    )


def test_key_of_another_length() -> None:
    with pytest.raises(ConfigError, match="must be 32 bytes, not 31"):
        Anonymizer(bytes(31))


def test_key_file_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "key"
    made = Anonymizer.from_file(file)
    assert file.stat().st_mode & 0o777 == 0o600
    key = bytes.fromhex(file.read_text())
    assert len(key) == 32
    for anonymizer in (Anonymizer.from_file(file), Anonymizer(key)):
        assert replaced(anonymizer, "192.0.2.1") == replaced(made, "192.0.2.1")


@pytest.mark.parametrize("text", ["", "00" * 31, "zz" * 32, "ü" * 64])
def test_key_file_with_something_else(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(ConfigError, match="does not hold 64 hexadecimal digits"):
        Anonymizer.from_file(file)
    assert file.read_text() == text


def test_loads_stay_and_addresses_go() -> None:
    real = analysis_of(RSS, random_flows(500))
    shared = anonymize(real, Anonymizer(SAMPLE_KEY))
    for load in ("by_bucket", "by_queue", "by_report"):
        for before, after in zip(getattr(real, load), getattr(shared, load), strict=True):
            assert np.array_equal(before, after)
    judge = CryptoPAn(SAMPLE_KEY)
    expected = set()
    for flow, queue in zip(real.flows, real.flow_queues, strict=True):
        source, destination, *ports = endpoints(flow)
        changed = (judge.anonymize(source), judge.anonymize(destination), *ports)
        expected.add((*changed, int(flow["bytes"]), int(queue)))
    assert expected == {
        (*endpoints(flow), int(flow["bytes"]), int(queue))
        for flow, queue in zip(shared.flows, shared.flow_queues, strict=True)
    }
    assert not {flow_text(flow) for flow in real.flows} & {flow_text(flow) for flow in shared.flows}


def test_hash_values_tell_the_bucket_and_no_more() -> None:
    shared = anonymize(analysis_of(RSS, random_flows(500)), Anonymizer.random())
    assert shared.anonymous
    assert int(shared.flows["hash_value"].max()) < len(RSS.indirection_table)


def test_order_of_equal_flows_tells_nothing() -> None:
    flows = random_flows(300, ipv6_share=0)
    flows["packets"], flows["bytes"] = 1, 60
    shared = anonymize(analysis_of(RSS, flows), Anonymizer(SAMPLE_KEY))
    shuffled = shared.flows[np.random.default_rng(2).permutation(300)]
    assert np.array_equal(heaviest_first(shuffled), shared.flows)


def test_files_have_numbers_for_names() -> None:
    broken = Source(
        "/home/alice/bank.pcap", 3, 99, "/home/alice/bank.pcap: cut short", 99, "say bank"
    )
    real = analysis_of(RSS, random_flows(5), sources=(Source("a.pcap", 1, 2), broken))
    for path, error, left in (
        ("-", "section header with byte-order magic 00", "section header with byte-order magic 00"),
        ("s3://bank/a.pcap", "cannot open: bank/a.pcap", "cannot open: file 1"),
        ("s3://bank/a.pcap", "s3://bank/a.pcap: no s3fs", "file 1: no s3fs"),
    ):
        alone = replace(real, sources=(Source(path, 0, 0, error),))
        assert anonymize(alone, Anonymizer.random()).sources[0].error == left
    first, second = anonymize(real, Anonymizer.random()).sources
    assert first == Source("file 1", 1, 2)
    assert second == Source("file 2", 3, 99, "file 2: cut short", 99)


@pytest.mark.parametrize(
    ("line", "private"),
    [
        ("10.1.2.4:999,198.51.100.7,1,2,6,1,1", "10.1.2.4"),
        ("10.1.2.4,198.51.100.7,1,2,6,1,1,8", "10.1.2.4"),
        ("10.1.2.4'x,198.51.100.7,1,2,6,1,1", "10.1.2.4"),
        ("""'10.1.2.4",198.51.100.7,1,2,6,1,1,'8'""", "10.1.2.4"),
        ("2001:db8:77::1,2001:db8:88::g,1,2,6,1,1", "db8:88"),
    ],
)
def test_rows_that_cannot_be_read_are_not_quoted(tmp_path: Path, line: str, private: str) -> None:
    file = tmp_path / "bank's.csv"
    good = "192.0.2.1,198.51.100.7,40000,443,6,10,1220"
    file.write_text("\n".join(["src,dst,sport,dport,proto,packets,bytes", good, line, line, good]))
    real = analyze([file], RSS)
    assert private in str(real.sources)
    told = str(anonymize(real, Anonymizer(SAMPLE_KEY)).sources)
    assert "2 rows cannot be read: 2 " in told
    for secret in (private, "bank", "198.51"):
        assert secret not in told


@pytest.mark.parametrize("address", ["10.1.2.4", "2001:db8::1", "::ffff:10.1.2.4", "fe80::1:2:3:4"])
def test_addresses_in_what_a_library_says_go(address: str) -> None:
    real = analysis_of(RSS, random_flows(5), sources=(Source("a", 1, 2, f"bad {address}, row 3"),))
    assert anonymize(real, Anonymizer(SAMPLE_KEY)).sources[0].error == "bad …, row 3"


def test_no_plan_afterwards() -> None:
    shared = anonymize(analysis_of(RSS, random_flows(50)), Anonymizer(SAMPLE_KEY))
    with pytest.raises(ConfigError, match="where the addresses are anonymised"):
        plan_analysis(shared)


def test_another_table_fits_and_another_key_does_not() -> None:
    real = analysis_of(RSS, random_flows(200))
    shared = anonymize(real, Anonymizer.random())
    other = RSS.replace(indirection_table=RSS.indirection_table[::-1])
    assert np.array_equal(shared.under(other).by_queue.bytes, real.under(other).by_queue.bytes)
    with pytest.raises(ConfigError, match="anonymised"):
        shared.under(RssConfig.symmetric(4))


def test_a_secret_key_is_not_told() -> None:
    secret = RssConfig.random(4)
    real = analysis_of(secret, random_flows(5))
    assert real.rss_json() == secret.to_json()
    assert anonymize(real, Anonymizer.random()).rss_json() == {**secret.to_json(), "key": None}
    for known in (RssConfig.default(4), RssConfig.symmetric(4)):
        shared = replace(real, rss=known, anonymous=True)
        assert shared.rss_json() == known.to_json()


def test_sums_are_made_before() -> None:
    shared = anonymize(analysis_of(RSS, random_flows(5)), Anonymizer.random())
    with pytest.raises(ConfigError, match="are anonymised"):
        merge([shared, shared])
