# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The text of a table, the beginning of which can be looked at before it is read."""

from typing import Final

from vnethash.capture.stream import Stream
from vnethash.errors import CaptureError, FlowTableError, os_reason

HEAD: Final = 1 << 18
"""Bytes that are looked at to find out what a file is."""
_STEP: Final = 1 << 16


class Text:
    """A stream that is read once, from its start to its end."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.error: FlowTableError | None = None
        """Where it broke off, when that has been seen."""
        self._left = b""
        self._left = self.head = self.read(HEAD)

    @property
    def bytes_read(self) -> int:
        """Of the file as it lies there."""
        return self._stream.bytes_read

    def read(self, size: int) -> bytes:
        """``size`` bytes, fewer only at the end. Raises FlowTableError where the file
        breaks off, after all that is before."""
        parts = [self._left[:size]]
        self._left = self._left[size:]
        size -= len(parts[0])
        while size and self.error is None:
            try:
                part = self._stream.read(min(size, _STEP))
            except CaptureError as error:
                self.error = FlowTableError(self._stream.path, error.reason)
                break
            except OSError as error:
                reason = f"read failed: {os_reason(error)}"
                self.error = FlowTableError(self._stream.path, reason)
                break
            if not part:
                return b"".join(parts)
            parts.append(part)
            size -= len(part)
        data = b"".join(parts)
        if self.error and not data:
            raise self.error
        return data
