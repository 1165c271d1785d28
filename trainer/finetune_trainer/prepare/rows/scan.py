"""Read every row of an object once: its values or why it has none, with its line; and on the way the object's blocks.

One pass gives both the manifest's part and the checks, and holds one record at a time, however large the object is.
"""

from __future__ import annotations

import io
import itertools
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from finetune_api.exits import JobError, Reason
from finetune_api.formats import LOOK_AT, Format, kind_of
from finetune_api.records import (
    BOM,
    CARRIAGE_RETURNS,
    TEXT,
    UNCLOSED,
    Fault,
    Record,
    Unreadable,
    array_records,
    bounded_lines,
    csv_header,
    csv_records,
    is_array,
    is_repeated_header,
    json_records,
    parse_json,
    text_records,
    undecodable,
)
from finetune_trainer.storage import ObjectInfo, ObjectStore
from finetune_trainer.stream.formats.decompress import DamagedStream, plain_reader
from finetune_trainer.stream.formats.parquet import DamagedParquet, ParquetReader
from finetune_trainer.stream.manifest import BLOCK_BYTES, Block, DataObject
from finetune_trainer.stream.sources.folders import CLASS, FILE

PEEK_ROWS = 100
LONGEST_NAME = 256
ROW_BYTES = 64
"""What a row takes in memory besides its own bytes."""


class ObjectScan:
    """Iterate over (row, line, values or Fault); afterwards `result` is the object as the manifest describes it."""

    def __init__(self, store: ObjectStore, info: ObjectInfo, kind: Format, columns: Sequence[str]) -> None:
        self._store, self._info, self._kind, self._columns = store, info, kind, columns
        self._blocks: list[Block] = []
        self._weights: list[int] = []
        self._header: tuple[str, ...] | None = None
        self._delimiter = ","
        self.key = info.key
        self.name = store.name(info.key)
        """The object as findings name it."""
        self.columns: Sequence[str] | None = None
        """All columns of the object, where it has a header or a schema; known once the first row is out."""
        self.line = 0
        self.file: ObjectInfo | None = None
        """None: its rows are no files themselves."""

    @property
    def result(self) -> DataObject:
        """To be asked once everything was read."""
        info = self._info
        return DataObject(
            info.key, info.size, info.etag, self._kind, tuple(self._blocks), self._header, self._delimiter
        )

    @property
    def weights(self) -> tuple[int, ...]:
        """Bytes that each block takes in memory, as far as `weigh` was called for its rows."""
        return tuple(self._weights[: len(self._blocks)])

    @property
    def block(self) -> int:
        """Number of the block of the row that came last."""
        return max(0, len(self._weights) - 1)

    def weigh(self, size: int, block: int) -> None:
        """A row of this block takes so many bytes in memory."""
        self._weights[block] += size

    def __iter__(self) -> Iterator[tuple[int, int, dict[str, Any] | Fault]]:
        try:
            if self._kind.name == "parquet":
                yield from self._parquet()
            else:
                with self._store.open(self._info.key, if_match=self._info.etag) as source:
                    self._check_start(_peek(source))
                    yield from self._text(source)
        except FileNotFoundError:
            raise JobError(
                Reason.DATA_CHANGED, f"{self._store.uri(self._info.key)} was deleted after it was listed"
            ) from None
        except Unreadable as error:
            raise JobError(Reason.INVALID_DATA, f"{self.name}:{error.line}: {error.message}", hint=error.hint) from None
        except DamagedStream as error:
            what = {"gz": "gzip", "zst": "zstd"}[self._kind.compression]
            raise JobError(
                Reason.INVALID_DATA,
                f"{self.name}:{self.line + 1}: the {what} stream is damaged here: {error}",
                hint="Compress and upload the object again; allowed bad rows do not cover damaged objects.",
            ) from None
        except DamagedParquet as error:
            raise JobError(
                Reason.INVALID_DATA,
                f"{self.name}:{self.line + 1}: not a readable parquet file: {error}",
                hint="Write and upload the object again.",
            ) from None

    def _check_start(self, start: bytes) -> None:
        """Raise JobError if the stored bytes are of another kind than the name says: it would be one bad row after
        another.
        """
        said = {"gz": "gzip", "zst": "zstd"}.get(self._kind.compression) or self._kind.name
        is_ = kind_of(start)
        if start and is_ != said and (is_ or self._kind.compression):
            plain = said if said in ("gzip", "zstd", "parquet") else f"plain {said}"
            raise JobError(
                Reason.INVALID_DATA,
                f"{self.name}:1: the name says {plain}, and the object holds {is_ or 'something else'}",
                hint=_ENDINGS_HINT,
            )

    def _check_text(self, start: bytes) -> None:
        """The same for the first bytes once decompressed."""
        if is_ := kind_of(start):
            raise JobError(
                Reason.INVALID_DATA,
                f"{self.name}:1: the object should hold {self._kind.name}, and holds {is_}",
                hint=_ENDINGS_HINT,
            )
        if b"\r" in start[:-1] and b"\n" not in start:
            raise Unreadable(1, CARRIAGE_RETURNS)

    def _parquet(self) -> Iterator[tuple[int, int, dict[str, Any] | Fault]]:
        if self._info.size:
            self._check_start(self._store.get(self._info.key, start=0, end=LOOK_AT, if_match=self._info.etag))
        reader = ParquetReader(self._store, self._info.key, self._info.size, self._info.etag)
        self.columns = reader.columns
        _refuse_twice(self.name, 1, self.columns)
        row = 0
        for group, (count, size) in enumerate(reader.groups()):
            self._blocks.append(Block(group, group + 1, row, count, row + 1, size, 0))
            self._weights.append(0)
            for values in reader.rows(group, self._columns):
                self.line = row + 1
                yield row, row + 1, values
                row += 1

    def _text(self, source: BinaryIO) -> Iterator[tuple[int, int, dict[str, Any] | Fault]]:
        plain, counted = plain_reader(source, self._kind.compression)
        first = _peek(plain)
        self._check_text(first)
        if self._kind.name == "jsonl" and is_array(first):
            self._kind = Format("json-array", self._kind.compression)
        start, records = self._records(plain)
        row = 0
        block = _Growing(start, 0, 0)
        self._weights.append(0)
        for record in records:
            if self._kind.splittable and block.size and block.size + len(record.raw) > BLOCK_BYTES:
                self._blocks.append(block.done())
                self._weights.append(0)
                block = _Growing(block.end, row, 0)
            block.take(record, checksum=self._kind.splittable)
            self.line = record.line
            if record.blank:
                continue
            values = parse_json(record.raw) if record.values is None else record.values
            header = self._header if self._kind.name == "csv" else None
            if header and isinstance(values, dict) and is_repeated_header(values, header):
                values = Fault(
                    "RepeatedHeader", "repeats the header: files were joined with their headers; remove the line"
                )
            if isinstance(values, Fault) and values.kind == UNCLOSED:
                raise JobError(
                    Reason.INVALID_DATA,
                    f"{self.name}:{record.line}: {values.message}",
                    hint="Close or double the quote; allowed bad rows do not cover rows that are swallowed by another.",
                )
            yield row, record.line, values
            row += 1
        if not self._kind.splittable:
            self._blocks.append(Block(0, self._info.size, 0, row, block.line, block.size, counted.crc))
        elif block.size:
            self._blocks.append(block.done())

    def _records(self, plain: BinaryIO) -> tuple[int, Iterator[Record]]:
        """Where the records begin, and they."""
        if self._kind.name == "json-array":
            return 0, array_records(plain)
        lines = bounded_lines(plain)
        if self._kind.name == "jsonl":
            return 0, json_records(lines)
        if self._kind.name == "text":
            self._header = self.columns = (TEXT,)
            return 0, text_records(lines)
        self._header, self._delimiter, taken = csv_header(lines)
        self.columns = self._header
        line = 1 + sum(1 for _ in itertools.takewhile(lambda raw: not raw.removeprefix(BOM).strip(), taken))
        long = next((name for name in self._header if len(name) > LONGEST_NAME), None)
        if long is not None:
            raise Unreadable(
                line,
                f"the header names a column of {len(long):,} characters; was a quote opened in it that closes further"
                " down?",
                "The first line of a csv file must name its columns; close its quotes.",
            )
        if any(map(undecodable, self._header)):
            raise Unreadable(line, "the header is not valid UTF-8", "Write the object again, as UTF-8.")
        _refuse_twice(self.name, line, self._header)
        return sum(map(len, taken)), csv_records(lines, self._header, self._delimiter, 1 + len(taken))


