# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The tables of docs/kernels.md."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.guest.uml import ROOT
from tests.kernels.kernels import Kernel
from vnethash.bench.report import machine

PAGE = ROOT / "docs/kernels.md"
BEGIN = "<!-- measured: make test-kernels WRITE_DOCS=1 -->"
END = "<!-- end of what was measured -->"

Answers = Mapping[Kernel, Mapping[str, Any]]


def tables(answers: Answers, portability: Sequence[Sequence[str]] = ()) -> str:
    """Markdown: what each kernel said, and what the other root did on each."""
    here = machine()
    date = datetime.now(UTC).date().isoformat()
    parts = [f"On {date}, {here['cpu']}, {here['cpus']} CPUs:"]
    if answers:
        head = ["kernel", "machine", "attach point", "JIT", "BTF", "USO", "passed", "skipped"]
        kernels = [f"{_release(answer)}, {kernel.title}" for kernel, answer in answers.items()]
        parts += [
            _table(head, [_kernel(kernel, answer) for kernel, answer in answers.items()]),
            "Instructions the verifier looks at, of the million it allows, and in what time:",
            _table(["program", *kernels], _programs(answers.values())),
        ]
    if portability:
        head = ["root", "kernel", "Python", "libbpf", "`vnethash demo`"]
        parts += [
            "The wheel in the root file system of another release, which has no compiler:",
            _table(head, portability),
        ]
    return "\n\n".join(parts) + "\n"


def write(text: str, page: Path = PAGE) -> None:
    """Put the tables in their place on the page."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no place for the tables")
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")


def lacking(answer: Mapping[str, Any]) -> set[str]:
    """Probes by which this kernel has no such feature."""
    features = answer["probe"]["features"]
    return {name for name, probed in features.items() if probed["state"] == "unsupported"}


def _kernel(kernel: Kernel, answer: Mapping[str, Any]) -> list[str]:
    facts, suite = answer["facts"], answer["suite"]
    skipped = str(suite["total"]["skipped"])
    if suite["skipped"]:
        skipped += f": {', '.join(sorted(set(map(_cause, suite['skipped']))))}"
    return [
        _release(answer),
        kernel.title,
        answer["probe"]["attach_point"]["name"] or "none",
        *("yes" if facts[name] else "no" for name in ("jit", "btf", "uso")),
        str(suite["total"]["passed"]),
        skipped,
    ]


def _cause(reason: str) -> str:
    """Of a skip, its first words."""
    return reason.partition(" not supported")[0].strip()


def _release(answer: Mapping[str, Any]) -> str:
    """As `uname -r` has it, or what Debian's says in `uname -v`: 6.1.0-57 is 6.1.192."""
    if found := re.search(r"\bDebian (\d+\.\d+\.\d+)", answer["version"]):
        return found[1]
    return str(answer["facts"]["release"].partition("-")[0].partition("+")[0])


def _programs(answers: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """A row for each program; the steering stage is the same in all objects."""
    rows: dict[str, list[str]] = {}
    for answer in answers:
        for loaded in answer["probe"]["verifier"]:
            for name, program in loaded["programs"].items():
                ours = loaded["object"] == "vnethash"
                if ours or name == "hash_stage":
                    title = name.replace("_", " ") if ours else f"`{loaded['object']}.c`"
                    rows.setdefault(title, []).append(_verified(program))
    return [[title, *cells] for title, cells in rows.items()]


def _verified(program: Mapping[str, Any]) -> str:
    seconds = program["verifier_seconds"]
    count = f"{program['verified']:,}" if program["verified"] else "not told"
    return f"{count}, {seconds * 1e3:.1f} ms" if seconds is not None else count


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
