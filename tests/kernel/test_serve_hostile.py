# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash serve`` against front ends and guests that mean no good.

After each attack, under which frames flowed into the tap: the server lives, it
sleeps, it answers the next front end within a second, a healthy driver gets
every packet with its hash on its queue, and no descriptor, thread or mapping
is left. By hand, for longer: `python -m tests.kernel.hostile --seconds 600`.
"""

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.effort import examples
from tests.kernel.hostile.attacks import ATTACKS
from tests.kernel.hostile.messages import Step, play, sequences
from tests.kernel.hostile.rings import guest
from tests.kernel.hostile.siege import SETTLES, Siege, Sieges, besieged, repeating
from vnethash.errors import VhostUserError
from vnethash.kernel import link, netns
from vnethash.kernel.netns import Namespace


@pytest.fixture(name="sieges", scope="module")
def _sieges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sieges]:
    with netns.fresh():
        link.set_up("lo")
        with Sieges(tmp_path_factory.mktemp("hostile")) as sieges:
            yield sieges


@pytest.fixture(name="siege")
def _siege(sieges: Sieges) -> Iterator[Siege]:
    """One server withstands all attacks."""
    yield sieges.present
    sieges.renew()


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


def test_told_to_end_under_attack(netns: Namespace, tmp_path: Path) -> None:
    with (
        besieged(tmp_path) as siege,
        siege.flood,
        suppress(VhostUserError, TimeoutError),
        guest(siege, random.Random(1)) as hostile,
        repeating(hostile.scribble),
    ):
        time.sleep(0.1)
        siege.process.terminate()
        siege.process.wait(SETTLES)
