# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""All topics, as files."""

from collections.abc import Iterator
from pathlib import Path

from tools.vectors.case import Topic
from tools.vectors.topics import (
    broken,
    configuration,
    ipv4,
    ipv6,
    link_layer,
    microsoft,
    mobile,
    tunnels,
)
from vnethash.vectors.export import CAPTURE, capture
from vnethash.vectors.files import dump
from vnethash.vectors.model import VectorFile

_MODULES = (microsoft, ipv4, ipv6, mobile, link_layer, broken, configuration, tunnels)


def files() -> list[VectorFile]:
    """In the order of their names, as they are loaded."""
    topics: Iterator[Topic] = (topic for module in _MODULES for topic in module.topics())
    made = [VectorFile(topic.name, topic.title, tuple(topic.vectors)) for topic in topics]
    return sorted(made, key=lambda file: f"{file.topic}.json")


def contents() -> dict[str, bytes]:
    """What has to be in vectors/, by file name, apart from what is written by hand."""
    made = files()
    return {
        **{f"{file.topic}.json": dump(file).encode() for file in made},
        CAPTURE: capture(made),
    }


def write(folder: Path) -> list[Path]:
    """Bring the files up to date; those that changed."""
    changed = []
    for name, data in contents().items():
        path = folder / name
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
            changed.append(path)
    return changed
