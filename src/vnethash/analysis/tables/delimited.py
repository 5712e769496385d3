# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Tables whose rows are lines: separated by comma, tab, semicolon, bar or space; Zeek's logs."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vnethash.analysis.extras import load
from vnethash.analysis.tables.columns import Given, Layout, Role, find_columns, find_layout, is_row
from vnethash.analysis.tables.rows import Chunk, Rejected, unreadable
from vnethash.analysis.tables.text import Text
from vnethash.errors import FlowTableError

_BLOCK = 1 << 20
_DELIMITERS = ",\t;| "
_PREAMBLE = 20
"""Lines that may stand before the names of the columns."""
_EMPTY = ("", "-", "(empty)", "NULL", "null", "None", "NaN", "nan", "N/A", "\\N")
_ENCODED = (Role.SOURCE, Role.DESTINATION, Role.PROTOCOL)
_SHOWN = 40
_QUOTE, _COMMA = "\x01", "\x02"
"""What stands for a quote and for the delimiter in a line with a quote that does not end."""


@dataclass(frozen=True, slots=True)
class Header:
    """How the lines of a table are to be read."""

    delimiter: str
    names: Sequence[str]
    lines: int
    """That come before the first row."""
    length: int
    """Bytes of them."""
    empty: tuple[str, ...] = _EMPTY
    quoted: bool = True


def read_delimited(text: Text, given: Given, path: str) -> tuple[Layout, Iterator[Chunk]]:
    """The layout and the rows of a table of text. Raises FlowTableError."""
    header = find_header(text.head, given, path)
    layout = find_layout(header.names, given, path)
    return layout, _chunks(text, header, layout, path)


def find_header(head: bytes, given: Given, path: str) -> Header:
    """From the first bytes of a file. Raises FlowTableError if it has no lines."""
    lines = head.split(b"\n")
    if len(lines) > 1:
        lines.pop()  # may be cut short
    if lines[0].startswith(b"#separator"):
        return _zeek_header(lines, path)
    length = 0
    fallback: list[str] = []
    for number, line in enumerate(lines[:_PREAMBLE], 1):
        length += len(line) + 1
        for delimiter in _DELIMITERS:
            names = _fields(line, delimiter)
            columns = find_columns(names, given)
            if Role.SOURCE in columns and Role.DESTINATION in columns:
                if is_row(names, given):
                    number, length = number - 1, length - len(line) - 1
                return Header(delimiter, names, number, length)
        if not fallback and line.strip():
            fallback = max((_fields(line, delimiter) for delimiter in _DELIMITERS), key=len)
    find_layout(fallback, given, path)  # which says what is missing
    raise FlowTableError(path, "is empty")


def _fields(line: bytes, delimiter: str) -> list[str]:
    text = line.decode("utf-8", "replace").removeprefix("\ufeff").rstrip("\r")
    try:
        fields = next(csv.reader([text], delimiter=delimiter), [])
    except csv.Error:  # a line of what is no table
        return []
    return [field.strip().removeprefix("#").strip() for field in fields]


def _zeek_header(lines: Sequence[bytes], path: str) -> Header:
    """Its lines tell how the others are to be read (docs.zeek.org, "Zeek Log Formats")."""
    count = next((n for n, line in enumerate(lines) if not line.startswith(b"#")), len(lines))
    told = lines[:count]
    separator = told[0].partition(b" ")[2].decode("latin-1") or "\t"
    if escaped := re.fullmatch(r"\\x([0-9a-fA-F]{2})", separator):
        separator = chr(int(escaped[1], 16))
    if len(separator) != 1 or not separator.isascii() or separator in "\0\r\n":
        raise FlowTableError(
            path,
            f"is a Zeek log with #separator {separator!r}, which separates nothing",
            hint="it is one ASCII character, such as \\x09",
        )
    tags = (line.decode("utf-8", "replace").split(separator) for line in told[1:])
    fields = {tag: rest for tag, *rest in tags}
    if "#fields" not in fields:
        raise FlowTableError(path, "is a Zeek log without #fields")
    unset = (*fields.get("#unset_field", ["-"])[:1], *fields.get("#empty_field", ["(empty)"])[:1])
    length = sum(len(line) + 1 for line in told)
    return Header(separator, fields["#fields"], count, length, ("", *unset), quoted=False)


