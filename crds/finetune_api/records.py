"""Records of text formats with their exact lines and bytes, for the trainer and the command line alike: one reader a
format.

jsonl holds one JSON object a line. csv is what Python's csv module reads strictly: fields in double quotes may hold
line breaks, a quote inside them is written twice, and no backslash escapes anything; tsv is csv with tabs. The csv
module itself decides where a record ends, so blocks are cut only where it would begin a new one. A JSON array of
objects is read element by element. Of plain text each line that holds something is a row. No record is held that is
larger than MOST_BYTES, and nothing but `Unreadable` is raised for what is read.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

csv.field_size_limit(1 << 30)
BOM = b"\xef\xbb\xbf"
MOST_BYTES = 64 << 20
"""A larger record is a file in the wrong format: a line, or a csv field whose quote is never closed."""
UNCLOSED = "UnclosedQuote"
"""Kind of the fault of a csv record that ends only where the object does."""
CARRIAGE_RETURNS = (
    "its lines end with carriage returns only, which is read as one long line; convert it, as with tr '\\r' '\\n'"
)
CONVERT = "jq -c . FILE > FILE.jsonl"


class Unreadable(Exception):
    """From `line` on the object cannot be read, however many bad rows are allowed."""

    def __init__(self, line: int, message: str, hint: str = "Write the object again.") -> None:
        super().__init__(message)
        self.line, self.message, self.hint = line, message, hint


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a record cannot be read: `kind` for counting, `message` for people."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Record:
    """The stored bytes of one record, from its first line. `blank`: holds nothing, and is no row."""

    line: int
    raw: bytes
    blank: bool
    values: dict[str, Any] | Fault | None  # None for JSON until `parse_json` is asked


def bounded_lines(source: BinaryIO) -> Iterator[bytes]:
    """The lines of an object. Raises Unreadable at one that is too long to be held."""
    line = 1
    while raw := source.readline(MOST_BYTES + 1):
        if len(raw) > MOST_BYTES:
            raise Unreadable(
                line,
                f"the line holds more than {MOST_BYTES >> 20} MiB",
                "Write one row a line; split rows that are so long.",
            )
        yield raw
        line += 1


# ---------------------------------------------------------------------- text

TEXT = "text"
"""The column of plain text."""


def text_records(lines: Iterable[bytes], first_line: int = 1) -> Iterator[Record]:
    """Each line as a record, without its end."""
    for line, raw in enumerate(lines, first_line):
        values: dict[str, Any] | Fault
        try:
            values = {TEXT: raw.removeprefix(BOM).decode().rstrip("\r\n")}
            blank = not values[TEXT].strip()
        except UnicodeDecodeError:
            values, blank = Fault("InvalidEncoding", "the line is not valid UTF-8"), False
        yield Record(line, raw, blank, values)


# ---------------------------------------------------------------------- JSON


def json_records(lines: Iterable[bytes], first_line: int = 1) -> Iterator[Record]:
    """Each line as a record; not parsed."""
    for line, raw in enumerate(lines, first_line):
        yield Record(line, raw, not raw or raw.isspace() or (raw.startswith(BOM) and raw[3:].isspace()), None)


def parse_json(raw: bytes) -> dict[str, Any] | Fault:
    """The object of a line, or of an array's element."""
    try:
        value = json.loads(raw.removeprefix(BOM))
    except UnicodeDecodeError:
        return Fault("InvalidEncoding", "the line is not valid UTF-8")
    except json.JSONDecodeError as error:
        return Fault("InvalidJson", _json_message(error))
    except (ValueError, RecursionError) as error:
        return Fault("InvalidJson", f"not valid JSON: {str(error)[:100]}")
    if not isinstance(value, dict):
        return Fault("InvalidJson", f"holds a JSON {_KINDS.get(type(value), 'value')}, not an object")
    return value


_KINDS = {list: "array", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}


def _json_message(error: json.JSONDecodeError) -> str:
    text = error.doc.strip()
    message = f"not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
    if text[:1] == "[":
        return f"{message}; a JSON array is read where it is the whole object"
    if text[:1] == "<":
        return f"{message}: the line holds HTML or XML"
    if error.msg == "Extra data" and text[:1] == "{":
        return f"{message}: the line holds more than one value; write one object a line"
    if text[:1] == "{" and error.pos >= len(error.doc.rstrip()):
        return (
            f"{message}: the object does not end in its line; jsonl holds one whole object a line, which {CONVERT}"
            " makes of others"
        )
    return message


