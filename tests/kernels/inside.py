# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What each kernel is asked: what it can do, what its verifier says, whether the tests pass.

python -m tests.kernels.inside TASK prints what pytest says, and a line with the
answers. Without hash programs in the task, the tests are all.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from vnethash.lab.inside import facts, suite
from vnethash.lab.inside.task import MARK, Task


def main(task: Task) -> None:
    answer: dict[str, Any] = {}
    if task.programs:
        answer |= {"probe": _probe(task), "facts": facts.measure(task)}
        answer["version"] = platform.version()
    answer["suite"] = suite.measure(task)
    print(MARK + json.dumps(answer))


def _probe(task: Task) -> Any:
    """By the command: what users see."""
    options = [word for _, path in task.programs for word in ("--program", path)]
    vnethash = str(Path(sys.executable).with_name("vnethash"))
    command = [vnethash, "probe", "--verifier", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"probe: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    main(Task.from_json(sys.argv[1]))