def _refuse_twice(name: str, line: int, columns: Sequence[str]) -> None:
    forms = [unicodedata.normalize("NFC", column) for column in columns]
    twice = next((column for column, form in zip(columns, forms, strict=True) if forms.count(form) > 1), None)
    if twice is not None:
        raise JobError(
            Reason.INVALID_DATA,
            f"{name}:{line}: the header names column {twice!r} twice",
            hint="Give each column a name of its own.",
        )


def _peek(source: BinaryIO) -> bytes:
    """The first bytes, which stay to be read; fewer than there are where the storage gave fewer."""
    return source.peek(LOOK_AT) if isinstance(source, io.BufferedReader) else b""


_ENDINGS_HINT = (
    "Give the object the ending of what it is (.jsonl, .jsonl.gz, .jsonl.zst, .csv, .parquet, .txt), in UTF-8, and"
    " check spec.data.format."
)


class _Growing:
    """A block of uncompressed text while it is being read."""

    def __init__(self, start: int, row: int, line: int) -> None:
        self.start, self.row, self.line = start, row, line
        self.rows = self.size = self.crc = 0

    @property
    def end(self) -> int:
        return self.start + self.size

    def take(self, record: Record, checksum: bool) -> None:
        if not self.size:
            self.line = record.line
        self.rows += not record.blank
        self.size += len(record.raw)
        if checksum:
            self.crc = zlib.crc32(record.raw, self.crc)

    def done(self) -> Block:
        return Block(self.start, self.end, self.row, self.rows, self.line, self.size, self.crc)


def peek_columns(store: ObjectStore, info: ObjectInfo, kind: Format) -> list[str]:
    """The columns of an object: from the schema, the header, or the first rows of jsonl, in the order they appear."""
    if kind.name == "files":
        return [FILE, CLASS]
    scan = ObjectScan(store, info, kind, ())
    if kind.name == "parquet":
        try:
            return ParquetReader(store, info.key, info.size, info.etag).columns
        except DamagedParquet:
            for _ in scan:  # says it in the user's words
                pass
    rows = iter(scan)
    first = list(itertools.islice(rows, PEEK_ROWS))
    rows.close()  # type: ignore[attr-defined]
    if scan._header is not None:
        return list(scan._header)
    return list(dict.fromkeys(name for _, _, values in first if isinstance(values, dict) for name in values))
