"""Parquet through ranges: the footer and the wanted columns of a row group, never the whole object.

Small row groups are fetched in one round of requests. Large ones are read on from page to page, a few MiB at a time,
however many GiB they hold; `Passage` hands out their rows by ranges.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from finetune_api.forms import one_form
from finetune_trainer.storage import ObjectStore

_BATCH, _BATCH_BYTES = 512, 4 << 20
"""Rows decoded at once: at most so many, and about so many bytes."""
_FETCHED_WHOLE = 16 << 20
_READ_AHEAD = 2 << 20
"""Bytes of each column of a larger row group that are asked for at once."""
_MOST_FOOTERS = 256
_footers: dict[tuple[str, str], Any] = {}
"""Footers of the objects in use, by URI and tag: a row group is then one round of requests."""


class RangeFile(io.RawIOBase):
    """An object as a seekable file; every read is a range request with If-Match."""

    def __init__(self, store: ObjectStore, key: str, size: int, etag: str) -> None:
        self._store, self._key, self._size, self._etag, self._position = store, key, size, etag, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._size, self._position + size)
        if end <= self._position:
            return b""
        data = self._store.get(self._key, start=self._position, end=end, if_match=self._etag)
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


class DamagedParquet(Exception):
    """Not a parquet file, or a damaged one."""


@contextmanager
def _damage() -> Iterator[None]:
    """Whatever the library raises on the content; what the storage raises passes."""
    import pyarrow

    try:
        yield
    except FileNotFoundError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, LookupError, TypeError) as error:
        raise DamagedParquet(_short(error)) from None


class ParquetReader:
    """One parquet object."""

    def __init__(self, store: ObjectStore, key: str, size: int, etag: str) -> None:
        self._object = (store, key, size, etag)
        self._known = (store.uri(key), etag)
        self._file = self._open(whole=True)
        if len(_footers) >= _MOST_FOOTERS:
            _footers.clear()
        _footers[self._known] = self._file.metadata

    def _open(self, whole: bool) -> Any:
        import pyarrow.parquet

        with _damage():
            return pyarrow.parquet.ParquetFile(
                RangeFile(*self._object),
                metadata=_footers.get(self._known),
                pre_buffer=whole,
                buffer_size=0 if whole else _READ_AHEAD,
            )

    @property
    def columns(self) -> list[str]:
        """Names of the top-level columns."""
        return list(self._file.schema_arrow.names)

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """What the writer noted beside the schema."""
        return dict(self._file.schema_arrow.metadata or {})

    def groups(self) -> Iterator[tuple[int, int]]:
        """(rows, uncompressed bytes) of each row group."""
        for n in range(self._file.metadata.num_row_groups):
            group = self._file.metadata.row_group(n)
            yield group.num_rows, group.total_byte_size

    def first_row(self, group: int) -> int:
        """Number in the object of the row group's first row."""
        return sum(self._file.metadata.row_group(n).num_rows for n in range(group))

    def rows(self, group: int, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Rows of a row group with those of the columns that exist."""
        for batch in self.batches(group, columns):
            with _damage():
                rows = batch.to_pylist()
            yield from rows

    def batches(self, group: int, columns: Sequence[str]) -> Iterator[Any]:
        """The row group in order, as record batches of a few MiB with those of the columns that exist."""
        import pyarrow

        wanted = [name for name in self.columns if name in columns or one_form(name) in columns]
        rows = self._file.metadata.row_group(group).num_rows
        if not wanted:
            nothing = pyarrow.StructArray.from_arrays([], fields=[], mask=pyarrow.array([False] * rows))
            yield pyarrow.RecordBatch.from_struct_array(nothing)
            return
        stored, plain = self._bytes(group, wanted)
        file = self._file if stored <= _FETCHED_WHOLE else self._open(whole=False)
        at_once = max(1, min(_BATCH, _BATCH_BYTES * rows // max(1, plain)))
        batches = file.iter_batches(at_once, row_groups=[group], columns=wanted)
        count = 0
        while True:
            with _damage():
                batch = next(batches, None)
            if batch is None:
                break
            count += batch.num_rows
            yield batch
        if count != rows:
            raise DamagedParquet(f"row group {group} has {count} rows where the footer says {rows}")

    def _bytes(self, group: int, wanted: Sequence[str]) -> tuple[int, int]:
        """Stored and uncompressed bytes of the wanted columns."""
        facts = self._file.metadata.row_group(group)
        chunks = [facts.column(n) for n in range(facts.num_columns)]
        mine = [c for c in chunks if any(f"{c.path_in_schema}.".startswith(f"{name}.") for name in wanted)]
        return sum(c.total_compressed_size for c in mine), sum(c.total_uncompressed_size for c in mine)


class Passage:
    """One row group, read on from where the last range ended; from its beginning again for a range that lies behind."""

    def __init__(self, reader: ParquetReader, group: int, columns: Sequence[str]) -> None:
        self._reader, self._group, self._columns = reader, group, columns
        self._begin()

    def _begin(self) -> None:
        self._batches = self._reader.batches(self._group, self._columns)
        self._batch: Any = None
        self._first = 0  # row, within the group, that the batch begins with

    def rows(self, start: int, end: int) -> Iterator[dict[str, Any]]:
        """Rows [start, end) of the group."""
        if start < self._first:
            self._begin()
        while start < end:
            if self._batch is None or start >= self._first + self._batch.num_rows:
                self._first += 0 if self._batch is None else self._batch.num_rows
                self._batch = next(self._batches, None)
                if self._batch is None:
                    raise DamagedParquet(f"row group {self._group} ends before row {end}")
                continue
            taken = self._batch.slice(start - self._first, end - start)
            with _damage():
                rows = taken.to_pylist()
            yield from rows
            start += taken.num_rows


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