def is_array(start: bytes) -> bool:
    """Whether an object that begins so is one JSON array."""
    return start.removeprefix(BOM).lstrip()[:1] == b"["


def array_records(source: BinaryIO) -> Iterator[Record]:
    """The elements of a JSON array, one in memory at a time; their numbers, from 1, stand for lines.

    Raises Unreadable.
    """
    text = io.TextIOWrapper(source, encoding="utf-8-sig", errors="strict", newline="")
    window, number = _Window(text), 1
    window.expect("[", number)
    if window.next(number) == "]":
        window.skip(1)
    else:
        while True:
            yield Record(number, window.element(number).encode("utf-8", "surrogatepass"), False, None)
            following = window.next(number)
            window.skip(1)
            if following == "]":
                break
            if following != ",":
                raise Unreadable(
                    number, f"row {number} of the JSON array is followed by {following!r}, not by a comma or its end"
                )
            number += 1
    if window.next(number, at_end=True):
        raise Unreadable(
            number,
            f"more follows behind the JSON array of {number} rows: write one array, or one object a line",
            f"{CONVERT} makes jsonl of it.",
        )


class _Window:
    """The part of a text that is being looked at."""

    def __init__(self, source: io.TextIOWrapper) -> None:
        self._source, self._text, self._at = source, "", 0
        self._ended = False

    def _more(self, number: int) -> None:
        self._text, self._at = self._text[self._at :], 0
        if len(self._text) > MOST_BYTES:
            raise Unreadable(number, f"row {number} of the JSON array holds more than {MOST_BYTES >> 20} MiB")
        try:
            read = self._source.read(max(1 << 16, len(self._text)))
        except UnicodeDecodeError:
            raise Unreadable(number, f"the JSON array is not valid UTF-8 at or behind row {number}") from None
        self._ended = not read
        self._text += read

    def next(self, number: int, at_end: bool = False) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if self._ended:
                if at_end:
                    return ""
                raise Unreadable(number, f"the JSON array does not end: it breaks off at row {number}")
            self._more(number)

    def skip(self, count: int) -> None:
        self._at += count

    def expect(self, character: str, number: int) -> None:
        assert self.next(number) == character
        self.skip(1)

    def element(self, number: int) -> str:
        """One value, as it stands."""
        self.next(number)
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._at)
                if end < len(self._text) or self._ended:  # else a number might go on
                    found, self._at = self._text[self._at : end], end
                    return found
            except (ValueError, RecursionError) as error:
                if self._ended or not isinstance(error, json.JSONDecodeError) or _clearly_wrong(error, len(self._text)):
                    what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)[:100]
                    cut = ": it breaks off here" if self._ended else ""
                    raise Unreadable(
                        number, f"row {number} of the JSON array is not valid JSON: {what.removesuffix(' at')}{cut}"
                    ) from None
            self._more(number)


def _clearly_wrong(error: json.JSONDecodeError, length: int) -> bool:
    """Whether reading on cannot mend it: it lies well before the end of what was read, and no string goes on there."""
    return "Unterminated string" not in error.msg and error.pos < length - 16


_DECODER = json.JSONDecoder()


# ---------------------------------------------------------------------- csv


class _Consumed:
    """Decoded lines for the csv module, remembering what it has taken since the last record."""

    def __init__(self, lines: Iterable[bytes], line: int) -> None:
        self._lines, self.line = iter(lines), line
        self.taken: list[bytes] = []
        self.ended = False
        self._size = 0

    def __iter__(self) -> _Consumed:
        return self

    def __next__(self) -> str:
        try:
            raw = next(self._lines)
        except StopIteration:
            self.ended = True
            raise
        self.taken.append(raw)
        self._size += len(raw)
        if self._size > MOST_BYTES:
            raise Unreadable(
                self.line, f"a quote that opens in this record is not closed within {MOST_BYTES >> 20} MiB", _CLOSE
            )
        return raw.decode("utf-8", "surrogateescape")

    def forget(self) -> None:
        """The record is read."""
        self.line += len(self.taken)
        self.taken.clear()
        self._size = 0


