# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Attacks in random order until the time is up or one succeeds.

    python -m tests.kernel.hostile --seconds 600
    python -m tests.kernel.hostile --seed 1234 --only scribbled_rings

Needs root. What is printed begins an attack again: its name and its seed.
tools/sanitize runs each once with a core that is watched by the sanitizers.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings

from tests.kernel.hostile.attacks import ATTACKS
from tests.kernel.hostile.messages import Step, play, sequences
from tests.kernel.hostile.siege import Siege, besieged
from vnethash.kernel import link, netns

_MESSAGES = "any_messages"
_EXAMPLES = 50


def any_messages(siege: Siege, rand: random.Random, left: ExitStack) -> None:
    """As test_any_messages."""

    @seed(rand.randrange(1 << 32))
    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(sequence=sequences())
    def check(sequence: tuple[str, list[Step]]) -> None:
        play(siege, *sequence)

    check()


def main(arguments: Sequence[str]) -> int:
    attacks = {**ATTACKS, _MESSAGES: any_messages}
    parser = argparse.ArgumentParser(prog="tests.kernel.hostile", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long to go on")
    parser.add_argument("--seed", type=int, help="begin with this one, and take each only once")
    parser.add_argument("--only", choices=attacks, action="append", help="leave out all others")
    parser.add_argument("options", nargs="*", help="of vnethash serve, behind --")
    options = parser.parse_args(arguments)
    names = options.only or list(attacks)
    once = options.seed is not None
    number = options.seed if once else random.SystemRandom().randrange(1 << 32)
    end = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as folder, netns.fresh():
        link.set_up("lo")
        with besieged(Path(folder), *options.options) as siege:
            while time.monotonic() < end:
                for name in random.Random(number).sample(names, len(names)):
                    print(f"--seed {number} --only {name}", flush=True)
                    attack, rand = attacks[name], random.Random(f"{number} {name}")
                    siege.attack(lambda left: attack(siege, rand, left))  # noqa: B023
                if once:
                    break
                number += 1
    print("all was withstood")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
