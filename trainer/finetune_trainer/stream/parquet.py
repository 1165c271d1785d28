"""Parquet through ranges: the footer and the wanted columns of a row group, never the whole object."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

from finetune_trainer.storage import ObjectStore

_BATCH = 512
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


class ParquetReader:
    """One parquet object."""

    def __init__(self, store: ObjectStore, key: str, size: int, etag: str) -> None:
        import pyarrow
        import pyarrow.parquet

        self._errors = (pyarrow.ArrowException, OSError)
        known = (store.uri(key), etag)
        try:
            self._file = pyarrow.parquet.ParquetFile(
                RangeFile(store, key, size, etag), metadata=_footers.get(known), pre_buffer=True
            )
        except self._errors as error:
            raise DamagedParquet(_short(error)) from None
        if len(_footers) >= _MOST_FOOTERS:
            _footers.clear()
        _footers[known] = self._file.metadata

    @property
    def columns(self) -> list[str]:
        """Names of the top-level columns."""
        return list(self._file.schema_arrow.names)

    def groups(self) -> Iterator[tuple[int, int]]:
        """(rows, uncompressed bytes) of each row group."""
        for n in range(self._file.metadata.num_row_groups):
            group = self._file.metadata.row_group(n)
            yield group.num_rows, group.total_byte_size

    def rows(self, group: int, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Rows of a row group with those of the columns that exist."""
        wanted = [name for name in columns if name in self.columns]
        count = self._file.metadata.row_group(group).num_rows
        if not wanted:
            yield from ({} for _ in range(count))
            return
        try:
            for batch in self._file.iter_batches(_BATCH, row_groups=[group], columns=wanted):
                yield from batch.to_pylist()
        except self._errors as error:
            raise DamagedParquet(_short(error)) from None


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
