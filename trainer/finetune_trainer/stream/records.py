"""Records of text formats with their exact lines and bytes: one JSON object a line, or csv whose fields may hold newlines.

The csv module itself decides where a record ends, so blocks are cut only where it would begin a new one.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

csv.field_size_limit(1 << 30)
BOM = b"\xef\xbb\xbf"
UNCLOSED = "UnclosedQuote"
"""Kind of the fault of a csv record that ends only where the object does."""


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
    values: dict[str, Any] | Fault | None  # None for jsonl until `parse_json` is asked


def json_records(lines: Iterable[bytes], first_line: int = 1) -> Iterator[Record]:
    """Each line as a record; not parsed."""
    for line, raw in enumerate(lines, first_line):
        yield Record(line, raw, not raw or raw.isspace() or (raw.startswith(BOM) and raw[3:].isspace()), None)


def parse_json(raw: bytes) -> dict[str, Any] | Fault:
    """The object of a line."""
    try:
        value = json.loads(raw.removeprefix(BOM))
    except UnicodeDecodeError:
        return Fault("InvalidEncoding", "the line is not valid UTF-8")
    except json.JSONDecodeError as error:
        if raw.removeprefix(BOM).lstrip()[:1] == b"[":
            return Fault("InvalidJson", "this is one JSON array, not an object a line; convert it, as with jq -c '.[]'")
        return Fault("InvalidJson", f"not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return Fault("InvalidJson", f"not valid JSON: {str(error)[:100]}")
    if not isinstance(value, dict):
        return Fault("InvalidJson", f"holds a JSON {_KINDS.get(type(value), 'value')}, not an object")
    return value


_KINDS = {list: "array", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}


class _Consumed:
    """Decoded lines for the csv module, remembering what it has taken since the last record."""

    def __init__(self, lines: Iterable[bytes], line: int) -> None:
        self._lines, self.line = iter(lines), line
        self.taken: list[bytes] = []
        self.ended = False

    def __iter__(self) -> _Consumed:
        return self

    def __next__(self) -> str:
        try:
            raw = next(self._lines)
        except StopIteration:
            self.ended = True
            raise
        self.taken.append(raw)
        return raw.decode("utf-8", "surrogateescape")


def csv_records(lines: Iterable[bytes], header: tuple[str, ...], delimiter: str, first_line: int) -> Iterator[Record]:
    """Each record with its values by column; `first_line` is behind the header."""
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
            fault = Fault("InvalidCsv", f"not valid csv: {error}")
        raw, line = b"".join(consumed.taken), consumed.line
        if fault is not None and len(consumed.taken) > 1:
            last = line + len(consumed.taken) - 1
            fault = (
                Fault(UNCLOSED, f"a quote that opens in this record is never closed: all up to line {last} is lost")
                if consumed.ended
                else Fault("InvalidCsv", f"{fault.message}; the record reaches to line {last}")
            )
        consumed.line += len(consumed.taken)
        consumed.taken.clear()
        if fault is not None:
            yield Record(line, raw, False, fault)
        elif not fields:
            yield Record(line, raw, True, None)
        else:
            yield Record(line, raw, False, _csv_values(fields, header))


def _csv_values(fields: list[str], header: tuple[str, ...]) -> dict[str, Any] | Fault:
    if len(fields) != len(header):
        return Fault(
            "InvalidCsv",
            f"has {len(fields)} fields where the header has {len(header)}; quote fields that hold the delimiter",
        )
    if any(not field.isascii() and _undecodable(field) for field in fields):
        return Fault("InvalidEncoding", "the record is not valid UTF-8")
    return dict(zip(header, fields, strict=True))


def _undecodable(text: str) -> bool:
    return any("\udc80" <= char <= "\udcff" for char in text)


def csv_header(lines: Iterator[bytes]) -> tuple[tuple[str, ...], str, list[bytes]]:
    """Columns, delimiter and the lines that the header took. Empty columns for an empty object.

    The delimiter is what cuts the first line into most fields: a comma, a tab or a semicolon.
    """
    consumed = _Consumed(lines, 1)
    try:
        first = next(consumed)
    except StopIteration:
        return (), ",", []
    delimiter = max(",\t;", key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    first = first.removeprefix("\ufeff")

    def again() -> Iterator[str]:
        yield first
        yield from consumed

    fields = next(csv.reader(again(), delimiter=delimiter), [])
    return tuple(field.strip() for field in fields), delimiter, consumed.taken
