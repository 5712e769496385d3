# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The BPF stages by BPF_PROG_TEST_RUN: judged by the reference."""

import os
import resource
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import frames, vectors
from tests.effort import examples
from vnethash.engines.stages import Stages
from vnethash.errors import ConfigError, VnethashError
from vnethash.kernel.bpf_map import MapFlag
from vnethash.reporting import Reporting
from vnethash.rss import reference
from vnethash.rss.classified import Classified
from vnethash.rss.compiled import compile_config
from vnethash.rss.config import RssConfig
from vnethash.rss.native import Hasher
from vnethash.virtio.hash_types import HashType, ReportType, TunnelType

CONFIG = RssConfig.default(8)


def is_runnable(frame: bytes) -> bool:
    """Whether BPF_PROG_TEST_RUN takes it: not cut before the end of a first IP header.

    The live tap of test_tap.py takes those too.
    """
    shortest = {b"\x08\x00": 34, b"\x86\xdd": 54}.get(frame[12:14], 15)
    return len(frame) >= shortest


runnable = frames.frames().filter(is_runnable)

TC_ACT_UNSPEC = 0xFFFFFFFF
"""Go on: to the next program, and then to the device."""


@pytest.fixture(name="stages")
def _stages(no_leaks: None) -> Iterator[Stages]:
    with Stages.load(8) as stages:
        stages.maps.publish(compile_config(CONFIG))
        yield stages


def queues(stages: Stages) -> list[int]:
    return [queue.total.packets for queue in stages.maps.stats().queues]


def run(stages: Stages, frame: bytes) -> Classified:
    """One frame through the hash stage: record and counters read as a verdict."""
    before = queues(stages)
    done = stages.hash_stage.test_run(frame)
    assert done.retval == TC_ACT_UNSPEC
    record, rest = done.data[:8], done.data[8:]
    assert rest == frame
    assert record[6:8] == b"\xb5\x1d"
    value = int.from_bytes(record[0:4], "little")
    report = ReportType(int.from_bytes(record[4:6], "little"))
    (queue,) = (i for i, (a, b) in enumerate(zip(before, queues(stages), strict=True)) if a != b)
    config, _ = stages.maps.current()
    index = None if report is ReportType.NONE else value & (len(config.indirection_table) - 1)
    return Classified(value, report, index, queue)


@settings(
    max_examples=examples(1200),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    frame=runnable,
    types=st.integers(0, HashType.ALL).map(HashType),
    tunnels=st.sampled_from([TunnelType.NONE, TunnelType.ALL, TunnelType.ALL, *TunnelType]),
)
def test_three_implementations_agree(
    stages: Stages, frame: bytes, types: HashType, tunnels: TunnelType
) -> None:
    config = CONFIG.replace(hash_types=types, unclassified_queue=5, tunnels=tunnels)
    stages.maps.publish(compile_config(config))
    expected = reference.classify(frame, config)
    assert Hasher(config).classify(frame) == expected
    assert run(stages, frame) == expected


@pytest.mark.parametrize("vector", vectors.VECTORS, ids=lambda vector: vector.source)
@pytest.mark.parametrize("l4", [frames.TCP, frames.UDP, None])
def test_microsoft_vectors(stages: Stages, vector: vectors.Vector, l4: int | None) -> None:
    stages.maps.publish(compile_config(CONFIG.replace(key=vectors.KEY)))
    frame = vectors.frame(vector, l4)
    assert run(stages, frame).hash_value == (vector.tcp_hash if l4 else vector.address_hash)


@pytest.mark.parametrize("reporting", [Reporting.OFF, Reporting.REHASH])
def test_frames_stay_as_they_are_without_record(stages: Stages, reporting: Reporting) -> None:
    stages.maps.publish(compile_config(CONFIG, reporting))
    frame = frames.ethernet(0x0800, frames.ipv4(frames.udp()))
    assert stages.hash_stage.test_run(frame).data == frame


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    entries=st.integers(0, 11).map(lambda n: 2**n),
    key=st.binary(min_size=40, max_size=40),
    data=st.data(),
)
def test_any_configuration(stages: Stages, entries: int, key: bytes, data: st.DataObject) -> None:
    """Every table length, key and queue; and what was published is read back."""
    table = tuple(i * 7 % 8 for i in range(entries))
    config = RssConfig(8, key=key, indirection_table=table, unclassified_queue=entries % 8)
    stages.maps.publish(compile_config(config))
    assert stages.maps.current() == (config, Reporting.RECORD)
    frame = data.draw(runnable)
    assert run(stages, frame) == reference.classify(frame, config)


def test_nothing_of_the_object_stays(stages: Stages) -> None:
    """Types and lines would take more memory than the program; libbpf its share in the process."""
    for program in (stages.hash_stage, stages.steering_stage):
        info = program._info("vnb_prog_info")
        assert (info.btf_id, info.nr_line_info, info.nr_func_info) == (0, 0, 0)
    opened = os.listdir("/proc/self/fd")
    with Stages.load(8):
        # A program of its own and one that is shared; the maps, two of them mapped.
        assert len(os.listdir("/proc/self/fd")) - len(opened) == 2 + len(stages.shared) + 2


