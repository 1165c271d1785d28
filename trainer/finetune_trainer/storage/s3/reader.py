"""Reading an S3 object forward through broken connections: the rest is asked for again, of the same tag only."""

from __future__ import annotations

import io
import os
from typing import Any, cast

from finetune_trainer.storage.errors import changed
from finetune_trainer.storage.s3 import credentials
from finetune_trainer.storage.s3.bucket import Bucket
from finetune_trainer.storage.s3.errors import code_and_status

PIECE = 1 << 20
"""Bytes asked for at once where all is read: io's own choice, 8 KiB, makes a checkpoint slow to read."""


class Reader(io.RawIOBase):
    """Bytes [position, end) of an object, resumed where a broken connection left off, of the same tag only."""

    def __init__(self, bucket: Bucket, key: str, start: int, end: int | None, tag: str | None) -> None:
        self._bucket, self._key, self._position, self._end, self._tag = bucket, key, start, end, tag
        self._body: Any = None
        self._process = os.getpid()  # that the body's connection belongs to
        self._done = False
        self._bucket.call("read", key, self._connect)

    def _connect(self) -> None:
        from botocore.exceptions import ClientError

        wanted: dict[str, str] = {"IfMatch": f'"{self._tag}"'} if self._tag else {}
        if self._position or self._end is not None:
            wanted["Range"] = f"bytes={self._position}-{'' if self._end is None else self._end - 1}"
        try:
            answer = self._bucket.client.get_object(Bucket=self._bucket.name, Key=self._key, **wanted)
        except ClientError as error:
            code, status = code_and_status(error)
            if status != 416 and code != "InvalidRange":
                raise
            self._done = True  # the range begins at or behind the object's end
            return
        tag = str(answer["ETag"]).strip('"')
        if self._tag is not None and tag != self._tag:  # a server that ignores If-Match
            raise changed(self._bucket.uri(self._key))
        credentials.note(self._bucket.access, "head_object", Bucket=self._bucket.name, Key=self._key)
        self._tag = tag
        self._body, self._process = answer["Body"], os.getpid()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")

        def step() -> bytes:
            if self._done:
                return b""
            if self._body is None or self._process != os.getpid():
                self._connect()
            return b"" if self._body is None else cast(bytes, self._body.read(len(view)))

        data = self._bucket.call("read", self._key, step, retried=self._drop)
        view[: len(data)] = data
        self._position += len(data)
        if not data:
            self._done = True
            self._drop()
        return len(data)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(PIECE) or b"", b""))

    def _drop(self) -> None:
        if self._body is not None and self._process == os.getpid():
            self._body.close()
        self._body = None

    def close(self) -> None:
        if not self.closed:
            self._drop()
        super().close()
