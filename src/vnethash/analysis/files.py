# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which files to analyse."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from vnethash.errors import CaptureError, os_reason

LOOKS_RIGHT: Final = re.compile(
    r"\.(pcap|pcapng|cap|dmp|ntar|csv|tsv|parquet|log)\d*(\.(gz|zst|zstd|xz|bz2))?$", re.IGNORECASE
)
"""Names of captures, those that tcpdump numbers too, and of flow tables."""


@dataclass(frozen=True, slots=True)
class File:
    """A file by path or address, and its bytes, if that is known."""

    path: str
    size: int | None = None


def find_files(paths: Iterable[str | os.PathLike[str]]) -> list[File]:
    """The files themselves, and of a folder, all below it with a name of captures or flow tables.

    Those of a folder come in the order of their names. Object stores are asked likewise
    (see `find_objects`). Raises `CaptureError` if a folder cannot be read or has none.
    """
    files: list[File] = []
    for path in [os.fspath(path) for path in paths]:
        if "://" in path:
            from vnethash.analysis.objects import find_objects

            files += find_objects(path)
            continue
        if path == "-" or not os.path.isdir(path):
            files.append(File(path, _size(path)))
            continue
        inside = [name for name in _walk(path) if LOOKS_RIGHT.search(name)]
        if not inside:
            raise CaptureError(
                path,
                "no captures or flow tables in this folder",
                hint="they are found by names such as .pcap, .pcapng, .pcap.gz, .csv or "
                ".parquet; name others one by one",
            )
        files += [File(name, _size(name)) for name in sorted(inside)]
    return files


def _walk(folder: str) -> list[str]:
    def fail(error: OSError) -> None:
        raise CaptureError(
            str(error.filename), f"cannot read folder: {os_reason(error)}"
        ) from error

    return [
        os.path.join(path, name)
        for path, _, names in os.walk(folder, onerror=fail)
        for name in names
    ]


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size or None
    except (OSError, ValueError):
        return None
