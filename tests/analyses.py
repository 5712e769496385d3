# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Analyses made of random traffic, whose parts add up as those of real captures do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vnethash.analysis.flows import FLOW_DTYPE, Flows, hash_flows, heaviest_first
from vnethash.analysis.result import Analysis, Reason, Source, Windows
from vnethash.bench import frames
from vnethash.capture import Frame, write_pcap
from vnethash.rss.config import RssConfig
from vnethash.rss.native import Hasher
from vnethash.virtio.hash_types import ReportType

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
ARP = 0x0806
ARP_FRAME = bytes.fromhex("ffffffffffff0200000000010806") + bytes(28)
_NO_HASH = {Reason.NOT_IP: (7, 294), Reason.BROKEN_IP: (2, 84), Reason.LINK_TYPE: (0, 0)}


def random_flows(count: int, seed: int = 1, *, ipv6_share: float = 0.3) -> Flows:
    """Distinct flows of all kinds; their weights are those of Zipf's law."""
    dice = np.random.default_rng(seed)
    flows = np.zeros(count, FLOW_DTYPE)
    six = dice.random(count) < ipv6_share
    base = dice.choice(
        [ReportType.IPv4, ReportType.TCPv4, ReportType.UDPv4], count, p=[0.1, 0.6, 0.3]
    )
    extended = six & (dice.random(count) < 0.1)  # by addresses of an extension header
    flows["kind"] = base + np.where(six, 3, 0) + np.where(extended, 3, 0)
    addresses = dice.integers(0, 256, (count, 32), dtype=np.uint8)
    addresses[six, :4] = addresses[six, 16:20] = (0x20, 0x01, 0x0D, 0xB8)
    addresses[~six, 8:] = 0
    flows["addresses"] = addresses
    ports = dice.integers(0, 256, (count, 4), dtype=np.uint8)
    flows["ports"] = np.where(base[:, None] > ReportType.IPv4, ports, 0)
    flows["packets"] = 1 + (20 * count / (1 + dice.permutation(count))).astype(np.uint64)
    flows["bytes"] = flows["packets"] * dice.integers(60, 1500, count).astype(np.uint64)
    return flows


def analysis_of(
    rss: RssConfig, flows: Flows, *, windows: int = 10, seed: int = 1, **changes: Any
) -> Analysis:
    """What an analysis of these flows is, some of them in each second, and of some more packets."""
    dice = np.random.default_rng(seed)
    flows = heaviest_first(hash_flows(flows, Hasher(rss)))
    entries = len(rss.indirection_table)
    column = np.where(flows["report"] > 0, flows["hash_value"] & np.uint32(entries - 1), entries)

    unhashed = np.zeros((len(Reason), 2), np.uint64)
    for reason, amounts in _NO_HASH.items():
        unhashed[reason] = amounts
    off = flows["report"] == 0
    unhashed[Reason.TYPE_OFF] = flows["packets"][off].sum(), flows["bytes"][off].sum()

    packets = np.zeros((windows, entries + 1), np.uint64)
    octets = packets.copy()
    when = dice.integers(0, max(1, windows), len(flows))
    np.add.at(packets, (when, column), flows["packets"])
    np.add.at(octets, (when, column), flows["bytes"])
    without_flow = sum(count for count, _ in _NO_HASH.values())
    packets[:1, entries] += np.uint64(without_flow)
    octets[:1, entries] += np.uint64(sum(size for _, size in _NO_HASH.values()))
    over_time = Windows(
        SECOND,
        SECOND,
        START + SECOND * np.arange(windows),
        packets,
        octets,
        np.zeros(entries + 1, np.uint64),
        np.zeros(entries + 1, np.uint64),
    )
    read = Source("traffic.pcap", int(flows["packets"].sum()) + without_flow, 123_456)
    made = Analysis(rss, flows, over_time, unhashed, {ARP: 7}, 0, (read,))
    return replace(made, **changes)


def write_office(path: Path) -> list[bytes]:
    """A capture of 20 seconds, whose flows follow Zipf's law and come and go, with ARP;
    returns the frames."""
    dice = np.random.default_rng(11)
    some = [(frames.tcp4, frames.tcp6)[n % 2](n, 60 + 20 * (n % 2)) for n in range(600)]
    share = 1 / np.arange(1, len(some) + 1)
    sent = [ARP_FRAME] * 40
    times = list(dice.uniform(0, 20, len(sent)))
    for flow in dice.choice(len(some), 8000, p=share / share.sum()):
        # Each flow has a time of its own at which it is busy.
        times.append((flow * 7.3 + dice.normal(0, 4)) % 20)
        sent.append(some[flow])
    order = np.argsort(times, kind="stable")
    write_pcap(
        path,
        [Frame(0, sent[n], len(sent[n]), START + int(times[n] * SECOND), 1) for n in order],
    )
    return [sent[n] for n in order]
