# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Write pcap and pcapng files."""

import os
import struct
from collections.abc import Iterable, Iterator

from vnethash.capture.format import (
    EPB,
    IDB,
    LINKTYPE_ETHERNET,
    MAX_FRAME,
    OPT_COMMENT,
    OPT_END,
    OPT_IF_TSRESOL,
    SHB,
    Frame,
)
from vnethash.errors import CaptureError, os_reason
from vnethash.writing import replacing


def write_pcap(
    path: str | os.PathLike[str],
    frames: Iterable[Frame | bytes],
    *,
    link_type: int = LINKTYPE_ETHERNET,
) -> int:
    """Write a little-endian pcap file with nanoseconds; returns how many frames.

    A `Frame` keeps its timestamp and original length; plain bytes are
    stamped one microsecond apart from 0. Raises `CaptureError` if the file
    cannot be written or a frame does not fit the format.
    """
    name = os.fspath(path)
    count = 0
    try:
        with replacing(path) as file:
            file.write(struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, MAX_FRAME, link_type))
            for frame in frames:
                if isinstance(frame, Frame):
                    data, original = frame.data, frame.original_length
                    timestamp = frame.timestamp_ns or 0
                    if frame.link_type != link_type:
                        raise CaptureError(
                            name,
                            f"frame {count} has link type {frame.link_type}, the file {link_type}",
                        )
                else:
                    data, original, timestamp = frame, len(frame), count * 1000
                if len(data) > MAX_FRAME:
                    raise CaptureError(
                        name, f"frame {count} of {len(data)} bytes is over {MAX_FRAME}"
                    )
                seconds, nanoseconds = divmod(timestamp, 1_000_000_000)
                if not (0 <= seconds < 1 << 32 and 0 <= original < 1 << 32):
                    raise CaptureError(name, f"frame {count} does not fit in a pcap record")
                file.write(struct.pack("<IIII", seconds, nanoseconds, len(data), original))
                file.write(data)
                count += 1
    except OSError as e:
        raise CaptureError(name, f"cannot write: {os_reason(e)}") from e
    return count


def pcapng_blocks(frames: Iterable[tuple[Frame, str]]) -> Iterator[bytes]:
    """A little-endian pcapng file of frames with a comment each, block by block.

    It has an interface for each link type, with nanoseconds. Comments are what
    Wireshark shows as ``frame.comment``; an empty one is left out.
    """
    yield _pcapng_block(SHB, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    interfaces: dict[int, int] = {}
    for frame, comment in frames:
        if frame.link_type not in interfaces:
            interfaces[frame.link_type] = len(interfaces)
            described = struct.pack("<HHI", frame.link_type, 0, MAX_FRAME)
            options = _pcapng_option(OPT_IF_TSRESOL, b"\x09") + _pcapng_option(OPT_END, b"")
            yield _pcapng_block(IDB, described + options)
        timestamp = frame.timestamp_ns or 0
        fixed = struct.pack(
            "<IIIII",
            interfaces[frame.link_type],
            timestamp >> 32,
            timestamp & 0xFFFFFFFF,
            len(frame.data),
            frame.original_length,
        )
        options = b""
        if comment:
            options = _pcapng_option(OPT_COMMENT, comment.encode()) + _pcapng_option(OPT_END, b"")
        yield _pcapng_block(EPB, fixed + _to_words(frame.data) + options)


def _pcapng_block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _pcapng_option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _to_words(value)


def _to_words(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
