"""Read one block: its rows as compact JSON bytes, checked against the manifest's tag and checksum.

A row that the manifest does not know, or a checksum that differs, means that the data changed under the run:
DataChanged.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from finetune_api.exits import JobError, Reason
from finetune_api.forms import in_form
from finetune_api.records import (
    Fault,
    Record,
    Unreadable,
    array_records,
    bounded_lines,
    csv_header,
    csv_records,
    json_records,
    text_records,
)
from finetune_trainer.storage import Location, ObjectStore
from finetune_trainer.stream.files import as_text
from finetune_trainer.stream.formats.decompress import DamagedStream, plain_reader
from finetune_trainer.stream.formats.parquet import DamagedParquet, ParquetReader, Passage
from finetune_trainer.stream.manifest import Block, DataObject

CACHE = "prepare/blocks/"
"""Where the prepare step puts copies of blocks, below the output's prefix."""


def block_rows(
    store: ObjectStore, item: DataObject, block: Block, columns: Sequence[str], out: Location
) -> list[bytes]:
    """All rows of the block in order, bad ones included, each as the JSON text of an object.

    jsonl lines are handed on as they are stored; rows of other formats hold `columns` only.
    """
    if block.cache is not None:
        rows = _cached(out, block)
    elif item.format.name == "parquet":
        rows = RowGroup(store, item, block, columns).rows(0, block.rows)
    else:
        with _unchanged(store, item):
            rows = _text(store, item, block, columns)
    if len(rows) != block.rows:
        raise _differs(store, item, f"has {len(rows)} rows where {block.rows} were counted")
    return rows


def block_lines(store: ObjectStore, item: DataObject, block: Block) -> list[int]:
    """The first line of each row of a block of text, bad ones included."""
    with _unchanged(store, item):
        if item.format.splittable:
            data = store.get(item.key, start=block.start, end=block.end, if_match=item.etag)
            return [record.line for record in _records(io.BytesIO(data), item, block, spaces=True)]
        with store.open(item.key, if_match=item.etag) as source:
            plain, _ = plain_reader(source, item.format.compression)
            return [record.line for record in _records(plain, item, block, spaces=True, header=item.header is not None)]


class RowGroup:
    """A block of parquet whose rows are read range by range, in memory for one range: a row group may hold many GiB."""

    def __init__(self, store: ObjectStore, item: DataObject, block: Block, columns: Sequence[str]) -> None:
        self._store, self._item, self._columns = store, item, columns
        with _unchanged(store, item):
            reader = ParquetReader(store, item.key, item.size, item.etag)
            if block.start >= len(list(reader.groups())):
                raise DamagedParquet("it has fewer row groups than were counted")
            self._first = block.row - reader.first_row(block.start)
            self._passage = Passage(reader, block.start, columns)

    def rows(self, start: int, end: int) -> list[bytes]:
        """Rows [start, end) of the block, as JSON; cheap where they follow on those that were asked for last."""
        with _unchanged(self._store, self._item):
            found = self._passage.rows(self._first + start, self._first + end)
            return [to_bytes(values, self._columns) for values in found]


def _text(
    store: ObjectStore, item: DataObject, block: Block, columns: Sequence[str], spaces: bool = True
) -> list[bytes]:
    if item.format.splittable:
        data = store.get(item.key, start=block.start, end=block.end, if_match=item.etag)
        crc = zlib.crc32(data)
        rows = list(_rows(io.BytesIO(data), item, block, columns, spaces)) if crc == block.crc else []
    else:
        with store.open(item.key, if_match=item.etag) as source:
            plain, counted = plain_reader(source, item.format.compression)
            try:
                rows = list(_rows(plain, item, block, columns, spaces, header=item.header is not None))
            except DamagedStream as error:
                raise _differs(store, item, f"cannot be decompressed: {error}") from None
        crc = counted.crc
    if crc != block.crc:
        raise _differs(store, item, "has another checksum than when it was scanned")
    if len(rows) != block.rows and item.header is not None and spaces:  # counted by a version that took " " for a row
        return _text(store, item, block, columns, spaces=False)
    return rows


def _rows(
    source: BinaryIO, item: DataObject, block: Block, columns: Sequence[str], spaces: bool, header: bool = False
) -> Iterator[bytes]:
    for record in _records(source, item, block, spaces, header):
        yield record.raw if item.header is None else to_bytes(record.values, columns)


def _records(source: BinaryIO, item: DataObject, block: Block, spaces: bool, header: bool = False) -> Iterator[Record]:
    """Those that are rows."""
    if item.format.name == "json-array":
        yield from array_records(source)
        return
    lines = bounded_lines(source)
    if item.format.name == "jsonl":
        found = json_records(lines, block.line)
    elif item.format.name == "text":
        found = text_records(lines, block.line)
    else:
        if header:
            csv_header(lines)
        found = csv_records(lines, item.header or (), item.delimiter, block.line, spaces=spaces)
    yield from (record for record in found if not record.blank)


def to_bytes(values: Any, columns: Sequence[str]) -> bytes:
    """A row's wanted columns as JSON; an unreadable row as null (it is on the list of bad rows and never used)."""
    if isinstance(values, Fault):
        return b"null"
    return json.dumps(in_form(values, columns), ensure_ascii=False, separators=(",", ":"), default=_plain).encode(
        "utf-8", "surrogatepass"
    )


def _plain(value: Any) -> Any:
    """What JSON has no form for."""
    return as_text(value) if isinstance(value, bytes) else str(value)


@contextmanager
def _unchanged(store: ObjectStore, item: DataObject) -> Iterator[None]:
    """An object that was read to its end by the prepare step: if it cannot be read now, it is not the same."""
    try:
        yield
    except FileNotFoundError:
        raise _differs(store, item, "was deleted after it was scanned") from None
    except (DamagedParquet, Unreadable) as error:
        raise _differs(store, item, f"cannot be read: {error}") from None


def _cached(out: Location, block: Block) -> list[bytes]:
    try:
        source = out.open(f"{CACHE}{block.cache}")
    except FileNotFoundError:
        raise JobError(
            Reason.DATA_CHANGED,
            f"{out.uri(f'{CACHE}{block.cache}')} is gone: the job's own copy of its data was deleted",
            hint="Start a new job; leave its output prefix alone while it runs.",
        ) from None
    with source:
        plain, counted = plain_reader(source, "zst")
        try:
            rows = [line.rstrip(b"\n") for line in plain]
        except DamagedStream:
            rows = []
    if counted.crc != block.crc:
        raise JobError(Reason.DATA_CHANGED, f"{out.uri(f'{CACHE}{block.cache}')} is not what the job wrote there")
    return rows


def _differs(store: ObjectStore, item: DataObject, why: str) -> JobError:
    return JobError(Reason.DATA_CHANGED, f"{store.uri(item.key)} {why}")


def sweep_cache(out: Location) -> None:
    """Delete the job's copies of blocks; called once the job has succeeded."""
    out.delete([info.key for info in out.list(CACHE)])
