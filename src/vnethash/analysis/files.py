# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which files to analyse."""

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from vnethash.errors import CaptureError, ConfigError

LOOKS_RIGHT: Final = re.compile(
    r"(\.(pcap|pcapng|cap|dmp|ntar|csv|tsv|json|jsonl|ndjson|parquet|pq)"
    r"|(conn(?!-summary)|flow)[^/]*\.log)\d*(\.(gz|zst|zstd|xz|bz2))?$",
    re.IGNORECASE,
)
"""Names of captures, those that tcpdump numbers too, and of flow tables.

Of logs, Zeek's conn.log and those of AWS: Zeek writes many more into the same folder, which
have addresses as well, but a line in dns.log is no packet."""


@dataclass(frozen=True, slots=True)
class File:
    """A file by path or address, and its bytes, if that is known."""

    path: str
    size: int | None = None
    failure: CaptureError | None = None
    """Why there is nothing to read: of a folder, or an address."""


def find_files(paths: Iterable[str | os.PathLike[str]]) -> list[File]:
    """The files themselves, and of a folder, all below it with a name of captures or flow tables.

    Those of a folder come in the order of their names. Object stores are asked likewise
    (see `find_objects`). A folder that cannot be read, or has none, stands for what is in
    it, and fails as a file would. Raises ConfigError for standard input twice.
    """
    files: list[File] = []
    named = [os.fspath(path) for path in paths]
    if named.count("-") > 1:
        raise ConfigError("file", "- is standard input, which can be read only once")
    for path in named:
        if "://" in path:
            from vnethash.analysis.objects import find_objects

            try:
                files += find_objects(path)
            except CaptureError as error:
                files.append(File(path, 0, error))
            continue
        if path == "-" or not os.path.isdir(path):
            files.append(File(path, _size(path)))
            continue
        inside = _inside(path)
        if not inside:
            nothing = CaptureError(
                path,
                "no captures or flow tables in this folder",
                hint="they are found by names such as .pcap, .pcapng, .pcap.gz, .csv or "
                ".parquet; name others one by one",
            )
            files.append(File(path, 0, nothing))
        files += [File(name, _size(name)) for name in sorted(inside)]
    return files


def _inside(folder: str) -> list[str]:
    """Files with the right name below a folder, and folders that cannot be read."""
    found: list[str] = []

    def unreadable(error: OSError) -> None:
        found.append(str(error.filename))

    for path, _, names in os.walk(folder, onerror=unreadable):
        right = (os.path.join(path, name) for name in names if LOOKS_RIGHT.search(name))
        found += (name for name in right if not _is_special(name))
    return found


def _is_special(path: str) -> bool:
    """Whether it is a pipe, a socket or a device, which might never end."""
    return os.path.exists(path) and not os.path.isfile(path)


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size or None
    except (OSError, ValueError):
        return None


def is_pipe(path: str) -> bool:
    """Whether it is standard input or a named pipe, which may be silent for long."""
    try:
        return path == "-" or stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
