"""S3 and what speaks like it: ranged, resumed reads; conditional writes whose winner always knows it has won.

We retry ourselves (botocore does not): only so is it known that a 412 may be the echo of our own earlier, unanswered
write. Every write carries a writer's mark in its metadata, and the mark decides. Checksum trailers are off
("when_required"): some stores put them into the object.
"""

from __future__ import annotations

import io
import logging
import math
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from finetune_api.exits import JobError
from finetune_api.run import StorageAccess
from finetune_trainer.storage.base import ObjectInfo, Read, Unfinished
from finetune_trainer.storage.errors import code_and_status, from_boto, is_transient
from finetune_trainer.storage.s3 import credentials, multipart
from finetune_trainer.storage.s3.client import client_for
from finetune_trainer.storage.s3.reader import Reader

log = logging.getLogger(__name__)

WRITER = "finetune-writer"
T = TypeVar("T")


class S3Store:
    """One bucket. Safe to use from several threads."""

    def __init__(self, bucket: str, access: StorageAccess, *, patience: float) -> None:
        self.bucket, self.access, self.patience = bucket, access, patience
        self.endpoint = access.endpoint or f"AWS S3 ({access.region or 'us-east-1'})"
        self._conditional: bool | None = None
        self._listed = False  # the bucket is there and may be listed

    @property
    def conditional_writes(self) -> bool:
        """What the probe before the first conditional write found; True until then."""
        return self._conditional is not False

    def uri(self, key: str) -> str:
        """s3://bucket/key."""
        return f"s3://{self.bucket}/{key}"

    @property
    def client(self) -> Any:
        """This process's client."""
        return client_for(self.access)

    def call(self, verb: str, key: str, request: Callable[[], T], *, retried: Callable[[], None] = lambda: None) -> T:
        """Run one request, with retries while the fault may pass; `retried` is told before each further try.

        Patience counts from the first failure: a large part on a slow line may take longer than that before it breaks.
        """
        since, tries = math.inf, 0
        refusals = credentials.Refusals(self.access)
        while True:
            try:
                return request()
            except (JobError, FileNotFoundError, FileExistsError):
                raise
            except Exception as error:
                tries, since = tries + 1, min(since, time.monotonic())
                lapsed = refusals.lapsed(error)
                pause = random.uniform(0.1, min(5.0, 0.2 * 2**tries))  # full jitter
                if not (lapsed or is_transient(error)) or time.monotonic() + pause - since > self.patience:
                    raise from_boto(
                        error, uri=self.uri(key), bucket=self.bucket, endpoint=self.endpoint, verb=verb, lapsed=lapsed
                    ) from None
                log.info("retrying to %s %s (%s)", verb, self.uri(key), type(error).__name__)
                retried()
                time.sleep(pause)

    # ------------------------------------------------------------------ reading

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects by ListObjectsV2, page by page; S3 sorts by UTF-8 bytes, and so do we."""
        token: str | None = None
        while True:
            more = {"ContinuationToken": token} if token else {}

            def page(more: dict[str, str] = more) -> dict[str, Any]:
                return cast(dict[str, Any], self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, **more))

            answer = self.call("list", prefix, page)
            self._listed = True
            credentials.note(self.access, "list_objects_v2", Bucket=self.bucket, Prefix=prefix, MaxKeys=1)
            for item in answer.get("Contents", ()):
                yield ObjectInfo(item["Key"], item["Size"], item["ETag"].strip('"'))
            token = answer.get("NextContinuationToken")
            if not answer.get("IsTruncated") or not token:
                return

    def head(self, key: str) -> ObjectInfo | None:
        """Facts of the object.

        A 404 to HEAD has no words (it may mean the bucket or the user), so the first one is looked into.
        """
        try:
            answer = self.call("read", key, lambda: self.client.head_object(Bucket=self.bucket, Key=key))
        except FileNotFoundError:
            if not self._listed:
                next(self.list(key), None)
            return None
        credentials.note(self.access, "head_object", Bucket=self.bucket, Key=key)
        return ObjectInfo(key, answer["ContentLength"], answer["ETag"].strip('"'))

    def get(self, key: str, *, start: int | None = None, end: int | None = None, if_match: str | None = None) -> bytes:
        """Bytes [start, end); fewer only where the object ends."""
        if start is not None and end is not None and end <= start:
            return b""
        with Reader(self, key, start or 0, end, if_match) as reader:
            return reader.read()

    def open(self, key: str, *, if_match: str | None = None) -> BinaryIO:
        """A forward reader of the whole object."""
        return io.BufferedReader(Reader(self, key, 0, None, if_match), 1 << 20)

    # ------------------------------------------------------------------ writing

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        """One PUT."""

        def write(condition: dict[str, str], mark: dict[str, str]) -> str:
            answer = self.client.put_object(Bucket=self.bucket, Key=key, Body=data, Metadata=mark, **condition)
            return str(answer["ETag"]).strip('"')

        return ObjectInfo(key, len(data), self.written(key, write, if_none_match, if_match))

    def put_from(
        self, key: str, size: int, read: Read, *, if_none_match: bool = False, if_match: str | None = None
    ) -> ObjectInfo:
        """One PUT, or a multipart upload whose completion makes it visible."""
        if size <= 2 * multipart.PART_BYTES:
            return self.put(key, read(0, size), if_none_match=if_none_match, if_match=if_match)
        return multipart.write(self, key, size, read, if_none_match=if_none_match, if_match=if_match, writer=WRITER)

    def put_file(self, key: str, path: Path, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        """As `put_from`, from the file as it is now."""

        def read(start: int, end: int) -> bytes:
            with open(path, "rb") as source:
                source.seek(start)
                return source.read(end - start)

        return self.put_from(key, Path(path).stat().st_size, read, if_none_match=if_none_match, if_match=if_match)

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """Multipart uploads that have not ended."""
        return multipart.unfinished(self, prefix)

    def discard(self, unfinished: Iterable[Unfinished]) -> None:
        """Abort multipart uploads."""
        multipart.discard(self, unfinished)

    def written(
        self,
        key: str,
        write: Callable[[dict[str, str], dict[str, str]], str],
        if_none_match: bool,
        if_match: str | None,
        mark: dict[str, str] | None = None,
    ) -> str:
        """Write; where the answer is doubtful find out who did. Returns the tag; raises FileExistsError."""
        from botocore.exceptions import ClientError

        mark = mark or {WRITER: uuid.uuid4().hex}
        if if_none_match and not self._probe_conditional(key):
            return self._checked_write(key, write, mark)
        condition = {"IfNoneMatch": "*"} if if_none_match else {}
        if if_match is not None:
            found = self.head(key)  # asked by us as well: not every store heeds If-Match in every kind of write
            if found is None or found.etag != if_match:
                raise FileExistsError(self.uri(key))
            condition = {"IfMatch": f'"{if_match}"'}
        doubtful = False

        def doubt() -> None:
            nonlocal doubtful
            doubtful = True

        def request() -> str:
            try:
                return write(condition, mark)
            except ClientError as error:
                code, status = code_and_status(error)
                if "IfMatch" in condition and (status == 501 or code == "NotImplemented"):
                    condition.clear()  # then our own look must do, with a race of milliseconds
                    return request()
                refused = status == 412 or code == "PreconditionFailed"
                lost = bool(condition) and (refused or ("IfMatch" in condition and code in ("NoSuchKey", "404")))
                if not lost and not (doubtful and code == "NoSuchUpload"):
                    raise
                mine = self._tag_if_mine(key, mark) if doubtful else None
                if mine is not None:
                    return mine
                if lost:
                    raise FileExistsError(self.uri(key)) from None
                raise

        return self.call("write", key, request, retried=doubt)

    def _tag_if_mine(self, key: str, mark: dict[str, str]) -> str | None:
        answer = self.client.head_object(Bucket=self.bucket, Key=key)
        found = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        return str(answer["ETag"]).strip('"') if found.get(WRITER) == mark[WRITER] else None

    def _checked_write(
        self, key: str, write: Callable[[dict[str, str], dict[str, str]], str], mark: dict[str, str]
    ) -> str:
        """Where the server knows no conditions: look, write, look again. A racer slower than the pause wins as well."""
        if self.head(key) is not None:
            raise FileExistsError(self.uri(key))
        self.call("write", key, lambda: write({}, mark))
        time.sleep(0.5)
        tag = self.call("read", key, lambda: self._tag_if_mine(key, mark))
        if tag is None:
            raise FileExistsError(self.uri(key))
        return tag

    def _probe_conditional(self, key: str) -> bool:
        """Whether the server honours If-None-Match: a second write of a new key must be refused. Asked once."""
        if self._conditional is None:
            from botocore.exceptions import ClientError

            probe = f"{key}.probe-{uuid.uuid4().hex[:12]}"

            def attempt() -> bool:
                try:
                    self.client.put_object(Bucket=self.bucket, Key=probe, Body=b"", IfNoneMatch="*")
                    self.client.put_object(Bucket=self.bucket, Key=probe, Body=b"", IfNoneMatch="*")
                except ClientError as error:
                    code, status = code_and_status(error)
                    if status == 412 or code == "PreconditionFailed":
                        return True
                    if status == 501 or code in ("NotImplemented", "InvalidArgument", "InvalidRequest"):
                        return False
                    raise
                return False

            found = self.call("write", probe, attempt)
            self.delete([probe])
            if not found:
                log.warning(
                    "the storage at %s has no conditional writes: two writers at once are told apart by a check only",
                    self.endpoint,
                )
            self._conditional = found
        return self._conditional

    def delete(self, keys: Iterable[str]) -> None:
        """One DELETE each: the bulk request needs checksums that stores disagree about."""

        def one(key: str) -> None:
            with suppress(FileNotFoundError):
                self.call("delete", key, lambda: self.client.delete_object(Bucket=self.bucket, Key=key))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, keys))
