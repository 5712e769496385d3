# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash serve`` against front ends and guests that mean no good.

After each attack, under which frames flowed into the tap: the server lives, it
sleeps, it answers the next front end within a second, a healthy driver gets
every packet with its hash on its queue, and no descriptor, thread or mapping
is left. By hand, for longer: `python -m tests.kernel.hostile --seconds 600`.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.effort import examples
from tests.kernel.hostile.attacks import ATTACKS
from tests.kernel.hostile.messages import Step, play, sequences
from tests.kernel.hostile.siege import Siege, besieged
from vnethash.kernel.netns import Namespace


@pytest.fixture(name="siege")
def _siege(netns: Namespace, tmp_path: Path) -> Iterator[Siege]:
    with besieged(tmp_path) as siege:
        yield siege


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(siege: Siege, name: str) -> None:
    siege.attack(lambda left: ATTACKS[name](siege, random.Random(name), left))


def test_any_messages(siege: Siege) -> None:
    @settings(
        max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(sequence=sequences())
    def check(sequence: tuple[str, list[Step]]) -> None:
        play(siege, *sequence)

    siege.attack(lambda left: check())
