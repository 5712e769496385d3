# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Measures the parts that are asked for: one line of JSON each, as soon as it is there.

python -m vnethash.lab.inside '{"engines": ["ebpf"], ...}' facts agreement
"""

import json
import sys
import time
import traceback
from importlib import import_module

from vnethash.lab.inside.task import MARK, Task


def main(task: Task, parts: list[str]) -> None:
    for part in parts:
        begun = time.monotonic()
        answer: dict[str, object] = {"part": part}
        try:
            answer["result"] = import_module(f"vnethash.lab.inside.{part}").measure(task)
        except Exception as error:
            # The other parts are worth having; this one's absence is told where it is missed.
            traceback.print_exc()
            answer["error"] = f"{type(error).__name__}: {error}"
        answer["seconds"] = round(time.monotonic() - begun, 1)
        print(MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Task.from_json(sys.argv[1]), sys.argv[2:])
