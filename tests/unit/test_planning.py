# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Plans: what they say is what the reference makes of the same flows."""

import socket
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from vnethash.analysis import FLOW_DTYPE, Analysis
from vnethash.analysis.flows import Flows, endpoints, hash_flows
from vnethash.analysis.planning import (
    Aim,
    TrafficPlan,
    judge,
    plan_analysis,
    plan_for,
    traffic_of,
)
from vnethash.errors import ConfigError
from vnethash.rss import MICROSOFT_KEY, SYMMETRIC_KEY, RssConfig
from vnethash.rss.ethtool import format_table
from vnethash.rss.keys import is_symmetric
from vnethash.rss.makespan import Limit
from vnethash.rss.native import Hasher
from vnethash.rss.reference import Protocol, classify_tuple
from vnethash.stats import Measure
from vnethash.virtio.hash_types import HashType, ReportType

KINDS = (0, 1, 2, 3, 4, 5, 6)


def flows(count: int, rss: RssConfig, seed: int = 1, exponent: float = 1.0) -> Flows:
    """Flows of all kinds, the n-th with 1/n^exponent of the packets of the first."""
    dice = np.random.default_rng(seed)
    made = np.zeros(count, FLOW_DTYPE)
    made["kind"] = dice.choice(KINDS[1:], count)
    size = np.where(made["kind"] >= ReportType.IPv6, 32, 8)
    made["addresses"] = dice.integers(0, 256, (count, 32)) * (np.arange(32) < size[:, None])
    made["ports"] = dice.integers(0, 256, (count, 4)) * ((made["kind"] - 1) % 3 > 0)[:, None]
    made["packets"] = dice.permutation(np.ceil(1e6 / np.arange(1, count + 1) ** exponent))
    made["bytes"] = made["packets"] * dice.integers(60, 1500, count)
    return hash_flows(made, Hasher(rss))


def by_reference(some: Flows, rss: RssConfig, measure: str = "packets") -> list[int]:
    loads: Counter[int] = Counter()
    for flow in some:
        source, destination, *ports = endpoints(flow)
        protocol = {2: Protocol.TCP, 0: Protocol.UDP}.get(int(flow["kind"]) % 3)
        told = classify_tuple(rss, source, destination, protocol, *ports)
        loads[told.queue] += int(flow[measure])
    return [loads[queue] for queue in range(rss.queues)]


def check(plan: TrafficPlan, some: Flows) -> None:
    measure = plan.measure.value
    assert list(plan.loads_before) == by_reference(some, plan.before, measure)
    assert list(plan.loads_after) == by_reference(some, plan.after, measure)
    if plan.ethtool is None:
        assert plan.aim.few_moves
    else:
        rss = plan.ethtool.rss
        assert list(plan.ethtool.loads) == by_reference(some, rss, measure)
        assert format_table(rss.indirection_table) is not None
        assert rss.key == plan.after.key
    assert max(plan.loads_after) >= plan.bound.load * (1 - 1e-12)
    assert plan.after.hash_types == plan.before.hash_types


@settings(max_examples=examples(40), deadline=None)
@given(data=st.data())
def test_what_any_plan_keeps_to(data: st.DataObject) -> None:
    types = data.draw(
        st.sampled_from([HashType.ALL, HashType.ALL & ~HashType.UDPv4, HashType.TCPv6])
    )
    key = data.draw(st.sampled_from([MICROSOFT_KEY, SYMMETRIC_KEY]))
    rss = RssConfig.default(data.draw(st.integers(1, 6))).replace(hash_types=types, key=key)
    some = flows(data.draw(st.integers(0, 200)), rss, data.draw(st.integers(0, 99)))
    aim = Aim(
        queues=data.draw(st.none() | st.integers(1, 8)),
        entries=data.draw(st.sampled_from([None, 8, 128, 256])),
        measure=data.draw(st.sampled_from(Measure)),
        symmetric=data.draw(st.booleans()),
        for_ethtool=data.draw(st.booleans()),
        candidates=40,
    )
    plan = plan_for(some, rss, aim)
    check(plan, some)
    assert plan.after.queues == (aim.queues or rss.queues)
    assert len(plan.after.indirection_table) == (aim.entries or 128)
    assert is_symmetric(plan.after.key) or not aim.symmetric
    if aim.for_ethtool:
        assert plan.ethtool
        assert plan.ethtool.rss == plan.after
    if rss.queues == plan.after.queues and not (aim.symmetric or aim.for_ethtool):
        assert max(plan.loads_after) <= max(plan.loads_before)
    assert plan_for(some, rss, aim) == plan


