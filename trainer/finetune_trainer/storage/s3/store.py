"""S3 and what speaks like it as an object store: ranged reads, plain and conditional writes, large objects in parts."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from finetune_api.run import StorageAccess
from finetune_trainer.storage.base import ObjectInfo, Read, Unfinished
from finetune_trainer.storage.s3 import multipart
from finetune_trainer.storage.s3.bucket import Bucket
from finetune_trainer.storage.s3.conditional import ConditionalWrites, new_mark
from finetune_trainer.storage.s3.reader import Reader


class S3Store:
    """One bucket. Safe to use from several threads."""

    def __init__(self, bucket: str, access: StorageAccess, *, patience: float) -> None:
        self.bucket = Bucket(bucket, access, patience=patience)
        self._writes = ConditionalWrites(self.bucket)

    @property
    def conditional_writes(self) -> bool:
        """What the probe before the first conditional write found; True until then."""
        return self._writes.supported

    def uri(self, key: str) -> str:
        """s3://bucket/key."""
        return self.bucket.uri(key)

    def name(self, key: str) -> str:
        """The key: whose bucket it is, the job says."""
        return key

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key begins with `prefix`, sorted by UTF-8 bytes."""
        return self.bucket.list(prefix)

    def head(self, key: str) -> ObjectInfo | None:
        """Facts of the object."""
        return self.bucket.head(key)

    def get(self, key: str, *, start: int | None = None, end: int | None = None, if_match: str | None = None) -> bytes:
        """Bytes [start, end); fewer only where the object ends."""
        if start is not None and end is not None and end <= start:
            return b""
        with Reader(self.bucket, key, start or 0, end, if_match) as reader:
            return reader.read()

    def open(self, key: str, *, if_match: str | None = None) -> BinaryIO:
        """A forward reader of the whole object."""
        return io.BufferedReader(Reader(self.bucket, key, 0, None, if_match), 1 << 20)

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        """One PUT."""

        def send(condition: dict[str, str], mark: dict[str, str]) -> str:
            answer = self.bucket.client.put_object(
                Bucket=self.bucket.name, Key=key, Body=data, Metadata=mark, **condition
            )
            return str(answer["ETag"]).strip('"')

        tag = self._writes.write(key, send, new_mark(), if_none_match=if_none_match, if_match=if_match)
        return ObjectInfo(key, len(data), tag)

    def put_from(
        self, key: str, size: int, read: Read, *, if_none_match: bool = False, if_match: str | None = None
    ) -> ObjectInfo:
        """One PUT, or a multipart upload whose completion makes it visible."""
        if size <= 2 * multipart.PART_BYTES:
            return self.put(key, read(0, size), if_none_match=if_none_match, if_match=if_match)
        return multipart.write(
            self.bucket, self._writes, key, size, read, if_none_match=if_none_match, if_match=if_match
        )

    def put_file(self, key: str, path: Path, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        """As `put_from`, from the file as it is now."""

        def read(start: int, end: int) -> bytes:
            with open(path, "rb") as source:
                source.seek(start)
                return source.read(end - start)

        return self.put_from(key, Path(path).stat().st_size, read, if_none_match=if_none_match, if_match=if_match)

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """Multipart uploads that have not ended."""
        return multipart.unfinished(self.bucket, prefix)

    def discard(self, unfinished: Iterable[Unfinished]) -> None:
        """Abort multipart uploads."""
        multipart.discard(self.bucket, unfinished)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the keys; those that do not exist are no error."""
        self.bucket.delete(keys)
