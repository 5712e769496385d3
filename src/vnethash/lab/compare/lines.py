# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""How much code a patch adds, by one rule for all.

A line counts if it is added and holds code: it is neither blank nor only
comment. What a file is for is told by its path.
"""

import re
from collections.abc import Iterable
from pathlib import Path

KINDS = ("kernel", "uapi", "libbpf", "documentation")
_HUNK = re.compile(r"^@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")


def kind_of(path: str) -> str:
    """Of KINDS: a patched file, by its path in the kernel's source."""
    if path.startswith("Documentation/") or path == "MAINTAINERS":
        return "documentation"
    if path.startswith("tools/"):
        return "libbpf"  # and its copy of the UAPI
    return "uapi" if path.startswith("include/uapi/") else "kernel"


def count(patches: Iterable[Path]) -> dict[str, int]:
    """Lines of code added, by KINDS; and as diffstat has them ``files``, ``added``, ``removed``."""
    counts = dict.fromkeys((*KINDS, "added", "removed"), 0)
    files = set()
    for patch in patches:
        for path, lines in _changes(patch.read_text()):
            files.add(path)
            counts["added"] += sum(line.startswith("+") for line in lines)
            counts["removed"] += sum(line.startswith("-") for line in lines)
            counts[kind_of(path)] += _code(path, lines)
    return {**counts, "files": len(files)}


def _changes(text: str) -> list[tuple[str, list[str]]]:
    """The file and the lines of each hunk of a patch."""
    changes: list[tuple[str, list[str]]] = []
    path, old, new = "", 0, 0
    for line in text.splitlines():
        if old > 0 or new > 0:
            changes[-1][1].append(line)
            old -= not line.startswith(("+", "\\"))
            new -= not line.startswith(("-", "\\"))
        elif line.startswith("+++ "):
            path = line[4:].removeprefix("b/")
        elif hunk := _HUNK.match(line):
            old, new = (int(size) if size is not None else 1 for size in hunk.groups())
            changes.append((path, []))
    return changes


def _code(path: str, lines: list[str]) -> int:
    is_c = path.endswith((".c", ".h"))
    found, inside = 0, False
    for line in lines:
        if line.startswith("-"):
            continue
        text = line[1:].strip()
        if is_c:
            text, inside = _without_comment(text, inside)
        elif text.startswith("#") and kind_of(path) != "documentation":
            text = ""
        found += bool(text) and line.startswith("+")
    return found


def _without_comment(text: str, inside: bool) -> tuple[str, bool]:
    """What is left of a line of C, and whether a comment goes on behind it."""
    left = ""
    while text:
        if inside:
            _, end, text = text.partition("*/")
            inside = not end
        else:
            before, begin, text = text.partition("/*")
            left += before
            inside = bool(begin)
    left = left.partition("//")[0] if left.lstrip().startswith("//") else left
    # A hunk may begin within a comment.
    return ("", inside) if left.startswith("* ") or left == "*" else (left.strip(), inside)