@settings(max_examples=examples(40), deadline=None)
@given(seed=st.integers(0, 99), count=st.integers(1, 200), tolerance=st.sampled_from([0.02, 0.2]))
def test_few_moves(seed: int, count: int, tolerance: float) -> None:
    rss = RssConfig.default(4)
    some = flows(count, rss, seed)
    plan = plan_for(some, rss, Aim(few_moves=True, tolerance=tolerance))
    check(plan, some)
    anew = plan_for(some, rss, Aim(keep_key=True))
    assert plan.after.key == anew.after.key == rss.key
    assert max(plan.loads_after) <= max(plan.loads_before)
    assert plan.moved_entries is not None
    if anew.changed and anew.moved_entries is not None:
        assert plan.moved_entries <= anew.moved_entries
    assert plan.tried == 1


def test_both_directions_on_one_queue() -> None:
    rss = RssConfig.default(4)
    some = flows(500, rss)
    back = some.copy()
    for flow in back:
        half = 16 if flow["kind"] >= ReportType.IPv6 else 4
        flow["addresses"][: 2 * half] = np.roll(flow["addresses"][: 2 * half], half)
        flow["ports"] = np.roll(flow["ports"], 2)
    plan = plan_for(np.concatenate([some, back]), rss, Aim(symmetric=True))
    there, again = (hash_flows(part, Hasher(plan.after)) for part in (some, back))
    assert (there["hash_value"] == again["hash_value"]).all()
    assert by_reference(some, plan.after) == by_reference(back, plan.after)
    assert plan.above_bound < 0.05
    # One that has a third of all in each direction has two thirds on a queue.
    heavy = np.concatenate([some, back])
    heavy["packets"][[0, len(some)]] = heavy["packets"].sum()
    plan = plan_for(heavy, rss, Aim(symmetric=True))
    assert plan.bound.limit is Limit.LARGEST
    assert plan.bound.load >= 2 * int(heavy["packets"][0])


def test_an_analysis_has_packets_that_no_flow_has() -> None:
    rss = RssConfig.default(4).replace(unclassified_queue=3)
    some = flows(3000, rss)
    unhashed = np.array([[900_000, 54_000_000], [1, 60], [0, 0], [0, 0]], np.uint64)
    analysis = Analysis(rss, some, None, unhashed, {0x0806: 900_000}, 0, ())
    plan = plan_analysis(analysis)
    assert sum(plan.loads_after) == int(some["packets"].sum()) + 900_001
    under = analysis.under(plan.after)
    assert list(plan.loads_after) == under.by_queue.packets.tolist()
    assert plan.loads_after[3] >= 900_001
    assert plan.above_bound < 0.01
    by_bytes = plan_analysis(analysis, Aim(measure=Measure.BYTES))
    assert list(by_bytes.loads_after) == analysis.under(by_bytes.after).by_queue.bytes.tolist()
    assert sum(by_bytes.loads_after) == int(some["bytes"].sum()) + 54_000_060


@pytest.mark.parametrize("measure", Measure)
def test_a_plan_is_judged_by_other_traffic(measure: Measure) -> None:
    rss = RssConfig.default(4)
    other, unhashed = flows(800, rss, seed=2), np.zeros((4, 2), np.uint64)
    plan = plan_for(flows(800, rss), rss, Aim(queues=5, measure=measure))
    # However that was analysed.
    analysis = Analysis(RssConfig.symmetric(3), other, None, unhashed, {}, 0, ())
    held = judge(plan, analysis)
    assert list(held.loads_before) == by_reference(other, plan.before, measure.value)
    assert list(held.loads_after) == by_reference(other, plan.after, measure.value)
    assert held.to_json()["after"] == {
        "loads": list(held.loads_after),
        "imbalance": max(held.loads_after) * 5 / sum(held.loads_after),
    }
    tunnels = Analysis(rss.replace(hash_types=HashType.IPv4), other, None, unhashed, {}, 0, ())
    with pytest.raises(ConfigError, match="hash_types"):
        judge(plan, tunnels)