def test_one_steering_program_serves_all(no_leaks: None) -> None:
    first, second = Stages.load(2), Stages.load(2)
    number = first.steering_stage.id
    assert second.steering_stage.id == number
    assert second.steering_stage.fd != first.steering_stage.fd
    first.close()
    with second, Stages.load(2) as third:
        assert third.steering_stage.id == number
        assert third.hash_stage.id != second.hash_stage.id
    with Stages.load(2) as another:
        assert another.steering_stage.id != number


def test_without_descriptors_it_says_so_and_leaves_none(no_leaks: None) -> None:
    Stages.load(2).close()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)  # the first there is
    os.close(free)
    said = []
    for more in range(40):
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, before[1]))
        try:
            Stages.load(2).close()
        except VnethashError as error:
            said.append(str(error).lower())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert 8 < len(said) < 30
    assert [text for text in said if "too many open files" not in text] == []


def test_largest_table(no_leaks: None) -> None:
    table = tuple(i % 256 for i in range(32768))
    config = RssConfig(256, indirection_table=table)
    with Stages.load(256, max_indirection=32768) as stages:
        stages.maps.publish(compile_config(config))
        assert stages.maps.current() == (config, Reporting.RECORD)
        for port in range(examples(100)):
            frame = frames.ethernet(0x0800, frames.ipv4(frames.udp(port)))
            assert run(stages, frame) == reference.classify(frame, config)


@pytest.mark.parametrize("longest", [1, 128, 129])
def test_tables_that_lie_in_a_slot(no_leaks: None, longest: int) -> None:
    """Up to 128 entries they need no memory of their own."""
    config = RssConfig(8, indirection_table=tuple(i * 5 % 8 for i in range(min(longest, 128))))
    with Stages.load(8, max_indirection=longest) as stages:
        assert bool(stages.shared.table.flags & MapFlag.MMAPABLE) == (longest > 128)
        stages.maps.publish(compile_config(config))
        assert stages.maps.current() == (config, Reporting.RECORD)
        for port in range(20):
            frame = frames.ethernet(0x0800, frames.ipv4(frames.udp(port)))
            assert run(stages, frame) == reference.classify(frame, config)


def test_a_table_that_does_not_fit_is_refused(no_leaks: None) -> None:
    with Stages.load(8, max_indirection=128) as stages:
        assert stages.maps.max_indirection == 128
        stages.maps.check(CONFIG)
        longer = RssConfig(8, indirection_table=tuple(i % 8 for i in range(256)))
        with pytest.raises(ConfigError, match="256 entries, this tap was set up for at most 128"):
            stages.maps.check(longer)


def test_counters_tell_report_types_and_bytes(stages: Stages) -> None:
    udp = frames.ethernet(0x0800, frames.ipv4(frames.udp()))
    arp = frames.ethernet(0x0806, bytes(28))
    for frame in (udp, udp, arp):
        run(stages, frame)
    stats = stages.maps.stats()
    assert stats.total.packets == 3
    assert stats.by_report[ReportType.UDPv4].packets == 2
    assert stats.by_report[ReportType.UDPv4].bytes == 2 * len(udp)
    assert stats.by_report[ReportType.NONE].bytes == len(arp)
    assert sum(stats.unmarked.values()) == 0


def test_unconfigured_stages_pass_everything_to_queue_0(no_leaks: None) -> None:
    frame = frames.ethernet(0x0800, frames.ipv4(frames.udp()))
    with Stages.load(8) as stages:
        assert stages.hash_stage.test_run(frame).data == frame
        assert queues(stages) == [1, 0, 0, 0, 0, 0, 0, 0]


def test_a_slot_that_is_being_written_is_not_used(stages: Stages) -> None:
    """Whatever lies in it: the packet passes as it is, unclassified, until the slot is whole."""
    frame = frames.ethernet(0x0800, frames.ipv4(frames.udp()))
    slot = stages.maps._slot()
    generation, slot.generation = slot.generation, 0
    assert stages.hash_stage.test_run(frame).data == frame
    assert queues(stages) == [1, 0, 0, 0, 0, 0, 0, 0]
    assert stages.maps.stats().by_report[ReportType.NONE].packets == 1
    slot.generation = generation
    assert run(stages, frame) == reference.classify(frame, CONFIG)


@settings(
    max_examples=examples(200),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(frame=runnable, key=st.binary(min_size=40, max_size=40))
def test_without_tables_the_hash_is_the_same(stages: Stages, frame: bytes, key: bytes) -> None:
    """While the tables of another key are being written."""
    config = CONFIG.replace(key=key)
    stages.maps.publish(compile_config(config))
    tables = stages.maps._state.tables
    tables.key_generation = 0
    tables.toeplitz[0][1:256] = [0xDEADBEEF] * 255
    assert run(stages, frame) == reference.classify(frame, config)
    stages.maps.publish(compile_config(config))  # writes them anew, as they are of no key
    assert tables.key_generation != 0
    assert run(stages, frame) == reference.classify(frame, config)


def test_tables_are_written_for_another_key_only(stages: Stages) -> None:
    stages.maps.publish(compile_config(CONFIG))
    tables = stages.maps._state.tables
    written = tables.key_generation
    stages.maps.publish(compile_config(CONFIG.replace(indirection_table=(1, 0))))
    assert tables.key_generation == written
    other = CONFIG.replace(key=bytes(range(40)))
    stages.maps.publish(compile_config(other))
    changed = tables.key_generation
    assert changed != written
    stages.maps.publish(compile_config(other, Reporting.OFF))
    assert tables.key_generation == changed
    assert stages.maps.current() == (other, Reporting.OFF)