class _Lines:
    """Whole lines for pyarrow: of a file that breaks off, all before the one that broke.

    A question mark stands for every byte that is no ASCII: pyarrow would stop at a line
    to skip that is no UTF-8, and there is none in addresses and numbers. A quote that does
    not end would take the lines after it along: such a line comes as a single field.
    """

    closed = False
    _QUESTION = bytes(byte if byte < 0x80 else ord("?") for byte in range(256))

    def __init__(self, text: Text, header: Header) -> None:
        self._text = text
        self._rest = b""
        self._quoted = header.quoted
        # As pyarrow has it: a quote opens at the start of a field alone, two of them are
        # one, and what stands behind the closing one belongs to the field too.
        end = re.escape(header.delimiter) + r"\r"
        field = rf'(?:"[^"]*(?:""[^"]*)*"(?!")|(?!"))[^{end}]*'
        self._ends = re.compile(rf"{field}(?:[{end}]{field})*".encode()).fullmatch
        self._before = np.frombuffer(f'"\r\n{header.delimiter}'.encode(), np.uint8)
        self._single = bytes.maketrans(
            f'"{header.delimiter}\r'.encode(), f"{_QUOTE}{_COMMA} ".encode()
        )

    def read(self, size: int) -> bytes:
        try:
            data = self._rest + self._text.read(max(size - len(self._rest), 0))
        except FlowTableError:  # is raised when pyarrow is through with what it has
            return b""
        end = len(data)
        if end >= size or self._text.error:
            end = data.rfind(b"\n") + 1 or (0 if self._text.error else end)
        data, self._rest = data[:end], data[end:]
        if self._quoted and b'"' in data and not self._all_end(data):
            data = b"\n".join(
                line if b'"' not in line or self._ends(line) else line.translate(self._single)
                for line in data.split(b"\n")
            )
        return data if data.isascii() else data.translate(self._QUESTION)

    def _all_end(self, data: bytes) -> bool:
        """Whether it is plain that every quote ends in its line; if not, some still may."""
        codes = np.frombuffer(data, np.uint8)
        quotes = np.flatnonzero(codes == ord('"'))
        if len(quotes) % 2:
            return False
        opening, closing = quotes[::2], quotes[1::2]
        before = codes[opening - 1]
        if opening[0] == 0:
            before[0] = ord("\n")
        lines = np.flatnonzero(codes == ord("\n"))
        same = np.searchsorted(lines, opening) == np.searchsorted(lines, closing)
        return bool(same.all() and np.isin(before, self._before).all())

    def close(self) -> None:
        """The file is not ours."""


class _Skipped:
    """Lines that have not as many fields as there are columns; pyarrow leaves them out.

    It reads ahead in a thread of its own: they are told before the rows around them.
    """

    def __init__(self, header: Header) -> None:
        self._header = header
        self._lock = Lock()
        self._numbers: list[int] = []
        self._told: dict[str, list[tuple[int, str]]] = {}
        self._back = str.maketrans({_QUOTE: '"', _COMMA: header.delimiter})
        self._rows = 0
        self._summary = 0

    def __call__(self, row: Any) -> str:
        text, reason = row.text, f"not of {len(self._header.names)} columns"
        if _QUOTE in text:
            text, reason = text.translate(self._back).rstrip(), "with a quote that does not end"
        with self._lock:
            follows = bool(self._numbers) and row.number == self._numbers[-1] + 1
            self._numbers.append(row.number)
            # nfdump ends with a summary: this word, names, numbers; or sentences.
            if text.startswith("Summary"):
                self._summary = 4 if text.startswith("Summary:") else 3
            else:
                self._summary = max(self._summary - 1, 0) if follows else 0
            # A comment, or what Zeek ends with.
            if text.strip() and not text.startswith("#") and not self._summary:
                self._told.setdefault(reason, []).append((row.number, text))
        return "skip"

    def numbers(self, rows: int) -> NDArray[np.int64]:
        """Lines of the next ``rows`` rows, from 1, counting every line of the file."""
        with self._lock:
            skipped = np.array(self._numbers, np.int64) - 1
        place = np.arange(self._rows, self._rows + rows)
        self._rows += rows
        # The row before which each of them was left out.
        before = np.maximum.accumulate(skipped - np.arange(len(skipped)))
        place += np.searchsorted(before, place, side="right")
        return place + 1 + self._header.lines

    def rejected(self) -> tuple[Rejected, ...]:
        """Those since the last call."""
        with self._lock:
            told, self._told = self._told, {}
        return tuple(
            Rejected(
                reason,
                len(lines),
                f"line {lines[0][0] + self._header.lines}: {lines[0][1][:_SHOWN]!r}",
            )
            for reason, lines in told.items()
        )


def _chunks(text: Text, header: Header, layout: Layout, path: str) -> Iterator[Chunk]:
    pa, reading = load("pyarrow", "flow tables"), load("pyarrow.csv", "flow tables")
    text.read(header.length)
    lines, skipped = _Lines(text, header), _Skipped(header)
    encoded = {index for role in _ENCODED for index in layout.columns.get(role, ())}
    encoded |= set(layout.only)
    plain, words = pa.string(), pa.dictionary(pa.int32(), pa.string())
    names = [str(index) for index in range(len(header.names))]
    try:
        batches = reading.open_csv(
            pa.PythonFile(lines, mode="r"),
            # One thread: pyarrow numbers the lines, and other cores have other files.
            read_options=reading.ReadOptions(
                use_threads=False, block_size=_BLOCK, column_names=names
            ),
            parse_options=reading.ParseOptions(
                delimiter=header.delimiter,
                quote_char='"' if header.quoted else False,
                ignore_empty_lines=False,
                invalid_row_handler=skipped,
            ),
            convert_options=reading.ConvertOptions(
                include_columns=[names[index] for index in layout.used],
                column_types={
                    names[index]: words if index in encoded else plain for index in layout.used
                },
                null_values=list(header.empty),
                strings_can_be_null=True,
            ),
        )
        for batch in batches:
            columns = dict(zip(layout.used, batch.columns, strict=True))
            numbers = skipped.numbers(batch.num_rows)
            yield Chunk(
                columns, batch.num_rows, numbers, "line", skipped.rejected(), text.bytes_read
            )
    except (pa.ArrowException, OSError) as error:
        if "Empty CSV file" not in str(error):
            raise unreadable(path, error) from error
    if rest := skipped.rejected():
        nothing = {index: pa.nulls(0, plain) for index in layout.used}
        yield Chunk(nothing, 0, np.empty(0, np.int64), "line", rest, text.bytes_read)
    if text.error:
        raise text.error