def test_a_device_is_quoted() -> None:
    rss = RssConfig.default(4)
    plan = plan_for(flows(10, rss), rss)
    assert plan.ethtool
    assert plan.ethtool.line("a b;c").startswith("ethtool -X 'a b;c' hkey ")


def test_what_limits_is_told() -> None:
    rss = RssConfig.default(4)
    some = flows(1000, rss)
    some["packets"][0] = 10 * some["packets"].sum()
    assert plan_for(some, rss).bound == (some["packets"][0], Limit.LARGEST)
    assert plan_for(some[1:], rss).bound.limit is Limit.EVEN
    plan = plan_for(some[1:], rss, unhashed=10**7)
    assert plan.bound.limit is Limit.FIXED
    assert plan.bound.load == 10**7
    assert 0 not in plan.after.indirection_table


def test_nothing_is_changed_where_nothing_is_gained() -> None:
    rss = RssConfig.default(4)
    some = flows(1000, rss)
    plan = plan_for(some, rss)
    assert plan.changed
    again = plan_for(hash_flows(some, Hasher(plan.after)), plan.after)
    assert not again.changed
    assert (again.moved, again.moved_entries) == (0, 0)
    symmetric = plan_for(some, plan.after, Aim(symmetric=True))
    assert symmetric.changed
    nothing = plan_for(some[:0], rss)
    assert (nothing.after, nothing.above_bound) == (rss, 0)


def test_the_present_table_stays_if_none_is_better() -> None:
    """Four flows of which no two queues can have the same: 12 and 10 is the best there is."""
    rss = RssConfig.default(2)
    some = flows(4, rss)
    some["packets"] = [7, 5, 5, 5]
    buckets = some["hash_value"] & np.uint32(127)
    assert len(set(buckets.tolist())) == 4
    table = np.zeros(128, int)
    table[buckets[:2]] = 1  # a plan from nothing would have the heaviest flow on queue 0
    present = rss.replace(indirection_table=table.tolist())
    plan = plan_for(some, present)
    assert (plan.loads_before, plan.bound.load) == ((10, 12), 11)
    assert not plan.changed
    check(plan, some)


def test_what_moves() -> None:
    rss = RssConfig.default(4)
    some = flows(1000, rss)
    plan = plan_for(some, rss, Aim(keep_key=True))
    queues = [
        np.array(config.indirection_table)[some["hash_value"] & 127]
        for config in (plan.before, plan.after)
    ]
    moved = some["packets"][queues[0] != queues[1]].sum() / some["packets"].sum()
    assert plan.moved == pytest.approx(moved)
    tables = plan.before.indirection_table, plan.after.indirection_table
    assert plan.moved_entries == sum(a != b for a, b in zip(*tables, strict=True))
    assert plan_for(some, rss, Aim(keep_key=True, entries=64)).moved_entries is None


def test_queues_keep_their_numbers() -> None:
    """The same table under other numbers, one entry spoilt: that entry alone goes back."""
    rss = RssConfig.default(4).replace(unclassified_queue=1)
    some = flows(3000, rss)
    best = plan_for(some, rss, Aim(keep_key=True), unhashed=10**6).after
    present = np.array([3, 1, 0, 2])[list(best.indirection_table)]
    heaviest = int(np.argmax(np.bincount(some["hash_value"] & 127, some["packets"])))
    present[heaviest] = (present[heaviest] + 1) % 4
    spoilt = rss.replace(indirection_table=present.tolist())
    plan = plan_for(some, spoilt, Aim(keep_key=True), unhashed=10**6)
    assert plan.moved_entries == 1
    assert sorted(plan.loads_after) == sorted(plan_for(some, best, unhashed=10**6).loads_after)