_CLOSE = "Close or double the quote; allowed bad rows do not cover rows that are swallowed by another."


def csv_records(
    lines: Iterable[bytes], header: tuple[str, ...], delimiter: str, first_line: int, *, spaces: bool = True
) -> Iterator[Record]:
    """Each record with its values by column; `first_line` is behind the header. Raises Unreadable.

    spaces: a line of white space only is blank, where the csv module sees fields.
    """
    consumed = _Consumed(lines, first_line)
    reader = csv.reader(consumed, delimiter=delimiter, strict=True)
    while True:
        fields: list[str] | None = None
        fault: Fault | None = None
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = Fault("InvalidCsv", _csv_message(error, delimiter))
        raw, line = b"".join(consumed.taken), consumed.line
        if fault is not None and len(consumed.taken) > 1:
            last = line + len(consumed.taken) - 1
            fault = (
                Fault(UNCLOSED, f"a quote that opens in this record is never closed: all up to line {last} is lost")
                if consumed.ended
                else Fault("InvalidCsv", f"{fault.message}; the record reaches to line {last}")
            )
        consumed.forget()
        if fault is not None:
            yield Record(line, raw, False, fault)
        elif not fields or (spaces and len(header) > 1 and raw.isspace()):
            yield Record(line, raw, True, None)
        else:
            yield Record(line, raw, False, _csv_values(fields, header))


def _csv_message(error: csv.Error, delimiter: str) -> str:
    """The csv module's words in the user's."""
    text = str(error)
    dialect = "tsv (csv with tabs)" if delimiter == "\t" else "csv"
    if "expected after" in text:
        return (
            f"not valid {dialect}: text follows a closing quote. A field that begins with a quote must end with one; a"
            " quote inside it is written "
            'twice (""), and a backslash escapes nothing'
        )
    if "new-line character" in text:
        return (
            f"not valid {dialect}: a carriage return stands outside quotes. Lines must end with LF or CR LF; convert"
            " it, as with tr '\\r' '\\n'"
        )
    if "unexpected end" in text:
        return f"not valid {dialect}: a quote that opens in this record is never closed"
    return f"not valid {dialect}: {text[:100]}"


def _csv_values(fields: list[str], header: tuple[str, ...]) -> dict[str, Any] | Fault:
    if len(fields) != len(header):
        return Fault(
            "InvalidCsv",
            f"has {len(fields)} fields where the header has {len(header)}; quote fields that hold the delimiter",
        )
    if any(not field.isascii() and undecodable(field) for field in fields):
        return Fault("InvalidEncoding", "the record is not valid UTF-8")
    return dict(zip(header, fields, strict=True))


def undecodable(text: str) -> bool:
    """Whether the text stands for bytes that are no UTF-8."""
    return any("\udc80" <= char <= "\udcff" for char in text)


def csv_header(lines: Iterator[bytes]) -> tuple[tuple[str, ...], str, list[bytes]]:
    """Columns, delimiter and the lines that the header took, blank ones before it included. Empty columns for an empty
    object.

    The delimiter is what cuts the first line into most fields: a comma, a tab or a semicolon. Raises Unreadable.
    """
    consumed = _Consumed(lines, 1)
    first = ""
    while not first.strip():
        try:
            first = next(consumed).removeprefix("\ufeff")
        except StopIteration:
            return (), ",", consumed.taken
    line = len(consumed.taken)

    def again() -> Iterator[str]:
        yield first
        yield from consumed

    try:
        delimiter = max(",\t;", key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
        fields = next(csv.reader(again(), delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        if "new-line character" in str(error):
            raise Unreadable(line, CARRIAGE_RETURNS) from None
        if consumed.ended:
            raise Unreadable(
                line, f"the quote opened in line {line} never closes: all of the object would be its header", _CLOSE
            ) from None
        raise Unreadable(line, f"the header is {_csv_message(error, ',')}") from None
    return tuple(field.strip() for field in fields), delimiter, consumed.taken


def is_repeated_header(values: dict[str, Any], header: tuple[str, ...]) -> bool:
    """Whether a record is the header once more, as where files were joined."""
    return len(header) > 1 and all(values[name].strip() == name for name in header)
