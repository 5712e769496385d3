# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Differential tests where the kernel takes part: the hash stage, and taps."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.differential import batch, found, live
from tests.differential.batch import Batch, compare
from tests.differential.case import Case
from tests.differential.dice import Dice
from tests.differential.generate import frame, l3_frame
from tests.differential.implementations import GO_ON, HashStage, Implementations, is_runnable
from tests.effort import examples
from tests.kernel.hash_programs import compiled
from tests.unit.test_differential import takes_df_for_a_fragment
from vnethash.errors import BpfError
from vnethash.kernel import link, netns
from vnethash.rss.classified import Classified
from vnethash.rss.config import RssConfig
from vnethash.rss.reference import classify
from vnethash.tap import Tap

CONFIG = RssConfig.default(8)


@pytest.fixture(name="implementations")
def _implementations(no_leaks: None) -> Iterator[Implementations]:
    with Implementations(bpf=True) as implementations:
        yield implementations


def test_batches_agree(implementations: Implementations) -> None:
    for number in range(4):
        made = Batch("kernel", number, examples(1000)).make([])
        result = compare(implementations, *made)
        assert (result.disagreements, result.findings) == (0, [])
        assert result.on_bpf > result.frames * 0.9


def test_all_that_was_found_is_settled(implementations: Implementations) -> None:
    for path in found.FOLDER.glob("*.json"):
        for case, expected in found.read(path):
            for name, said in implementations.ask(case).items():
                assert isinstance(said, Classified)
                assert said.to_json() == expected, f"{path.name}: {name}"


def test_a_fault_of_the_reference_is_found(no_leaks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And two implementations are seen to be against it."""
    monkeypatch.setattr(batch, "MINIMISED_MAX", 1)
    with Implementations(bpf=True, judge=takes_df_for_a_fragment) as implementations:
        result = compare(implementations, *Batch("df", 0, 500).make([]))
    for finding in result.findings:
        assert finding.said["native"] == finding.said["bpf"] != finding.said["reference"]
    assert result.findings


def test_a_wrong_queue_is_found(no_leaks: None) -> None:
    """Of one packet in a thousand, though its hash is right."""
    dice = Dice(1)
    frames = [made for made in (frame(dice) for _ in range(1000)) if is_runnable(made)]
    with Implementations(bpf=True) as implementations:
        expected = [classify(made, CONFIG) for made in frames]
        assert implementations.suspects(CONFIG, False, frames, expected)[0] == []
        # Nobody sees the native core's verdict of it here: both are wrong alike.
        verdict = expected[500]
        wrong = Classified(
            verdict.hash_value, verdict.hash_report, verdict.index, 7 - verdict.queue
        )
        expected[500] = wrong
        stage = implementations._stages[False]
        before = stage.steered()
        suspects, _ = implementations.suspects(CONFIG, False, frames, expected)
        assert 500 in suspects
        assert (stage.steered() - before)[:, :, 0].sum() == len(frames)
        assert stage.classify(frames[500]) == verdict


@pytest.mark.parametrize("l3", [False, True])
def test_what_the_kernel_does_not_run_is_known(no_leaks: None, l3: bool) -> None:
    """Frames cut at every byte: is_runnable() says which the kernel refuses."""
    dice = Dice(2)
    with HashStage(l3=l3) as stage:
        stage.configure(CONFIG)
        for _ in range(examples(40)):
            whole = l3_frame(dice) if l3 else frame(dice)
            for length in range(min(len(whole), 80)):
                cut = whole[:length]
                if is_runnable(cut):
                    assert stage.classify(cut) == classify(cut, CONFIG, l3=l3)
                elif length != 14:  # which some kernels refuse, since 5.18, and others do not
                    with pytest.raises(BpfError):
                        stage.record(cut)


def test_a_sample_through_taps(no_leaks: None) -> None:
    result = live.sample("kernel", examples(1200), [])
    assert (result.disagreements, result.findings) == (0, [])
    assert result.frames > examples(1200) * 0.9


def test_frames_above_a_page_are_not_run(no_leaks: None) -> None:
    with HashStage(l3=False) as stage:
        stage.configure(CONFIG)
        longest = bytes(3072)
        assert is_runnable(longest)
        assert stage.classify(longest) == classify(longest, CONFIG)
        assert not is_runnable(longest + b"\0")
        with pytest.raises(BpfError):  # on pages of 4 KiB
            stage.record(bytes(4096))


@pytest.mark.parametrize("l3", [False, True])
def test_large_frames_of_the_sample_lie_in_pieces(no_leaks: None, l3: bool) -> None:
    """Asked of the kernel, by a hash program that sees where the first piece ends."""
    program = compiled("if (frame->data + 100 > frame->data_end) vnet_count(0); vnet_count(1);")
    frames = [bytes(5000), bytes(4500), bytes(1000)]
    with (
        netns.fresh(),
        Tap.open("sample0", queues=2, program=program, l3=l3, up=False) as tap,
    ):
        link.quiet(tap.name)
        link.set_mtu(tap.name, 9000)
        link.set_up(tap.name)
        live._send(tap, frames, 1 if l3 else 14)
        assert tap.stats().counts[:2] == (2, 3)


def test_a_tap_that_disagrees_is_found(
    no_leaks: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def faulty(data: bytes, config: RssConfig, *, l3: bool) -> object:
        return takes_df_for_a_fragment(data, config, l3)

    monkeypatch.setattr(live, "explain", faulty)
    result = live.sample("kernel", 1600, [])
    assert result.findings
    (case, _), *_ = found.read(result.findings[0].write(tmp_path))
    assert case == Case(case.config, result.findings[0].case.frame, case.l3)


def test_verdict_to_go_on() -> None:
    assert GO_ON.to_bytes(4, "little") == (-1).to_bytes(4, "little", signed=True)
