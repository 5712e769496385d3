# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The bytes of a file or an object, decompressed as they are read: gzip, zstd, xz, bzip2."""

import bz2
import io
import lzma
import os
import sys
import zlib
from collections.abc import Callable
from typing import IO, Any, Final, Protocol

from vnethash.capture.reader import Readable
from vnethash.closing import Closing
from vnethash.errors import CaptureError, DependencyMissing, os_reason

_HEAD: Final = 512
_CHUNK: Final = 4096
"""Compressed bytes that are taken at once: few, as they may stand for a thousand times as many."""
_MEMORY: Final = 1 << 28
"""Bytes that a decompressor may take for itself."""


class _Decompressor(Protocol):
    """One stream of zlib, bz2, lzma, zstandard."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _zstd() -> _Decompressor:
    try:
        import zstandard
    except ImportError:
        raise DependencyMissing(
            "zstandard is not installed, which reads files compressed with zstd",
            hint="pip install 'vnethash[analysis]', or decompress the file first",
        ) from None
    decompressor: _Decompressor = zstandard.ZstdDecompressor(
        max_window_size=_MEMORY
    ).decompressobj()
    return decompressor


_FORMATS: Final[dict[bytes, tuple[str, Callable[[], _Decompressor]]]] = {
    b"\x1f\x8b": ("gzip", lambda: zlib.decompressobj(wbits=31)),
    b"\x28\xb5\x2f\xfd": ("zstd", _zstd),
    b"\x50\x2a\x4d\x18": ("zstd", _zstd),  # a frame to be skipped, as pzstd begins with
    b"\xfd7zXZ\x00": ("xz", lambda: lzma.LZMADecompressor(memlimit=_MEMORY)),
    b"BZh": ("bzip2", bz2.BZ2Decompressor),
}


class Stream(Closing):
    """A file to read from its start to its end.

    What is read is what was compressed, if the file is. Reading raises
    `CaptureError` where the compressed data is damaged or ends too early, after all
    that could be read.
    """

    def __init__(self, file: IO[bytes], path: str, *, owned: bool, size: int | None) -> None:
        self.path = path
        self.size = size
        """Bytes of the file as it lies there; None if it is a pipe or not known."""
        self.file = file
        """As it lies there, which has been read from already."""
        self._owned = owned
        raw = _Counted(file)
        self._raw = raw
        self._data = io.BufferedReader(raw)
        self.head = bytes(self._data.peek(_HEAD)[:_HEAD])
        """The first bytes of the file."""
        self._decompressed = self._unpack()

    def _unpack(self) -> "_Decompressed | None":
        for magic, (name, make) in _FORMATS.items():
            if self.head.startswith(magic):
                unpacked = _Decompressed(self._data, self.path, name, make)
                self.head = unpacked.peek(_HEAD)
                return unpacked
        return None

    @property
    def is_compressed(self) -> bool:
        return self._decompressed is not None

    @property
    def bytes_read(self) -> int:
        """Of the file as it lies there."""
        return self._raw.count

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes, all with -1; none at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        return (self._decompressed or self._data).read(size)

    def readinto(self, room: memoryview, /) -> int:
        """Fill ``room`` as far as possible; returns how far, 0 at the end."""
        if self._decompressed is None:
            return self._data.readinto(room)
        data = self._decompressed.read(len(room))
        room[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file, if `open_stream` opened it. Harmless twice."""
        if self._owned:
            self.file.close()


class _Counted(io.RawIOBase):
    """A file that counts what is read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any, /) -> int:
        if hasattr(self._file, "readinto"):
            count = int(self._file.readinto(room) or 0)
        else:
            data = self._file.read(len(room))
            count = len(data)
            room[:count] = data
        self.count += count
        return count


class _Decompressed:
    """Streams of one format, one after the other, as their tools write them."""

    def __init__(
        self, file: Readable, path: str, name: str, make: Callable[[], _Decompressor]
    ) -> None:
        self._file = file
        self._path = path
        self._name = name
        self._make = make
        self._decompressor = make()
        self._input = b""
        self._ready = memoryview(b"")
        self._offset = 0

    def peek(self, size: int) -> bytes:
        if not self._ready:
            self._ready = memoryview(self._next())
        return bytes(self._ready[:size])

    def read(self, size: int) -> bytes:
        """What is ready, at most ``size`` bytes; none at the end."""
        if not self._ready:
            self._ready = memoryview(self._next())
        data = bytes(self._ready[:size])
        self._ready = self._ready[len(data) :]
        return data

    def _next(self) -> bytes:
        while True:
            if self._decompressor.eof:
                self._input = self._decompressor.unused_data or self._file.read(_CHUNK)
                if not self._input.strip(b"\0"):  # padding, as on a tape
                    return b""
                self._decompressor = self._make()
            elif not self._input:
                self._input = self._file.read(_CHUNK)
                if not self._input:
                    raise self._damage("ends too early")
            chunk, self._input = self._input, b""
            try:
                data = self._decompressor.decompress(chunk)
            except Exception as error:
                # Each format has its own, of no common base.
                if type(error).__name__ not in ("error", "ZstdError", "LZMAError", "OSError"):
                    raise
                raise self._damage(f"is damaged ({error})") from error
            self._offset += len(chunk)
            if data:
                return data

    def _damage(self, reason: str) -> CaptureError:
        where = f"near byte {self._offset} of the compressed file"
        return CaptureError(self._path, f"the {self._name} data {reason}, {where}")


def open_stream(source: str | os.PathLike[str] | IO[bytes]) -> Stream:
    """Open a file by its path or by the address of an object store (``s3://...``).

    ``-`` is standard input. A file object stays open and is read from where it
    stands. Raises `CaptureError` if it cannot be opened, DependencyMissing without
    the package for that kind of store.
    """
    if not isinstance(source, str | os.PathLike):
        return Stream(source, str(getattr(source, "name", "input")), owned=False, size=None)
    path = os.fspath(source)
    if path == "-":
        if sys.stdin is None:
            raise CaptureError("standard input", "is closed")
        return Stream(sys.stdin.buffer, "standard input", owned=False, size=None)
    file, size = _open_remote(path) if "://" in path else _open_local(path)
    try:
        return Stream(file, path, owned=True, size=size)
    except OSError as error:
        file.close()
        raise CaptureError(path, f"read failed: {os_reason(error)}") from error
    except BaseException:
        file.close()
        raise


def _open_local(path: str) -> tuple[IO[bytes], int | None]:
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115 - the Stream closes it
    except OSError as error:
        raise CaptureError(path, f"cannot open: {os_reason(error)}") from error
    except ValueError as error:
        raise CaptureError(path, f"cannot open: {error}") from error
    return file, os.fstat(file.fileno()).st_size or None


def _open_remote(path: str) -> tuple[IO[bytes], int | None]:
    try:
        import fsspec
    except ImportError:
        raise DependencyMissing(
            f"fsspec is not installed, which reads {path}", hint="pip install 'vnethash[dask]'"
        ) from None
    try:
        file: IO[bytes] = fsspec.open(path, "rb").open()
    except ImportError as error:
        raise DependencyMissing(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise CaptureError(path, f"cannot open: {error}") from error
    return file, getattr(file, "size", None)
