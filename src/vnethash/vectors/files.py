# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The files of vectors: where they are, how they are read and written."""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from vnethash.errors import ConfigError, DependencyMissing
from vnethash.rss.config import RssConfig
from vnethash.vectors.model import Vector, VectorFile

_PACKAGE = Path(__file__).resolve().parents[1]

SCHEMA = "schema.json"
SPECIFICATION = "virtio 1.3"


def folder() -> Path:
    """Where the files are: in the installed package, or in the checkout.

    DependencyMissing if they are in neither.
    """
    for place in (_PACKAGE / "_vectors", _PACKAGE.parents[1] / "vectors"):
        if (place / SCHEMA).is_file():
            return place
    raise DependencyMissing(
        f"no vectors in {_PACKAGE / '_vectors'}", hint="install vnethash anew, from a wheel"
    )


def load(place: Path | None = None) -> list[VectorFile]:
    """All files, in the order of their names. ConfigError names one that is damaged."""
    place = place or folder()
    return [_load_file(path) for path in sorted(place.glob("*.json")) if path.name != SCHEMA]


def _load_file(path: Path) -> VectorFile:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        configurations = {
            name: RssConfig.from_json(config) for name, config in values["configurations"].items()
        }
        vectors = tuple(Vector.from_json(v, configurations) for v in values["vectors"])
        return VectorFile(values["topic"], values["title"], vectors)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(path.name, f"is no file of vectors: {error!r}") from error


def choose(files: list[VectorFile], patterns: list[str]) -> list[VectorFile]:
    """The vectors whose topic or id fits one of the patterns, or all without patterns.

    Raises ConfigError for a pattern that nothing fits.
    """
    if not patterns:
        return files
    for pattern in patterns:
        if not any(_fits(vector, pattern) for file in files for vector in file.vectors):
            raise ConfigError(
                "only",
                f"{pattern!r} fits no vector",
                hint="give a topic, an id, or a pattern of ids such as 'ipv4/*tcp*'; "
                "see `vnethash vectors list`",
            )
    return list(_chosen(files, patterns))


def _chosen(files: list[VectorFile], patterns: list[str]) -> Iterator[VectorFile]:
    for file in files:
        vectors = tuple(v for v in file.vectors if any(_fits(v, p) for p in patterns))
        if vectors:
            yield VectorFile(file.topic, file.title, vectors)


def _fits(vector: Vector, pattern: str) -> bool:
    return fnmatchcase(vector.topic, pattern) or fnmatchcase(vector.id, pattern)


def dump(file: VectorFile) -> str:
    """The text of a file: a configuration a line, the parts of a vector one below the other."""
    configurations = [
        f"    {_text(name)}: {_text(config.to_json())}"
        for name, config in file.configurations.items()
    ]
    lines = [
        "{",
        f'  "$schema": {_text(SCHEMA)},',
        f'  "topic": {_text(file.topic)},',
        f'  "title": {_text(file.title)},',
        f'  "specification": {_text(SPECIFICATION)},',
        '  "configurations": {',
        ",\n".join(configurations),
        "  },",
        '  "vectors": [',
        ",\n".join(_dump_vector(vector) for vector in file.vectors),
        "  ]",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _dump_vector(vector: Vector) -> str:
    parts = [f"      {_text(name)}: {_text(value)}" for name, value in vector.to_json().items()]
    return "    {\n" + ",\n".join(parts) + "\n    }"


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
