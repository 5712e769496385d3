# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A file as a stream of bytes, decompressed, of which the beginning can be looked at."""

import lzma
from typing import Any, BinaryIO

from vnethash.analysis.extras import load
from vnethash.errors import FlowTableError

HEAD = 1 << 18
"""Bytes that are looked at to find out what a file is."""

_ARROW = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"\x04\x22\x4d\x18": "lz4",
}
_STEP = 1 << 16
_XZ = b"\xfd7zXZ\x00"


class Ahead:
    """A stream whose beginning is read already. As much of a file as pyarrow asks for."""

    closed = False

    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        self.head = _fill(file, size)
        self._left = self.head
        self.taken = 0
        """Bytes that `read` gave."""

    def read(self, size: int) -> bytes:
        if self._left:
            data, self._left = self._left[:size], self._left[size:]
        else:
            data = bytes(self._file.read(size))
        self.taken += len(data)
        return data

    def close(self) -> None:
        """The file is not ours."""


class Decompressed:
    """What a file holds, decompressed if its first bytes say that it is compressed."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        pa = load("pyarrow", "flow tables")
        self._raw = Ahead(file, 8)
        self._path = path
        method = next(
            (name for magic, name in _ARROW.items() if self._raw.head.startswith(magic)), ""
        )
        stream: Any = self._raw
        if method:
            stream = pa.CompressedInputStream(pa.PythonFile(self._raw, mode="r"), method)
        elif self._raw.head.startswith(_XZ):
            # Read to its end, or left; there is nothing of its own to close.
            stream = lzma.LZMAFile(self._raw)  # type: ignore[arg-type]  # noqa: SIM115
        self._error: FlowTableError | None = None
        self._errors = (pa.ArrowException, OSError, EOFError, lzma.LZMAError)
        try:
            self.ahead = Ahead(stream, HEAD)
        except self._errors as error:
            raise damaged(path, error) from error

    @property
    def head(self) -> bytes:
        """The first bytes of the content, at most `HEAD`."""
        return self.ahead.head

    @property
    def bytes_read(self) -> int:
        """Of the file as it lies there."""
        return self._raw.taken

    def read(self, size: int) -> bytes:
        """``size`` bytes of the content, fewer at its end. Raises FlowTableError where it
        breaks off, after all that is before."""
        parts: list[bytes] = []
        while size and self._error is None:
            try:
                part = self.ahead.read(min(size, _STEP))
            except self._errors as error:
                self._error = damaged(self._path, error)
                break
            if not part:
                return b"".join(parts)
            parts.append(part)
            size -= len(part)
        if self._error and not parts:
            raise self._error
        return b"".join(parts)


def damaged(path: str, error: Exception) -> FlowTableError:
    """What a library complains of, in a line."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0].rstrip(".")
    return FlowTableError(path, f"cannot be read further: {reason[:1].lower()}{reason[1:]}")


def _fill(file: Any, size: int) -> bytes:
    """``size`` bytes, fewer only at the end."""
    data = bytes(file.read(size))
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data