@settings(max_examples=examples(30), deadline=None)
@given(seed=st.integers(0, 99), queues=st.integers(1, 6), unclassified=st.integers(0, 3))
def test_no_other_numbers_keep_twice_as_much(seed: int, queues: int, unclassified: int) -> None:
    """Taking the largest first keeps at least half of what the best choice would."""
    rss = RssConfig.default(4).replace(unclassified_queue=min(unclassified, queues - 1))
    some = flows(50, rss, seed)
    plan = plan_for(some, rss, Aim(queues=queues), unhashed=7)
    there, then = (
        np.array(config.indirection_table)[hash_flows(some, Hasher(config))["hash_value"] & 127]
        for config in (rss, plan.after)
    )
    keeps = [
        int(some["packets"][np.array(numbers)[then] == there].sum())
        for numbers in permutations(range(queues))
        if numbers[rss.unclassified_queue] == rss.unclassified_queue
    ]
    kept = int(some["packets"][then == there].sum())
    assert plan.moved == pytest.approx(1 - kept / some["packets"].sum())
    assert not plan.changed or 2 * kept >= max(keeps)


def test_for_ethtool() -> None:
    rss = RssConfig.default(8)
    some = flows(5000, rss)
    free = plan_for(some, rss, Aim(keep_key=True))
    assert free.ethtool
    assert free.ethtool.rss != free.after
    tables = (rss.indirection_table, free.ethtool.rss.indirection_table)
    went = [np.array(table)[some["hash_value"] & 127] for table in tables]
    moved = some["packets"][went[0] != went[1]].sum() / some["packets"].sum()
    assert free.ethtool.moved == pytest.approx(moved)
    key = rss.key.hex(":")
    assert free.ethtool.line("eth0").startswith(f"ethtool -X eth0 hkey {key} weight ")
    bound = plan_for(some, rss, Aim(for_ethtool=True))
    assert bound.ethtool
    assert bound.ethtool.rss == bound.after
    assert max(bound.loads_after) < max(free.ethtool.loads)
    line = bound.ethtool.line("tap0")
    assert line.startswith(f"ethtool -X tap0 hkey {bound.after.key.hex(':')} weight ")
    told = bound.to_json("tap0")
    assert told["ethtool"]["command"] == line
    assert told["ethtool"]["same"] is True
    assert told["after"]["rss"] == bound.after.to_json()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Aim(few_moves=True, for_ethtool=True), "keeps the present table"),
        (lambda: Aim(few_moves=True, entries=64), "keeps the present table"),
        (lambda: Aim(entries=100), "power of two"),
        (lambda: Aim(tolerance=0), "from 1% to 100%"),
        (lambda: run(Aim(symmetric=True, keep_key=True)), "repeats every 16 bits"),
        (lambda: run(Aim(symmetric=True, few_moves=True)), "repeats every 16 bits"),
        (lambda: run(Aim(few_moves=True, queues=2)), "keeps entries of queue 3"),
        (lambda: run(Aim(queues=0)), "from 1 to 32768"),
        (lambda: run(Aim(queues=2), unclassified=3), "queues are 0 to 1"),
        (lambda: run(Aim(candidates=0)), "at least 1"),
    ],
)
def test_what_contradicts_itself(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=message):
        make()


def run(aim: Aim, unclassified: int = 0) -> TrafficPlan:
    rss = RssConfig.default(4).replace(unclassified_queue=unclassified)
    return plan_for(flows(10, rss), rss, aim)


def test_inputs_are_what_is_hashed() -> None:
    rss = RssConfig.default(4).replace(hash_types=HashType.IPv4 | HashType.TCPv6)
    some = flows(300, rss)
    traffic = traffic_of(some, rss, Measure.PACKETS)
    hashes = Counter(
        int(value) for rows, _ in traffic.parts for value in Hasher(rss).hash_batch(rows)
    )
    assert hashes == Counter(some["hash_value"][some["report"] > 0].tolist())
    assert socket.inet_ntoa(traffic.parts[0][0][0, :4].tobytes())
    assert traffic.fixed[0] == some["packets"][some["report"] == 0].sum() > 0
